"""The thread that sends what is buffered: as the policies admit it, first come, first served."""

from __future__ import annotations

import heapq
import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Hashable
from functools import partial
from itertools import count
from math import inf

from shield import Engine, Permit, Transport
from shield.algorithms.codel import Codel
from shield.chain.retained import Retained
from shield.chain.runner import answering, may_block
from shield.clock import Clock
from shield.engine.queueing.wait_queue import Waiter
from shield.plugins.actions.buffer.queues import (
    BufferQueue,
    ClientBacklog,
    FlushMark,
    RetainingAction,
)
from shield.process_hooks import ExitStage, ForkStage, after_fork, at_exit

log = logging.getLogger("shield")
LOG_EVERY_S = 60.0
TRY_AGAIN_S = 1.0
"""When to look again at what has failed."""
BATCH = 100
"""How many messages of one queue are sent before the others have their turn."""
LINGER_S = 0.5
"""How long the thread stays when nothing is kept any more."""
CLOSE_WITHIN_S = 30.0
"""How long a client that closes without a time of its own waits for what is buffered."""
SEND_SHARE = 0.75
"""The part of that time in which messages are sent; then the rest of them goes on in its chain."""


class BufferSender:
    """Keeps messages in memory and sends each when it is admitted; for all Shields of one clock.

    Of one client, messages that compete for the same (one producer's to one destination; with a
    quota per tenant, one tenant's) go one after another, and those that compete for something else
    do not wait for them. Where a policy binds messages together, as `order = "key"` does, these
    go one after another whatever they compete for.

    Producers' threads put messages in. One thread takes them out: it is there while anything is
    kept, and asks when it is woken or when a quota's time has come; it polls only where
    a `queue_delay` says what is kept too long. A client's
    `send` that blocks, as Kafka's does for the metadata of a topic it has never seen, holds it up.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.RLock()  # an observer that is told under it may publish
        self._queues: dict[Hashable, BufferQueue] = {}
        self._bonds: dict[Hashable, tuple[BufferQueue, int]] = {}
        """Where messages that are bound together are, and how many."""
        self._held: dict[Transport, ClientBacklog] = {}
        self._ready: deque[BufferQueue] = deque()
        self._due: list[tuple[float, int, BufferQueue]] = []
        self._pushed = count()
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None
        self._say_at_s = -inf

    # --- from any thread ------------------------------------------------------------------------

    def keep(self, kept: Retained) -> BufferQueue:
        """Put a message behind those that it competes with, and in line where it is the first.

        Returns where it is, for `let_go`.
        """
        engine = kept.over.engine
        with self._lock:
            queue = self._queue_of(kept)
            held = self._held.setdefault(kept.client, ClientBacklog())
            held.messages += 1
            held.queues[queue] = None
            held.last = kept
            kept.since = self._clock.now()
            queue.kept.append(kept)
            if queue.waiter is None:
                queue.waiter = engine.line_up(kept.over, partial(self._wake, queue))
                kept.number = queue.waiter.number
                self._wake(queue)
            else:
                kept.number = engine.draw()
                queue.waiter.messages += 1
                queue.waiter.size += kept.over.message.size
            if self._thread is None or not self._thread.is_alive():
                self._start()
            return queue

    def let_go(self, kept: Retained, queue: BufferQueue) -> None:
        """Let one message go on in its chain, unless it has left its queue: the others stay."""
        with self._lock:
            if not _taken_out(queue.kept, kept):
                return
            waiter, engine = queue.waiter, kept.over.engine
            assert waiter is not None
            if not queue.kept and queue.sending is None:
                self._remove(queue, kept.client, engine)
            else:
                waiter.messages -= 1
                waiter.size -= kept.over.message.size
                if queue.kept and queue.sending is None:
                    engine.move_on(waiter, queue.kept[0].over, queue.kept[0].number)
            self._unbind(kept)
        kept.go_on()
        self._left(kept)

    def _queue_of(self, kept: Retained) -> BufferQueue:
        """Return the queue of those it is bound to, else of those it competes with."""
        over, message = kept.over, kept.over.message
        bond = over.engine.bond(over)
        queue, bound = self._bonds.get((kept.client, bond), (None, 0))
        if queue is None:
            competes = over.engine.competes_for(over)
            key = (kept.client, message.producer, message.destination, competes)
            queue = self._queues.get(key)
            if queue is None:
                queue = self._queues[key] = BufferQueue(key)
        if bond is not None:
            self._bonds[kept.client, bond] = queue, bound + 1
        return queue

    def flush(self, client: Transport, timeout_s: float | None) -> None:
        """Return when all of that client that is kept now is sent, or the time is over.

        At once on a thread that must not be blocked: the drain's own, or where the client's
        answers come in.
        """
        self._await(client, inf if timeout_s is None else timeout_s, until=inf)

    def close(self, client: Transport, timeout_s: float | None) -> None:
        """Send what is admitted in most of the time; let the rest go on in its chain.

        What is admitted and held back is sent when the others go on.
        """
        limit_s = CLOSE_WITHIN_S if timeout_s is None else timeout_s
        deadline = self._clock.now() + limit_s
        send_until = deadline - limit_s * (1 - SEND_SHARE)
        self._await(client, send_until - self._clock.now(), until=send_until)
        for kept in self._taken_back(client):
            kept.go_on()
            self._left(kept)
        self._await(client, deadline - self._clock.now(), until=inf)  # what is being sent

    def close_all(self, timeout_s: float) -> None:
        """Do the same for all clients together."""
        deadline = self._clock.now() + timeout_s
        for client in list(self._held):
            self.close(client, max(0.0, deadline - self._clock.now()))

    def _await(self, client: Transport, timeout_s: float, until: float) -> None:
        with self._lock:
            held = self._held.get(client)
            if held is None or timeout_s <= 0 or not self._may_wait(client):
                return
            mark = FlushMark(held.last.over.engine.draw(), held.messages, until)
            held.marks.append(mark)
            self._give_up(held)
        if timeout_s == inf:
            mark.gone.wait()
        else:
            self._clock.wait(mark.gone, timeout_s)
        with self._lock:
            held.marks.remove(mark)

    def _may_wait(self, client: Transport) -> bool:
        me = threading.current_thread()
        return me is not self._thread and may_block() and client.may_wait()

    def _give_up(self, held: ClientBacklog) -> None:
        """Let those go who wait for what cannot be in time."""
        for mark in held.marks:
            if all(mark.until < queue.due < inf for queue in held.queues):
                mark.gone.set()

    def _taken_back(self, client: Transport) -> list[Retained]:
        """Take all that is not being sent out of a client's queues; return it, oldest first."""
        taken: list[Retained] = []
        with self._lock:
            held = self._held.get(client)
            if held is None:
                return taken
            for queue in list(held.queues):
                taken += queue.kept
                queue.kept.clear()
                if queue.sending is None:
                    self._remove(queue, client, held.last.over.engine)
                else:
                    queue.due = -inf
                    self._wake(queue)
            for kept in taken:
                self._unbind(kept)
        return sorted(taken, key=lambda kept: kept.number)

    def _left(self, kept: Retained) -> None:
        """Note that a message is kept no more."""
        with self._lock:
            held = self._held[kept.client]
            held.messages -= 1
            for mark in held.marks:
                mark.left -= kept.number < mark.number
                if mark.left == 0:
                    mark.gone.set()
            if held.messages == 0:
                del self._held[kept.client]
                self._woken.set()  # the thread may go
        keeper = kept.action
        assert isinstance(keeper, RetainingAction)
        try:
            keeper.released(kept)
        except Exception as error:
            kept.over.engine.plugin_failed(keeper, error)

    def _wake(self, queue: BufferQueue) -> None:
        """Have a queue looked at; called by whoever frees a place, so without any lock."""
        if not queue.ready:
            queue.ready = True
            self._ready.append(queue)
            self._woken.set()

    # --- the thread -----------------------------------------------------------------------------

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="shield-buffer", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            idle_s = self._step_whatever_comes()
            if not self._held:
                if not self._woken.wait(LINGER_S) and self._ends():
                    return
            elif idle_s == inf:
                self._woken.wait()
            else:
                self._clock.wait(self._woken, idle_s)

    def _ends(self) -> bool:
        with self._lock:
            if not self._held:
                self._thread = None
            return self._thread is None

    def _step_whatever_comes(self) -> float:
        """Do a step; this thread is all Shields', and nobody's error may be its end."""
        try:
            return self.step()
        except BaseException:
            self._say("the buffer's thread goes on after an error")
            return TRY_AGAIN_S

    def _say(self, what: str) -> None:
        """Log an error that is being handled, once a minute."""
        now = self._clock.now()
        if now >= self._say_at_s:
            self._say_at_s = now + LOG_EVERY_S
            log.exception("%s", what)

    def step(self) -> float:
        """Send what is admitted now; return the seconds until there may be more, `inf` if woken."""
        self._woken.clear()
        self._wake_due()
        for _ in range(len(self._ready)):
            queue = self._ready.popleft()
            if queue.ready:
                self._advance_whatever_comes(queue)
        if self._ready:
            return 0.0
        with self._lock:
            return max(0.0, self._due[0][0] - self._clock.now()) if self._due else inf

    def _wake_due(self) -> None:
        """Have those looked at whose time has come."""
        now = self._clock.now()
        with self._lock:
            while self._due and (self._due[0][0] <= now or not self._is_set(self._due[0])):
                entry = heapq.heappop(self._due)
                if self._is_set(entry):
                    self._wake(entry[2])

    def _is_set(self, entry: tuple[float, int, BufferQueue]) -> bool:
        """Tell whether an alarm holds: the queue has not asked again since, and is not gone."""
        due, _, queue = entry
        return queue.due == due and queue.waiter is not None

    def _advance_whatever_comes(self, queue: BufferQueue) -> None:
        """Look at a queue; where that fails, a little later again: the others are not held up."""
        try:
            self._advance(queue)
        except BaseException:
            self._say("a message that is buffered cannot be sent now")
            with self._lock:
                if queue.waiter is not None and queue.kept:
                    self._rest(queue, TRY_AGAIN_S, self._held[queue.kept[0].client])

    def _advance(self, queue: BufferQueue) -> None:
        """Send from the front of a queue until one is refused, or others should have their turn."""
        for _ in range(BATCH):
            with self._lock:
                queue.ready = False
                if queue.sending is None:
                    self._take_first(queue)
                kept, end = queue.sending, queue.end
                if kept is None or end is None or self._clock.now() < queue.due:
                    return
                queue.end = None
            try:
                with answering():  # a future's callback that publishes must not keep this thread
                    end()
            except BaseException:
                self._say("a callback of a buffered message's future failed")
            self._moved_on(queue, kept)
            self._left(kept)
        self._wake(queue)

    def _take_first(self, queue: BufferQueue) -> None:
        """Take the first message out, with what is to be done with it, unless it has to wait."""
        if not queue.kept or queue.waiter is None:
            return
        oldest = queue.kept[0]
        delay = queue.delay_of(oldest)
        if delay is not None and self._is_too_old(oldest, delay):
            self._take(queue, oldest, oldest.go_on)
            return
        kept = self._next(queue, delay)
        answer = self._ask(queue.waiter, kept, oldest.number)
        if isinstance(answer, Permit):
            hold_s, answer.hold_s = answer.delay_s, 0.0  # waited for here, where it stops nobody
            self._take(queue, kept, partial(kept.send, answer))
            if hold_s > 0.0:
                self._rest(queue, hold_s, self._held[kept.client])
        elif kept.over.retry_after_s == inf:
            self._take(queue, kept, kept.go_on)  # it will never be admitted
        else:
            look_s = inf if delay is None else delay.look_every_s
            self._rest(queue, min(answer, look_s), self._held[kept.client])

    def _take(self, queue: BufferQueue, kept: Retained, end: Callable[[], None]) -> None:
        """Take a message out of its queue, first or last, with what ends it."""
        taken = queue.kept.popleft() if kept is queue.kept[0] else queue.kept.pop()
        assert taken is kept
        queue.sending, queue.end, queue.due = kept, end, -inf
        self._unbind(kept)

    def _is_too_old(self, oldest: Retained, delay: Codel) -> bool:
        now = self._clock.now()
        delay.tell(now - oldest.since, now)
        return delay.is_too_old(now - oldest.since, now)

    def _next(self, queue: BufferQueue, delay: Codel | None) -> Retained:
        """Return the oldest; the newest where the queue stands, unless others bind it."""
        oldest, newest = queue.kept[0], queue.kept[-1]
        if delay is None or not delay.is_overloaded(self._clock.now()):
            return oldest
        free = newest.over.engine.bond(newest.over) is None
        return newest if free and queue.delay_of(newest) is delay else oldest

    def _ask(self, waiter: Waiter, kept: Retained, number: float) -> Permit | float:
        """Ask for one message of a queue, at the place of its oldest."""
        engine = kept.over.engine
        if waiter.over is not kept.over:
            engine.move_on(waiter, kept.over, number)
        return engine.ask_and_stay(waiter)

    def _rest(self, queue: BufferQueue, seconds: float, held: ClientBacklog) -> None:
        """Set the alarm at which a queue is looked at; `inf` for none, it will be woken."""
        queue.due = self._clock.now() + seconds
        if queue.due < inf:
            if len(self._due) > 2 * len(self._queues) + BATCH:
                self._due = [entry for entry in self._due if self._is_set(entry)]
                heapq.heapify(self._due)
            heapq.heappush(self._due, (queue.due, next(self._pushed), queue))
            self._give_up(held)

    def _moved_on(self, queue: BufferQueue, sent: Retained) -> None:
        """Let the queue's waiter stand for the next message, or leave."""
        engine = sent.over.engine
        with self._lock:
            queue.sending = None
            waiter = queue.waiter
            assert waiter is not None
            if not queue.kept:
                self._remove(queue, sent.client, engine)
                return
            waiter.messages = len(queue.kept)
            waiter.size -= sent.over.message.size
            engine.move_on(waiter, queue.kept[0].over, queue.kept[0].number)

    def _remove(self, queue: BufferQueue, client: Transport, engine: Engine) -> None:
        assert queue.waiter is not None
        engine.leave(queue.waiter)
        queue.waiter = None
        del self._queues[queue.key]
        del self._held[client].queues[queue]

    def _unbind(self, kept: Retained) -> None:
        bond = kept.over.engine.bond(kept.over)
        if bond is None:
            return
        queue, bound = self._bonds.pop((kept.client, bond))
        if bound > 1:
            self._bonds[kept.client, bond] = queue, bound - 1


def _taken_out(queue: deque[Retained], kept: Retained) -> bool:
    """Take a message out of a queue, near whose end it is; tell whether it was there."""
    for index in range(len(queue) - 1, -1, -1):
        if queue[index] is kept:
            del queue[index]
            return True
    return False


# --- the process ------------------------------------------------------------------------------

_drains: weakref.WeakValueDictionary[Clock, BufferSender] = weakref.WeakValueDictionary()
_parents: list[BufferSender] = []
"""In a forked child: what its parent keeps, and sends. It stays referred to, as its end would
close clients whose connections are the parent's."""
_making = threading.Lock()


def drain_of(clock: Clock) -> BufferSender:
    """Return the drain of all Shields with this clock: in a program, the one there is."""
    with _making:
        at_exit(_close_all, ExitStage.KEPT)  # now, so that it comes before what clients do at exit
        return _drains.setdefault(clock, BufferSender(clock))


def _close_all(within_s: float) -> None:
    for drain in list(_drains.values()):
        drain.close_all(within_s * SEND_SHARE)  # clients need the rest, to send what they have got


def _after_fork_in_child() -> None:
    global _making
    _making = threading.Lock()
    _parents.extend(_drains.values())
    _drains.clear()


after_fork(_after_fork_in_child, ForkStage.RESOURCES)
