"""Takes messages out of a queue: acked one by one once they are where they belong."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pika
from pika import BasicProperties
from pika.exceptions import AMQPError, ChannelClosedByBroker, ConnectionClosedByBroker

from shield import Envelope, ShieldError, Source, Taken, UnavailableError
from shield.algorithms.backoff import Backoff
from shield.redriving.read_ahead import ReadAheadBuffer
from shield_rabbitmq.client import internals
from shield_rabbitmq.client.address import RabbitMQAddress
from shield_rabbitmq.client.envelopes import stored_envelope
from shield_rabbitmq.client.queue_type import SINGLE_ACTIVE, QueueType, queue_type
from shield_rabbitmq.client.raw_properties import Encoded
from shield_rabbitmq.client.x_death import with_origin
from shield_rabbitmq.remote.on_demand import Anew, Demand, PollConsumer, came_back

log = logging.getLogger("shield.rabbitmq")
AHEAD = 2000
"""How many messages the broker hands out before the first of them is acked."""
LOOK_EVERY_S = 0.5
LOST_FOR_S = 10.0
"""How long its broker is away before who takes is told so."""
FROM_THE_FIRST = {"x-stream-offset": "first"}
NOT_IMPLEMENTED = "NOT_IMPLEMENTED"
CONNECTION_FORCED = 320
"""It is shut down, or somebody closes its connections: it may be back in a moment."""
CLOSE_WITHIN_S = 10.0


class QueueSource(Source):
    """A queue's messages, oldest first, through a consumer with manual acks.

    The connection is this source's own, on a thread that keeps its heartbeats running however
    long a message waits for its quota. A message that failed is taken again before those behind
    it, without going back to the broker. What is not acked when the source is closed, or its
    connection lost, the broker puts back where it was; of a lost connection it may come twice.

    A quorum queue counts how often a message comes back, and drops it beyond a delivery limit: of
    one no more is taken than is asked for, a pause cancels the consumer and gives nothing back,
    and what came back before is put anew at the end of the queue, where it counts from zero,
    before it is handed on. So also where the broker does not tell what kind of queue it is.

    Raises:
        ShieldError: the broker does not answer or let us in, or the queue is not there.
    """

    def __init__(self, address: RabbitMQAddress, queue: str) -> None:
        self._address = address
        self._queue = queue
        self._in_turn = ReadAheadBuffer()
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
        self._demand = Demand()
        self._looks_only = False
        self._back_before: list[tuple[Any, BasicProperties, bytes]] = []
        """What came back to a quorum queue before, as it was delivered, and is not put anew."""
        self._type = QueueType()
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
        if self._type.counts_deliveries:
            self._ask_for(most)
        taken = self._in_turn.take(most, timeout_s)
        if self._looks_only:
            self._stay(len(taken))
        if not taken and self._gone is not None:
            raise self._gone
        return taken

    def _ask_for(self, most: int) -> None:
        """Have so many taken in, those that are here already among them."""
        self._demand.ask(most)
        if not self._in_turn.untaken:
            self._wake()

    def _wake(self, callback: Callable[[], None] = lambda: None) -> None:
        with suppress(AMQPError):
            self._connection.add_callback_threadsafe(callback)

    @property
    def counts_deliveries(self) -> bool:
        """Whether this queue may drop what is taken and comes back too often."""
        return self._type.counts_deliveries

    def look_only(self) -> None:
        """Hear that all comes back: nothing is put anew before this is closed."""
        self._looks_only = True
        self._wake()

    def forget(self, taken: Taken) -> None:
        """Ack it soon; nothing where its connection is lost: the broker hands it out again."""
        place: Any = taken.position
        if not self._in_turn.forget(taken):
            return
        with self._lock:
            self._forgotten.add((place.lane, place.begins))
            soon, self._acking = self._acking, True
        if not soon:
            self._wake(self._ack)

    def failed(self, taken: Taken) -> None:
        """Let it come again, before those behind it."""
        self._in_turn.failed(taken)

    def leave(self, taken: Taken) -> None:
        """Let it stay: the broker has it unacked until this is closed, and then puts it back."""
        if self._in_turn.leave(taken):
            self._stay(1)

    def _stay(self, messages: int) -> None:
        with self._lock:
            self._staying += messages

    def left(self) -> int | None:
        """Return how many the queue holds that are not taken; None while that is not known."""
        ready = self._ready
        return None if ready is None else ready + self._in_turn.untaken

    def close(self) -> None:
        """Ack what is forgotten; the broker puts the rest back."""
        self._stopping.set()
        self._wake()
        self._thread.join(CLOSE_WITHIN_S)

    # --- the thread that reads ------------------------------------------------------------------

    def _open(self) -> tuple[Any, Any]:
        """Connect and find the queue."""
        try:
            connection = pika.BlockingConnection(self._address.parameters)
        except (AMQPError, OSError) as error:
            raise UnavailableError(f"cannot read from {self._address.origin}: {error!r}") from None
        internals.keep_unreadable(connection)
        channel = connection.channel()
        try:
            found = channel.queue_declare(self._queue, passive=True)
        except ChannelClosedByBroker as error:
            connection.close()
            raise self._unreadable(error) from None
        self._ready = found.method.message_count
        self._refuse_stream(connection)
        self._type = queue_type(connection, self._queue)
        return connection, channel

    def _refuse_stream(self, connection: Any) -> None:
        """Raise ShieldError where it is a stream: its messages cannot be taken out.

        A broker that has streams takes a place to begin from for them alone, and gets no message
        out of one.
        """
        channel = connection.channel()
        channel.basic_qos(prefetch_count=1)
        try:
            channel.basic_consume(self._queue, lambda *_: None, arguments=FROM_THE_FIRST)
            channel.basic_get(self._queue)
        except ChannelClosedByBroker as error:
            error.with_traceback(None)  # as in `queue_type`
            return
        except ConnectionClosedByBroker as error:
            raise self._unreadable(error) from None
        channel.close()

    def _unreadable(self, error: AMQPError) -> ShieldError:
        """Say what the broker says to who reads the queue."""
        said = getattr(error, "reply_text", repr(error))
        what = "streams are not supported" if NOT_IMPLEMENTED in said else said
        return ShieldError(f"cannot read {self._queue!r} on {self._address.origin}: {what}")

    def _run(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            try:
                self._consume()
            except AMQPError as error:
                log.warning("reading queue %s: %r", self._queue, error)
                if _is_final(error):
                    self._gone = self._unreadable(error)
                self._lose()
                self._reopen(backoff)
        with suppress(AMQPError):
            self._ack()
            self._connection.close()

    def _consume(self) -> None:
        """Read until stopped."""
        if self._type.counts_deliveries:
            self._take_in_what_is_asked_for()
        else:
            self._read_ahead()

    def _read_ahead(self) -> None:
        self._channel.basic_qos(prefetch_count=AHEAD)
        consumer = self._channel.basic_consume(self._queue, self._delivered)
        self._gone = None
        look = QueueSnapshot(self._channel, self._queue)
        while not self._stopping.is_set():
            self._connection.process_data_events(LOOK_EVERY_S)
            if self._staying >= AHEAD // 2:
                consumer = self._consume_anew(consumer)
            self._ready = look.ready(self._ready, self._handed_out)

    def _take_in_what_is_asked_for(self) -> None:
        sips = PollConsumer(self._connection, self._channel, self._queue, self._counted)
        if self._type.arguments.get(SINGLE_ACTIVE):
            sips.consume(AHEAD)  # nothing can be got there
        anew = Anew(self._connection, self._queue)
        look = QueueSnapshot(self._channel, self._queue)
        while not self._stopping.is_set():
            sips.serve(self._demand.now - self._in_turn.untaken, LOOK_EVERY_S)
            self._gone = None
            if not self._looks_only:
                self._put_anew(anew)
            if self._looks_only and not sips.consumes:
                sips.consume(AHEAD)
            if sips.make_room(self._staying):
                self._staying = 0
            self._ready = look.ready(self._ready, self._handed_out)
        self._put_anew(anew)

    def _counted(
        self, channel: object, method: Any, properties: BasicProperties, body: bytes
    ) -> None:
        """Take a message of a queue that counts."""
        self._handed_out += 1
        if came_back(properties):
            self._back_before.append((method, properties, body))
            if not self._looks_only:
                return
        self._delivered(channel, method, properties, body)

    def _put_anew(self, anew: Anew) -> None:
        """Have what came back before counted from zero; hand on what the broker does not take."""
        while self._back_before:
            method, properties, body = self._back_before[0]
            if anew.put(properties, body):
                self._channel.basic_ack(method.delivery_tag)
            elif not self._looks_only:
                self._delivered(self._channel, method, properties, body)
            del self._back_before[0]

    def _consume_anew(self, consumer: str) -> str:
        """Give what stays to a consumer that is done with; a new one is handed as many again."""
        self._channel.basic_cancel(consumer)
        with self._lock:
            self._staying = 0
        return str(self._channel.basic_consume(self._queue, self._delivered))

    def _delivered(
        self, _channel: object, method: Any, properties: BasicProperties, body: bytes
    ) -> None:
        try:
            own = Encoded.of(properties)
            stored = stored_envelope(method.exchange, method.routing_key, body, own)
            envelope = with_origin(stored, properties.headers)
        except ValueError as error:  # nothing says where it was going
            log.warning("a message in queue %s cannot be read: %s", self._queue, error)
            envelope = Envelope(self._queue, body, "amqp", routing_key=self._queue)
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
        if self._back_before:
            reached = min(reached, self._back_before[0][0].delivery_tag)
        together = [tag for tag in tags if tag < reached]
        if together:
            self._channel.basic_ack(together[-1], multiple=True)
        for tag in tags[len(together) :]:
            self._channel.basic_ack(tag)

    def _lose(self) -> None:
        """Drop what the lost connection has brought: the broker hands it out again."""
        self._ready = None
        self._in_turn.drop(self._lane)
        self._lane += 1
        with self._lock:
            self._acking = False
            self._staying = 0
            self._forgotten.clear()
            self._back_before.clear()
        with suppress(AMQPError):
            self._connection.close()

    def _reopen(self, backoff: Backoff) -> None:
        lost_s = time.monotonic()
        while not self._stopping.wait(backoff.next_s()):
            try:
                self._connection, self._channel = self._open()
            except ShieldError as error:
                if "NOT_FOUND" in str(error) or time.monotonic() - lost_s > LOST_FOR_S:
                    self._gone = error
                log.warning("%s", error)
            else:
                backoff.reset()
                return


def _is_final(error: AMQPError) -> bool:
    """Tell what the broker refuses from a broker, or an operator, that closes connections."""
    if not isinstance(error, ChannelClosedByBroker | ConnectionClosedByBroker):
        return False
    return int(error.reply_code) != CONNECTION_FORCED


class QueueSnapshot:
    """Asks now and then how many messages a queue holds that are not handed out."""

    def __init__(self, channel: Any, queue: str) -> None:
        self._channel = channel
        self._queue = queue
        self._next_s = 0.0
        self._was_empty, self._seen = False, -1

    def ready(self, known: int | None, handed_out: int) -> int | None:
        """Return how many; what is known already where it is not time to ask yet.

        What the broker no longer counts may still be on its way to us: an empty queue is believed
        when it was so the last time, and nothing has been handed out since.
        """
        if time.monotonic() < self._next_s:
            return known
        found = self._channel.queue_declare(self._queue, passive=True)
        self._next_s = time.monotonic() + LOOK_EVERY_S
        ready: int = found.method.message_count
        believed = self._was_empty and self._seen == handed_out
        self._was_empty, self._seen = not ready, handed_out
        return ready if ready or believed else 1
