"""A user's own client as a transport: what was diverted or kept goes out as he sends it."""

from __future__ import annotations

import logging
import weakref
from abc import abstractmethod
from collections.abc import Iterable
from typing import ClassVar, Generic, TypeVar

from shield.envelope import Envelope
from shield.errors import ShieldError
from shield.interrupts import is_from_outside
from shield.transport import Done, Transport

log = logging.getLogger("shield")
Client = TypeVar("Client")


class ClientTransport(Transport, Generic[Client]):
    """Sends envelopes through a user's own client, past its quotas: they are admitted already.

    Does not keep the client alive; once that is gone or closed, every send fails.

    Args:
        client: what sends; it is referred to weakly.
    """

    kind: ClassVar[str] = "client"
    """What the client is called in errors: `producer`, `publisher`."""

    def __init__(self, client: Client) -> None:
        self._client = weakref.ref(client)

    def send(self, envelope: Envelope, done: Done) -> None:
        """Send where the envelope says, as the client's own messages are sent."""
        client = self._client()
        if client is None:
            done(self.gone())
            return
        try:
            self.send_through(client, envelope, done)
        except Exception as error:
            done(error)

    @abstractmethod
    def send_through(self, client: Client, envelope: Envelope, done: Done) -> None:
        """Begin to send; `done` is called once, unless this raises: then it is called with that."""

    def living(self) -> Client | None:
        """Return the client; None once it is gone."""
        return self._client()

    def gone(self) -> ShieldError:
        """Return what a send fails with once the client is gone."""
        return ShieldError(f"the {self.kind} is gone")

    @property
    def is_open(self) -> bool:
        """Whether the client is there and takes messages."""
        client = self._client()
        return client is not None and self.takes_messages(client)

    @abstractmethod
    def takes_messages(self, client: Client) -> bool:
        """Tell whether it is not closed, nor its parent's after a fork."""

    def may_wait(self) -> bool:
        """Anywhere but on the client's own I/O thread."""
        client = self._client()
        return client is None or self.may_wait_for(client)

    @abstractmethod
    def may_wait_for(self, client: Client) -> bool:
        """Tell whether this thread is not the client's own I/O thread."""

    def close(self, timeout_s: float) -> None:
        """Do nothing: the client is its user's."""


def answer_all(dones: Iterable[Done], error: Exception | None) -> None:
    """Tell who sent what became of it; what one of them raises keeps nothing from the others.

    Raises:
        Exception: one from outside, as a timeout that a library puts into a thread; at the end.
    """
    outside: Exception | None = None
    for done in dones:
        try:
            done(error)
        except Exception as failed:
            if is_from_outside(failed):
                outside = failed
            else:
                log.exception("who sent a message cannot take the answer")
    if outside is not None:
        raise outside
