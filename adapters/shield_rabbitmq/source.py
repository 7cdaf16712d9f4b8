"""Takes messages out of a queue: acked one by one once they are where they belong."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from typing import Any

import pika
from pika import BasicProperties
from pika.exceptions import AMQPError, ChannelClosedByBroker

from shield import Envelope, ShieldError, Source, Taken, UnavailableError
from shield.backoff import Backoff
from shield.in_turn import InTurn
from shield_rabbitmq.address import Address
from shield_rabbitmq.diverting import with_routing
from shield_rabbitmq.enveloping import envelope_of
from shield_rabbitmq.parcel import Parcel

log = logging.getLogger("shield.rabbitmq")
AHEAD = 2000
"""How many messages the broker hands out before the first of them is acked."""
LOOK_EVERY_S = 0.5
CLOSE_WITHIN_S = 10.0


class QueueSource(Source):
    """A queue's messages, oldest first, through a consumer with manual acks.

    The connection is this source's own, on a thread that keeps its heartbeats running however
    long a message waits for its quota. A message that failed is taken again before those behind
    it, without going back to the broker. What is not acked when the source is closed, or its
    connection lost, the broker puts back where it was; of a lost connection it may come twice.

    Raises:
        ShieldError: the broker does not answer or let us in, or the queue is not there.
    """

    def __init__(self, address: Address, queue: str) -> None:
        self._address = address
        self._queue = queue
        self._in_turn = InTurn()
        self._lane = 0
        self._forgotten: set[tuple[int, int]] = set()
        self._lock = threading.Lock()
        self._acking = False
        self._staying = 0
        """How many stay with the present consumer."""
        self._handed_out = 0
        """How many messages the broker has sent, all in all."""
        self._ready: int | None = None
        self._gone: ShieldError | None = None
        self._stopping = threading.Event()
        self._connection, self._channel = self._open()
        self._thread = threading.Thread(
            target=self._run, name="shield-rabbitmq-source", daemon=True
        )
        self._thread.start()

    # --- who takes ------------------------------------------------------------------------------

    def take(self, most: int, timeout_s: float) -> list[Taken]:
        """Return up to so many, oldest first.

        Raises:
            ShieldError: the queue is no longer there.
        """
        taken = self._in_turn.take(most, timeout_s)
        if not taken and self._gone is not None:
            raise self._gone
        return taken

    def forget(self, taken: Taken) -> None:
        """Ack it soon; nothing where its connection is lost: the broker hands it out again."""
        place: Any = taken.position
        if not self._in_turn.forget(taken):
            return
        with self._lock:
            self._forgotten.add((place.lane, place.begins))
            soon, self._acking = self._acking, True
        if not soon:
            with suppress(AMQPError):
                self._connection.add_callback_threadsafe(self._ack)

    def failed(self, taken: Taken) -> None:
        """Let it come again, before those behind it."""
        self._in_turn.failed(taken)

    def leave(self, taken: Taken) -> None:
        """Let it stay: the broker has it unacked until this is closed, and then puts it back."""
        if self._in_turn.leave(taken):
            with self._lock:
                self._staying += 1

    def left(self) -> int | None:
        """Return how many the queue holds that are not taken; None while that is not known."""
        ready = self._ready
        return None if ready is None else ready + self._in_turn.untaken

    def close(self) -> None:
        """Ack what is forgotten; the broker puts the rest back."""
        self._stopping.set()
        with suppress(AMQPError):
            self._connection.add_callback_threadsafe(lambda: None)
        self._thread.join(CLOSE_WITHIN_S)

    # --- the thread that reads ------------------------------------------------------------------

    def _open(self) -> tuple[Any, Any]:
        """Connect and find the queue."""
        try:
            connection = pika.BlockingConnection(self._address.parameters)
        except (AMQPError, OSError) as error:
            raise UnavailableError(f"cannot read from {self._address.origin}: {error!r}") from None
        channel = connection.channel()
        try:
            found = channel.queue_declare(self._queue, passive=True)
        except ChannelClosedByBroker as error:
            connection.close()
            raise ShieldError(
                f"cannot read queue {self._queue!r} on {self._address.origin}: {error.reply_text}"
            ) from None
        self._ready = found.method.message_count
        return connection, channel

    def _run(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            try:
                self._consume()
            except AMQPError as error:
                log.warning("reading queue %s: %r", self._queue, error)
                self._lose()
                self._reopen(backoff)
        with suppress(AMQPError):
            self._ack()
            self._connection.close()

    def _consume(self) -> None:
        """Read until stopped."""
        self._channel.basic_qos(prefetch_count=AHEAD)
        consumer = self._channel.basic_consume(self._queue, self._delivered)
        look_at_s = 0.0
        was_empty, seen = False, self._handed_out
        while not self._stopping.is_set():
            self._connection.process_data_events(LOOK_EVERY_S)
            if self._staying >= AHEAD // 2:
                consumer = self._consume_anew(consumer)
            if time.monotonic() >= look_at_s:
                found = self._channel.queue_declare(self._queue, passive=True)
                ready: int = found.method.message_count
                # What the broker no longer counts may still be on its way to us: an empty queue is
                # believed when it was so the last time, and nothing has come since.
                is_empty = not ready
                believed = is_empty and was_empty and seen == self._handed_out
                self._ready = 1 if is_empty and not believed else ready
                was_empty, seen = is_empty, self._handed_out
                look_at_s = time.monotonic() + LOOK_EVERY_S

    def _consume_anew(self, consumer: str) -> str:
        """Give what stays to a consumer that is done with; a new one is handed as many again."""
        self._channel.basic_cancel(consumer)
        with self._lock:
            self._staying = 0
        return str(self._channel.basic_consume(self._queue, self._delivered))

    def _delivered(
        self, _channel: object, method: Any, properties: BasicProperties, body: bytes
    ) -> None:
        envelope = stored_envelope(method.exchange, method.routing_key, body, properties)
        tag = method.delivery_tag
        self._handed_out += 1
        self._in_turn.put(self._lane, tag, tag + 1, envelope)

    def _ack(self) -> None:
        """Ack what is forgotten: all up to the first that is not with one frame."""
        with self._lock:
            self._acking = False
            tags = sorted(tag for lane, tag in self._forgotten if lane == self._lane)
            self._forgotten.clear()
        reached = self._in_turn.passed(self._lane) or 0
        if self._in_turn.stays_from(self._lane) is not None:
            reached = 0  # one frame for many would ack what stays between them
        together = [tag for tag in tags if tag < reached]
        if together:
            self._channel.basic_ack(together[-1], multiple=True)
        for tag in tags[len(together) :]:
            self._channel.basic_ack(tag)

    def _lose(self) -> None:
        """Let go of what the lost connection has brought: the broker hands it out again."""
        self._ready = None
        self._in_turn.drop(self._lane)
        self._lane += 1
        with self._lock:
            self._acking = False
            self._staying = 0
            self._forgotten.clear()
        with suppress(AMQPError):
            self._connection.close()

    def _reopen(self, backoff: Backoff) -> None:
        while not self._stopping.wait(backoff.next_s()):
            try:
                self._connection, self._channel = self._open()
            except ShieldError as error:
                self._gone = error if "NOT_FOUND" in str(error) else None
                log.warning("%s", error)
            else:
                self._gone = None
                backoff.reset()
                return


def stored_envelope(
    exchange: str, routing_key: str, body: bytes, properties: BasicProperties
) -> Envelope:
    """Return the whole message that a queue held, with what was saved from its properties."""
    restored = with_routing(properties)
    restored.headers = restored.headers or None
    return envelope_of(Parcel(exchange, routing_key, body, None, True), restored, "")
