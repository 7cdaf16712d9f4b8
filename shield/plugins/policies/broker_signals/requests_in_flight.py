"""`requests_in_flight`: take the chain while so many of a client's requests are unanswered."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from pydantic import Field

from shield import Message, Policy, Refusal, Rule, StrictModel, hookimpl


class RequestsInFlightSettings(StrictModel):
    """How many requests may be unanswered."""

    limit: int = Field(ge=1)
    """So many unanswered requests of one client are over the limit."""


class RequestsInFlight(Policy):
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
    directions = frozenset({"publish"})
    goes_by = frozenset({"requests"})
    shorthand = "limit"
    listens = True

    def __init__(self, settings: RequestsInFlightSettings, rule: Rule, name: str) -> None:
        super().__init__(settings, rule, name)
        self._limit = settings.limit

    def check(self, message: Message, now: float) -> Refusal | None:
        """Admit while fewer are known to be unanswered."""
        return None if _requests(message) < self._limit else Refusal(self, "requests", None)

    def pressure(self, message: Message, now: float) -> float:
        """Return which part of the limit is on the wire."""
        return min(1.0, _requests(message) / self._limit)

    def line(self, message: Message) -> Hashable:
        """Messages of one connection wait behind each other."""
        return message.signals


def _requests(message: Message) -> int:
    """Return how many are unanswered; what is not known is none."""
    return 0 if message.signals is None else message.signals.requests or 0


@hookimpl
def shield_policies() -> Mapping[str, type[Policy]]:
    """Contribute `requests_in_flight`."""
    return {"requests_in_flight": RequestsInFlight}
