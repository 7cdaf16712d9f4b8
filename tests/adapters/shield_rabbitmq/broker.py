"""A RabbitMQ with one connection, in memory and on a manual clock, beneath pika's own classes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from pika import BasicProperties, frame, spec
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection
from pika.channel import Channel

from shield import Shield
from shield.testing import ManualClock
from shield_rabbitmq import shielded
from tests.adapters.shield_rabbitmq.wire import Wire

QUEUE = "work"


class Broker(Wire):
    """Answers what a consumer asks for; messages are numbered by their delivery tags.

    `run` lets time pass: it brings in what the broker has sent, and fires timers when they are due.
    """

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.clock = clock
        self.messages: deque[tuple[BasicProperties, bytes]] = deque()
        self.tag = 0
        self.unacked: dict[int, tuple[BasicProperties, bytes]] = {}
        self.acked: list[int] = []
        self.rejected: list[tuple[int, bool]] = []
        self.prefetch: list[int] = []
        self.consumers: dict[str, bool] = {}
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self.incoming: deque[Callable[[], None]] = deque()
        self.is_closed = False
        self.made: Any = None

    def channel(self, kind: type[Channel] = Channel) -> Channel:
        """Return the one channel."""
        self.made = super().channel(kind)
        return self.made

    def publish(self, *bodies: bytes, **properties: Any) -> None:
        """Put messages into the queue."""
        self.messages += [(BasicProperties(**properties), body) for body in bodies]

    def lose_channel(self, reason: Exception) -> None:
        """Let the channel close, as with the connection."""
        self.made._on_close_meta(reason)

    # --- time ---------------------------------------------------------------------------------

    def run(self, seconds: float = 0.0) -> None:
        """Let so much time pass."""
        end = self.clock.now() + seconds
        while True:
            self.bring_in()
            due = min((at for at, *_ in self.timers), default=end + 1)
            if due > end:
                break
            self.clock.advance(max(0.0, due - self.clock.now()))
            self.fire()
        self.clock.advance(max(0.0, end - self.clock.now()))

    def fire(self) -> None:
        """Fire the timers that are due."""
        due = sorted(timer for timer in self.timers if timer[0] <= self.clock.now())
        self.timers = [timer for timer in self.timers if timer[0] > self.clock.now()]
        for _, _, callback in due:
            callback()

    def bring_in(self) -> None:
        """Let the broker's answers and messages come in."""
        while self.incoming:
            self.incoming.popleft()()
        for consumer_tag, no_ack in list(self.consumers.items()):
            while self.messages and consumer_tag in self.consumers:
                self._deliver(consumer_tag, no_ack)

    def _deliver(self, consumer_tag: str, no_ack: bool) -> None:
        tag, properties, body = self._take(no_ack)
        method = spec.Basic.Deliver(consumer_tag, tag, False, "from", "key")
        header = frame.Header(1, len(body), properties)
        self.made._on_deliver(frame.Method(1, method), header, body)

    def _take(self, no_ack: bool) -> tuple[int, BasicProperties, bytes]:
        self.tag += 1
        properties, body = self.messages.popleft()
        if not no_ack:
            self.unacked[self.tag] = properties, body
        return self.tag, properties, body

    # --- what a connection is asked for -----------------------------------------------------------

    def _adapter_call_later(self, delay_s: float, callback: Callable[[], None]) -> object:
        timer = self.clock.now() + delay_s, len(self.timers), callback
        self.timers.append(timer)
        return timer

    def _adapter_remove_timeout(self, timer: Any) -> None:
        if timer in self.timers:
            self.timers.remove(timer)

    def _adapter_add_callback_threadsafe(self, callback: Callable[[], None]) -> None:
        self.incoming.append(callback)

    def _get_write_buffer_size(self) -> int:
        return 0

    def _output_marshaled_frames(self, frames: list[bytes]) -> None:
        for data in frames:
            size, value = frame.decode_frame(data)
            assert size == len(data)
            Broker._send_method(self, value.channel_number, value.method)

    # --- what a channel says ----------------------------------------------------------------------

    def _send_method(self, number: int, method: Any, content: Any = None) -> None:
        super()._send_method(number, method, content)
        heard = getattr(self, f"_{type(method).__name__.lower()}", None)
        if heard is not None and isinstance(method, spec.amqp_object.Method):
            heard(method)

    def _later(self, answer: Any) -> None:
        self.incoming.append(lambda: self.answer(answer))

    def _qos(self, method: Any) -> None:
        self.prefetch.append(method.prefetch_count)
        self._later(spec.Basic.QosOk())

    def _consume(self, method: Any) -> None:
        def begin() -> None:
            self.answer(spec.Basic.ConsumeOk(method.consumer_tag))
            self.consumers[method.consumer_tag] = method.no_ack

        self.incoming.append(begin)

    def _cancel(self, method: Any) -> None:
        def end() -> None:
            self.consumers.pop(method.consumer_tag, None)
            self.answer(spec.Basic.CancelOk(method.consumer_tag))

        self.incoming.append(end)

    def _get(self, method: Any) -> None:
        def give() -> None:
            if not self.messages:
                self.answer(spec.Basic.GetEmpty())
                return
            tag, properties, body = self._take(method.no_ack)
            found = spec.Basic.GetOk(tag, False, "from", "key", len(self.messages))
            header = frame.Header(1, len(body), properties)
            self.made._on_getok(frame.Method(1, found), header, body)

        self.incoming.append(give)

    def _recover(self, method: Any) -> None:
        self._give_back(list(self.unacked))
        self._later(spec.Basic.RecoverOk())

    def _ack(self, method: Any) -> None:
        self.acked += self._meant(method.delivery_tag, method.multiple)

    def _nack(self, method: Any) -> None:
        self._refused(self._meant(method.delivery_tag, method.multiple), method.requeue)

    def _reject(self, method: Any) -> None:
        self._refused(self._meant(method.delivery_tag, False), method.requeue)

    def _refused(self, tags: list[int], requeue: bool) -> None:
        self.rejected += [(tag, requeue) for tag in tags]

    def _meant(self, tag: int, multiple: bool) -> list[int]:
        tags = [
            each for each in self.unacked if each == tag or (multiple and each <= (tag or each))
        ]
        assert tags or not tag, f"PRECONDITION_FAILED - unknown delivery tag {tag}"
        for each in tags:
            del self.unacked[each]
        return tags

    def _give_back(self, tags: list[int]) -> None:
        self.messages.extendleft(reversed([self.unacked.pop(tag) for tag in sorted(tags)]))

    def _close(self, method: Any) -> None:
        self._later(spec.Channel.CloseOk())


class Blocking(BlockingConnection):  # type: ignore[misc] # pika is untyped
    """pika's blocking connection on that broker: while it waits, time passes."""

    def __init__(self, broker: Broker) -> None:
        self._impl = broker
        self._cleanup_mutex = threading.Lock()
        self._event_dispatch_suspend_depth = 0
        self._ready_events: deque[Any] = deque()
        self._channels_pending_dispatch: set[int] = set()
        broker._channels = {}

    def channel(self) -> BlockingChannel:
        beneath = self._impl.channel()
        channel = BlockingChannel(beneath, self)
        beneath._set_cookie(channel)
        self._impl._channels[1] = beneath
        return channel

    def _flush_output(self, *waiters: Callable[[], bool]) -> None:
        broker = self._impl
        broker.bring_in()
        while waiters and not any(ready() for ready in waiters):
            broker.clock.advance(max(0.0, min(broker.timers)[0] - broker.clock.now()))
            broker.fire()
            broker.bring_in()


def shielded_channel(kind: str, broker: Broker, chosen: Shield) -> Any:
    """Return a channel of that kind, as a shielded connection opens it."""
    channel = Blocking(broker).channel() if kind == "blocking" else broker.channel()
    shielded(channel, shield=chosen, shield_producer="worker")
    channel._shield_opened()
    return channel
