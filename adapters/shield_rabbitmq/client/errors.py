"""Shield's errors as pika's users catch them."""

from __future__ import annotations

from concurrent.futures import CancelledError

from pika.exceptions import (
    AMQPConnectionError,
    AMQPError,
    ChannelClosedByBroker,
    ConnectionWrongStateError,
    NackError,
    UnroutableError,
)

import shield


class RabbitMQOverLimitError(shield.OverLimitError, AMQPError):  # type: ignore[misc] # pika is untyped
    """The message was over the limit; also a `pika.exceptions.AMQPError`."""

    __str__ = shield.OverLimitError.__str__
    __repr__ = Exception.__repr__


class NackedError(shield.ShieldError, NackError):  # type: ignore[misc]
    """The broker refused the message; which of its queues did so, it does not say.

    Where a message goes to several queues, the others may hold it: sending it again duplicates.
    """

    __repr__ = Exception.__repr__

    def __init__(self, destination: str) -> None:
        NackError.__init__(self, [])
        self.destination = destination

    def __str__(self) -> str:
        return f"the broker nacked a message to {self.destination!r}: a queue of it refused"


class ReturnedError(shield.ShieldError, UnroutableError):  # type: ignore[misc]
    """The message was mandatory and no queue is bound to take it."""

    __repr__ = Exception.__repr__

    def __init__(self, destination: str, returned: object, reply: str) -> None:
        UnroutableError.__init__(self, [returned])
        self.destination = destination
        self.reply = reply

    def __str__(self) -> str:
        return f"the broker returned a message to {self.destination!r}: {self.reply}"


class ExchangeError(shield.ShieldError, ChannelClosedByBroker):  # type: ignore[misc]
    """The exchange is not there, or may not be published to; nothing was sent there."""

    __repr__ = Exception.__repr__

    def __init__(self, exchange: str, reply_code: int, reply_text: str) -> None:
        ChannelClosedByBroker.__init__(self, reply_code, reply_text)
        self.exchange = exchange

    def __str__(self) -> str:
        return f"cannot publish to exchange {self.exchange!r}: {self.reply_code} {self.reply_text}"


class RefusedError(shield.ShieldError, ChannelClosedByBroker, ValueError):  # type: ignore[misc]
    """RabbitMQ refuses this one message, whenever it is sent; it is in no queue.

    A property, its user, its size or its routing key is not allowed. Where that is known it is
    refused before it is written; else the broker has said so.
    """

    __repr__ = Exception.__repr__

    def __init__(self, destination: str, reply_code: int, reply_text: str) -> None:
        ChannelClosedByBroker.__init__(self, reply_code, reply_text)
        self.destination = destination

    def __str__(self) -> str:
        return (
            f"RabbitMQ refuses a message to {self.destination!r}: "
            f"{self.reply_code} {self.reply_text}"
        )


class RabbitMQDeliveryUnknownError(shield.DeliveryUnknownError, AMQPConnectionError):  # type: ignore[misc]
    """The message was written and never confirmed: the broker may hold it, or not."""

    __repr__ = Exception.__repr__


class CannotConnectError(shield.ShieldError, AMQPConnectionError):  # type: ignore[misc]
    """There is no connection to the broker, so that the message was never written."""

    __repr__ = Exception.__repr__


class PublisherClosedError(shield.ShieldError, ConnectionWrongStateError):  # type: ignore[misc]
    """The publisher is closed; the message was never written."""

    __repr__ = Exception.__repr__


class ForkedPublisherError(shield.ShieldError, ConnectionWrongStateError):  # type: ignore[misc]
    """A publisher was used in a process forked after it was made, where nothing writes for it."""

    __repr__ = Exception.__repr__


class WithdrawnError(shield.ShieldError, CancelledError):
    """Whoever published the message was cancelled before it was written; it is not sent."""

    __repr__ = Exception.__repr__
