"""The policy `backlog`, and the one thread for each broker that reads what waits there."""

from __future__ import annotations

import gc
import logging
import random
import threading
import time
import weakref
from collections import Counter, deque
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield import (
    BacklogReader,
    Backlogs,
    BacklogTarget,
    Kind,
    Message,
    Outcome,
    OverLimit,
    Permit,
    SettingsError,
    Shield,
    Signals,
    Watch,
    hookimpl,
)
from shield.backlog import MAX_PLACES, Poller
from shield.plugins.policies.backlog.gauge import BacklogGauge
from shield.testing import HeldClock, ManualClock, PolicyContract
from tests.making import message, shield_with

RULE = {"match": "*", "backlog": {"limit": 1000, "group": "g"}, "over_limit": "drop"}


class FakeReader(BacklogReader):
    """Says what a test has put there; an exception is raised."""

    def __init__(self, answers):
        self.answers = answers
        self.reads = []
        self.closed = False

    def read(self, places):
        self.reads.append(sorted(map(str, places)))
        if isinstance(self.answers, Exception):
            raise self.answers
        return {place: self.answers[place] for place in places if place in self.answers}

    def close(self):
        self.closed = True


class Hand:
    """A broker's backlogs that a test writes by hand; no thread reads them."""

    def __init__(self, origin="fake://"):
        self.origin = origin
        self.watches = {}

    def watch(self, place, every_s=1.0):
        return self.watches.setdefault(place, Watch(place))

    def close(self):
        """Nothing to do."""


class TestBacklog(PolicyContract):
    name = "backlog"
    settings = {"limit": 100, "group": "g"}

    def message(self) -> Message:
        signals = Signals(lambda: 1_000.0)
        signals.backlogs = HAND
        return message(signals=signals)


HAND = Hand()


@pytest.fixture
def hand():
    return Hand()


@pytest.fixture
def shield():
    one = shield_with(RULE)
    policy_of(one).random = random.Random(5).random
    return one


@pytest.fixture
def offer(shield, hand):
    """Offer one message through a client of that broker."""
    signals = Signals(shield.clock.now)
    signals.backlogs = hand
    return lambda **more: shield.admit(message(signals=signals, **more))


def policy_of(shield):
    return next(p for p in shield.rules[0].policies if p.name == "backlog")


def reading(hand, shield, value, group="g"):
    hand.watch(BacklogTarget("orders", group)).learn(shield.clock.now(), value)


def share(offer, times=500):
    """Which part of so many messages is admitted; each is then given back."""
    admitted = 0
    for _ in range(times):
        verdict = offer()
        if isinstance(verdict, Permit):
            admitted += 1
            verdict.cancel()
        else:
            verdict.end(None)
    return admitted / times


# --- the policy -----------------------------------------------------------------------------------


def test_unknown_is_not_zero_and_not_full(shield, hand, offer):
    """It admits, and says that it does not know."""
    assert share(offer) == 1.0
    status = policy_of(shield).status(shield.clock.now())
    assert (status["waiting"], status["age_s"]) == (None, None)


def test_unknown_may_be_set_to_refuse(hand):
    """For who would rather send nothing."""
    shield = shield_with({"match": "*", "backlog": {"limit": 5, "unknown": "refuse"}})
    signals = Signals(shield.clock.now)
    signals.backlogs = hand
    assert isinstance(shield.admit(message(signals=signals)), OverLimit)


def test_a_client_that_cannot_tell_is_not_limited(shield):
    """No signals, or none of backlogs."""
    for signals in (None, Signals()):
        assert isinstance(shield.admit(message(signals=signals)), Permit)


def test_it_engages_at_the_limit_and_releases_at_the_mark(shield, hand, offer):
    """Below the limit nothing is refused on the way up; on the way down a part, until 80%."""
    offer().cancel()
    for value, admitted in ((999, 1.0), (1000, 0.0), (900, 0.5), (800, 1.0), (900, 1.0)):
        shield.clock.advance(100)  # no slope to speak of
        reading(hand, shield, value)
        assert share(offer) == pytest.approx(admitted, abs=0.07), value


def test_a_refusal_asks_to_come_back_after_the_next_reading(shield, hand, offer):
    """A second, or what `every` says."""
    offer().cancel()
    reading(hand, shield, 5000)
    verdict = offer()
    assert (verdict.policy, verdict.reason, verdict.retry_after_s) == ("backlog", "backlog", 1.0)


def test_each_topic_is_watched_unless_one_is_named(hand):
    """The lag of another topic limits nobody."""
    shield = shield_with(RULE)
    signals = Signals(shield.clock.now)
    signals.backlogs = hand
    for topic in ("orders", "audit"):
        shield.admit(message(topic, signals=signals))
    assert set(hand.watches) == {BacklogTarget("orders", "g"), BacklogTarget("audit", "g")}
    reading(hand, shield, 5000)
    assert isinstance(shield.admit(message("orders", signals=signals)), OverLimit)
    assert isinstance(shield.admit(message("audit", signals=signals)), Permit)
    named = shield_with({"match": "*", "backlog": {"limit": 5, "destination": "queue"}})
    named.admit(message("exchange/key", signals=signals))
    assert BacklogTarget("queue") in hand.watches


def test_a_reading_that_is_too_old_is_unknown(shield, hand, offer):
    """After `forget`, 30 s, it limits nobody; its age shows all the time."""
    offer().cancel()
    reading(hand, shield, 5000)
    shield.clock.advance(30)
    assert isinstance(offer(), OverLimit)
    assert policy_of(shield).status(shield.clock.now())["age_s"] == pytest.approx(30)
    shield.clock.advance(0.1)
    assert isinstance(offer(), Permit)
    status = policy_of(shield).status(shield.clock.now())
    assert status["waiting"] is None
    assert status["age_s"] > 30


def test_its_status_says_what_is_wrong(shield, hand, offer):
    """The broker's words."""
    offer()
    reading(hand, shield, "no such group")
    assert policy_of(shield).status(shield.clock.now())["error"] == "no such group"


def simulate(times, *, limit=4000, drain=2000, seconds=120, shed=False):
    """Offer `times` what consumers take; return lag, what was sent, and engaged, by second."""
    rule = {"match": "*", "backlog": {"limit": limit, "group": "g"}, "over_limit": "drop"}
    if shed:
        rule["shed"] = "priority"
    shield, hand = shield_with(rule), Hand()
    policy_of(shield).random = random.Random(3).random
    signals = Signals(shield.clock.now)
    signals.backlogs = hand
    lag, lags, sent, engaged = 0.0, [], [], []
    for _ in range(seconds):
        admitted = 0
        for _ in range(100):
            before = admitted
            for _ in range(drain * times // 100):
                verdict = shield.admit(message(signals=signals))
                if isinstance(verdict, Permit):
                    admitted += 1
                    verdict.settle(Outcome.DELIVERED)
            lag = max(0.0, lag + admitted - before - drain / 100)
            shield.clock.advance(0.01)
        reading(hand, shield, int(lag))
        lags.append(lag)
        sent.append(admitted)
        engaged.append(policy_of(shield).status(shield.clock.now())["engaged"])
    return lags, sent, engaged


@pytest.mark.parametrize("times", [2, 5])
@pytest.mark.parametrize("shed", [False, True])
def test_under_overload_the_backlog_is_bounded_and_does_not_flap(times, shed):
    """It settles between release and limit, as much is sent as is consumed, second after second."""
    lags, sent, engaged = simulate(times, seconds=40, shed=shed, drain=500, limit=1000)
    settled = sent[15:]
    assert sum(settled) / len(settled) == pytest.approx(500, rel=0.05)
    assert max(lags[15:]) <= 1000 * 1.5
    changes = sum(a != b for a, b in pairwise(engaged[15:]))
    assert changes <= 1


def test_what_consumers_can_take_is_not_refused():
    """At their rate exactly the lag stays low."""
    _, sent, engaged = simulate(1, seconds=20, drain=500, limit=1000)
    assert sum(sent) == 20 * 500
    assert not any(engaged)


def simulate_processes(times, *, processes, limit, every_s, drain=1000, seconds=12):
    """Several of them offer to one queue; return what was consumed a second, and the depths.

    Only the second half counts. What is sent arrives three milliseconds later.
    """
    rule = {"match": "*", "backlog": {"limit": limit}, "shed": "priority", "over_limit": "drop"}
    chance, clock, hand = random.Random(7), ManualClock(0.0), Hand()
    shields = [Shield({"rules": [rule]}, clock=clock) for _ in range(processes)]
    for policy in (policy for one in shields for policy in one.rules[0].policies):
        policy.random = chance.random
    signals = Signals(clock.now)
    signals.backlogs = hand
    depth = consumed = owed = work = 0.0
    read_s, on_their_way, depths = 0.0, deque(), []
    for tick in range(seconds * 1000):
        owed += drain * times / 1000
        while owed >= 1:
            owed -= 1
            verdict = chance.choice(shields).admit(message(signals=signals))
            if isinstance(verdict, Permit):
                on_their_way.append((tick + 3, verdict))
        while on_their_way and on_their_way[0][0] <= tick:
            on_their_way.popleft()[1].settle(Outcome.DELIVERED)
            depth += 1
        work = min(work + drain / 1000, 1.0 if not depth else 100.0)
        while depth and work >= 1:
            depth, work, consumed = depth - 1, work - 1, consumed + (2 * tick >= seconds * 1000)
        if clock.now() >= read_s:
            read_s += every_s * chance.uniform(0.8, 1.2)
            hand.watch(BacklogTarget("orders")).learn(clock.now(), int(depth))
        depths.append(depth)
        clock.advance(0.001)
    return consumed / (seconds / 2), depths[len(depths) // 2 :]


@pytest.mark.parametrize(
    ("processes", "limit", "every_s"), [(1, 30, 0.1), (2, 30, 0.1), (4, 60, 0.1), (2, 500, 1.0)]
)
def test_processes_that_share_a_queue_keep_it_short_and_its_consumer_busy(
    processes, limit, every_s
):
    """At five times what is consumed: at least 95% of that, and a backlog near the limit."""
    consumed_per_s, depths = simulate_processes(
        5, processes=processes, limit=limit, every_s=every_s
    )
    assert consumed_per_s >= 950
    assert max(depths) <= 2 * limit
    assert sum(depths) / len(depths) <= limit


# --- between readings -----------------------------------------------------------------------------


def gauge_after(value_at, sent_per_s=0, *, limit=1000.0, every_s=1.0, seconds=30):
    """A gauge that has read a function of time for so long, while so much was sent and arrived."""
    gauge, at = BacklogGauge(Watch(BacklogTarget("q")), limit), 0.0
    while at <= seconds:
        gauge.watch.learn(at, int(value_at(at)))
        gauge.level(at)
        for _ in range(int(sent_per_s * every_s)):
            gauge.send(1)
            gauge.answer()
        at += every_s
    return gauge


@pytest.mark.parametrize("every_s", [0.1, 1.0])
@pytest.mark.parametrize("per_s", [100, -100])
def test_the_slope_goes_on_between_readings(per_s, every_s):
    """A hundred a second more, or less; never below nothing, and not for ever."""
    gauge = gauge_after(lambda at: 5000 + per_s * at, every_s=every_s)
    assert gauge.slope_per_s == pytest.approx(per_s, rel=0.05)
    assert gauge.level(30.5) == pytest.approx(5000 + per_s * 30.5, abs=10)
    assert gauge.level(200.0) == (0.0 if per_s < 0 else pytest.approx(25_000, rel=0.05))


def test_what_is_sent_is_counted_as_it_goes_and_not_twice():
    """What grew was its own doing: without more of it nothing grows."""
    gauge = gauge_after(lambda at: 500 + 100 * at, sent_per_s=100)
    assert gauge.slope_per_s == pytest.approx(0, abs=2)
    before = gauge.level(31.0)
    gauge.send(30)
    assert gauge.level(31.0) == pytest.approx(before + 30)
    gauge.send(-10)
    assert gauge.level(31.0) == pytest.approx(before + 20)


def test_what_is_on_its_way_waits_as_well():
    """It is not in the reading until it has been answered."""
    gauge = BacklogGauge(Watch(BacklogTarget("q")), 1000.0)
    gauge.send(30)
    gauge.watch.learn(1.0, 100)
    assert gauge.level(1.0) == 130
    for _ in range(30):
        gauge.answer()
    gauge.watch.learn(9.0, 130)
    assert gauge.level(9.0) == 130


def test_consumers_that_find_little_are_not_taken_to_be_slow():
    """They took 500 a second while that was there; then less comes, and the slope stays."""
    gauge = gauge_after(lambda at: 20_000 - 500 * at)
    before = gauge.slope_per_s
    assert before == pytest.approx(-500, rel=0.05)
    gauge.watch.learn(40.0, 0)
    gauge.level(40.0)
    learnt = gauge.slope_per_s
    for second in range(41, 60):
        gauge.send(100)
        for _ in range(100):
            gauge.answer()
        gauge.watch.learn(float(second), 0)
        gauge.level(float(second))
    assert gauge.slope_per_s == learnt


def test_consumers_that_end_are_noticed():
    """What they no longer take stays: the slope is that of the last seconds."""
    gauge = gauge_after(lambda at: 20_000 - 500 * at)
    for second in range(31, 60):
        gauge.watch.learn(float(second), 5000)
        gauge.level(float(second))
    assert gauge.slope_per_s == pytest.approx(0, abs=10)
    assert gauge.level(60.0) == pytest.approx(5000, abs=50)


def test_a_jump_is_believed_and_is_no_slope():
    """A topic made anew, or offsets set back: the value counts, nothing is made of the change."""
    gauge = BacklogGauge(Watch(BacklogTarget("q")), limit=1000)
    for at, value in ((0.0, 100), (1.0, 110), (2.0, 500_000)):
        gauge.watch.learn(at, value)
        gauge.level(at)
    assert gauge.jumps == 1
    assert gauge.level(2.5) == 500_000
    gauge.watch.learn(3.0, 0)
    assert (gauge.level(3.5), gauge.jumps) == (0.0, 2)


def test_a_backlog_that_is_worked_off_fast_has_not_jumped():
    """What was sent in a moment is consumed in one: many times the limit, and it is learnt from."""
    gauge = BacklogGauge(Watch(BacklogTarget("q")), 50.0)
    for at, value, sent in ((0.0, 0, 0), (0.2, 900, 1000), (0.3, 700, 0), (0.4, 500, 0)):
        gauge.watch.learn(at, value)
        for _ in range(sent):
            gauge.send(1)
            gauge.answer()
        gauge.level(at)
    assert gauge.jumps == 0
    assert gauge.slope_per_s < -400


READINGS = st.tuples(st.floats(0.0, 5.0), st.integers(0, 10**9), st.integers(0, 10**6))


@given(st.lists(READINGS, max_size=30), st.floats(0, 100))
def test_no_readings_make_a_level_that_is_none(readings, later_s):
    """Never negative, never infinite, whatever jumps."""
    gauge, now = BacklogGauge(Watch(BacklogTarget("q")), limit=1000), 0.0
    for gap_s, value, sent in readings:
        now += gap_s
        gauge.send(sent)
        gauge.watch.learn(now, value)
        assert 0.0 <= gauge.level(now) < float("inf")
        assert 0.0 <= gauge.level(now + later_s) < float("inf")


# --- the poller -----------------------------------------------------------------------------------


def test_all_places_are_read_at_once_and_what_is_missing_is_unknown():
    """One read for all; a place that the answer leaves out is said to be unknown."""
    reader = FakeReader({BacklogTarget("a"): 5, BacklogTarget("b", "g"): "no such group"})
    poller = Poller(lambda: reader, HeldClock())
    watches = [
        poller.watch(place)
        for place in (BacklogTarget("a"), BacklogTarget("b", "g"), BacklogTarget("c"))
    ]
    poller.stop()
    poller._clock.advance(2)
    poller.poll()
    assert [w.sample and w.sample[1] for w in watches] == [5, None, None]
    assert [w.error for w in watches] == [None, "no such group", "the broker does not say"]
    assert reader.reads[-1] == ["a", "b, group g", "c"]


def test_a_read_that_fails_keeps_the_last_value_and_connects_anew(caplog):
    """Its trouble is logged once, and so is its end."""
    caplog.set_level(logging.INFO, "shield.backlog")
    answers = [
        {BacklogTarget("a"): 5},
        ConnectionError("cut"),
        ConnectionError("cut"),
        {BacklogTarget("a"): 7},
    ]
    readers = []

    def connect():
        readers.append(FakeReader(answers[len(readers)]))
        return readers[-1]

    clock = ManualClock()
    poller = Poller(connect, clock)
    poller._watches[BacklogTarget("a")] = watch = Watch(BacklogTarget("a"))
    poller.poll()
    readers[0].answers = ConnectionError("cut")
    for _ in range(3):
        clock.advance(2)
        poller.poll()
        assert (watch.sample, watch.error) == ((1000.0, 5), "cut")
    assert [reader.closed for reader in readers] == [True, True, True]
    clock.advance(2)
    poller.poll()
    assert (watch.sample, watch.error) == ((1008.0, 7), None)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_broker_that_cannot_be_reached_is_tried_again():
    """The next second; the thread does not end."""
    tries = []

    def connect():
        tries.append(1)
        if len(tries) < 3:
            raise OSError("connection refused")
        return FakeReader({BacklogTarget("a"): 5})

    clock = ManualClock()
    poller = Poller(connect, clock)
    poller._watches[BacklogTarget("a")] = watch = Watch(BacklogTarget("a"))
    poller.poll()
    assert watch.error == "connection refused"
    for _ in range(2):
        clock.advance(2)
        poller.poll()
    assert (watch.error, watch.sample[1]) == (None, 5)


def test_no_more_than_a_thousand_places_are_watched():
    """Beyond, a place is unknown and says why."""
    poller = Poller(lambda: FakeReader({}), HeldClock())
    poller.stop()
    for number in range(MAX_PLACES):
        assert poller.watch(BacklogTarget(f"q{number}")).error is None
    assert "more than 1000" in poller.watch(BacklogTarget("one more")).error
    assert poller.watch(BacklogTarget("q5")) is poller.watch(BacklogTarget("q5"))


def test_each_place_is_read_as_often_as_its_most_impatient_rule_asks():
    """Every 100 ms the one, every second the other; twice as often at the most."""
    clock, reader = HeldClock(), FakeReader({BacklogTarget("a"): 5, BacklogTarget("b"): 7})
    poller = Poller(lambda: reader, clock)
    poller.stop()
    poller.watch(BacklogTarget("a"))
    poller.watch(BacklogTarget("b"))
    poller.watch(BacklogTarget("a"), 0.1)
    for _ in range(1000):
        poller.poll()
        clock.advance(0.01)
    read = Counter(place for places in reader.reads for place in places)
    assert 80 <= read["a"] <= 130
    assert 8 <= read["b"] <= 20


def test_places_that_are_read_as_often_are_read_together():
    """Also where they came to be watched one after the other: a hundred, and one read for all."""
    clock = HeldClock()
    reader = FakeReader({})
    poller = Poller(lambda: reader, clock)
    poller.stop()
    for number in range(100):
        poller.watch(BacklogTarget(f"q{number}"))
        poller.poll()
        clock.advance(0.01)
    reader.reads.clear()
    for _ in range(1000):
        poller.poll()
        clock.advance(0.01)
    assert len(reader.reads) <= 25


def test_a_new_place_is_read_at_once():
    """Its thread does not sleep on until others are due."""
    clock = HeldClock()
    reader = FakeReader({BacklogTarget("a"): 5, BacklogTarget("b"): 7})
    poller = Poller(lambda: reader, clock)
    try:
        poller.watch(BacklogTarget("a"))
        clock.until_waiting(1)
        watch = poller.watch(BacklogTarget("b"))
        give_up = time.monotonic() + 10
        while watch.sample is None and time.monotonic() < give_up:
            time.sleep(0.001)
        assert watch.sample == (1000.0, 7)
    finally:
        poller.stop()


def test_a_rule_says_how_often(hand):
    """A second, unless it says otherwise."""
    asked = []
    hand.watch = lambda place, every_s: asked.append(every_s)
    for more in ({}, {"every": "100ms"}):
        shield = shield_with({"match": "*", "backlog": {"limit": 5, **more}})
        signals = Signals(shield.clock.now)
        signals.backlogs = hand
        shield.admit(message(signals=signals))
    assert asked == [1.0, 0.1]


def pollers():
    return [t for t in threading.enumerate() if t.name == "shield-backlog"]


def test_clients_of_one_broker_share_one_thread_and_the_last_ends_it():
    """Two rules, three clients, one thread; another broker has its own."""
    clock = HeldClock()
    readers = []

    def connect():
        readers.append(FakeReader({}))
        return readers[-1]

    ours = [Backlogs("fake://one", connect, clock) for _ in range(3)]
    other = Backlogs("fake://two", connect, clock)
    before = len(pollers())
    watches = {id(each.watch(BacklogTarget("a"))) for each in ours}
    assert len(watches) == 1
    assert len(pollers()) == before + 1
    other.watch(BacklogTarget("a"))
    assert len(pollers()) == before + 2
    clock.until_waiting(2)
    for each in ours[:2]:
        each.close()
    assert len(pollers()) == before + 2
    ours[2].close()
    assert ours[2].watch(BacklogTarget("a")) is None
    other.close()
    assert len(pollers()) == before
    assert all(reader.closed for reader in readers)


def test_reading_goes_on_with_the_next_client_after_the_last_was_closed(shield):
    """Its messages have the place watched anew."""
    clock = shield.clock
    first, second = Hand(), Hand()
    for number, hand in enumerate((first, second)):
        signals = Signals(clock.now)
        signals.backlogs = hand
        shield.admit(message(signals=signals)).settle(Outcome.DELIVERED)
        reading(hand, shield, 100 + number)
        assert policy_of(shield).status(clock.now())["waiting"] == pytest.approx(100 + number)
        clock.advance(10)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({}, "backlog[0].limit: is missing"),
        ({"limit": 0}, "backlog[0].limit: found 0; allowed is 1 or more"),
        ({"limit": 5, "release": "100%"}, "it would never be over"),
        ({"limit": 5, "every": "0s"}, "backlog[0].every: found '0s'"),
        ({"limit": 5, "every": "1m"}, "every (60 s) is to be less than forget (30 s)"),
        ({"limit": 5, "unknown": "wait"}, "allowed is 'admit' or 'refuse'"),
        ({"limit": 5, "grupo": "x"}, "did you mean 'group'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(table, says):
    """With the key, what was found and what is allowed."""
    with pytest.raises(SettingsError) as caught:
        shield_with({"match": "*", "backlog": table})
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "found", ["amqp://canary:canary@h:1", "http://", "canary", "http://u:canary@h:1/?x=1", ""]
)
def test_a_management_api_is_a_web_address(found):
    """And what is none is refused without its password."""
    table = {"limit": 1, "management": found}
    with pytest.raises(SettingsError) as caught:
        shield_with({"match": "*", "backlog": table})
    assert "rules[0].backlog[0].management" in str(caught.value)
    assert ":canary" not in str(caught.value)


def test_a_management_api_is_part_of_the_place_and_shows_no_password(hand):
    """Two rules that ask in different ways have two places; none of them prints who asks."""
    url = "http://bob:canary@host:15672"
    shield = shield_with({"match": "*", "backlog": [{"limit": 5}, {"limit": 5, "management": url}]})
    signals = Signals(shield.clock.now)
    signals.backlogs = hand
    shield.admit(message("mails", signals=signals))
    assert sorted(map(str, hand.watches)) == ["mails", "mails, by http://host:15672/"]
    (via,) = (place.via for place in hand.watches if place.via)
    assert (via.username, via.password) == ("bob", "canary")
    hand.watch(BacklogTarget("mails", via=via)).learn(shield.clock.now(), "it is gone")
    shown = repr(shield.status()) + repr(hand.watches) + repr(shield.settings.rules)
    assert "canary" not in shown


def test_a_management_api_may_have_its_password_in_a_section():
    """As URLs of other brokers."""
    section = {"url": "http://host:15672", "username": "bob", "password": "secret"}
    settings = {
        "credentials": {"api": section},
        "rules": [{"match": "*", "backlog": {"limit": 5, "management": "http://host:15672"}}],
    }
    shield = Shield(settings, clock=ManualClock())
    assert shield.rules[0].policies[0]._via.password == "secret"


# --- events ---------------------------------------------------------------------------------------


class Observer:
    def __init__(self):
        self.events = []

    @hookimpl
    def shield_on_event(self, event):
        self.events.append((event.kind, event.detail))


def test_observers_hear_when_a_backlog_becomes_unknown_and_known_again():
    """Once for each change, with the place and the reason; also a Shield with several clients."""
    observer = Observer()
    clock = HeldClock()
    shield = Shield({"rules": []}, plugins=[observer], clock=clock)
    place = BacklogTarget("orders", "g")
    reader = FakeReader({place: 1})
    ours = [
        Backlogs("fake://events", lambda: reader, clock, shield.engine.backlog_changed)
        for _ in range(2)
    ]
    for each in ours:
        each.watch(place)
    for answers in ({place: 1}, {place: "no right"}, {place: "no right"}, {place: 7}, {place: 8}):
        clock.until_waiting(1)
        reader.answers = answers
        reads = len(reader.reads)
        clock.advance(2.0)
        while len(reader.reads) == reads:
            time.sleep(0.001)
    clock.until_waiting(1)
    for each in ours:
        each.close()
    clock.advance(2.0)
    assert observer.events == [
        (Kind.BACKLOG_UNKNOWN, "orders, group g: no right"),
        (Kind.BACKLOG_KNOWN, "orders, group g"),
    ]


def test_a_reader_keeps_no_shield_alive():
    """What is told of changes goes with its client."""
    clock = ManualClock()
    shield = Shield({"rules": []}, clock=clock)
    backlogs = Backlogs("fake://gone", lambda: FakeReader({}), clock, shield.engine.backlog_changed)
    gone = weakref.ref(shield)
    del shield
    gc.collect()
    assert gone() is None
    backlogs.close()
