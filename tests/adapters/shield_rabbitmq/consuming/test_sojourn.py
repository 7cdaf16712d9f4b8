"""What waits too long to be handed over, on pika's own channels without a broker."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika import spec
from pika.exceptions import StreamLostError

from tests.adapters.shield_rabbitmq.broker import QUEUE
from tests.adapters.shield_rabbitmq.consuming.test_consumer import (
    KINDS,
    Memories,
    Worker,
    bodies,
    shield_with,
)
from tests.adapters.shield_rabbitmq.consuming.test_pull import NOTHING, Puller

LATE = {"target": "500ms", "interval": "1s", "longest": "1s"}
PACE = {"rate": "10/s", "burst": 10}
SLOW = {"rate": "1/s", "burst": 1}


def rule(*chain: str, **more: Any) -> dict[str, Any]:
    return {"quota": PACE, "queue_delay": LATE, "over_limit": ["wait", *chain], **more}


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


def feed(worker: Worker, numbers: range, every_s: float) -> None:
    """Let a message come in each time."""
    for number in numbers:
        worker.broker.publish(b"%d" % number)
        worker.run(every_s)


def test_what_has_waited_too_long_is_shed_and_the_newest_are_handed_over_first(kind):
    """Once it stands; the broker is told of each, and the books balance."""
    worker = Worker(kind, shield_with(rule("drop")))
    worker.broker.publish(*bodies(*range(100)))
    worker.run(1.9)
    in_time = len(worker.got)
    assert worker.got == bodies(*range(in_time))
    assert in_time in (28, 29)
    feed(worker, range(100, 140), 0.1)
    assert [body for body in worker.got if in_time < int(body) < 100] == []
    assert worker.counts()["dropped"] >= 70
    worker.run(5.0)
    assert len(worker.broker.acked) == len(set(worker.broker.acked)) == 140
    assert worker.counts()["delivered"] == len(worker.got)
    assert worker.counts().get("in_flight") is None


def test_while_it_stands_the_newest_goes_before_older_ones(kind):
    """Those may be handed over yet, when it stands no more: nothing is lost."""
    late = {**LATE, "longest": "1h"}
    worker = Worker(kind, shield_with(rule("drop", quota=SLOW, queue_delay=late)))
    worker.broker.publish(*bodies(*range(6)))
    worker.run(2.5)
    assert worker.got == bodies(0, 1, 5)
    worker.broker.publish(b"6")
    worker.run(1.0)
    assert worker.got == bodies(0, 1, 5, 6)
    worker.run(10.0)
    assert sorted(worker.got) == bodies(*range(7))
    assert worker.counts() == {"offered": 7, "delivered": 7}


def test_a_burst_that_goes_by_keeps_its_order(kind):
    """Handed over within the target, nothing is shed or overtaken."""
    worker = Worker(kind, shield_with(rule("drop", quota={"rate": "100/s", "burst": 10})))
    for _ in range(5):
        worker.broker.publish(*bodies(*range(40)))
        worker.run(1.0)
    assert worker.got == bodies(*range(40)) * 5
    assert worker.counts() == {"offered": 200, "delivered": 200}


def test_what_goes_elsewhere_is_acknowledged_once_that_is_confirmed(kind):
    """Until then it is the broker's, and "all up to here" does not mean it."""
    plugin = Memories()
    shield = shield_with(rule("overflow memory://there/late", quota=SLOW), plugins=[plugin])
    worker = Worker(kind, shield, ack=False)
    worker.broker.publish(*bodies(*range(6)))
    worker.run(2.5)
    gone = [envelope.body for envelope, _ in plugin.memory.sent]
    assert gone == [body for body in bodies(*range(6)) if body not in worker.got]
    worker.channel.basic_ack(0, multiple=True)
    assert sorted(worker.broker.acked) == sorted(worker.tags)
    for _, done in plugin.memory.sent:
        done(None)
    worker.run()
    assert sorted(worker.broker.acked) == [1, 2, 3, 4, 5, 6]
    assert worker.counts() == {
        "offered": 6,
        "delivered": len(worker.got),
        "overflowed": len(gone),
    }


def test_where_it_cannot_go_elsewhere_the_newest_goes_on(kind):
    """The one that cannot be sent is tried again, a second later each time."""
    plugin = Memories()
    shield = shield_with(rule("overflow memory://there/late", quota=SLOW), plugins=[plugin])
    worker = Worker(kind, shield)
    worker.broker.publish(*bodies(*range(3)))
    worker.run(2.2)
    sent = list(plugin.memory.sent)
    assert sent
    for _, done in sent:
        done(OSError("not there"))
    got = len(worker.got)
    feed(worker, range(10, 13), 0.3)
    assert worker.got[got:]
    assert set(worker.got[got:]) <= set(bodies(10, 11, 12))
    worker.run(2.0)
    again = plugin.memory.sent[len(sent) :]
    assert {envelope.body for envelope, _ in sent} <= {envelope.body for envelope, _ in again}
    for _, done in again:
        done(None)
    worker.run(10.0)
    assert worker.counts() == {
        "offered": 6,
        "delivered": len(worker.got),
        "overflowed": 6 - len(worker.got),
    }


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_at_its_end_all_that_waits_goes_back(kind, end):
    """Also those that were asked about out of their turn."""
    late = {**LATE, "longest": "1h"}
    worker = Worker(kind, shield_with(rule("drop", quota=SLOW, queue_delay=late)))
    worker.broker.publish(*bodies(*range(6)))
    worker.run(2.5)
    worker.broker.publish(b"6")
    worker.run(0.2)
    handed = len(worker.got)
    if end == "cancel":
        worker.channel.basic_cancel(worker.consumer_tag)
        worker.run()
        assert len(worker.broker.rejected) == 7 - handed
    else:
        worker.broker.lose_channel(ConnectionError("gone"))
    counted = worker.counts()
    assert counted["delivered"] == handed
    assert counted["offered"] == counted["delivered"] + counted["failed"]


def test_an_acknowledgement_lets_the_newest_go_on(kind):
    """A bound is freed for whoever is next, whatever stands before it."""
    late = {**LATE, "longest": "1h"}
    given = rule("drop", quota="1000/s", in_flight={"messages": 1}, queue_delay=late)
    worker = Worker(kind, shield_with(given), ack=False)
    worker.broker.publish(*bodies(*range(4)))
    worker.run(3.0)
    worker.channel.basic_ack(worker.tags[0])
    worker.run(0.001)
    assert worker.got == bodies(0, 3)


def test_what_needs_no_acknowledgement_is_shed_as_well(kind):
    """It is in this memory alone; counted, then gone."""
    worker = Worker(kind, shield_with(rule("drop", quota=SLOW)), auto_ack=True)
    worker.broker.publish(*bodies(*range(20)))
    worker.run(5.0)
    counted = worker.counts()
    assert counted["dropped"] > 10
    assert counted["delivered"] == len(worker.got) == 20 - counted["dropped"]


def test_the_generator_draws_what_pika_has_read_and_sheds_it():
    """Else the oldest would be the one that it has just drawn."""
    puller = Puller(shield_with(rule("drop", quota=SLOW)), 20)
    items = puller.channel.consume(QUEUE, inactivity_timeout=2.5)
    got = [next(items)[2], next(items)[2]]
    assert got == bodies(0, 1)
    puller.shield.clock.advance(5.0)
    assert next(items) == NOTHING
    assert puller.counts() == {"offered": 20, "in_flight": 2, "dropped": 18}
    assert puller.channel.cancel() == 0


def test_a_generator_is_as_good_as_pikas_when_its_consumer_is_cancelled_by_the_broker():
    """It hands over what it has drawn, then ends."""
    puller = Puller(shield_with(rule("drop", quota={"rate": "100/s", "burst": 1})), 5)
    items = puller.channel.consume(QUEUE)
    got = [next(items)[2]]
    (tag,) = puller.broker.consumers
    puller.broker.consumers.clear()
    puller.broker.answer(spec.Basic.Cancel(tag))
    got += [body for _, _, body in items]
    assert got == bodies(*range(5))


def test_basic_get_keeps_nothing_waiting():
    """What the rules refuse stays in its queue, however long."""
    puller = Puller(shield_with(rule("drop", quota=SLOW)), 3)
    assert puller.channel.basic_get(QUEUE)[2] == b"0"
    for _ in range(50):
        assert puller.channel.basic_get(QUEUE) == NOTHING
        puller.shield.clock.advance(0.01)
    puller.shield.clock.advance(3600.0)
    assert puller.channel.basic_get(QUEUE)[2] == b"1"
    assert puller.counts() == {"offered": 2, "in_flight": 2}


ACTIONS = st.one_of(
    st.tuples(st.just("publish"), st.integers(1, 8)),
    st.tuples(st.just("run"), st.floats(0.0, 3.0)),
    st.tuples(st.just("acknowledge"), st.just(0)),
    st.tuples(st.just("confirm"), st.just(0)),
    st.tuples(st.just("fail"), st.just(0)),
)
CHAINS = st.sampled_from(
    [["overflow memory://there/late"], ["overflow memory://there/late", "drop"], ["drop"]]
)


@settings(deadline=None, max_examples=60)
@given(st.lists(ACTIONS, max_size=30), CHAINS, st.sampled_from(KINDS))
def test_whatever_happens_each_message_has_one_end(actions, chain, kind):
    """Handed over once at the most; acknowledged for one reason; the books balance at the end."""
    plugin = Memories()
    given_rule = rule(*chain, in_flight={"messages": 12})
    worker = Worker(kind, shield_with(given_rule, plugins=[plugin]), ack=False)
    unanswered = plugin.memory.sent
    elsewhere: list[bytes] = []
    for action, number in actions:
        if action == "publish":
            worker.broker.publish(*(b"%d" % (worker.broker.tag + n) for n in range(number)))
            worker.run()
        elif action == "run":
            worker.run(number)
        elif action == "acknowledge":
            worker.channel.basic_ack(0, multiple=True)
        else:
            error = None if action == "confirm" else OSError("no")
            answered, unanswered[:] = unanswered[:], []
            for envelope, done in answered:
                if error is None:
                    elsewhere.append(envelope.body)
                done(error)
            worker.run()
        assert len(set(worker.got + elsewhere)) == len(worker.got) + len(elsewhere)
        assert worker.shield.ledger().balanced
    worker.broker.lose_channel(StreamLostError("gone"))
    for _, done in unanswered:
        done(OSError("gone"))
    counted = worker.counts()
    assert counted.get("in_flight") is None
    assert counted.get("overflowed", 0) == len(elsewhere)
    ended = counted.get("delivered", 0) + counted.get("overflowed", 0) + counted.get("dropped", 0)
    assert ended == len(worker.broker.acked) == len(set(worker.broker.acked))
