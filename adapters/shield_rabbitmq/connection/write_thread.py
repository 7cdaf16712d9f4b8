"""The write thread: producers on any thread put messages into its queue, it alone writes them."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from enum import Enum, auto
from functools import partial
from math import inf
from typing import Any

from pika import spec
from pika.adapters.select_connection import IOLoop
from pika.connection import Parameters
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker

from shield import Signals
from shield.process_hooks import ForkStage, after_fork, at_exit
from shield_rabbitmq.client import internals
from shield_rabbitmq.client.errors import (
    CannotConnectError,
    ExchangeError,
    NackedError,
    PublisherClosedError,
    RabbitMQDeliveryUnknownError,
    RefusedError,
    ReturnedError,
    WithdrawnError,
)
from shield_rabbitmq.client.frames import Frames
from shield_rabbitmq.client.refusals import BAD_MESSAGE, check_header
from shield_rabbitmq.connection.confirms import UnconfirmedWindow
from shield_rabbitmq.connection.exchanges import Exchanges
from shield_rabbitmq.connection.link import Link
from shield_rabbitmq.connection.pending_publish import PendingPublish, Probe
from shield_rabbitmq.connection.send_queue import SendQueue
from shield_rabbitmq.connection.suspects import RefusalSuspects, blamed, is_about_exchange

log = logging.getLogger("shield.rabbitmq")
CONNECT_WITHIN_S = 5.0
"""How long messages wait for the first connection."""
RECONNECT_WITHIN_S = 300.0
"""How long messages wait for a connection that was lost."""
FAILED_PAUSE_S = 0.1
"""How long the thread pauses after an error that nobody foresaw."""
END_WITHIN_S = 3.0
"""How long the thread may take to end, beyond the time its user gives it."""
WRITE_BYTES = 64 * 1024
WINDOW_BYTES = 64 * 2**20
LOOK_EVERY_S = 0.02
"""How often it looks for what has waited too long, while nothing can be written."""
OPERATOR = 320  # CONNECTION_FORCED
BLOCKED = "RabbitMQ takes no messages for now"
HEARD_WITHIN_S = 0.25
"""How recent a confirm must be for messages that could go another way to be written."""
ANSWER_WITHIN_S = 3.0
"""How long they wait for one, unless the broker is not reached at all."""
ALONE_WITHIN_S = 5.0
"""How long others wait for one that is written alone: a queue may not answer for hours."""


class Turn(Enum):
    """What is to be done with a message that stands first in the queue."""

    NOW = auto()
    LATER = auto()
    SEEN_TO = auto()


class WriteThread:
    """Writes what is put into its queue, and finishes each sending once: acked, nacked, or lost.

    It starts with the first message and ends with `close`. It sleeps in its event loop, woken by
    the broker or by a producer; a producer wakes it only when it is not awake already.

    Args:
        parameters: where to connect to.
        window: how many messages may be written and not confirmed.
        resend: whether those whose fate is unknown are sent again.
        signals: where it writes what the broker tells, and what waits to be written.
        reconnect_within_s: how long messages wait for a connection that was lost.
        waiting: its queue, where policies bound how long messages wait in it.
    """

    def __init__(
        self,
        parameters: Parameters,
        window: int,
        resend: bool,
        signals: Signals,
        reconnect_within_s: float = RECONNECT_WITHIN_S,
        waiting: SendQueue | None = None,
    ) -> None:
        self._parameters = parameters
        self._limit = window
        self._low = window - max(1, window // 8)
        self._resend = resend
        self._signals = signals
        self._reconnect_within_s = reconnect_within_s
        self._send_queue = waiting
        self._queue: deque[PendingPublish] | SendQueue = deque() if waiting is None else waiting
        self._next = self._queue.popleft if waiting is None else waiting.next
        self._looks = False
        """Whether it is going to look for what has waited too long."""
        self._parked: dict[str, list[PendingPublish]] = {}
        self._window: UnconfirmedWindow[PendingPublish] = UnconfirmedWindow()
        self._window_bytes = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._awake = False
        self._closing = self._ended = False
        self._flushes: list[threading.Event] = []
        """Whoever waits until all is confirmed."""
        self._down_since: float | None = None
        self._exchanges = Exchanges(self._exchange_answered)
        self._doubts = RefusalSuspects(getattr(parameters.credentials, "username", None))
        self._most = window
        """How many may be on the wire now: none beside one that is written alone."""
        self._alone: PendingPublish | None = None
        self._suspects: list[PendingPublish] = []
        """One of them has closed the channel, those behind it were ignored: in written order."""
        self._heard_at = -inf
        """When the broker has last confirmed anything."""
        self._asked_at: float | None = None
        """Since when it waits to hear from the broker before it writes what may go another way."""
        self._probes = True
        """Whether it can ask: not where its user may not publish to the default exchange."""
        self._drains_for: PendingPublish | None = None
        """Who waits to be written alone."""

    # --- from any thread ----------------------------------------------------------------------

    def put(self, sending: PendingPublish) -> None:
        """Hand over a message; it is finished sooner or later, whatever happens."""
        self._signals.queued(1, len(sending.frames.body))
        self._queue.append(sending)
        if not self._awake:
            self._wake()
        if self._signals.blocked and sending.may_decline and self._thread is not None:
            self._loop.add_callback_threadsafe(partial(self.stalled, BLOCKED))
        if self._ended:
            self._fail(self._queued(), _closed)

    def missing(self, exchange: str) -> ExchangeError | None:
        """Return why nothing can be sent to an exchange, where that is known already."""
        return self._exchanges.missing(exchange)

    @property
    def started(self) -> bool:
        """Whether there ever was a thread."""
        return self._thread is not None

    @property
    def is_current(self) -> bool:
        """Whether the caller is the write thread, which must not be blocked."""
        return threading.current_thread() is self._thread

    @property
    def blocked(self) -> bool:
        """Whether the broker takes no messages for now."""
        return bool(self._signals.blocked)

    @property
    def unreachable(self) -> bool:
        """Whether there has been no connection for long, and a message waits to see if there is."""
        down_since = self._down_since
        long_ago = down_since is not None and time.monotonic() - down_since > CONNECT_WITHIN_S
        return long_ago and bool(self._queue)

    @property
    def unconfirmed(self) -> int:
        """How many messages are written and not confirmed."""
        return len(self._window)

    def finish(self) -> None:
        """Let the thread end by itself once all is confirmed: nobody will bring any more."""
        self._closing = True
        if self._thread is not None:
            self._loop.add_callback_threadsafe(self._note_drained)

    def flush(self, timeout: float | None) -> None:
        """Return when all there is has been confirmed or has failed, or the time is over.

        On the write thread, at once.
        """
        if self._thread is None or self._ended or self.is_current:
            return
        done = threading.Event()
        self._flushes.append(done)
        self._loop.add_callback_threadsafe(self._note_drained)
        if not self._ended:  # else nobody is there to tell us
            done.wait(timeout)
        self._flushes.remove(done)

    def close(self, timeout: float | None) -> None:
        """Write and confirm what there is, for so long; then fail the rest and end the thread."""
        with self._lock:
            self._closing = True
            thread = self._thread
            self._ended = self._ended or thread is None
        if thread is None or self._ended:
            self._fail(self._queued(), _closed)
            if thread is not None and thread is not threading.current_thread():
                thread.join(END_WITHIN_S)  # it has ended, or is about to
            return
        self._loop.add_callback_threadsafe(self._note_drained)
        if thread is threading.current_thread():
            return
        thread.join(timeout)
        if thread.is_alive():
            self._loop.add_callback_threadsafe(self._abandon)
            thread.join(END_WITHIN_S)

    def take_back(self, sending: PendingPublish) -> None:
        """Fail a message with `WithdrawnError` where it is not written yet; from any thread."""
        if self._thread is not None and not self._ended:
            self._loop.add_callback_threadsafe(partial(self._take_back, sending))

    def _wake(self) -> None:
        self._awake = True
        if self._thread is None:
            self._start()
        if self._thread is not None:
            self._loop.add_callback_threadsafe(self._drain)

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None or self._ended:
                return
            self._loop = IOLoop()
            self._link = Link(self._loop, self._parameters, self, self._signals)
            self._thread = threading.Thread(target=self._run, name="shield-rabbitmq", daemon=True)
            _running.add(self)
            at_exit(_close_all)
            self._thread.start()

    # --- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        closed = PublisherClosedError("the publisher was closed")
        try:
            while not self._served():
                pass
        finally:
            self._ended = True
            self._fail(self._emptied_window() + self._cleared_suspects(), _unknown(closed))
            self._fail(self._unsent(), _closed)
            for done in list(self._flushes):
                done.set()
            self._loop.close()
            _running.discard(self)

    def _served(self) -> bool:
        """Run the loop until it is stopped; False where an error that nobody foresaw did that."""
        try:
            self._loop.start()
        except BaseException as error:  # also `sys.exit` in somebody's callback
            log.exception("the write thread has failed; what it had fails, and it begins anew")
            self._begin_anew(error)
            time.sleep(FAILED_PAUSE_S)
            return False
        return True

    def _begin_anew(self, error: BaseException) -> None:
        """Fail all there is, with a new connection for what comes."""
        self._link.retire()
        self._link = Link(self._loop, self._parameters, self, self._signals)
        self._signals.blocked = None
        self._exchanges = Exchanges(self._exchange_answered)
        self._forget_broker()
        self._drains_for = None
        written = self._emptied_window() + self._cleared_suspects()
        self._fail(written, _unknown(error))
        reason = f"the write thread has failed: {error!r}"
        self._fail(self._unsent(), lambda _sending: CannotConnectError(reason))
        self._down_since, self._looks, self._awake = None, False, False
        if self._queue:  # put there meanwhile
            self._wake()
        self._note_drained()

    def _drain(self) -> None:
        """Write from the queue while the broker takes it and the window has room."""
        if self._send_queue is not None:
            self._look_soon()
        connection = self._link.connection
        if connection is None:
            if self._down_since is None:
                self._down_since = time.monotonic()
            self._link.want()
            return
        if self._signals.blocked:
            return
        if self._suspects:
            self._write_suspect(connection)
            return
        self._awake = False
        body_max = internals.body_max(connection)
        now = self._signals.now()
        parts: list[bytes] = []
        size = messages = written_bytes = 0
        try:
            while not self._is_full():
                try:
                    sending = self._next()
                except IndexError:
                    break
                frames = sending.frames
                if (
                    frames.exchange not in self._exchanges.known
                    or frames.doubts
                    or sending.may_decline
                ):
                    turn = self._turn(sending, body_max)
                    if turn is Turn.SEEN_TO:
                        continue
                    if turn is Turn.LATER:
                        self._queue.extendleft([sending])
                        self._awake = True  # the answers that it waits for bring it on
                        break
                sending.written_at = now
                self._window.add(sending)
                written = len(frames.body)
                self._window_bytes += written
                messages += 1
                written_bytes += written
                parts += frames.cut(body_max)
                size += written + 100
                if size >= WRITE_BYTES:
                    internals.write(connection, b"".join(parts))
                    parts, size = [], 0
            else:
                self._awake = True  # the answers that make room are what it waits for
            if parts:
                internals.write(connection, b"".join(parts))
        finally:
            self._signals.queued(-messages, -written_bytes)
        if messages:
            self._window_changed()
        if self._send_queue is not None:
            self._refuse(self._send_queue)

    def _look_soon(self) -> None:
        """Look for what has waited too long, for as long as the queue stands."""
        if not self._looks:
            self._looks = True
            self._loop.call_later(LOOK_EVERY_S, self._look)

    def _look(self) -> None:
        assert self._send_queue is not None
        self._looks = False
        self._send_queue.look()
        self._refuse(self._send_queue)
        if self._awake:  # else all was written, and a producer wakes it
            self._look_soon()

    def _refuse(self, waiting: SendQueue) -> None:
        """Let the chains of those go on that have waited too long."""
        refused = waiting.refused()
        for sending, refusal in refused:
            self._left(sending)
            try:
                sending.refuse(refusal)
            except BaseException:
                _note_unheard(sending)
        if refused:
            self._signals.changed()
            self._note_drained()

    def _window_changed(self) -> None:
        """Say how much is on the wire, and let those who wait for that ask again."""
        signals = self._signals
        signals.in_flight = len(self._window)
        signals.window_used = signals.in_flight / self._limit
        signals.changed()

    def _is_full(self) -> bool:
        return len(self._window) >= self._most or self._window_bytes >= WINDOW_BYTES

    def _take_back(self, sending: PendingPublish) -> None:
        place = sending.frames.destination
        for waiting in (self._queue, *self._parked.values()):
            try:
                waiting.remove(sending)
            except ValueError:
                continue
            self._refused(sending, WithdrawnError(f"a message to {place!r} was cancelled"))
            self._note_drained()
            return
        if sending in self._window:
            log.warning(
                "a message to %r was cancelled after it had been written: it is sent", place
            )

    # --- what may be refused ------------------------------------------------------------------

    def _turn(self, sending: PendingPublish, body_max: int) -> Turn:
        """Take a second look at a message before it is written.

        One that the broker may refuse goes alone: a refusal ends the channel, and with it what is
        known of all that is unconfirmed there.
        """
        frames = sending.frames
        if frames.exchange not in self._exchanges.found:
            self._park(sending)
            return Turn.SEEN_TO
        try:
            check_header(frames.destination, frames.header_size, body_max)
            self._doubts.check(frames)
            if sending.may_decline and self._is_silent:
                self._probe(self._link.connection)
                return Turn.LATER
            if self._is_doubtful(frames) and not self._may_go(sending):
                return Turn.LATER
        except RefusedError as error:
            self._refused(sending, error)
            return Turn.SEEN_TO
        except BaseException as error:
            log.exception("a message to %r cannot be written", frames.destination)
            self._refused(sending, CannotConnectError(f"the write thread has failed: {error!r}"))
            return Turn.SEEN_TO
        return Turn.NOW

    def _refused(self, sending: PendingPublish, error: Exception) -> None:
        """Fail one that is not written, and waits for nothing any more."""
        if sending is self._alone:
            self._alone_ended()
        self._left(sending)
        self._fail([sending], lambda _sending: error)

    def _is_doubtful(self, frames: Frames) -> bool:
        """Tell whether the broker alone knows if it takes such a message, or any there."""
        exchanges, doubts = self._exchanges, self._doubts
        if frames.exchange not in exchanges.known and frames.exchange not in doubts.picky:
            return True
        return bool(doubts.about(frames))

    def _may_go(self, sending: PendingPublish) -> bool:
        """Let it go as soon as nothing else is on the wire, so that a refusal harms no other."""
        if not len(self._window):
            self._drains_for = None
            self._goes_alone(sending)
        elif self._drains_for is sending:
            return False
        else:
            self._drains_for = sending
        self._loop.call_later(ALONE_WITHIN_S, partial(self._alone_no_more, sending))
        return self._alone is sending

    def _alone_no_more(self, sending: PendingPublish) -> None:
        """Give up the caution where that takes too long."""
        if sending is self._alone:
            self._alone_ended()
        elif sending is not self._drains_for:
            return
        self._drains_for = None
        self._trust(sending.frames)
        self._drain()

    def _trust(self, frames: Frames) -> None:
        """Write its like beside others."""
        self._doubts.passed(frames)
        if frames.exchange not in self._doubts.picky and frames.exchange in self._exchanges.found:
            self._exchanges.known.add(frames.exchange)

    def _probe(self, connection: Any) -> None:
        """Find out whether the broker takes messages, before it holds one that has another way.

        What is unanswered is a probe as well.
        """
        if self._asked_at is not None:
            return
        self._asked_at = self._signals.now()
        self._loop.call_later(ANSWER_WITHIN_S, partial(self._look_for_answer, self._asked_at))
        if not len(self._window):
            self._write_alone(connection, Probe())

    def _look_for_answer(self, asked_at: float) -> None:
        """Let those go another way that wait for an answer that does not come."""
        if asked_at == self._asked_at:
            self._loop.call_later(ANSWER_WITHIN_S, partial(self._look_for_answer, asked_at))
            self.stalled("RabbitMQ does not answer")

    def _heard(self) -> None:
        """Note that the broker has answered what was published."""
        self._heard_at, self._asked_at = self._signals.now(), None

    def stalled(self, why: str) -> None:
        """Let those that wait to be written go another way, where they have one."""
        leave = (
            self._take_out()
            if self._send_queue is None
            else self._send_queue.take_out(_may_decline)
        )
        for parked in self._parked.values():
            leave += [sending for sending in parked if sending.may_decline]
            parked[:] = [sending for sending in parked if not sending.may_decline]
        for sending in leave:
            self._left(sending)
        if leave:
            self._fail(leave, lambda _sending: CannotConnectError(why))
            self._note_drained()

    def _take_out(self) -> list[PendingPublish]:
        """Take those out of a plain queue that have another way; any thread may add to it."""
        waiting = [self._queue.popleft() for _ in range(len(self._queue))]
        self._queue.extendleft(s for s in reversed(waiting) if not s.may_decline)
        return [sending for sending in waiting if sending.may_decline]

    def _goes_alone(self, sending: PendingPublish) -> None:
        self._alone, self._most = sending, 1

    def _alone_ended(self) -> None:
        self._alone, self._most = None, self._limit

    def _write_suspect(self, connection: Any) -> None:
        """Write the youngest suspect, once nothing is on the wire.

        The broker has ignored what came behind the guilty one, so that from this end nothing is
        sent twice; what came before the guilty one is in doubt.
        """
        self._awake = True
        if len(self._window):
            return
        self._write_alone(connection, self._suspects.pop())

    @property
    def _is_silent(self) -> bool:
        """Whether it is to be found out whether the broker takes messages."""
        return self._probes and self._signals.now() - self._heard_at > HEARD_WITHIN_S

    def _write_alone(self, connection: Any, sending: PendingPublish) -> None:
        sending.written_at = self._signals.now()
        self._goes_alone(sending)
        self._window.add(sending)
        self._window_bytes += len(sending.frames.body)
        internals.write(connection, b"".join(sending.frames.cut(internals.body_max(connection))))
        self._window_changed()

    def _park(self, sending: PendingPublish) -> None:
        """Keep a message until it is known whether its exchange is there."""
        exchange = sending.frames.exchange
        error = self._exchanges.missing(exchange)
        if error is not None:
            self._refused(sending, error)
        elif exchange in self._parked:
            self._parked[exchange].append(sending)
        else:
            self._parked[exchange] = [sending]
            assert self._link.connection is not None
            self._exchanges.ask(self._link.connection, exchange, sending.declares)

    def _exchange_answered(self, exchange: str, error: ExchangeError | None) -> None:
        parked = self._parked.pop(exchange, [])
        if error is None:
            self._queue.extendleft(reversed(parked))
        else:
            for sending in parked:
                self._left(sending)
            self._fail(parked, lambda _sending: error)
        self._drain()
        self._note_drained()

    # --- what the broker says -----------------------------------------------------------------

    def confirmed(self, frame: Any) -> None:
        """Finish what an ack or a nack is about, and write on."""
        method = frame.method
        acked = isinstance(method, spec.Basic.Ack)
        answered = self._window.confirm(method.delivery_tag, method.multiple)
        try:
            if answered:
                self._feed(answered, acked)
                if self._alone is not None:
                    self._trust(self._alone.frames)
                    self._alone_ended()
        finally:
            for sending in answered:
                self._window_bytes -= len(sending.frames.body)
                try:
                    sending.finish(
                        sending.returned if acked else NackedError(sending.frames.destination)
                    )
                except BaseException:
                    _note_unheard(sending)
        if self._awake and len(self._window) <= self._low:
            self._drain()  # with an empty queue as well: it goes to sleep there
        if self._closing or self._flushes:
            self._note_drained()

    def _feed(self, answered: list[PendingPublish], acked: bool) -> None:
        """Note what the broker has answered, and how long that took."""
        signals = self._signals
        now = signals.now()
        messages = len(answered)
        returns = sum(sending.returned is not None for sending in answered)
        self._heard()
        signals.answers.count(now, messages, 0 if acked else messages, returns)
        signals.latency.add(now, now - answered[-1].written_at)
        self._window_changed()

    def returned(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        """Mark the message that came back: the oldest one of these contents.

        A return does not say which delivery tag it is about. Two messages that are the same in
        all of this cannot be told apart by anyone, so it does not matter which one is marked.
        """
        wanted = method.exchange, method.routing_key, body

        def is_it(sending: PendingPublish) -> bool:
            frames = sending.frames
            return (
                frames.mandatory
                and sending.returned is None
                and (frames.exchange, frames.routing_key, frames.body) == wanted
                and frames.has(properties)
            )

        sending = self._window.find(is_it)
        if sending is not None:
            sending.returned = ReturnedError(
                sending.frames.destination,
                internals.returned_message(method, properties, body),
                f"{method.reply_code} {method.reply_text}",
            )

    def unblocked(self) -> None:
        """Write on, and let those who wait for that ask again."""
        self._drain()
        self._signals.changed()

    # --- the link -----------------------------------------------------------------------------

    def wants_link(self) -> bool:
        """Tell whether anything waits to be sent."""
        return bool(self._queue or self._suspects)

    def link_ready(self) -> None:
        """Write what waits."""
        self._down_since = None
        self._drain()
        self._note_drained()

    def link_refused(self, error: Exception, hopeless: bool) -> None:
        """Fail what waits, where trying again is in vain or has taken too long."""
        now = time.monotonic()
        if self._down_since is None:
            self._down_since = now
        first = not self._link.was_open
        patience_s = CONNECT_WITHIN_S if first else self._reconnect_within_s
        if (first and hopeless) or now - self._down_since > patience_s:
            where = f"{self._parameters.host}:{self._parameters.port}"
            where += f", virtual host {self._parameters.virtual_host!r}"
            reason = f"cannot connect to RabbitMQ at {where}: {error!r}"
            self._awake = False
            self._fail(self._unsent(), lambda _sending: CannotConnectError(reason))
            self._note_drained()

    def link_lost(self, error: Exception) -> None:
        """Report what was written and not confirmed as unknown, or send it again.

        Where one of them may be to blame, they go one by one.
        """
        self._awake = True  # the next connection drains the queue
        self._down_since = time.monotonic()
        self._exchanges.forget()
        self._forget_broker()
        parked = [sending for waiting in self._parked.values() for sending in waiting]
        self._parked.clear()
        self._queue.extendleft(reversed(parked))
        by_broker = isinstance(error, ConnectionClosedByBroker) and error.reply_code != OPERATOR
        written, suspects = self._emptied_window(), self._cleared_suspects()
        if isinstance(error, ConnectionClosedByBroker) and error.reply_code in BAD_MESSAGE:
            if len(written) == 1:
                self._refuse_guilty(written.pop(), error)
            elif written:
                self._isolate(written)
                return
        self._repeat_or_fail([*suspects, *written], error, self._resend and not by_broker)

    def _forget_broker(self) -> None:
        """Forget what another connection may hear otherwise."""
        self._doubts.forget()
        self._probes = True
        self._heard_at, self._asked_at = -inf, None

    def channel_closed(self, error: ChannelClosedByBroker) -> None:
        """Sort what was written: before the message that closed the channel, it, and after it.

        The broker has ignored what came after, so that this can be sent again without duplicates.
        What came before it has most likely taken: without a confirm nobody knows.
        """
        self._heard()
        written = self._emptied_window()
        guilty = blamed(error.reply_text, [sending.frames for sending in written])
        if len(written) == 1:
            guilty = 0
        if guilty is None:
            self._isolate(written)
            return
        before = [*self._cleared_suspects(), *written[:guilty]]
        self._put_back(written[guilty + 1 :])
        self._repeat_or_fail(before, error, self._resend)
        self._refuse_guilty(written[guilty], error)

    def _isolate(self, written: list[PendingPublish]) -> None:
        """Find out which of them the broker refuses: one by one, youngest first."""
        for sending in written:
            sending.returned = None
        self._suspects += written
        if written:
            log.warning("one of %d messages is refused; they are sent one by one", len(written))

    def _refuse_guilty(self, sending: PendingPublish, error: Any) -> None:
        """Fail the message that the broker has refused, and what is to fail with it."""
        exchange, text = sending.frames.exchange, error.reply_text
        refused: Exception
        if is_about_exchange(text, exchange):
            refused = ExchangeError(exchange, error.reply_code, text)
            self._exchanges.lose(exchange, refused)
        else:
            refused = RefusedError(sending.frames.destination, error.reply_code, text)
            self._doubts.refused(sending.frames, refused)
            self._exchanges.known -= self._doubts.picky
        if isinstance(sending, Probe):
            self._probes = False
        log.warning("%s", refused)
        self._fail([sending], lambda _sending: refused)

    def _cleared_suspects(self) -> list[PendingPublish]:
        suspects, self._suspects = self._suspects, []
        return suspects

    def link_ended(self) -> None:
        """End the thread."""
        self._loop.stop()

    def _repeat_or_fail(
        self, written: list[PendingPublish], error: Exception, resend: bool
    ) -> None:
        for sending in written:
            sending.returned = None
        if resend:
            self._put_back(written)
        else:
            self._fail(written, _unknown(error))

    def _put_back(self, written: list[PendingPublish]) -> None:
        """Put what was written before all that waits: it is written again."""
        self._signals.queued(len(written), sum(len(sending.frames.body) for sending in written))
        self._queue.extendleft(reversed(written))

    def _left(self, sending: PendingPublish) -> None:
        """Count a message out of the queue that will never be written."""
        self._signals.queued(-1, -len(sending.frames.body))

    # --- the end ------------------------------------------------------------------------------

    def _note_drained(self) -> None:
        """Tell those who wait for it that nothing is unanswered, and end where that was wanted."""
        if self._queue or self._parked or self._suspects or len(self._window):
            return
        for done in list(self._flushes):
            done.set()
        if self._closing:
            self._link.close()

    def _abandon(self) -> None:
        """Fail all there is, and end: its user has no more time."""
        self._ended = True  # what chains send now is failed at once
        written = self._emptied_window() + self._cleared_suspects()
        self._fail(written, _unknown(PublisherClosedError("closed in time")))
        self._fail(self._unsent(), _closed)
        self._link.abort()

    def _emptied_window(self) -> list[PendingPublish]:
        self._alone_ended()
        self._window_bytes = 0
        written = self._window.clear()
        self._window_changed()
        return written

    def _unsent(self) -> Iterable[PendingPublish]:
        """Take all that was never written, also what is put into the queue meanwhile."""
        while self._parked:
            for sending in self._parked.pop(next(iter(self._parked))):
                self._left(sending)
                yield sending
        yield from self._queued()

    def _queued(self) -> Iterable[PendingPublish]:
        """Take all out of the queue; any thread may do so."""
        while True:
            try:
                sending = self._queue.popleft()
            except IndexError:
                return
            self._left(sending)
            yield sending

    def _fail(self, sendings: Iterable[PendingPublish], error_of: Any) -> None:
        for sending in sendings:
            try:
                sending.finish(error_of(sending))
            except BaseException:
                _note_unheard(sending)
        self._signals.changed()


def _note_unheard(sending: PendingPublish) -> None:
    """Say that somebody's code has failed, or wanted to end this thread: it is shared by many."""
    log.exception("who waits for a message to %r has failed", sending.frames.destination)


def _may_decline(sending: PendingPublish) -> bool:
    return sending.may_decline


def _closed(sending: PendingPublish) -> Exception:
    return PublisherClosedError(
        f"the publisher was closed before a message to {sending.frames.destination!r} was written"
    )


def _unknown(cause: BaseException) -> Any:
    def error(sending: PendingPublish) -> Exception:
        unknown = RabbitMQDeliveryUnknownError(
            f"a message to {sending.frames.destination!r} was written and not confirmed when its "
            f"channel or connection went ({cause}); the broker may have it, or not"
        )
        unknown.__cause__ = cause
        return unknown

    return error


_running: set[WriteThread] = set()


def _close_all(within_s: float) -> None:
    until_s = time.monotonic() + within_s
    writers = list(_running)
    for writer in writers:
        writer.finish()  # all at once, within one limit
    for writer in writers:
        writer.close(max(0.0, until_s - time.monotonic()))


at_exit(_close_all)
after_fork(_running.clear, ForkStage.RESOURCES)
