"""Deliveries that are decided on together: nobody can tell, but by the time it takes."""

from __future__ import annotations

import time
from typing import Any

import pytest
from pika.exceptions import ChannelClosedByBroker

from shield import Shield
from shield_rabbitmq.consuming.batches import LONGEST
from tests.adapters.shield_rabbitmq.broker import QUEUE
from tests.adapters.shield_rabbitmq.consuming.test_consumer import Worker, bodies, shield_with

MANY = range(100)


def asked(shield: Shield, monkeypatch: Any) -> list[int]:
    """Note how many messages each decision is about, as decisions are made."""
    numbers: list[int] = []

    def noting(name: str) -> None:
        decide = getattr(shield.engine, name)

        def note(delivery: Any, now: float | None = None) -> Any:
            numbers.append(delivery.messages)
            return decide(delivery, now)

        monkeypatch.setattr(shield.engine, name, note)

    noting("receive")
    noting("receive_run")
    return numbers


def test_what_pika_has_read_is_decided_on_together(monkeypatch):
    """And each message is counted as delivered when it is acknowledged."""
    shield = shield_with({"quota": {"rate": "1000000/s"}})
    numbers = asked(shield, monkeypatch)
    worker = Worker("blocking", shield, ack=False)
    worker.broker.publish(*bodies(*MANY))
    worker.run()
    assert worker.got == bodies(*MANY)
    assert (max(numbers), sum(numbers)) == (LONGEST, 100)
    for done, tag in enumerate(worker.tags, 1):
        worker.channel.basic_ack(tag)
        assert worker.counts()["delivered"] == done
    assert worker.counts() == {"offered": 100, "delivered": 100}


def test_each_place_is_free_once_its_message_is_acknowledged():
    """A run holds no more than what of it is unacknowledged."""
    worker = Worker("blocking", shield_with({"in_flight": {"messages": 40}}), ack=False)
    worker.broker.publish(*bodies(*MANY))
    worker.run()
    assert len(worker.got) == 40
    for tag in (3, 17, 35):
        worker.channel.basic_ack(tag)
    worker.run(0.001)
    assert len(worker.got) == 43
    worker.channel.basic_nack(10, multiple=True)
    worker.run(0.001)
    assert len(worker.got) == 52
    assert worker.counts() == {"offered": 53, "delivered": 3, "failed": 9, "in_flight": 41}


def test_a_run_that_is_refused_is_cut(monkeypatch):
    """Down to single messages; and it grows again."""
    shield = shield_with({"quota": {"rate": "1000/s", "burst": 50}})
    numbers = asked(shield, monkeypatch)
    worker = Worker("blocking", shield)
    worker.broker.publish(*bodies(*MANY))
    worker.run()
    assert len(worker.got) == 50
    assert min(numbers) == 1
    numbers.clear()
    worker.run(1.0)
    worker.broker.publish(*bodies(*MANY))
    worker.run(1.0)
    assert worker.got == bodies(*MANY) * 2
    assert max(numbers) > 1
    assert worker.counts() == {"offered": 200, "delivered": 200}


def test_one_that_is_too_old_is_found_among_others():
    """A run is as old as its oldest."""
    worker = Worker("blocking", shield_with({"max_age": "30s", "over_limit": ["drop"]}))
    now = int(time.time())
    for number in range(50):
        worker.broker.publish(b"%d" % number, timestamp=None if number % 3 else now)
    worker.broker.publish(b"old", timestamp=now - 100)
    for number in range(50, 90):
        worker.broker.publish(b"%d" % number, timestamp=now)
    worker.run()
    assert worker.got == bodies(*range(90))
    assert worker.counts() == {"offered": 91, "delivered": 90, "dropped": 1}


class Stops(Worker):
    """Stops, or does something else, with its third message."""

    def __init__(self, shield: Shield, third: Any) -> None:
        self._third = third
        super().__init__("blocking", shield)

    def handle(self, *call: Any) -> None:
        super().handle(*call)
        if len(self.got) == 3:
            self._third(self)


def test_who_stops_within_a_run_was_offered_what_he_was_handed():
    """The rest goes back, and the quota is as if it had never been asked."""
    shield = shield_with({"quota": {"rate": "1/h", "burst": 100}})
    worker = Stops(shield, lambda worker: worker.channel.stop_consuming())
    worker.broker.publish(*bodies(*MANY))
    worker.run()
    assert worker.got == bodies(0, 1, 2)
    assert worker.broker.rejected == [(tag, True) for tag in range(4, 101)]
    assert worker.counts() == {"offered": 3, "delivered": 3}
    again = Worker("blocking", shield)
    again.broker.publish(*bodies(*MANY))
    again.run()
    assert len(again.got) == 97


def test_a_channel_that_closes_within_a_run():
    """What was not handed over was not offered."""
    error = ChannelClosedByBroker(404, "gone")
    worker = Stops(
        shield_with({"in_flight": {"messages": 1000}}),
        lambda worker: worker.broker.lose_channel(error),
    )
    worker.broker.publish(*bodies(*MANY))
    worker.run()
    assert worker.got == bodies(0, 1, 2)
    assert worker.counts() == {"offered": 3, "delivered": 3}
    assert worker.shield.engine.most_unanswered(QUEUE, "worker") == 1000
    assert worker.shield.pressure() == 0.0


def test_a_callback_that_raises_within_a_run():
    """The rest comes with the next events, as pika has it."""

    def fail(worker: Worker) -> None:
        raise ZeroDivisionError

    worker = Stops(shield_with({"quota": {"rate": "1000000/s"}}), fail)
    worker.broker.publish(*bodies(*range(40)))
    with pytest.raises(ZeroDivisionError):
        worker.run()
    worker.broker.publish(b"40")
    worker.run()
    assert worker.got == bodies(*range(41))
    assert worker.counts() == {"offered": 41, "delivered": 41}


def test_what_recovers_within_a_run_is_offered_anew():
    """With what pika had read already, whose tags mean nothing any more."""
    worker = Worker("blocking", shield_with({"in_flight": {"messages": 200}}), ack=False)
    worker.broker.publish(*bodies(*range(40)))
    worker.broker.bring_in()
    worker.run()
    worker.channel.basic_recover(requeue=True)
    worker.run()
    assert worker.got == bodies(*range(40)) * 2
    assert worker.counts() == {"offered": 80, "failed": 40, "in_flight": 40}


@pytest.mark.parametrize("acks", [True, False])
def test_two_consumers_take_turns_in_one_channel(acks):
    """Each has runs of its own; what lies between them is not theirs."""
    worker = Worker("blocking", shield_with({"quota": {"rate": "1000000/s"}}))
    other: list[bytes] = []

    def handle(channel: Any, method: Any, properties: Any, body: bytes) -> None:
        other.append(body)
        if acks:
            channel.basic_ack(method.delivery_tag)

    tag = worker.channel.basic_consume("other", handle)
    consumers = {worker.consumer_tag: False, tag: False}
    for number in range(60):
        worker.broker.consumers = {list(consumers)[number % 2]: False}
        worker.broker.publish(b"%d" % number)
        worker.broker.bring_in()
    worker.broker.consumers = consumers
    worker.run()
    assert worker.got == bodies(*range(0, 60, 2))
    assert other == bodies(*range(1, 60, 2))
    ends = {"delivered": 60} if acks else {"delivered": 30, "in_flight": 30}
    assert worker.counts() == {"offered": 60, **ends}
