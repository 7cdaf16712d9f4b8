"""The consuming half of pika's channels, shielded: what they receive is within quotas."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pika.exceptions import DuplicateGetOkCallback

from shield import Outcome, Shield
from shield_rabbitmq.client import internals
from shield_rabbitmq.consuming.generator import GeneratorQueue, generate
from shield_rabbitmq.consuming.get import GetQueues
from shield_rabbitmq.consuming.prefetch import prefetch_for
from shield_rabbitmq.consuming.queue import Consumer, Handed
from shield_rabbitmq.consuming.session import ConsumerSession, SessionQueue, Terms

DIVERTED_WITHIN_S = 5.0
"""How long a channel that is closed waits for what it has diverted."""


def _diverts(shield: Shield) -> bool:
    """Tell whether a message that is received may go elsewhere: it is to go as it came."""
    received = (rule for rule in shield.rules if rule.direction == "consume")
    return any(action.sets_aside for rule in received for action in rule.chain)


class Consuming:
    """What both kinds of channel share. Without a rule for consuming all of it is pika's."""

    _shield_session: ConsumerSession | None = None
    _shield_gets: GetQueues
    """What `basic_get` takes messages out of, once there is a session."""
    _shield_user_prefetch: int | None = None
    """The user's own prefetch for new consumers; None where it may have been set before."""
    _shield_prefetch: int | None = None
    """What new consumers would get now."""

    def _shield_opened(self) -> None:
        """Note that the channel is new: nobody has set a prefetch yet."""
        self._shield_user_prefetch = self._shield_prefetch = 0

    def basic_consume(
        self, queue: Any, on_message_callback: Any, auto_ack: Any = False, *more: Any, **named: Any
    ) -> Any:
        """Consume as pika's channel does; the callback is handed what the rules admit."""
        state = self._shield_state  # type: ignore[attr-defined]
        consume = state.consumes or super().basic_consume  # type: ignore[misc]
        session = self._shield_open_session()
        if session is None or not callable(on_message_callback) or not isinstance(queue, str):
            return consume(queue, on_message_callback, auto_ack, *more, **named)
        shield, name = terms = state.terms
        self._shield_push(terms, queue, auto_ack)
        if not shield.engine.receives(queue, name):
            callback = session.passed_on(on_message_callback, bool(auto_ack))
            return consume(queue, callback, auto_ack, *more, **named)
        consumer = Consumer(session, terms, queue, bool(auto_ack), on_message_callback)
        tag = consume(queue, consumer.arrived, auto_ack, *more, **named)
        session.by_tag[tag] = consumer
        return tag

    def _shield_open_session(self) -> ConsumerSession | None:
        """Return what keeps this channel's deliveries; None where no rule is about any."""
        state = self._shield_state  # type: ignore[attr-defined]
        if self._shield_session is None and state.acts and state.shield.engine.receives(None, ""):
            self._shield_session = session = ConsumerSession(
                self, self._shield_beneath(), lambda: self._shield_prefetch
            )
            self._shield_gets = GetQueues(session)
            internals.write_acks_readily(self.connection)  # type: ignore[attr-defined]
            if _diverts(state.shield):
                internals.keep_encoded(self.connection)  # type: ignore[attr-defined]
        return self._shield_session

    def _shield_beneath(self) -> Any:
        return super()

    def _shield_push(self, terms: Terms, queue: str, auto_ack: object) -> None:
        """Let the broker push so much to the next consumer, where its user's own wish is known.

        It pushes without asking what needs no acknowledgement.
        """
        user = self._shield_user_prefetch
        if user is None:
            return
        wanted = user if auto_ack else prefetch_for(*terms, queue, user)
        if wanted != self._shield_prefetch:
            super().basic_qos(prefetch_count=wanted)  # type: ignore[misc]
            self._shield_prefetch = wanted

    def basic_qos(
        self,
        prefetch_size: Any = 0,
        prefetch_count: Any = 0,
        global_qos: Any = False,
        *more: Any,
        **named: Any,
    ) -> Any:
        """Set the prefetch as pika's channel does; consumers under rules get no more than that."""
        result = super().basic_qos(prefetch_size, prefetch_count, global_qos, *more, **named)  # type: ignore[misc]
        if not global_qos:
            self._shield_user_prefetch = self._shield_prefetch = prefetch_count
        return result

    # --- acknowledgements -------------------------------------------------------------------------

    def basic_ack(self, delivery_tag: Any = 0, multiple: Any = False) -> Any:
        """Acknowledge as pika's channel does; `multiple` means what was handed over, as ever."""
        session = self._shield_session
        ack = super().basic_ack  # type: ignore[misc]
        if session is None:
            return ack(delivery_tag, multiple)
        if multiple:
            return self._shield_answer(session, ack, delivery_tag, Outcome.DELIVERED)
        result = ack(delivery_tag, multiple)
        permit = session.tags.handed.pop(delivery_tag, None)  # as `settled`, for most messages
        if permit is not None:
            permit.delivered()
        if session.queues:
            session.freed()
        return result

    def basic_nack(self, delivery_tag: Any = 0, multiple: Any = False, requeue: Any = True) -> Any:
        """Refuse as pika's channel does; `multiple` means what was handed over, as ever."""
        session = self._shield_session
        nack = super().basic_nack  # type: ignore[misc]
        if session is None:
            return nack(delivery_tag, multiple, requeue)
        if multiple:

            def refuse(tag: int, upto: bool) -> Any:
                return nack(tag, upto, requeue)

            return self._shield_answer(session, refuse, delivery_tag, Outcome.FAILED)
        result = nack(delivery_tag, multiple, requeue)
        session.settled([delivery_tag], Outcome.FAILED)
        return result

    def basic_reject(self, delivery_tag: Any = 0, requeue: Any = True) -> Any:
        """Refuse as pika's channel does."""
        result = super().basic_reject(delivery_tag, requeue)  # type: ignore[misc]
        if self._shield_session is not None:
            self._shield_session.settled([delivery_tag], Outcome.FAILED)
        return result

    def basic_recover(self, requeue: Any = False, *more: Any, **named: Any) -> Any:
        """Ask for all that is not acknowledged once more, as pika's channel does."""
        if self._shield_session is not None:
            self._shield_session.recovered()
        return super().basic_recover(requeue, *more, **named)  # type: ignore[misc]

    def _shield_answer(
        self,
        session: ConsumerSession,
        answer: Callable[[int, bool], Any],
        tag: int,
        outcome: Outcome,
    ) -> Any:
        """Say it of all that was handed over up to that tag, and of nothing else."""
        tags = session.tags.up_to(tag)
        pieces = session.pieces(tag)
        result = None
        for each, upto in [(tag, True)] if pieces is None else pieces:
            result = answer(each, upto)
        session.settled(tags, outcome)
        return result


class ConsumingChannel(Consuming):
    """On the `Channel` of an event loop."""

    _shield_closes = False
    """Whether it is to be closed once what it has diverted is there."""

    def close(self, *arguments: Any, **named: Any) -> None:
        """Close as pika's channel does, once what is on its way elsewhere is acknowledged.

        It returns at once, and hands nothing over any more. Until the loop has heard of the
        confirms, five seconds at the most, it is open yet, and so is its connection. A broker that
        does not confirm it in time has it twice: there, and in its queue.
        """
        session = self._shield_session
        if session is None or not self.is_open or session.nothing_diverting():  # type: ignore[attr-defined]
            super().close(*arguments, **named)  # type: ignore[misc]
            return
        if self._shield_closes:
            return
        self._shield_closes = True
        for consumer_tag in self.consumer_tags:  # type: ignore[attr-defined]
            self.basic_cancel(consumer_tag)
        end = partial(self._shield_close_now, *arguments, **named)
        session.once_nothing_diverting(end)
        internals.call_later(self.connection, DIVERTED_WITHIN_S, end)  # type: ignore[attr-defined]

    def _shield_close_now(self, *arguments: Any, **named: Any) -> None:
        if self.is_open:  # type: ignore[attr-defined]
            super().close(*arguments, **named)  # type: ignore[misc]

    def basic_cancel(self, consumer_tag: Any = "", *more: Any, **named: Any) -> Any:
        """Cancel as pika's channel does; what is held back goes to the broker again."""
        consumer = _cancelled(self, consumer_tag)
        result = super().basic_cancel(consumer_tag, *more, **named)  # type: ignore[misc]
        if consumer is not None:
            consumer.hand_back()
        return result

    def basic_get(self, queue: Any, callback: Any, auto_ack: Any = False) -> Any:
        """Ask for a message as pika's channel does; over the limit it is as if there were none."""
        get = super().basic_get  # type: ignore[misc]
        session = self._shield_open_session()
        if session is None or not callable(callback) or not isinstance(queue, str):
            return get(queue, callback, auto_ack)
        shield, name = terms = self._shield_state.terms  # type: ignore[attr-defined]
        if not shield.engine.receives(queue, name):
            return get(queue, session.passed_on(callback, bool(auto_ack)), auto_ack)
        gets = self._shield_gets.of(terms, queue)
        if session.asks_later:
            raise DuplicateGetOkCallback

        def seen_to(handed: Handed | None) -> None:
            if handed is None:
                ask()
            else:
                callback(self, *gets.hand_over(*handed, auto_ack))

        def ask() -> None:
            if gets.may_ask():
                get(queue, lambda _channel, *item: seen_to(gets.take(item)), False)
            else:
                internals.call_later(self.connection, 0, partial(internals.say_empty, self))  # type: ignore[attr-defined]

        def look() -> None:
            session.asks_later = False
            if session.open:
                seen_to(gets.next())

        if len(gets):  # what is here may be handed over, but not inside of this call
            session.asks_later = True
            internals.call_later(self.connection, 0, look)  # type: ignore[attr-defined]
            return None
        ask()
        return None


class BlockingConsuming(Consuming):
    """On a `BlockingChannel`."""

    def _shield_beneath(self) -> Any:
        return internals.channel_beneath(self)

    def basic_cancel(self, consumer_tag: Any) -> Any:
        """Cancel as pika's channel does; what is held back goes to the broker again.

        Or to the caller, with what pika returns, where it needs no acknowledgement.
        """
        consumer = _cancelled(self, consumer_tag)
        if consumer is None:
            return super().basic_cancel(consumer_tag)  # type: ignore[misc]
        try:
            pending = super().basic_cancel(consumer_tag)  # type: ignore[misc]
        finally:
            held = consumer.take_all() if consumer.auto_ack else []
            self._shield_hand_back(consumer)
        return [*held, *pending] if held else pending

    def close(self, *arguments: Any, **named: Any) -> Any:
        """Close as pika's channel does, once what is on its way elsewhere is acknowledged.

        A broker that does not confirm it in time has it twice: there, and in its queue.
        """
        session = self._shield_session
        if session is not None and self.is_open and not session.nothing_diverting():  # type: ignore[attr-defined]
            internals.wait_until(self, session.nothing_diverting, DIVERTED_WITHIN_S)
        return super().close(*arguments, **named)  # type: ignore[misc]

    def consume(
        self,
        queue: Any,
        auto_ack: Any = False,
        exclusive: Any = False,
        arguments: Any = None,
        inactivity_timeout: Any = None,
        consumer_tag: Any = None,
    ) -> Any:
        """Yield messages as pika's channel does, those that the rules admit."""
        source = super().consume(  # type: ignore[misc]
            queue, auto_ack, exclusive, arguments, inactivity_timeout, consumer_tag
        )
        session = self._shield_open_session()
        if session is None or not isinstance(queue, str):
            return source
        terms = self._shield_state.terms  # type: ignore[attr-defined]

        def begin() -> GeneratorQueue:
            if session.generator_queue is None:
                self._shield_push(terms, queue, auto_ack)
            return GeneratorQueue(session, terms, queue, auto_ack, exclusive)

        return generate(session, source, begin, inactivity_timeout)

    def cancel(self) -> Any:
        """Cancel the consumer of `consume`, as pika's channel does."""
        session = self._shield_session
        generator_queue = None if session is None else session.generator_queue
        try:
            return super().cancel()  # type: ignore[misc]
        finally:
            if session is not None and generator_queue is not None:
                generator_queue.ended, session.generator_queue = True, None
                self._shield_hand_back(generator_queue)

    def _shield_hand_back(self, each: SessionQueue) -> None:
        held = len(each)
        each.hand_back()
        if held and self.is_open:  # type: ignore[attr-defined]
            internals.flush(self)

    def basic_get(self, queue: Any, auto_ack: Any = False) -> Any:
        """Take a message out of a queue as pika's channel does; none while that is over the limit.

        Under a rule it is acknowledged here where `auto_ack` says so, once it is admitted.
        """
        get = super().basic_get  # type: ignore[misc]
        session = self._shield_open_session()
        if session is None or not isinstance(queue, str):
            return get(queue, auto_ack)
        shield, name = terms = self._shield_state.terms  # type: ignore[attr-defined]
        if not shield.engine.receives(queue, name):
            return session.got(get(queue, auto_ack), auto_ack)
        gets = self._shield_gets.of(terms, queue)
        handed = gets.next()
        while handed is None and gets.may_ask():
            item = get(queue, False)
            if item[0] is None:
                return item
            handed = gets.take(item)
        if handed is not None:
            return gets.hand_over(*handed, auto_ack)
        internals.serve(self)
        return None, None, None


def opened(channel: Consuming) -> None:
    """Note that a channel is new: nobody has set a prefetch yet."""
    channel._shield_opened()


def _cancelled(channel: Any, consumer_tag: Any) -> Any:
    """Take a consumer out of those that are asked for; None where no rule is about it."""
    session = channel._shield_session
    consumer = None if session is None else session.by_tag.pop(consumer_tag, None)
    if consumer is not None:
        consumer.ended = True
    return consumer
