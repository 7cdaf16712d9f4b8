"""`client_queue`, `client_queue_age`, `requests_in_flight`: what waits in the client."""

from __future__ import annotations

from math import inf

from pydantic import Field, model_validator

from shield import Message, Refusal, Rule, Signals, StrictModel
from shield.capabilities import BoundsInFlight
from shield.plugins.policies.broker_signals.signal_policy import GradedSignalPolicy
from shield.units import ByteSize, Seconds


class ClientQueueSettings(StrictModel):
    """The bound; at least one of the two."""

    messages: int | None = Field(default=None, ge=1)
    """How many messages may wait to be written."""
    bytes: ByteSize | None = Field(default=None, ge=1)
    """How many bytes may wait to be written."""

    @model_validator(mode="after")
    def _bounds_something(self) -> ClientQueueSettings:
        if self.messages is None and self.bytes is None:
            raise ValueError("allowed is messages, bytes, or both")
        return self


class ClientQueue(GradedSignalPolicy, BoundsInFlight):
    """Sheds load while the queue between producers and the write thread is full.

        over the limit iff waiting messages >= messages,
        or waiting bytes + the message's own > bytes while anything waits

    Shedding ends at the bound where it began, without hysteresis: each message is decided on by
    itself and nothing is paused or resumed, so that there is nothing to flap; as much is shed as
    is offered beyond what the broker takes, and the queue stays full rather than swings (tail
    drop, RFC 7567). Its cost is latency: what is admitted waits behind a full queue, so
    choose a bound of as much as the broker takes in the time a message may be late.

    It counts what waits on the connection that the message goes to. Threads that publish at the
    same moment may each bring one message above the bound.

    Example:
        client_queue = { messages = 10_000, bytes = "16MiB" }
    """

    Settings = ClientQueueSettings
    required_signals = frozenset({"queue_messages"})
    reason = "messages"
    reaching_is_over = True

    def __init__(self, settings: ClientQueueSettings, rule: Rule, name: str) -> None:
        super().__init__(settings, rule, name)
        self.limit = inf if settings.messages is None else settings.messages
        self._max_bytes = inf if settings.bytes is None else settings.bytes

    def measure(self, signals: Signals, now: float) -> float:
        """Return how many messages wait."""
        return signals.queue_messages or 0

    def check(self, message: Message, now: float) -> Refusal | None:
        """Admit while there is room in the queue; one larger than all bytes passes alone."""
        refusal, signals = super().check(message, now), message.signals
        if refusal is not None or signals is None or not signals.queue_messages:
            return refusal
        if (signals.queue_bytes or 0) + message.size > self._max_bytes:
            return Refusal(self, "bytes", None)
        return None

    def pressure(self, message: Message, now: float) -> float:
        """Return which part of the bound is in use."""
        signals = message.signals
        if signals is None or not signals.queue_messages:
            return 0.0
        if self.check(message, now) is not None:
            return 1.0
        part_of_bytes = (signals.queue_bytes or 0) / self._max_bytes
        return min(1.0, max(super().pressure(message, now), part_of_bytes))


class ClientQueueAgeSettings(StrictModel):
    """How long records may wait in the client."""

    above: Seconds = Field(default=0.5, gt=0)
    """A wait that is longer is over the limit; the client's own `linger_ms` is no part of it."""


class ClientQueueAge(GradedSignalPolicy):
    """Refuses while the oldest record in the client's queue has waited for longer than `above`.

        over the limit iff now - (when the oldest batch was begun + linger) > above

    Kafka's producers put records into batches, one after the other for each partition, and send
    these as far as their connections have room for requests: the time in between is the metric
    `record-queue-time` (https://kafka.apache.org/documentation/#producer_monitoring). It is short
    while the broker keeps up, and grows when it answers late, or not at all, when it throttles the
    client, and when it is away; kafka-python bounds neither the time nor the queue. A batch that is
    being sent anew counts from when it was begun.

    There is no hysteresis: as the oldest goes out messages are admitted, so that at more than the
    broker takes the queue is as long as what it takes in `above`. A partition that has no leader
    holds up all topics of its producer: give such topics a producer of their own.

    Bad at: telling a slow broker from a program that gives the client's thread no time to send.

    Example:
        client_queue_age = "500ms"
    """

    Settings = ClientQueueAgeSettings
    shorthand = "above"
    required_signals = frozenset({"waits_since"})
    reason = "queue time"
    limit_key = "above"

    def measure(self, signals: Signals, now: float) -> float:
        """Return for how many seconds the oldest has waited."""
        since = signals.waits_since
        return 0.0 if since is None else max(0.0, now - since)


class RequestsInFlightSettings(StrictModel):
    """How many requests may be unanswered."""

    limit: int = Field(ge=1)
    """So many unanswered requests of one client are over the limit."""


class RequestsInFlight(GradedSignalPolicy):
    """Refuses while so many of the client's requests are on the wire and not answered.

        over the limit iff requests in flight >= limit

    Of all brokers together, and of every kind, as Kafka's metric `requests-in-flight`
    (https://kafka.apache.org/documentation/#producer_monitoring). One request holds a batch for
    each of several partitions, so that it is no bound on messages (`in_flight` is), but tells
    within one round trip that a broker answers late. A client has as many to each broker as its
    `max_in_flight_requests_per_connection` (5) says: a higher limit than for all of them together
    is never reached.

    Bad at: a client at its peak, which has all of them on the wire while its broker is well, and
    makes up for it by larger batches. Beside `shed`, or before a `wait`, that costs little.

    Example:
        requests_in_flight = 5
    """

    Settings = RequestsInFlightSettings
    shorthand = "limit"
    required_signals = frozenset({"requests"})
    reason = "requests"
    reaching_is_over = True
    limit_key = "limit"

    def measure(self, signals: Signals, now: float) -> float:
        """Return how many are unanswered."""
        return signals.requests or 0
