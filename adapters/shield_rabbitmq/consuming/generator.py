"""The generator of `BlockingChannel.consume`, under rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from shield.chain.deferred import LOOK_EVERY_S
from shield_rabbitmq.client import internals
from shield_rabbitmq.consuming.delivery import BrokerDelivery
from shield_rabbitmq.consuming.queue import DeliveryQueue
from shield_rabbitmq.consuming.session import ConsumerSession, Item, Terms

NOTHING: Item = (None, None, None)


class GeneratorQueue(DeliveryQueue):
    """What a channel's generator has drawn from pika's and not yielded: mostly one message.

    Where a rule bounds how long they may wait it is all that pika has read.

    It outlives the generator, as pika's consumer does: the next one with the same arguments goes
    on with it.
    """

    def __init__(
        self, session: ConsumerSession, terms: Terms, queue: str, auto_ack: bool, exclusive: object
    ) -> None:
        super().__init__(session, terms, queue, bool(auto_ack))
        self.arguments = (queue, auto_ack, exclusive)
        self._covered = self.shield.engine.receives(queue, self.consumer)

    def generate(self, source: Iterator[Item], quiet_s: float | None) -> Iterator[Item]:
        """Yield what the rules admit of what pika yields; nothing, after so long without any."""
        channel = self.session.channel
        asked_s = self.shield.clock.now()
        while self.session.generator_queue is self:
            while self.standing is not None and channel.get_waiting_message_count():
                self._draw(source)
            ready = self.ready()
            if isinstance(ready, tuple):
                yield from self._hand_over(*ready)
                asked_s = self.shield.clock.now()
                continue
            if ready is None and not (self.diverting and not channel.get_waiting_message_count()):
                item = self._draw(source)
                if item is None:
                    return
                if item[0] is None or not self._covered:
                    yield item
                    asked_s = self.shield.clock.now()
                continue
            wait_s = LOOK_EVERY_S if ready is None else ready
            left_s = wait_s if quiet_s is None else asked_s + quiet_s - self.shield.clock.now()
            internals.process_events(channel, max(0.0, min(wait_s, left_s)))
            if quiet_s is not None and self.shield.clock.now() >= asked_s + quiet_s:
                yield NOTHING
                asked_s = self.shield.clock.now()

    def _draw(self, source: Iterator[Item]) -> Item | None:
        """Take the next from pika; None where its consumer is no more."""
        try:
            item = next(source, None)
        except BaseException:
            self.session.generator_queue = None
            raise
        if item is None:
            self.session.generator_queue = None
        elif item[0] is not None:
            if self._covered:
                self.put(BrokerDelivery(*item))
            elif not self.auto_ack:
                self.session.tags.handed[item[0].delivery_tag] = None
        return item

    def _hand_over(self, permit: Any, broker_delivery: BrokerDelivery) -> Iterator[Item]:
        """Yield a message; one that needs no acknowledgement is done when the next is asked for."""
        item = broker_delivery.method, broker_delivery.properties, broker_delivery.body
        if not self.auto_ack:
            self.session.tags.handed[broker_delivery.method.delivery_tag] = permit
            yield item
            return
        try:
            yield item
        finally:
            permit.delivered()


def generate(
    session: ConsumerSession,
    source: Iterator[Item],
    begin: Callable[[], GeneratorQueue],
    quiet_s: float | None,
) -> Iterator[Item]:
    """Yield messages to the user, with the arguments that `begin` was made for."""
    new = begin()
    generator_queue = session.generator_queue
    if generator_queue is None:
        generator_queue = session.generator_queue = new
    assert isinstance(generator_queue, GeneratorQueue)
    if generator_queue.arguments != new.arguments:
        yield from source  # pika refuses
        return
    yield from generator_queue.generate(source, quiet_s)
