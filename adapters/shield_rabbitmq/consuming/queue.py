"""One consumer's deliveries, in order: handed over as the rules allow, held back until then."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

from shield import Delivery, Kind, Outcome, Permit, Refusal, Verdict
from shield.action import Divert, Drop
from shield.chain.deferred import DeferredDelivery
from shield.chain.runner import ROUNDING_S
from shield.engine.queueing.sojourn_monitor import LOOK_EVERY_S
from shield.errors import Reject
from shield.transport import is_hopeless
from shield_rabbitmq.client import internals
from shield_rabbitmq.consuming.batches import Batch, Batcher
from shield_rabbitmq.consuming.delivery import BrokerDelivery, delivery_of
from shield_rabbitmq.consuming.overflow import send_diverted
from shield_rabbitmq.consuming.session import ConsumerSession, SessionQueue, Terms

log = logging.getLogger("shield.rabbitmq")
LOG_EVERY_S = 60.0
STALLED_S = 1.0
"""How long a consumer waits for the answer to any of what it has diverted, once that is much."""
MAX_DIVERTING = 1_000
"""How many may be on their way elsewhere where no prefetch bounds that."""
Handed = tuple[Permit, BrokerDelivery]
"""A message that may be handed over, and what it holds until it is acknowledged."""


class DeliveryQueue(SessionQueue):
    """What one consumer was given and has not handed over.

    Only the first is asked about; what stands behind it is not offered yet. What is diverted
    leaves the line, so that what follows goes on, and comes back to its front where that fails.
    Where a rule bounds how long they may wait, and they wait too long, the newest is asked about,
    once the older ones are shed that are of no use any more.
    """

    def __init__(self, session: ConsumerSession, terms: Terms, queue: str, auto_ack: bool) -> None:
        self.session = session
        self.shield, self.consumer = terms
        self.queue = queue
        self.auto_ack = auto_ack
        self.standing = self.shield.engine.standing(queue, self.consumer)
        """Asks for how long they may wait; None where they may for ever."""
        self.ended = False
        """Whether nothing is handed over from here any more."""
        self._waiting: deque[BrokerDelivery] = deque()
        self._diverting: dict[int, BrokerDelivery] = {}
        self._stuck: deque[tuple[float, BrokerDelivery]] = deque()
        """What can go nowhere for now, and when it is tried again."""
        self._answered_s = -inf
        """When something that was on its way elsewhere was answered, or the first began."""
        self._quiet_until_s = -inf
        self._failed = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._stuck)

    def put(self, broker_delivery: BrokerDelivery) -> None:
        """Let a message wait."""
        broker_delivery.enqueued_at_s = self.shield.clock.now()
        self._waiting.append(broker_delivery)
        self.session.queues.add(self)
        if not self.auto_ack:
            self.session.tags.withheld.add(broker_delivery.method.delivery_tag)

    @property
    def waits_for_an_ack(self) -> bool:
        """Whether the next may be handed over once something is acknowledged."""
        return bool(self._waiting) and (
            self._waiting[0].waits_for_an_ack or self._waiting[-1].waits_for_an_ack
        )

    def ready(self) -> Handed | float | None:
        """Return the first that may be handed over, and is not in line any more.

        Seconds where it has to wait so long; None where nobody is in line. Those that the rules
        drop are acknowledged, those that they divert are sent.
        """
        self._try_again()
        while self._waiting:
            now = self.shield.clock.now()
            broker_delivery, refusal = self._turn(now)
            try:
                step = self._next(broker_delivery, refusal, now)
            except Reject:
                self._take_out(broker_delivery)
                self._reject(broker_delivery, requeue=False)
                continue
            wait_s = self._hold_up(broker_delivery, step, now) if isinstance(step, Divert) else None
            if wait_s == 0.0:
                continue  # its chain has gone on
            step = step if wait_s is None else wait_s
            if isinstance(step, float) and self._waits_apart(broker_delivery):
                permit = self._let_through(broker_delivery)
                if permit is None:
                    self._take_out(broker_delivery)
                    self._stuck.append((now + step, broker_delivery))
                    continue
                step = permit
            if isinstance(step, float):
                return step if self.standing is None else min(step, LOOK_EVERY_S)
            self._take_out(broker_delivery)
            if isinstance(step, Permit):
                self.session.tags.withheld.discard(broker_delivery.method.delivery_tag)
                if self.standing is not None:
                    self.standing.leaves(step, now - broker_delivery.enqueued_at_s, now)
                return step, broker_delivery
            if isinstance(step, Divert):
                self._divert(broker_delivery, step)
            else:
                self._ack(broker_delivery)
        self._note()
        if self._stuck:
            return max(0.0, self._stuck[0][0] - self.shield.clock.now())
        return None

    def _note(self) -> None:
        """Let the channel forget a line that holds nothing."""
        if not self._waiting and not self._diverting and not self._stuck:
            self.session.queues.discard(self)

    def _turn(self, now: float) -> tuple[BrokerDelivery, Refusal | None]:
        """Return whose turn it is, and why it may wait no longer, where it may not."""
        oldest, standing = self._waiting[0], self.standing
        if standing is None:
            return oldest, None
        held = oldest.held
        delivery = held.over.message if held else self._delivery(oldest, now)
        refusal = standing.refusal(delivery, now - oldest.enqueued_at_s, now)
        if refusal is not None and (held is None or held.refuse(refusal, now)):
            return oldest, refusal
        return self._waiting[-1 if standing.newest_first(delivery, now) else 0], None

    def _take_out(self, broker_delivery: BrokerDelivery) -> None:
        """Take one out of the line, the oldest or the newest."""
        if broker_delivery is self._waiting[0]:
            self._waiting.popleft()
        else:
            self._waiting.pop()

    def _next(
        self, broker_delivery: BrokerDelivery, refusal: Refusal | None, now: float
    ) -> Permit | Drop | Divert | float:
        """Offer it, the first time; then ask what to do with it, as `DeferredDelivery.next`."""
        if broker_delivery.held is None:
            verdict = self._offer(self._delivery(broker_delivery, now), refusal, now)
            if isinstance(verdict, Permit):
                return verdict
            broker_delivery.held = DeferredDelivery(verdict)
        return broker_delivery.held.next(now)

    def _offer(self, delivery: Delivery, refusal: Refusal | None, now: float) -> Verdict:
        """Ask the rules about a message for the first time.

        Raises:
            Reject: a plugin's before-hook refused it.
        """
        if self.standing is None:
            return self.shield.engine.receive(delivery, now)
        return self.standing.offer(delivery, refusal, now)

    def _delivery(self, broker_delivery: BrokerDelivery, now: float) -> Delivery:
        """Return it as rules see it."""
        given = broker_delivery.method, broker_delivery.properties, broker_delivery.body
        return delivery_of(self.queue, self.consumer, now, *given)

    # --- what can go nowhere for now ----------------------------------------------------------

    @property
    def max_diverting(self) -> int:
        """How many may be on their way elsewhere: half of the prefetch, so that others can come."""
        prefetch = self.session.prefetch()
        return max(1, prefetch // 2) if prefetch else MAX_DIVERTING

    @property
    def max_stuck(self) -> int:
        """How many may wait aside, for the same reason; of the others none is held up."""
        return self.max_diverting - 1

    def _hold_up(self, broker_delivery: BrokerDelivery, step: Divert, now: float) -> float | None:
        """Return how long a message may not go elsewhere yet; 0 if not at all, None if it may.

        Enough are on their way already. Where none of these is answered for long, as in an alarm,
        it does not go there, and its chain goes on.
        """
        if len(self._diverting) < self.max_diverting:
            return None
        step.done()
        if now - self._answered_s < STALLED_S:
            return self._answered_s + STALLED_S - now
        return self._goes_on(broker_delivery, hopeless=False)

    def _goes_on(self, broker_delivery: BrokerDelivery, *, hopeless: bool) -> float:
        assert broker_delivery.held is not None
        broker_delivery.held.failed(hopeless=hopeless)
        return 0.0

    def _waits_apart(self, broker_delivery: BrokerDelivery) -> bool:
        """Tell whether the others go on while it waits."""
        return broker_delivery.is_stuck and self.standing is None

    def _let_through(self, broker_delivery: BrokerDelivery) -> Permit | None:
        """Admit what can go nowhere, and would hold up all others: it is handed over, late."""
        assert broker_delivery.held is not None
        if len(self._stuck) < self.max_stuck:
            return None
        now = self.shield.clock.now()
        if now >= self._quiet_until_s:
            self._quiet_until_s = now + LOG_EVERY_S
            log.warning("queue %r: what cannot be diverted for now is handed over", self.queue)
        return self.shield.engine.let_through(broker_delivery.held.over)

    def _try_again(self) -> None:
        """Let those stand in line again that have waited aside for long enough."""
        now = self.shield.clock.now()
        while self._stuck and self._stuck[0][0] <= now:
            self._waiting.appendleft(self._stuck.popleft()[1])

    # --- elsewhere ----------------------------------------------------------------------------

    def _divert(self, broker_delivery: BrokerDelivery, step: Divert) -> None:
        held = broker_delivery.held
        assert held is not None
        connection = self.session.channel.connection
        if not self._diverting:
            self._answered_s = self.shield.clock.now()
        self._diverting[broker_delivery.method.delivery_tag] = broker_delivery

        def ended(error: Exception | None) -> None:
            if error is None:
                held.diverted()
            step.done()
            broker_delivery.answered = True
            faulty = error is not None and _is_at_fault(step, error)
            internals.call_from_any_thread(
                connection, partial(self._left, broker_delivery, error, faulty)
            )
            if not self.session.open:
                held.let_go()  # nobody may call; nothing where it is counted

        send_diverted(connection, self.shield, held, broker_delivery, step, ended)

    def _left(self, broker_delivery: BrokerDelivery, error: Exception | None, faulty: bool) -> None:
        """Acknowledge what is elsewhere; let the chain go on for what is not."""
        self._answered_s = self.shield.clock.now()
        self._diverting.pop(broker_delivery.method.delivery_tag, None)
        if error is None:
            self._ack(broker_delivery)
            self._note()
        else:
            self._complain(broker_delivery, error)
            self._come_back(broker_delivery, faulty)
        self.session.left()

    def _come_back(self, broker_delivery: BrokerDelivery, faulty: bool) -> None:
        """Let the chain go on for what is not elsewhere; give it back where nobody waits for it."""
        held = broker_delivery.held
        assert held is not None
        if broker_delivery.tag is None or self.ended:
            self._hand_back(broker_delivery)
            self._note()
        else:
            held.failed(hopeless=faulty)
            self._waiting.appendleft(broker_delivery)
        self.look_again(0.0)

    def _complain(self, broker_delivery: BrokerDelivery, error: Exception) -> None:
        """Tell observers that diverting fails, and the log once a minute, with how many did."""
        assert broker_delivery.held is not None
        message = broker_delivery.held.over.message
        self.shield.engine.report(Kind.NOT_DIVERTED, message, detail=repr(error))
        self._failed += 1
        now = self.shield.clock.now()
        if now >= self._quiet_until_s:
            self._quiet_until_s = now + LOG_EVERY_S
            log.warning(
                "queue %r: a message could not be diverted, and goes on in its chain "
                "(%d so far): %s",
                *(self.queue, self._failed, error),
            )

    @property
    def diverting(self) -> int:
        """How many are on their way elsewhere."""
        return len(self._diverting)

    def look_again(self, wait_s: float) -> None:
        """Hear when to go on: so many seconds from now."""

    # --- to the broker ------------------------------------------------------------------------

    def _ack(self, broker_delivery: BrokerDelivery) -> None:
        self.session.tags.withheld.discard(broker_delivery.method.delivery_tag)
        if self._may_answer(broker_delivery):
            self.session.beneath.basic_ack(broker_delivery.tag)

    def _reject(self, broker_delivery: BrokerDelivery, *, requeue: bool) -> None:
        self.session.tags.withheld.discard(broker_delivery.method.delivery_tag)
        if self._may_answer(broker_delivery):
            self.session.beneath.basic_reject(broker_delivery.tag, requeue)

    def _may_answer(self, broker_delivery: BrokerDelivery) -> bool:
        """Tell whether the broker waits for an answer: on a closed channel it has it again."""
        return (
            broker_delivery.tag is not None
            and not self.auto_ack
            and bool(self.session.beneath.is_open)
        )

    def _hand_back(self, broker_delivery: BrokerDelivery) -> None:
        self._reject(broker_delivery, requeue=True)
        broker_delivery.let_go()

    def hand_back(self) -> None:
        """Give all that waits back to the broker; what is on its way elsewhere is answered yet."""
        for broker_delivery in self._all_out():
            self._hand_back(broker_delivery)
        self._note()

    def forget(self) -> None:
        """Note that the broker has all of it again: nothing is to be acknowledged any more."""
        for broker_delivery in self._all_out():
            broker_delivery.let_go()
        for broker_delivery in self._diverting.values():
            broker_delivery.tag = None
            if broker_delivery.answered and not self.session.open:
                broker_delivery.let_go()  # its answer waits for a loop that has ended
        self._note()

    def _all_out(self) -> list[BrokerDelivery]:
        """Take out all that waits, in the order of arrival."""
        taken = [broker_delivery for _, broker_delivery in self._stuck] + list(self._waiting)
        self._stuck.clear()
        self._waiting.clear()
        return sorted(taken, key=lambda broker_delivery: broker_delivery.method.delivery_tag)

    def take_all(self) -> list[tuple[Any, Any, bytes]]:
        """Hand all that waits over at once: the broker does not know of it any more."""
        taken = self._all_out()
        self._note()
        for broker_delivery in taken:
            if broker_delivery.held is not None:
                broker_delivery.held.over.end(Outcome.DELIVERED.end)
        return [(each.method, each.properties, each.body) for each in taken]


def _is_at_fault(step: Divert, error: Exception) -> bool:
    """Tell whether a message could not be sent for a reason of its own."""
    if step.transport is not None:
        return is_hopeless(step.transport, error)
    return isinstance(error, TypeError | ValueError)


class Consumer(DeliveryQueue):
    """Hands over to a callback: at once, or from the connection's own loop later."""

    def __init__(
        self,
        session: ConsumerSession,
        terms: Terms,
        queue: str,
        auto_ack: bool,
        callback: Callable[..., Any],
    ) -> None:
        super().__init__(session, terms, queue, auto_ack)
        self._callback = callback
        self._handed = session.tags.handed
        self._now, self._receive = self.shield.clock.now, self.shield.engine.receive
        takes_runs = not auto_ack and self.shield.engine.takes_runs(
            Delivery(queue, 0, self.consumer)
        )
        self._ahead = Batcher(*terms, queue) if takes_runs and session.dispatches else None
        self._run: Batch | None = None
        """Messages that are admitted already, and come next."""
        self._due_s: float | None = None
        """When it looks again, at the latest."""

    def arrived(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        """Take a message from pika."""
        run = self._run
        if run is None and (self._waiting or self.standing is not None):
            self.put(BrokerDelivery(method, properties, body))
            if len(self._waiting) == 1:
                self.go_on()
            return
        if run is None and self._ahead is not None:
            run = self._run = self._ahead.run(channel, method, properties, body)
            if not self.session.open:  # closed meanwhile, by another thread
                self._withdraw()
                return
        if run is not None:
            self._handed[method.delivery_tag] = run.next(len(body))
            if not run.left:
                self._run = None
            self._callback(channel, method, properties, body)
            return
        now = self._now()
        delivery = delivery_of(self.queue, self.consumer, now, method, properties, body)
        try:
            verdict = self._receive(delivery, now)
        except Reject:
            self._reject(BrokerDelivery(method, properties, body), requeue=False)
            return
        if type(verdict) is Permit and not self.auto_ack:  # as `_hand_over`, less its calls
            self._handed[method.delivery_tag] = verdict
            self._callback(channel, method, properties, body)
            return
        broker_delivery = BrokerDelivery(method, properties, body)
        if isinstance(verdict, Permit):
            self._hand_over(verdict, broker_delivery)
        else:
            broker_delivery.held = DeferredDelivery(verdict)
            self.put(broker_delivery)
            self.go_on()

    def go_on(self) -> None:
        """Hand over what may be, and set a timer for the rest."""
        try:
            while not isinstance(ready := self.ready(), float):
                if ready is None:
                    return
                self._hand_over(*ready)
            self.look_again(ready)
        except BaseException:
            self.look_again(0.0)
            raise

    def _hand_over(self, permit: Permit, broker_delivery: BrokerDelivery) -> None:
        call = (
            self.session.channel,
            broker_delivery.method,
            broker_delivery.properties,
            broker_delivery.body,
        )
        if not self.auto_ack:
            self.session.tags.handed[broker_delivery.method.delivery_tag] = permit
            self._callback(*call)
            return
        try:
            self._callback(*call)
        except BaseException:
            permit.settle(Outcome.FAILED)
            raise
        permit.delivered()

    def hand_back(self) -> None:
        """Give all that waits back to the broker, as pika what it has not handed over."""
        self._withdraw()
        super().hand_back()

    def forget(self) -> None:
        """Note that the broker has all of it again."""
        self._withdraw()
        super().forget()

    def _withdraw(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.withdraw()

    def look_again(self, wait_s: float) -> None:
        """Go on after so many seconds, by a timer of the connection, if the session is open."""
        if not len(self) or not self.session.open:
            return
        due_s = self.shield.clock.now() + wait_s
        if self._due_s is None or due_s < self._due_s:
            self._due_s = due_s
            connection = self.session.channel.connection
            internals.call_later(connection, wait_s + ROUNDING_S, partial(self._due, due_s))

    def _due(self, due_s: float) -> None:
        if due_s == self._due_s:
            self._due_s = None
        if self.session.open:
            self.go_on()
