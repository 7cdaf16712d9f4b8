"""A publisher on an event loop: where `publish` would block its caller, a coroutine waits.

A message that is cancelled while it waits, for its quota, for room or in the write thread's queue,
is not sent, and gives back what it was charged. One that was written by then is sent; the log says
so.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from functools import partial
from typing import Any, cast

from shield import OverLimit, Permit
from shield.chain.async_runner import hold_back, run_chain, until
from shield_rabbitmq.client.frames import Frames
from shield_rabbitmq.connection.pending_publish import Confirm, PendingPublish
from shield_rabbitmq.connection.write_thread import WriteThread
from shield_rabbitmq.publishing.port import PublisherPort
from shield_rabbitmq.publishing.publisher import Publisher
from shield_rabbitmq.publishing.publisher_limit import PublisherLimit
from shield_rabbitmq.publishing.sender import MessageSender, pending


class LoopConfirm(Confirm):
    """A confirm whose message is taken back when it is cancelled, unless it is written."""

    message: PendingPublish | None = None
    """The message, once the write thread has it."""

    def __init__(self, writer: WriteThread) -> None:
        super().__init__()
        self._writer = writer

    def cancel(self) -> bool:
        """Take the message back; False, since only the write thread knows whether it can be."""
        self.withdrawn = True
        if self.message is not None:
            self._writer.take_back(self.message)
        return False


async def publish(publisher: Publisher, *message: Any) -> Confirm:
    """Publish as `Publisher.publish` does; return the message's future once it is admitted."""
    confirm: Any = publisher.through(LoopSender(publisher.sender)).publish(*message)
    return cast("Confirm", await confirm if inspect.isawaitable(confirm) else confirm)


class LoopSender(MessageSender):
    """A publisher's sender, for one call: the two places where that may wait return coroutines.

    Args:
        real: what outlives the call: what is kept, or shed later, goes through it.
    """

    def __init__(self, real: MessageSender) -> None:
        super().__init__(real.writer, real.limit, real.producer)
        self.refuses = real.refuses
        self._real = real

    def send(  # type: ignore[override]
        self, permit: Permit, frames: Frames, future: Confirm, port: PublisherPort | None = None
    ) -> Awaitable[Confirm]:
        """Send an admitted message, once there is room for it."""
        return self._sent(permit, frames, None if port is None else self._port(port))

    def run_chain(  # type: ignore[override]
        self, over: OverLimit, port: PublisherPort
    ) -> Awaitable[Confirm]:
        """Run the chain of the rule that refused a message."""
        return self._chained(over, self._port(port))

    def _port(self, port: PublisherPort) -> LoopPort:
        return LoopPort(self._real, port.client, port.frames, LoopConfirm(self.writer))

    async def _chained(self, over: OverLimit, port: LoopPort) -> Confirm:
        result = await run_chain(over, port)
        if isinstance(result, Permit):
            return await self._sent(result, port.frames, port)
        return result

    async def _sent(self, permit: Permit, frames: Frames, port: LoopPort | None) -> Confirm:
        if port is not None:
            port.pending("sent")
        future = LoopConfirm(self.writer) if port is None else port.confirm
        await hold_back(permit)
        limit = None if permit.flow.bounded else self.limit
        if limit is not None:
            await self._take_room(limit, permit, len(frames.body))
        future.message = pending(permit, frames, future, limit, port)
        self.writer.put(future.message)
        return future

    async def _take_room(self, limit: PublisherLimit, permit: Permit, size: int) -> None:
        try:
            taken = await until(partial(limit.take_or_ring, size), limit.forget)
        except BaseException:
            permit.cancel()
            raise
        if not taken:
            permit.cancel()
            raise self._real.refusal()


class LoopPort(PublisherPort):
    """Whose caller may not be blocked, and may be cancelled at any time."""

    __slots__ = ()

    @property
    def confirm(self) -> LoopConfirm:
        """The message's future."""
        return cast("LoopConfirm", self.future)

    def may_wait(self) -> bool:
        """Not on the loop; whoever sends what was kept meanwhile does not wait either."""
        return False
