"""Sends each message to the broker that it was going to."""

from __future__ import annotations

import time
from collections.abc import Callable

from shield.config.redrive_allow import RedriveAllow
from shield.envelope import Envelope
from shield.errors import ShieldError
from shield.redriving.filter import without_broker
from shield.retention import Retention
from shield.transport import Done, Transport
from shield.url import URL
from shield.verdict import Outcome

Opener = Callable[[URL], Transport]
BROKERS = {"kafka", "amqp"}
"""Kinds whose destinations mean nothing on the other; a third party's may take any message."""


class FixedDestination(Transport):
    """What `--to` names: all messages go there. Owns the transport beneath."""

    scheme = "to"

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.roams = transport.roams
        self.origin = transport.origin

    def send(self, envelope: Envelope, done: Done) -> None:
        """Send."""
        if self.roams and (wrong := mismatch(envelope, self._transport)):
            done(ShieldError(wrong))
        else:
            self._transport.send(without_broker(envelope), done)

    def keeps(self, envelope: Envelope) -> Retention | None:
        """Ask the one beneath."""
        return self._transport.keeps(envelope)

    def outcome_of(self, error: Exception) -> Outcome:
        """Ask the one beneath."""
        return self._transport.outcome_of(error)

    def is_hopeless(self, error: Exception) -> bool:
        """Ask the one beneath."""
        return self._transport.is_hopeless(error)

    def is_faulty(self, error: Exception) -> bool:
        """Ask the one beneath."""
        return self._transport.is_faulty(error)

    def close(self, timeout_s: float) -> None:
        """Close the one beneath."""
        self._transport.close(timeout_s)


class OriginalDestination(Transport):
    """To the broker that a message's headers name, else to the one it was read from.

    Args:
        to: opens what sends to a broker.
        home: returns the broker that the messages are read from.
        allowance: which other brokers may be named.

    Raises, through `done`:
        ShieldError: a message says of no broker that it was going there, and its own cannot be.
    """

    scheme = "home"
    roams = True

    def __init__(self, to: Opener, home: Callable[[], URL], allowance: RedriveAllow) -> None:
        self._to = to
        self._home = home
        self._allowance = allowance
        self._open: dict[str | None, Transport] = {}
        self._problems: dict[str | None, str] = {}

    def send(self, envelope: Envelope, done: Done) -> None:
        """Send; what goes to a broker for the first time opens the way there."""
        broker = self._broker_of(envelope)
        problem = self._problem(envelope, broker)
        if problem is None:
            self._open[broker].send(without_broker(envelope), done)
        else:
            done(ShieldError(problem))

    def _broker_of(self, envelope: Envelope) -> str | None:
        """Return the broker that its headers name, where that is not the one it was read from."""
        return None if self._allowance.elsewhere(envelope) is None else envelope.broker

    def _problem(self, envelope: Envelope, broker: str | None) -> str | None:
        """Open the way to a message's broker; return why there is none."""
        refusal = self._allowance.why_not_there(envelope)
        if refusal is not None:
            return refusal
        if broker not in self._open and broker not in self._problems:
            try:
                self._open[broker] = self._to(URL.parse(broker) if broker else self._home())
            except (ShieldError, ValueError) as error:
                self._problems[broker] = f"{broker or 'where it belongs'}: {error}"
        if broker in self._problems:
            return self._problems[broker]
        return mismatch(envelope, self._open[broker])

    def keeps(self, envelope: Envelope) -> Retention | None:
        """Ask the one that would send it; nobody where there is no way."""
        broker = self._broker_of(envelope)
        if self._problem(envelope, broker) is not None:
            return None
        return self._open[broker].keeps(envelope)

    def outcome_of(self, error: Exception) -> Outcome:
        """Ask those beneath: one that knows the error as overload is right."""
        outcomes = [transport.outcome_of(error) for transport in self._open.values()]
        return Outcome.OVERLOADED if Outcome.OVERLOADED in outcomes else Outcome.FAILED

    def is_hopeless(self, error: Exception) -> bool:
        """Ask those beneath: one that knows the message to be at fault is right."""
        return any(transport.is_hopeless(error) for transport in self._open.values())

    def is_faulty(self, error: Exception) -> bool:
        """Ask those beneath, as above."""
        return any(transport.is_faulty(error) for transport in self._open.values())

    def close(self, timeout_s: float) -> None:
        """Close all, within one limit of time."""
        deadline = time.monotonic() + timeout_s
        while self._open:
            _, transport = self._open.popitem()
            transport.close(max(0.0, deadline - time.monotonic()))


def mismatch(envelope: Envelope, transport: Transport) -> str | None:
    """Return why a message of one kind of broker cannot go back to one of another kind."""
    if envelope.kind == transport.scheme or transport.scheme not in BROKERS:
        return None
    return (
        f"it was going to {envelope.destination!r} on a broker of kind {envelope.kind!r}, not "
        f"{transport.scheme!r}; allowed is --to with the URL of one of its kind"
    )
