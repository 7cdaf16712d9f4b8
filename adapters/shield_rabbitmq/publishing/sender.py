"""How one publisher's messages are handed to its write thread, within the publisher's own limit."""

from __future__ import annotations

import weakref
from collections.abc import Hashable

from shield import Outcome, OverLimit, Permit, Refusal
from shield.chain.runner import answering, hold_back, resume_chain, run_chain
from shield.clients.pending import FuturePort
from shield.process_hooks import ForkStage, after_fork
from shield_rabbitmq.client.errors import (
    CannotConnectError,
    ForkedPublisherError,
    NackedError,
    PublisherClosedError,
    RabbitMQDeliveryUnknownError,
    WithdrawnError,
)
from shield_rabbitmq.client.frames import Frames
from shield_rabbitmq.connection.pending_publish import Confirm, PendingPublish
from shield_rabbitmq.connection.write_thread import WriteThread
from shield_rabbitmq.publishing.publisher_limit import PublisherLimit

Port = FuturePort[Confirm]


class MessageSender:
    """Sends what is admitted. Used by any number of threads.

    Args:
        writer: the write thread, which owns the connection.
        limit: what bounds messages that no rule bounds.
        producer: who publishes, to quotas and ledger.
    """

    def __init__(self, writer: WriteThread, limit: PublisherLimit, producer: str) -> None:
        self.writer = writer
        self.limit = limit
        self.producer = producer
        self.refuses: type[PublisherClosedError | ForkedPublisherError] | None = None
        """Why nothing is sent any more; None while it is."""

    def send(
        self, permit: Permit, frames: Frames, future: Confirm, port: Port | None = None
    ) -> Confirm:
        """Hand an admitted message to the write thread, when there is room for it.

        With its port, on which its chain is run where it waits there for too long.
        """
        hold_back(permit, self.may_wait)
        limit = None if permit.flow.bounded else self.limit
        if limit is not None and not limit.take(len(frames.body), self.writer.is_current):
            permit.cancel()
            raise self.refusal()
        self.writer.put(pending(permit, frames, future, limit, port))
        return future

    def run_chain(self, over: OverLimit, port: Port) -> Confirm:
        """Run the chain of the rule that refused a message."""
        return run_chain(over, port)

    def may_wait(self) -> bool:
        """Tell whether this thread may be blocked: the write thread would wait for itself."""
        return not self.writer.is_current

    def refusal(self) -> Exception:
        """Return what to raise instead of sending."""
        if self.refuses is ForkedPublisherError:
            return ForkedPublisherError(
                "this publisher was in use before the fork and its write thread is in the parent; "
                "make a publisher in the child"
            )
        return PublisherClosedError("this publisher is closed; make another one")


class Admitted(PendingPublish):
    """A message on its way to where it was going."""

    __slots__ = ("_future", "_limit", "_permit")

    def __init__(
        self, frames: Frames, permit: Permit, future: Confirm, limit: PublisherLimit | None
    ) -> None:
        super().__init__(frames)
        self._permit = permit
        self._future = future
        self._limit = limit

    def finish(self, error: Exception | None) -> None:
        """Settle the permit, make room, complete the future: in that order, so that all agree."""
        if error is None:
            self._permit.delivered()
        elif isinstance(error, CannotConnectError | PublisherClosedError | WithdrawnError):
            self._permit.cancel()
        else:
            self._permit.settle(outcome_of(error))
        if self._limit is not None:
            self._limit.release(len(self.frames.body))
        if error is None:
            self._future.set_result(None)
        else:
            self._future.set_exception(error)


class Sheddable(Admitted):
    """A message that policies may refuse while it waits to be written."""

    __slots__ = ("_port",)

    def __init__(
        self,
        frames: Frames,
        permit: Permit,
        future: Confirm,
        limit: PublisherLimit | None,
        port: Port,
    ) -> None:
        super().__init__(frames, permit, future, limit)
        self._port = port

    @property
    def waits(self) -> Hashable:
        """Those policies."""
        return self._permit.waits

    def refusal(self, waited_s: float, now: float) -> Refusal | None:
        """Ask them."""
        return self._permit.waited(waited_s, now)

    def newest_first(self, now: float) -> bool:
        """Ask them."""
        return self._permit.flow.engine.newest_first(self._permit, now)

    def leaves(self, waited_s: float, now: float) -> None:
        """Let those in shadow count it."""
        self._permit.flow.engine.leaves(self._permit, waited_s, now)

    def refuse(self, refusal: Refusal) -> None:
        """Make room, and let its chain go on; that completes the future."""
        if self._limit is not None:
            self._limit.release(len(self.frames.body))
        over = self._permit.refuse(refusal)
        if over is not None:
            with answering():
                resume_chain(over, self._port, 0)


def pending(
    permit: Permit,
    frames: Frames,
    future: Confirm,
    limit: PublisherLimit | None,
    port: Port | None,
) -> Admitted:
    """Return an admitted message as the write thread takes it."""
    if port is not None and permit.waits:
        return Sheddable(frames, permit, future, limit, port)
    return Admitted(frames, permit, future, limit)


def outcome_of(error: Exception) -> Outcome:
    """Tell whether load explains that a message was not confirmed."""
    overloaded = isinstance(error, NackedError | RabbitMQDeliveryUnknownError)
    return Outcome.OVERLOADED if overloaded else Outcome.FAILED


_senders: weakref.WeakSet[MessageSender] = weakref.WeakSet()


def opened(sender: MessageSender) -> None:
    """Refuse all messages in a process that is forked after it was in use; end it when it is gone.

    What is gone has its messages confirmed all the same.
    """
    _senders.add(sender)
    weakref.finalize(sender, sender.writer.finish).atexit = False


def _mark_forked() -> None:
    for sender in list(_senders):
        if sender.writer.started:
            sender.refuses = ForkedPublisherError


after_fork(_mark_forked, ForkStage.RESOURCES)
