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
from shield.chain.async_runner import hold_back, react, until
from shield_rabbitmq.client.frames import Frames
from shield_rabbitmq.connection.pending_publish import Confirm, PendingPublish
from shield_rabbitmq.publishing.publisher import Admitted, Publisher, Sheddable
from shield_rabbitmq.publishing.publisher_limit import PublisherLimit
from shield_rabbitmq.publishing.sender import PublisherPort


class LoopConfirm(Confirm):
    """A confirm whose message is taken back when it is cancelled, unless it is written."""

    sending: PendingPublish | None = None
    """The message, once the write thread has it."""

    def __init__(self, publisher: Publisher) -> None:
        super().__init__()
        self._publisher = publisher

    def cancel(self) -> bool:
        """Take the message back; False, since only the write thread knows whether it can be."""
        self.withdrawn = True
        if self.sending is not None:
            self._publisher._writer.take_back(self.sending)
        return False


async def publish(publisher: Publisher, *message: Any) -> Confirm:
    """Publish as `Publisher.publish` does; return the message's future once it is admitted."""
    on_loop = LoopPublisher.__new__(LoopPublisher)
    on_loop.__dict__ = publisher.__dict__
    on_loop.real = publisher
    confirm: Any = on_loop.publish(*message)
    return cast("Confirm", await confirm if inspect.isawaitable(confirm) else confirm)


class LoopPublisher(Publisher):
    """The same publisher, for one call: the two places where that may wait return coroutines."""

    __slots__ = ("real",)

    real: Publisher
    """What outlives the call: what is kept, or shed later, goes through it."""

    def _send(  # type: ignore[override]
        self, permit: Permit, parcel: Frames, future: Confirm, outlet: PublisherPort | None = None
    ) -> Awaitable[Confirm]:
        return self._sent(permit, parcel, outlet)

    def _react(self, over: OverLimit, outlet: PublisherPort) -> Awaitable[Confirm]:  # type: ignore[override]
        return self._reacted(over, LoopPort(self.real, outlet))

    async def _reacted(self, over: OverLimit, outlet: LoopPort) -> Confirm:
        result = await react(over, outlet)
        if isinstance(result, Permit):
            return await self._sent(result, outlet._parcel, outlet)
        return result

    async def _sent(self, permit: Permit, parcel: Frames, outlet: PublisherPort | None) -> Confirm:
        if outlet is not None and not isinstance(outlet, LoopPort):
            outlet = LoopPort(self.real, outlet)
        if outlet is not None:
            outlet.pending("sent")
        future = LoopConfirm(self.real) if outlet is None else outlet.confirm
        await hold_back(permit)
        room = None if permit.flow.bounded else self._room
        if room is not None:
            await self._take_room(room, permit, len(parcel.body))
        if outlet is not None and permit.waits:
            future.sending = Sheddable(parcel, permit, future, room, outlet)
        else:
            future.sending = Admitted(parcel, permit, future, room)
        self._writer.put(future.sending)
        return future

    async def _take_room(self, room: PublisherLimit, permit: Permit, size: int) -> None:
        try:
            taken = await until(partial(room.take_or_ring, size), room.forget)
        except BaseException:
            permit.cancel()
            raise
        if not taken:
            permit.cancel()
            raise self._refusal()


class LoopPort(PublisherPort):
    """Whose caller may not be blocked, and may be cancelled at any time."""

    __slots__ = ()

    def __init__(self, publisher: Publisher, outlet: PublisherPort) -> None:
        super().__init__(publisher, outlet._parcel)
        self._future = LoopConfirm(publisher)

    @property
    def confirm(self) -> LoopConfirm:
        """The message's future."""
        return cast("LoopConfirm", self._future)

    def may_wait(self) -> bool:
        """Not on the loop; whoever sends what was kept meanwhile does not wait either."""
        return False
