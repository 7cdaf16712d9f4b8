"""Shield's errors as kafka-python's users catch them, and the client's as Shield reads them."""

from __future__ import annotations

import kafka.errors

import shield
from shield import Outcome

OVERLOAD = (
    kafka.errors.KafkaTimeoutError,
    kafka.errors.NotEnoughReplicasError,
    kafka.errors.NotEnoughReplicasAfterAppendError,
    kafka.errors.RequestTimedOutError,
    kafka.errors.ThrottlingQuotaExceededError,
)
"""What a broker under too much load answers, or the silence of one."""

HOPELESS = (
    kafka.errors.CorruptRecordError,
    kafka.errors.InvalidRecordError,
    kafka.errors.InvalidTimestampError,
    kafka.errors.InvalidTopicError,
    kafka.errors.MessageSizeTooLargeError,
    kafka.errors.RecordListTooLargeError,
    kafka.errors.TopicAuthorizationFailedError,
    kafka.errors.UnknownTopicOrPartitionError,
    kafka.errors.UnsupportedForMessageFormatError,
    AssertionError,  # kafka-python's word for a partition that is not there
    TypeError,
    ValueError,
)
"""What is wrong with a message, or its topic, and not with the broker or the way to it."""

FAULTY = (
    kafka.errors.CorruptRecordError,
    kafka.errors.InvalidRecordError,
    kafka.errors.InvalidTimestampError,
    kafka.errors.MessageSizeTooLargeError,
    kafka.errors.RecordListTooLargeError,
    kafka.errors.UnsupportedForMessageFormatError,
    AssertionError,
    TypeError,
    ValueError,
)
"""What is wrong with a message by itself: wherever its topic stands, it would not be taken."""


class KafkaOverLimitError(shield.OverLimitError, kafka.errors.KafkaError):  # type: ignore[misc]
    """The message was over the limit; also a `kafka.errors.KafkaError`."""

    __str__ = shield.OverLimitError.__str__
    __eq__ = object.__eq__
    __hash__ = object.__hash__


class ForkedProducerError(shield.ShieldError, kafka.errors.IllegalStateError):  # type: ignore[misc]
    """A producer was used in a process forked after it was made, where nothing sends for it."""

    __str__ = Exception.__str__
    __eq__ = object.__eq__
    __hash__ = object.__hash__


def outcome_of(error: BaseException) -> Outcome:
    """Return what a failed send teaches: OVERLOADED where load explains it, else FAILED."""
    return Outcome.OVERLOADED if isinstance(error, OVERLOAD) else Outcome.FAILED
