"""The open clients of one broker, as one transport."""

from __future__ import annotations

import weakref
from collections.abc import Callable

from shield import Envelope, Outcome, ShieldError, Transport
from shield.transport import Done


class OpenClients(Transport):
    """Sends through whichever of its clients has been open longest. Keeps none of them alive.

    Args:
        origin: their broker.
        gone: called, from a send, when there is none left.
    """

    scheme = "spool"

    def __init__(self, origin: str, gone: Callable[[], None]) -> None:
        self.origin = origin
        self._gone = gone
        self._clients: list[weakref.ref[Transport]] = []

    def add(self, client: Transport) -> None:
        """Take a client that is open."""
        self._clients.append(weakref.ref(client))
        self._listen()

    def remove(self, client: Transport) -> None:
        """Remove a client that is about to close."""
        self._clients = [each for each in self._clients if each() is not client]
        self._listen()

    def _listen(self) -> None:
        """Let policies hear what the broker tells the client that sends."""
        client = self.current
        self.signals = None if client is None else client.signals

    @property
    def current(self) -> Transport | None:
        """The client that sends now; None where all have been closed or forgotten."""
        for each in self._clients:
            client = each()
            if client is not None:
                return client
        return None

    def send(self, envelope: Envelope, done: Done) -> None:
        """Send through the current client."""
        client = self.current
        if client is None:
            self._gone()
            done(NoClientError(f"no client of {self.origin} is open"))
        else:
            client.send(envelope, done)

    def outcome_of(self, error: Exception) -> Outcome:
        """Return what that client says."""
        client = self.current
        return Outcome.FAILED if client is None else client.outcome_of(error)

    def is_hopeless(self, error: Exception) -> bool:
        """Return what that client says; where there is none, that is no message's fault."""
        client = self.current
        return False if client is None else client.is_hopeless(error)

    def is_faulty(self, error: Exception) -> bool:
        """Return what that client says."""
        client = self.current
        return client is not None and client.is_faulty(error)

    def close(self, timeout_s: float) -> None:
        """Do nothing: the clients are their users'."""


class NoClientError(ShieldError):
    """A message was to go out when the last client of its broker was gone."""
