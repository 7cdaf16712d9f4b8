"""A record that a broker refuses fails alone: its batch is split, its number used again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from kafka.errors import (
    InvalidRecordError,
    InvalidTimestampError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumberError,
    TopicAuthorizationFailedError,
    UnknownError,
)

from shield_kafka.client import internals

SPLIT = [InvalidRecordError, InvalidTimestampError, MessageSizeTooLargeError]
REFUSED = [*SPLIT, TopicAuthorizationFailedError]


class Transactions:
    """The state of an idempotent producer, as far as it is touched."""

    ERROR_CLASS_RETRIABLE = "RETRIABLE"

    def __init__(self, *, transactional: bool = False) -> None:
        self.is_transactional = lambda: transactional
        self.numbers = {"orders-0": 7}

    def classify_batch_error(self, error: Any, batch: Any, log_start_offset: int = -1) -> str:
        return "FATAL"

    def set_sequence_number(self, place: str, number: int) -> None:
        self.numbers[place] = number


def producer(transactions: Transactions | None = None) -> Any:
    sender = SimpleNamespace(
        _can_split=lambda batch, error: (
            error is MessageSizeTooLargeError and batch.record_count > 1
        ),
        _dispatch_error=lambda *_: None,
    )
    made = SimpleNamespace(_sender=sender, _transaction_manager=transactions)
    internals.fail_alone(made)  # type: ignore[arg-type]
    return made


def batch(records: int = 3, state: str | None = "FAILED") -> Any:
    return SimpleNamespace(
        record_count=records,
        final_state=state,
        topic_partition="orders-0",
        records=SimpleNamespace(base_sequence=4),
    )


@pytest.mark.parametrize("error", SPLIT)
def test_a_batch_is_split_until_the_one_at_fault_is_alone(error):
    """One alone fails."""
    split = producer()._sender._can_split
    assert split(batch(3), error)
    assert not split(batch(1), error)
    assert not split(batch(3), KafkaTimeoutError)


@pytest.mark.parametrize("error", REFUSED)
def test_what_is_refused_is_no_end_of_an_idempotent_producer(error):
    """Whether asked by class or by instance; what may be written all the same is the client's."""
    transactions = Transactions()
    made = producer(transactions)
    assert transactions.classify_batch_error(error("why"), batch()) == "RETRIABLE"
    assert transactions.classify_batch_error(error, batch()) == "RETRIABLE"
    assert transactions.classify_batch_error(UnknownError(), batch()) == "FATAL"
    made._sender._dispatch_error(batch(1), error("why"), None)
    assert transactions.numbers == {"orders-0": 4}


@pytest.mark.parametrize("error", [UnknownError, OutOfOrderSequenceNumberError, KafkaTimeoutError])
def test_the_number_of_what_may_be_written_is_not_used_again(error):
    """Nor that of a batch which is tried again, or split."""
    transactions = Transactions()
    dispatch = producer(transactions)._sender._dispatch_error
    dispatch(batch(1), error("why"), None)
    dispatch(batch(3, state=None), InvalidRecordError("why"), None)
    assert transactions.numbers == {"orders-0": 7}


def test_a_transaction_shares_its_fate():
    """There the client's own way stands."""
    transactions = Transactions(transactional=True)
    made = producer(transactions)
    assert not made._sender._can_split(batch(3), InvalidRecordError)
    assert transactions.classify_batch_error(InvalidRecordError("why"), batch()) == "FATAL"


def test_a_producer_that_counts_nothing_only_splits():
    """Without idempotence there are no numbers."""
    made = producer()
    made._sender._dispatch_error(batch(1), InvalidRecordError("why"), None)
    assert made._sender._can_split(batch(3), InvalidRecordError)


def test_a_flush_goes_on_where_a_batch_was_split_meanwhile():
    """3.0.12 raises UnknownError there, though nothing is wrong."""
    waits = [UnknownError("Future not done"), UnknownError("Future not done"), None]

    def flush(timeout: float | None) -> None:
        error = waits.pop(0)
        if error is not None:
            raise error

    internals.flush_whole(flush, 5.0)
    assert waits == []
