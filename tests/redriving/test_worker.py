"""Redriving: from a source, through the rules, to where messages belong; each at least once."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield import End, Envelope, Source, Taken, Transport
from shield.clock import SystemClock
from shield.redriving.worker import Redriver, key_on_any, key_on_kafka
from tests.making import counts, shield_with

WIDE = {"name": "wide", "match": "*", "in_flight": {"messages": 1000}}


class ListSource(Source):
    """Messages in memory; those that failed come again in their old order."""

    def __init__(self, envelopes):
        self.queue = deque(Taken(envelope, n) for n, envelope in enumerate(envelopes))
        self.forgotten = []

    def take(self, most, timeout_s):
        return [self.queue.popleft() for _ in range(min(most, len(self.queue)))]

    def forget(self, taken):
        self.forgotten.append(taken.position)

    def failed(self, taken):
        self.queue.append(taken)
        self.queue = deque(sorted(self.queue, key=lambda each: each.position))

    def left(self):
        return len(self.queue)

    def close(self):
        """Nothing to do."""


class FlakyTransport(Transport):
    """Answers at once; fails as its random numbers say."""

    scheme = "flaky"

    def __init__(self, chance=0.0, seed=0):
        self.random = random.Random(seed)
        self.chance = chance
        self.arrived = []

    def send(self, envelope, done):
        if self.random.random() < self.chance:
            done(TimeoutError("flaky"))
        else:
            self.arrived.append(envelope)
            done(None)

    def close(self, timeout_s):
        """Nothing to do."""


class HeldTransport(FlakyTransport):
    """Answers when it is told to."""

    def __init__(self):
        super().__init__()
        self.held = deque()

    def send(self, envelope, done):
        self.held.append((envelope, done))

    def answer(self, error=None):
        envelope, done = self.held.popleft()
        if error is None:
            self.arrived.append(envelope)
        done(error)


def envelopes(*keys):
    return [Envelope("orders", b"%d" % n, "kafka", key) for n, key in enumerate(keys)]


def redriver(shield, source, transport, **more):
    for _ in source.queue:
        shield.engine.found(source.queue[0].envelope.message(), End.SPOOLED)
    offer = partial(shield.engine.readmit, where=End.SPOOLED)
    more = {"failed_as": End.SPOOLED, "clock": shield.clock, **more}
    return Redriver(source, transport, offer, **more)


@given(
    keys=st.lists(st.sampled_from([None, b"a", b"b", b"c"]), max_size=30),
    chance=st.sampled_from([0.0, 0.3, 0.7]),
    seed=st.integers(0, 1000),
)
def test_each_message_arrives_and_each_key_in_order(keys, chance, seed):
    """Whatever fails, in the end all are there, none twice, and no key goes backwards."""
    shield, source = shield_with(WIDE), ListSource(envelopes(*keys))
    transport = FlakyTransport(chance, seed)
    redriver(shield, source, transport).run(ended=lambda: not source.queue)
    assert sorted(e.body for e in transport.arrived) == sorted(b"%d" % n for n in range(len(keys)))
    assert sorted(source.forgotten) == list(range(len(keys)))
    for key in (b"a", b"b", b"c"):
        order = [int(e.body) for e in transport.arrived if e.key == key]
        assert order == sorted(order)
    expected = {"offered": len(keys), "delivered": len(keys)} if keys else {}
    assert counts(shield.ledger()) == expected


def test_of_one_key_one_message_is_under_way():
    """The second is sent when the first is answered; those without a key do not wait."""
    shield, source = shield_with(WIDE), ListSource(envelopes(b"a", b"a", None))
    transport = HeldTransport()
    driver = redriver(shield, source, transport)
    driver.step()
    assert [envelope.body for envelope, _ in transport.held] == [b"0", b"2"]
    transport.answer()
    driver.step()
    assert [envelope.body for envelope, _ in transport.held] == [b"2", b"1"]


def test_a_failure_sends_back_all_that_wait_behind_it():
    """They come again from the source, in their order."""
    shield, source = shield_with(WIDE), ListSource(envelopes(b"a", b"a"))
    transport = HeldTransport()
    driver = redriver(shield, source, transport)
    driver.step()
    transport.answer(TimeoutError("no"))
    driver.settle()
    assert [taken.position for taken in source.queue] == [0, 1]
    assert counts(shield.ledger()) == {"offered": 2, "spooled": 2}
    assert driver.progress.failed == 1


class SlowTransport(FlakyTransport):
    """Answers each on a thread of its own, a moment later."""

    def send(self, envelope, done):
        threading.Timer(0.005, super().send, (envelope, done)).start()


class IdleSource(ListSource):
    """Waits for messages as a broker's source does, where it has none."""

    def take(self, most, timeout_s):
        if not self.queue:
            time.sleep(timeout_s)
        return super().take(most, timeout_s)


def test_a_run_is_not_over_while_a_key_has_messages_that_wait_for_another():
    """Nor does the source's own waiting hold them up: an answer lets the next one go at once."""
    shield = shield_with(WIDE)
    shield.engine.clock = SystemClock()
    source = IdleSource([Envelope("orders", b"%d" % n, "kafka", b"key") for n in range(40)])
    transport = SlowTransport()
    began = time.monotonic()
    Redriver(source, transport, shield.admit).run(ended=lambda: source.left() == 0)
    assert time.monotonic() - began < 7  # 40 answers; a fifth of a second for each would be 8
    assert [envelope.body for envelope in transport.arrived] == [b"%d" % n for n in range(40)]
    assert sorted(source.forgotten) == list(range(40))


def test_a_window_that_is_full_of_one_key_goes_on():
    """Those that wait for another of their key count as its own, and are sent all the same."""
    shield = shield_with(WIDE)
    source = ListSource([Envelope("orders", b"%d" % n, "kafka", b"key") for n in range(10)])
    transport = HeldTransport()
    driver = Redriver(source, transport, shield.admit, window=3, clock=shield.clock)
    for _ in range(10):
        while not transport.held:
            driver.step()
        transport.answer()
    assert [envelope.body for envelope in transport.arrived] == [b"%d" % n for n in range(10)]


def test_it_does_not_end_between_an_answer_and_the_next_of_its_key():
    """The answer to the first comes while it looks for more; the second is still to be sent."""
    shield, source = shield_with(WIDE), ListSource(envelopes(b"a", b"a"))
    transport = HeldTransport()
    take = source.take

    def take_and_answer(most, timeout_s):
        found = take(most, timeout_s)
        if not found and transport.held:
            transport.answer()
        return found

    source.take = take_and_answer
    redriver(shield, source, transport).run(ended=lambda: not source.queue)
    assert source.forgotten == [0, 1]


def test_a_transport_that_raises_has_failed_to_send():
    """Against its promise; the message stays where it is, and the rest goes on."""

    class Raising(FlakyTransport):
        def send(self, envelope, done):
            if not self.arrived:
                self.arrived.append(None)
                raise RuntimeError("against its promise")
            super().send(envelope, done)

    shield, source = shield_with(WIDE), ListSource(envelopes(None, None))
    transport = Raising()
    redriver(shield, source, transport).run(ended=lambda: not source.queue)
    assert {envelope.body for envelope in transport.arrived[1:]} == {b"0", b"1"}
    assert counts(shield.ledger()) == {"offered": 2, "delivered": 2}


def test_what_is_given_up_is_not_tried_again():
    """It stays, counted where it was, and holds up no other."""
    shield, source = shield_with(WIDE), ListSource(envelopes(None, None))
    transport, given_up = HeldTransport(), []
    source.give_up = given_up.append
    driver = redriver(shield, source, transport, gives_up=lambda taken, error: True)
    driver.step()
    transport.answer(ValueError("never"))
    transport.answer()
    driver.run(ended=lambda: True)
    assert [taken.position for taken in given_up] == [0]
    assert counts(shield.ledger()) == {"offered": 2, "delivered": 1, "spooled": 1}


def test_what_waits_its_turn_when_it_is_stopped_stays_in_its_source():
    """Also where the one before it arrives after that."""
    shield, source = shield_with(WIDE), ListSource(envelopes(b"a", b"a", b"a"))
    transport = HeldTransport()
    driver = redriver(shield, source, transport)
    driver.step()
    driver.stop()
    transport.answer()
    driver.run()
    assert [taken.position for taken in source.queue] == [1, 2]


def test_the_window_bounds_what_is_unanswered():
    """No more is taken than may be sent."""
    shield, source = shield_with(WIDE), ListSource(envelopes(*[None] * 10))
    driver = redriver(shield, source, HeldTransport(), window=3)
    driver.step()
    assert driver.unanswered == 3
    assert len(source.queue) == 7


def test_the_rate_is_kept():
    """Ten messages at two a second take four and a half seconds."""
    shield, source = shield_with(WIDE), ListSource(envelopes(*[None] * 10))
    before = shield.clock.now()
    redriver(shield, source, FlakyTransport(), rate=2.0).run(ended=lambda: not source.queue)
    assert shield.clock.now() - before == pytest.approx(4.5, abs=0.01)


def test_the_rules_pace_it():
    """A quota of ten a second lets twenty through in a second, its burst first."""
    quota = {"match": "*", "quota": {"rate": "10/s", "burst": 10}}
    shield, source = shield_with(quota), ListSource(envelopes(*[None] * 20))
    before = shield.clock.now()
    redriver(shield, source, FlakyTransport()).run(ended=lambda: not source.queue)
    assert shield.clock.now() - before == pytest.approx(1.0, abs=0.01)


def test_what_is_stopped_stays_in_its_source():
    """A message that waits for admission when it is stopped is still spooled."""
    never = {"match": "*", "quota": {"rate": "1/d", "burst": 1}}
    shield, source = shield_with(never), ListSource(envelopes(None, None, b"a", b"a"))
    transport = FlakyTransport()
    driver = redriver(shield, source, transport)
    wait = shield.clock.wait
    shield.clock.wait = lambda event, timeout_s: (driver.stop(), wait(event, 0.0))[1]
    driver.run()
    assert len(transport.arrived) == 1
    assert [taken.position for taken in source.queue] == [1, 2, 3]
    assert counts(shield.ledger()) == {"offered": 4, "delivered": 1, "spooled": 3}


def test_what_keeps_order_is_the_key_or_what_routes():
    """Kafka's key on its topic; on RabbitMQ exchange and routing key, where order is asked for."""
    kafka, rabbit = Envelope("t", b"", "kafka", b"k"), Envelope("e/r", b"", "amqp", routing_key="r")
    assert key_on_kafka(kafka) == key_on_any(kafka) == ("t", b"k")
    assert key_on_kafka(rabbit) is None
    assert key_on_any(rabbit) == "e/r"
