"""What happens to one message over the limit, on the side of RabbitMQ."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from pika import BasicProperties

from shield import End, OverLimit, Permit
from shield.action import Divert
from shield.headers import diverted
from shield.sync import react
from shield_rabbitmq.errors import DeliveryUnknownError, OverLimitError
from shield_rabbitmq.parcel import Parcel
from shield_rabbitmq.sending import Confirm, Sending

if TYPE_CHECKING:
    from shield_rabbitmq.client import Publisher

ROUTING_HEADERS = ("CC", "BCC")
"""They would route a diverted copy to the original queues again."""


class RabbitOutlet:
    """Carries out the steps of a chain for one message. Its result is one future throughout."""

    def __init__(
        self, publisher: Publisher, parcel: Parcel, properties: BasicProperties | None
    ) -> None:
        self._publisher = publisher
        self._parcel = parcel
        self._properties = _snapshot(properties)
        self._future = Confirm()

    def send(self, permit: Permit) -> Confirm:
        """Send where it was going."""
        self._future.shield_fate = "sent"
        return self._publisher._send(permit, self._parcel, self._future)

    def drop(self, over: OverLimit) -> Confirm:
        """Return a future that is done, with None."""
        self._future.shield_fate = "dropped"
        self._future.set_result(None)
        return self._future

    def may_wait(self) -> bool:
        """Anywhere but on the write thread, which would wait for its own answers."""
        return not self._publisher._writer.is_current

    def error(self, over: OverLimit) -> Exception:
        """Return an error that is also an AMQPError."""
        return OverLimitError(over.rule.name, over.policy, over.reason, over.retry_after_s)

    def divert(self, over: OverLimit, step: Divert, position: int) -> Confirm | None:
        """Send to the overflow exchange; None where it is known to be missing, or is the same."""
        exchange, _, routing_key = step.destination.partition("/")
        target = (exchange, routing_key or self._parcel.routing_key)
        writer = self._publisher._writer
        same = target == (self._parcel.exchange, self._parcel.routing_key)
        if same or writer.missing(exchange) is not None:
            step.done()
            return None
        try:
            properties = diverted_properties(over, self._parcel, self._properties)
            parcel = Parcel(*target, self._parcel.body, properties, mandatory=True)
        except (TypeError, ValueError):  # a destination, or a header of ours, that is too long
            step.done()
            return None
        self._future.shield_fate = "overflowed"
        writer.put(Diverted(parcel, self, over, step, position))
        return self._future

    def finished(self, over: OverLimit, position: int, error: Exception | None) -> None:
        """Take the answer to an overflow send; where it failed, go on with the chain.

        Not where its fate is unknown: what the chain did then might be done twice.
        """
        if error is None:
            over.end(End.OVERFLOWED)
            self._future.set_result(None)
            return
        if isinstance(error, DeliveryUnknownError):
            over.end(End.FAILED)
            self._future.set_exception(error)
            return
        try:
            react(over, self, position + 1)
        except Exception as raised:
            raised.__cause__ = raised.__cause__ or error
            self._future.shield_fate = "raised"
            self._future.set_exception(raised)


class Diverted(Sending):
    """A message on its way to an overflow exchange."""

    __slots__ = ("_outlet", "_over", "_position", "_step")

    def __init__(
        self, parcel: Parcel, outlet: RabbitOutlet, over: OverLimit, step: Divert, position: int
    ) -> None:
        super().__init__(parcel)
        self._outlet = outlet
        self._over = over
        self._step = step
        self._position = position

    def finish(self, error: Exception | None) -> None:
        """Tell the action that it is done, and the outlet how."""
        self._step.done()
        self._outlet.finished(self._over, self._position, error)


def _snapshot(properties: BasicProperties | None) -> BasicProperties | None:
    """Return a copy: the caller may use its own anew before the chain has come to its end."""
    if properties is None:
        return None
    result = copy.copy(properties)
    result.headers = copy.copy(properties.headers)
    return result


def diverted_properties(
    over: OverLimit, parcel: Parcel, properties: BasicProperties | None
) -> BasicProperties:
    """Return the message's own properties with our headers, and without what routes or expires."""
    result = BasicProperties() if properties is None else copy.copy(properties)
    headers = dict(result.headers or {})
    for name in ROUTING_HEADERS:
        if name in headers:
            headers[f"shield-original-{name.lower()}"] = headers.pop(name)
    if result.expiration is not None:
        headers["shield-original-expiration"] = result.expiration
        result.expiration = None
    headers |= diverted(over)
    headers["x-original-exchange"] = parcel.exchange
    headers["x-original-routingKey"] = parcel.routing_key
    result.headers = headers
    return result
