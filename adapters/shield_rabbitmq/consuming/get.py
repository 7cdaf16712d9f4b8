"""`basic_get` under rules, and a way to wait for what it may give."""

from __future__ import annotations

import time
from math import inf
from typing import Any

from shield import Delivery, Permit, Shield
from shield.action import Divert
from shield_rabbitmq.client import internals
from shield_rabbitmq.consuming.delivery import BrokerDelivery
from shield_rabbitmq.consuming.queue import MAX_DIVERTING, DeliveryQueue, Handed
from shield_rabbitmq.consuming.session import ConsumerSession, Item, Terms

EMPTY_FIRST_S, EMPTY_LONGEST_S = 0.01, 0.5
"""How long `wait_for_message` leaves a queue alone that had nothing: twice as long each time."""
KEPT_S = 60.0
"""How long a message is kept that may not be handed over, while nobody asks for another."""


class GetQueue(DeliveryQueue):
    """What `basic_get` takes out of one queue, one message at a time.

    The rules are asked first, so that over the limit nothing is taken at all. What is known of a
    message only once it is there, as its size, its age or a header, may refuse it then: it is kept,
    not acknowledged, as is one that was to go elsewhere and could not. Later calls ask again, and
    let its chain go on. Back in its queue it would be the next again, before all others, and a
    queue with a delivery limit would count each time.
    """

    def __init__(self, session: ConsumerSession, terms: Terms, queue: str) -> None:
        super().__init__(session, terms, queue, auto_ack=False)
        self.standing = None  # one message at a time waits here, and is no queue
        self._asked_s = -inf
        self._looks = False

    @property
    def max_diverting(self) -> int:
        """How many may be on their way elsewhere: a prefetch bounds only what is pushed."""
        return MAX_DIVERTING

    def _waits_apart(self, broker_delivery: BrokerDelivery) -> bool:
        return broker_delivery.kept

    def _hold_up(self, broker_delivery: BrokerDelivery, step: Divert, now: float) -> float | None:
        wait_s = super()._hold_up(broker_delivery, step, now)
        broker_delivery.kept = broker_delivery.kept or wait_s is not None
        return wait_s

    def _come_back(self, broker_delivery: BrokerDelivery, faulty: bool) -> None:
        broker_delivery.kept = True
        super()._come_back(broker_delivery, faulty)
        self._keep_for(KEPT_S)

    def _keep_for(self, wait_s: float) -> None:
        """Look in so many seconds whether `basic_get` was called since, unless a timer runs."""
        if len(self) and not self._looks and self.session.open:
            self._looks = True
            internals.call_later(self.session.channel.connection, wait_s, self._unasked)

    def _unasked(self) -> None:
        """Give back what is kept, unless somebody has asked since."""
        self._looks = False
        left_s = self._asked_s + KEPT_S - self.shield.clock.now()
        if left_s <= 0:
            self.hand_back()
        self._keep_for(left_s)

    def may_ask(self) -> bool:
        """Tell whether a message would be admitted, as far as that is known without it."""
        like = Delivery(self.queue, 1, self.consumer)
        return not self._waiting and self.shield.engine.would_receive(like, self.shield.clock.now())

    def take(self, item: Item) -> Handed | None:
        """Return which message is to be handed over after this one has come, as `next`."""
        self.put(BrokerDelivery(*item))
        return self.next()

    def next(self) -> Handed | None:
        """Return what may be handed over of those that are here, with its permit."""
        self._asked_s = self.shield.clock.now()
        ready = self.ready()
        if isinstance(ready, tuple):
            return ready
        self._keep_for(KEPT_S)
        return None

    def hand_over(self, permit: Permit, broker_delivery: BrokerDelivery, auto_ack: object) -> Item:
        """Note that the user has it, and acknowledge it for him where he says so."""
        tag = broker_delivery.method.delivery_tag
        self.session.tags.handed[tag] = permit
        if auto_ack:
            self.session.channel.basic_ack(tag)
        return broker_delivery.method, broker_delivery.properties, broker_delivery.body


class GetQueues:
    """What takes messages out of the queues that one channel asks, by whose rules and queue."""

    def __init__(self, session: ConsumerSession) -> None:
        self._session = session
        self._by_queue: dict[tuple[Shield, str, str], GetQueue] = {}

    def of(self, terms: Terms, queue: str) -> GetQueue:
        """Return what takes messages out of one queue."""
        key = (*terms, queue)
        if key not in self._by_queue:
            self._by_queue[key] = GetQueue(self._session, terms, queue)
        return self._by_queue[key]


def wait_for_message(
    channel: Any, queue: str, auto_ack: bool = False, timeout_s: float | None = None
) -> tuple[Any, Any, Any]:
    """Return the next message of a queue as `basic_get` does, once there is one that may be had.

    Serves the connection meanwhile: heartbeats, timers, other consumers' callbacks.

    Args:
        channel: a `BlockingChannel`; within the rules where it is shielded.
        queue: its name.
        auto_ack: as `basic_get` takes it.
        timeout_s: how long to wait; None for ever. Then it returns `(None, None, None)`.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    pause_s = EMPTY_FIRST_S
    while True:
        got: tuple[Any, Any, Any] = channel.basic_get(queue, auto_ack)
        left_s = pause_s if deadline is None else deadline - time.monotonic()
        if got[0] is not None or left_s <= 0:
            return got
        channel.connection.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, EMPTY_LONGEST_S)
