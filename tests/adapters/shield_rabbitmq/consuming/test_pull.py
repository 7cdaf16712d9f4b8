"""Messages that a caller asks for, `consume` and `basic_get`, within rules."""

from __future__ import annotations

import time
from typing import Any

import pytest
from pika import spec
from pika.exceptions import ChannelClosedByBroker, DuplicateGetOkCallback, StreamLostError

from shield import Shield
from shield_rabbitmq import wait_for_message
from tests.adapters.shield_rabbitmq.broker import QUEUE, Broker, shielded_channel
from tests.adapters.shield_rabbitmq.consuming.test_consumer import (
    QUOTA,
    Memories,
    bodies,
    shield_with,
)
from tests.contracts.adapter import counts

NOTHING = (None, None, None)
OLD = {"timestamp": 1}


class Puller:
    """A blocking channel on a broker with so many messages."""

    def __init__(self, shield: Shield, messages: int = 5, **properties: Any) -> None:
        self.shield = shield
        self.broker = Broker(shield.clock)
        self.channel = shielded_channel("blocking", self.broker, shield)
        self.broker.publish(*bodies(*range(messages)), **properties)

    def counts(self) -> dict[str, int]:
        return counts(self.shield)

    def draw(self, most: int, **consume: Any) -> list[Any]:
        """Return so many items of `consume`; each is acknowledged."""
        got: list[Any] = []
        for method, _, body in self.channel.consume(QUEUE, **consume):
            got.append(body)
            if method is not None and not consume.get("auto_ack"):
                self.channel.basic_ack(method.delivery_tag)
            if len(got) == most:
                break
        return got


# --- consume() ------------------------------------------------------------------------------------


def test_the_generator_yields_what_the_rules_admit():
    """In order, and while it waits the connection is served: time passes in its loop."""
    puller = Puller(shield_with({"quota": QUOTA}))
    before = puller.shield.clock.now()
    assert puller.draw(5) == bodies(*range(5))
    assert puller.shield.clock.now() - before == pytest.approx(0.3, abs=0.05)
    assert puller.broker.acked == [1, 2, 3, 4, 5]
    assert puller.counts() == {"offered": 5, "delivered": 5}


def test_inactivity_is_yielded_also_while_a_message_is_held_back():
    """After as long as was asked for, and what is held back comes when it may."""
    puller = Puller(shield_with({"quota": {"rate": "1/s", "burst": 1}}), 2)
    got = puller.draw(5, inactivity_timeout=0.4)
    assert got == [b"0", None, None, b"1", None]


def test_the_next_generator_goes_on_with_what_the_last_one_held():
    """As pika's consumer, which stays until it is cancelled."""
    puller = Puller(shield_with({"quota": {"rate": "1/s", "burst": 1}}), 3)
    assert puller.draw(2, inactivity_timeout=0.1) == [b"0", None]
    assert puller.draw(1) == [b"1"]
    with pytest.raises(ValueError, match="different params"):
        puller.draw(1, auto_ack=True)
    assert puller.draw(1) == [b"2"]


def test_a_cancelled_generator_gives_back_what_it_holds():
    """With what pika holds; a generator that is asked again ends."""
    puller = Puller(shield_with({"quota": {"rate": "1/h", "burst": 1}}), 4)
    items = puller.channel.consume(QUEUE, inactivity_timeout=0.1)
    method, _, _ = next(items)
    assert next(items) == NOTHING
    assert puller.channel.cancel() == 0
    assert list(items) == []
    assert sorted(puller.broker.rejected) == [(2, True), (3, True), (4, True)]
    puller.channel.basic_ack(method.delivery_tag)
    assert puller.counts() == {"offered": 2, "delivered": 1, "failed": 1}


def test_all_up_to_here_does_not_mean_what_pika_keeps_for_the_generator():
    """A callback's message may have a higher tag than those that nobody has asked for yet."""
    puller = Puller(shield_with({"match": "other", "quota": QUOTA}), 3)
    items = puller.channel.consume(QUEUE)
    next(items)
    puller.broker.consumers.clear()
    seen: list[int] = []
    puller.channel.basic_consume("q", lambda c, m, p, b: seen.append(m.delivery_tag))
    puller.broker.publish(b"3")
    puller.channel.connection.process_data_events(0)
    assert seen == [4]
    puller.channel.basic_ack(4, multiple=True)
    assert puller.broker.acked == [1, 4]


def test_what_needs_no_acknowledgement_is_done_when_the_next_is_asked_for():
    """And when nobody asks any more."""
    puller = Puller(shield_with({"in_flight": {"messages": 1}}), 3)
    items = puller.channel.consume(QUEUE, auto_ack=True)
    assert next(items)[2] == b"0"
    assert puller.counts() == {"offered": 1, "in_flight": 1}
    assert next(items)[2] == b"1"
    assert puller.counts() == {"offered": 2, "delivered": 1, "in_flight": 1}
    items.close()
    assert puller.counts() == {"offered": 2, "delivered": 2}


def test_the_generator_waits_for_what_it_has_diverted_and_for_new_messages():
    """One that cannot be sent elsewhere comes back to it."""
    plugin = Memories()
    rule = {"max_age": "30s", "over_limit": ["overflow memory://there/late", "drop"]}
    puller = Puller(shield_with(rule, plugins=[plugin]), 2, **OLD)
    items = puller.channel.consume(QUEUE, inactivity_timeout=0.5)
    assert next(items) == NOTHING
    (_, first), (_, second) = plugin.memory.sent
    first(None)
    second(OSError("not there"))
    puller.broker.publish(b"new")
    assert next(items)[2] == b"new"
    assert puller.broker.acked == [1, 2]
    assert puller.counts() == {"offered": 3, "overflowed": 1, "dropped": 1, "in_flight": 1}


def test_a_generator_whose_channel_is_closed_raises_as_pikas():
    """Also while it holds a message back; that is counted as failed."""
    puller = Puller(shield_with({"quota": {"rate": "1/h", "burst": 1}}), 2)
    items = puller.channel.consume(QUEUE)
    next(items)
    error = ChannelClosedByBroker(404, "gone")
    puller.broker._adapter_call_later(1.0, lambda: puller.broker.lose_channel(error))
    with pytest.raises(ChannelClosedByBroker):
        next(items)
    assert puller.counts() == {"offered": 2, "failed": 2}


# --- basic_get ------------------------------------------------------------------------------------


def test_over_the_limit_nothing_is_taken():
    """The broker is not even asked, so that others may have the message."""
    puller = Puller(shield_with({"quota": QUOTA}))
    got = [puller.channel.basic_get(QUEUE) for _ in range(3)]
    assert [body for _, _, body in got] == [b"0", b"1", None]
    assert len([m for m in puller.broker.sent if isinstance(m, spec.Basic.Get)]) == 2
    assert puller.counts() == {"offered": 2, "in_flight": 2}
    puller.channel.basic_ack(got[1][0].delivery_tag, multiple=True)
    assert puller.counts() == {"offered": 2, "delivered": 2}
    puller.shield.clock.advance(0.1)
    assert puller.channel.basic_get(QUEUE)[2] == b"2"


def test_an_empty_queue_is_not_counted():
    """Nothing was offered."""
    puller = Puller(shield_with({"quota": QUOTA}), 0)
    for _ in range(5):
        assert puller.channel.basic_get(QUEUE) == NOTHING
    assert puller.counts() == {}


def test_without_acknowledgement_it_is_acknowledged_once_it_is_admitted():
    """So that what is not admitted can go back."""
    puller = Puller(shield_with({"quota": {"rate": "100B/s", "burst": 100}}), 0)
    puller.broker.publish(bytes(80), bytes(80))
    assert puller.channel.basic_get(QUEUE, auto_ack=True)[2] == bytes(80)
    assert puller.broker.acked == [1]
    assert puller.channel.basic_get(QUEUE, auto_ack=True) == NOTHING
    assert puller.broker.acked == [1]
    assert puller.counts() == {"offered": 2, "delivered": 1, "in_flight": 1}


def test_a_message_that_is_refused_once_it_is_known_is_kept_until_it_may_be_handed_over():
    """A queue that counts its redeliveries is never given it back; its next is not taken either."""
    puller = Puller(shield_with({"quota": {"rate": "100B/s", "burst": 100}}), 0)
    puller.broker.publish(bytes(80), bytes(81), bytes(20))
    puller.channel.basic_get(QUEUE)
    for _ in range(5):
        assert puller.channel.basic_get(QUEUE) == NOTHING
    puller.shield.clock.advance(0.61)
    assert puller.channel.basic_get(QUEUE)[2] == bytes(81)
    assert puller.channel.basic_get(QUEUE) == NOTHING
    assert puller.broker.rejected == []
    assert puller.counts() == {"offered": 2, "in_flight": 2}


def test_a_channel_that_closes_gives_back_what_was_refused_once_it_was_known():
    """So that others can have it."""
    puller = Puller(shield_with({"quota": {"rate": "100B/s", "burst": 100}}), 0)
    puller.broker.publish(bytes(80), bytes(80))
    puller.channel.basic_get(QUEUE, auto_ack=True)
    assert puller.channel.basic_get(QUEUE) == NOTHING
    puller.channel.close()
    assert puller.counts() == {"offered": 2, "delivered": 1, "failed": 1}


def test_stale_ones_are_passed_over():
    """Dropped and acknowledged, then the next is taken."""
    puller = Puller(shield_with({"max_age": "30s", "over_limit": ["drop"]}), 3, **OLD)
    puller.broker.publish(b"new", timestamp=int(time.time()))
    assert puller.channel.basic_get(QUEUE)[2] == b"new"
    assert puller.broker.acked == [1, 2, 3]
    assert puller.counts() == {"offered": 4, "dropped": 3, "in_flight": 1}


def with_faults() -> Memories:
    """Contributes a transport to which a message that fails with ValueError is at fault itself."""
    plugin = Memories()
    plugin.memory.is_hopeless = lambda error: isinstance(error, ValueError)  # type: ignore[method-assign]
    return plugin


class TestKept:
    """What `basic_get` was to send elsewhere, and could not, is neither lost nor in the way."""

    def puller(self, *more: str, messages: int = 1) -> Puller:
        self.plugin = with_faults()
        chain = ["overflow memory://there/late", *more]
        shield = shield_with({"max_age": "30s", "over_limit": chain}, plugins=[self.plugin])
        return Puller(shield, messages, **OLD)

    def fail(self, puller: Puller, error: Exception) -> None:
        """Let all that was sent, and has no answer, fail."""
        sent, self.plugin.memory.sent[:] = list(self.plugin.memory.sent), []
        for _, answer in sent:
            answer(error)
        puller.channel.connection.process_data_events(0)

    def pass_time(self, puller: Puller, seconds: float) -> None:
        puller.broker.run(seconds)
        puller.channel.connection.process_data_events(0)

    def test_it_is_tried_again_and_those_behind_it_come(self):
        """Its queue is given none of it back; after a second it goes elsewhere."""
        puller = self.puller()
        assert puller.channel.basic_get(QUEUE) == NOTHING
        self.fail(puller, OSError("not there"))
        puller.broker.publish(b"new", b"newer")
        assert puller.channel.basic_get(QUEUE)[2] == b"new"
        assert puller.channel.basic_get(QUEUE)[2] == b"newer"
        assert self.plugin.memory.sent == []
        puller.shield.clock.advance(1.1)
        assert puller.channel.basic_get(QUEUE) == NOTHING
        self.plugin.memory.sent[0][1](None)
        assert puller.channel.basic_get(QUEUE) == NOTHING
        assert puller.broker.acked == [1]
        assert puller.broker.rejected == []
        assert puller.counts() == {"offered": 3, "overflowed": 1, "in_flight": 2}

    def test_its_chain_goes_on(self):
        """To a drop, here."""
        puller = self.puller("drop")
        puller.channel.basic_get(QUEUE)
        self.fail(puller, OSError("not there"))
        assert puller.channel.basic_get(QUEUE) == NOTHING
        assert puller.broker.acked == [1]
        assert puller.counts() == {"offered": 1, "dropped": 1}

    def test_one_that_waits_in_its_chain_holds_up_none(self):
        """Only what was never to go elsewhere goes back to its queue."""
        puller = self.puller("wait 1h")
        puller.channel.basic_get(QUEUE)
        self.fail(puller, OSError("not there"))
        puller.broker.publish(b"new")
        assert puller.channel.basic_get(QUEUE)[2] == b"new"
        assert puller.broker.rejected == []

    def test_one_at_fault_itself_is_handed_over_and_the_one_asked_for_comes_next(self):
        """Nothing is lost, or given back, on the way."""
        puller = self.puller()
        puller.channel.basic_get(QUEUE)
        puller.broker.publish(b"new")
        self.fail(puller, ValueError("never"))
        got = [puller.channel.basic_get(QUEUE, auto_ack=True)[2] for _ in range(2)]
        assert sorted(got) == [b"0", b"new"]
        assert sorted(puller.broker.acked) == [1, 2]
        assert puller.counts() == {"offered": 2, "delivered": 2}

    def test_beyond_a_bound_they_are_handed_over(self, monkeypatch):
        """Late, as by all consumers."""
        monkeypatch.setattr("shield_rabbitmq.consuming.get.MAX_DIVERTING", 3)
        puller = self.puller(messages=5)
        got = []
        for _ in range(5):
            got.append(puller.channel.basic_get(QUEUE)[2])
            self.fail(puller, OSError("not there"))
            puller.shield.clock.advance(0.1)
        assert len([body for body in got if body]) == 3
        assert puller.broker.rejected == []
        assert puller.counts() == {"offered": 5, "in_flight": 5}

    def test_who_asks_no_more_keeps_nothing(self):
        """After a minute it is in its queue again; not while somebody asks."""
        puller = self.puller()
        puller.channel.basic_get(QUEUE)
        self.fail(puller, OSError("not there"))
        for _ in range(4):
            assert puller.channel.basic_get(QUEUE) == NOTHING
            self.fail(puller, OSError("not there"))
            self.pass_time(puller, 20.0)
        assert puller.broker.rejected == []
        self.pass_time(puller, 61.0)
        assert puller.broker.rejected == [(1, True)]
        assert puller.counts() == {"offered": 1, "failed": 1}

    def test_a_channel_that_closes_gives_it_back(self):
        """Counted as failed."""
        puller = self.puller()
        puller.channel.basic_get(QUEUE)
        self.fail(puller, OSError("not there"))
        puller.channel.basic_get(QUEUE)
        puller.channel.close()
        assert puller.broker.acked == []
        assert puller.counts() == {"offered": 1, "failed": 1}


def test_waiting_for_a_message_takes_no_longer_than_it_may(monkeypatch):
    """Until there is one that the rules admit, or the time is over; the loop goes on meanwhile."""
    puller = Puller(shield_with({"quota": {"rate": "1/s", "burst": 1}}), 2)
    clock = puller.shield.clock
    monkeypatch.setattr("time.monotonic", clock.now)
    monkeypatch.setattr("pika.compat.time_now", clock.now)
    fired: list[float] = []
    puller.channel.connection.call_later(0.5, lambda: fired.append(clock.now()))
    assert wait_for_message(puller.channel, QUEUE)[2] == b"0"
    assert wait_for_message(puller.channel, QUEUE, timeout_s=0.3) == NOTHING
    assert fired == []
    assert wait_for_message(puller.channel, QUEUE, timeout_s=5.0)[2] == b"1"
    assert len(fired) == 1


# --- basic_get on an event loop -------------------------------------------------------------------


class Asker:
    """A `Channel` with what its get callback and its listener for empty queues were told."""

    def __init__(self, shield: Shield, messages: int) -> None:
        self.broker = Broker(shield.clock)
        self.channel = shielded_channel("select", self.broker, shield)
        self.broker.publish(*bodies(*range(messages)))
        self.got: list[Any] = []
        self.channel.add_callback(
            lambda _frame: self.got.append(None), [spec.Basic.GetEmpty], one_shot=False
        )

    def get(self, **more: Any) -> None:
        self.channel.basic_get(QUEUE, lambda c, m, p, b: self.got.append(b), **more)
        self.broker.run(0.001)


def test_on_an_event_loop_it_is_as_if_there_were_none():
    """Who listens for `Basic.GetEmpty` hears that."""
    shield = shield_with({"quota": QUOTA})
    asker = Asker(shield, 3)
    for _ in range(3):
        asker.get()
    assert asker.got == [b"0", b"1", None]
    assert counts(shield) == {"offered": 2, "in_flight": 2}
    shield.clock.advance(0.1)
    asker.get(auto_ack=True)
    asker.get(auto_ack=True)
    assert asker.got[3:] == [b"2", None]
    assert asker.broker.acked == [3]


def test_asking_twice_at_once_is_pikas_error():
    """As without rules."""
    asker = Asker(shield_with({"quota": QUOTA}), 1)
    asker.channel.basic_get(QUEUE, print)
    with pytest.raises(DuplicateGetOkCallback):
        asker.channel.basic_get(QUEUE, print)


def test_on_an_event_loop_what_is_kept_is_handed_over_to_who_asks_later():
    """Never inside of the call, and asking twice at once is pika's error also then."""
    plugin = with_faults()
    rule = {"max_age": "30s", "over_limit": ["overflow memory://there/late"]}
    shield = shield_with(rule, plugins=[plugin])
    asker = Asker(shield, 0)
    asker.broker.publish(b"0", **OLD)
    asker.get()
    plugin.memory.sent[0][1](ValueError("never"))
    asker.broker.run(0.001)
    assert asker.got == [None]
    asker.channel.basic_get(QUEUE, lambda c, m, p, body: asker.got.append(body), auto_ack=True)
    assert asker.got == [None]
    with pytest.raises(DuplicateGetOkCallback):
        asker.channel.basic_get(QUEUE, print)
    asker.broker.run(0.001)
    assert asker.got == [None, b"0"]
    assert asker.broker.acked == [1]
    assert counts(shield) == {"offered": 1, "delivered": 1}


def test_a_lost_connection_is_heard_of_over_the_limit_too():
    """`basic_get` serves the connection also where it asks for nothing."""
    puller = Puller(shield_with({"quota": {"rate": "1/h", "burst": 1}}), 2)
    puller.channel.basic_get(QUEUE)
    puller.broker.lose_channel(StreamLostError("gone"))
    with pytest.raises(Exception, match="closed"):
        puller.channel.basic_get(QUEUE)
