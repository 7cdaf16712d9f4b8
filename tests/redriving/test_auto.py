"""`redrive = "auto"`: overflowed messages come back when the pressure is gone, and no sooner."""

from __future__ import annotations

import threading
import time
from collections import defaultdict

import pytest

from shield import URL, Action, Kind, Policy, SettingsError, Shield, ShieldError, Traits, action
from shield.clock import SystemClock
from shield.redriving.auto_session import (
    FASTEST,
    LONGEST_QUIET_S,
    QUIET_S,
    SLOWEST,
    STEADY_S,
    PressureGate,
    RedrivePace,
    RedriveSession,
)
from shield.testing import FakeClient
from tests.making import Kinds, Listening, admits, counts, message, over, shield_with
from tests.memory import Broker, Memory, MemorySource, Plugin, diverted


class Elsewhere(Action):
    """Sends to `memory://b/overflow`, whichever client a message comes from."""

    sets_aside = True
    place = URL.parse("memory://b/overflow")

    def step(self, over):
        transport = Memory(Memory.brokers["b"], "overflow")
        return action.Divert(str(self.place), lambda: None, transport)

    def way_back(self, client):
        if "overflow" in Memory.brokers["b"].missing:
            raise ShieldError("not there")
        return MemorySource(Memory.brokers["b"].places["overflow"])


class Grudge(Policy):
    """Refuses what its list names, and that is no load."""

    traits = Traits(counts_as_load=False)
    refused: set[str] = set()

    def check(self, message, now):
        return self.refuse("grudge") if message.destination in self.refused else None


PLUGINS = [Plugin(), Kinds({"grudge": Grudge}, {"elsewhere": Elsewhere})]
RULE = {
    "name": "orders",
    "match": "*",
    "quota": {"rate": "10/s", "burst": 10},
    "over_limit": ["elsewhere"],
    "redrive": "auto",
}


@pytest.fixture(autouse=True)
def overflow(monkeypatch):
    """What the overflow destination holds."""
    fresh = defaultdict(Broker)
    monkeypatch.setattr(Memory, "brokers", fresh)
    return fresh["b"].places["overflow"]


@pytest.fixture
def shield():
    return shield_with(RULE, plugins=PLUGINS)


@pytest.fixture
def target():
    """A client's transport to a broker that takes everything."""
    return Memory(Memory.brokers["a"], "")


@pytest.fixture
def way(shield, target):
    """The way back of the rule, turned by hand."""
    made = RedriveSession(
        shield.engine, shield.rules[0], Elsewhere({}, shield.rules[0], "elsewhere").way_back
    )
    made.clients.add(target)
    return made


def back():
    return [envelope.body for envelope in Memory.brokers["a"].places["orders.created"]]


def turns(way, number):
    for _ in range(number):
        way.turn(alone=True)


# --- pressure -----------------------------------------------------------------------------------


def refuse(shield, times=1):
    for _ in range(times):
        while admits(shield):
            pass


def test_it_begins_when_nothing_was_refused_for_a_while(shield, way, overflow):
    """Not a moment sooner."""
    overflow.append(diverted(0))
    refuse(shield)
    turns(way, 3)
    shield.clock.advance(QUIET_S - 0.5)
    turns(way, 3)
    assert back() == []
    shield.clock.advance(0.6)
    turns(way, 3)
    assert back() == [b"0"]
    assert overflow == []


def test_it_stops_when_the_rule_refuses_again(shield, way, overflow):
    """What is left stays, and the next time it waits longer."""
    overflow += [diverted(n) for n in range(3)]
    way.turn(alone=True)
    refuse(shield)
    turns(way, 5)
    assert back() == []
    assert len(overflow) == 3
    shield.clock.advance(QUIET_S + 1)
    turns(way, 3)
    assert back() == []
    shield.clock.advance(QUIET_S)
    turns(way, 9)
    assert back() == [b"0", b"1", b"2"]


def test_its_own_messages_are_no_pressure(shield, way, overflow):
    """They wait behind all others for their quota; that the rule refuses them does not count."""
    overflow += [diverted(n) for n in range(50)]
    turns(way, 20)
    assert len(back()) == 50
    assert sum(shield.ledger().over_limit.values()) > 0
    assert way.pressure.quiet_s == QUIET_S


def test_a_refusal_that_is_no_load_is_no_pressure(target):
    """Such as that of a policy that keeps keys in order."""
    shield = shield_with({**RULE, "grudge": {}}, plugins=PLUGINS)
    pressure = PressureGate(list(shield.rules))
    Grudge.refused = {"y"}
    over(shield, "y")
    assert pressure.is_quiet(shield.clock.now())
    refuse(shield)
    assert not pressure.is_quiet(shield.clock.now())


def test_each_time_it_is_cut_short_it_waits_longer_up_to_a_minute(shield):
    """A steady run makes it patient for the shortest time again."""
    pressure = PressureGate(list(shield.rules))
    waits = []
    for _ in range(6):
        pressure.begin(0.0)
        pressure.end(1.0)
        waits.append(pressure.quiet_s)
    assert waits == [10.0, 20.0, 40.0, LONGEST_QUIET_S, LONGEST_QUIET_S, LONGEST_QUIET_S]
    pressure.begin(0.0)
    pressure.end(STEADY_S)
    assert pressure.quiet_s == QUIET_S


def test_the_pace_grows_and_is_halved(shield):
    """It ends between its bounds."""
    pace = RedrivePace()
    pace.begin(0.0)
    assert pace.at(0.0) == SLOWEST
    assert pace.at(2.0) == pytest.approx(SLOWEST * 2.25)
    assert pace.at(1e6) == FASTEST
    pace.halve(2.0)
    pace.begin(10.0)
    assert pace.at(10.0) == pytest.approx(SLOWEST * 2.25 / 2)
    pace.halve(10.0)
    pace.begin(20.0)
    assert pace.at(20.0) == SLOWEST


# --- one way back -------------------------------------------------------------------------------


def test_the_ledger_balances_at_every_turn(shield, way, overflow):
    """A failed send is in the overflow destination as before."""
    overflow += [diverted(n) for n in range(3)]
    Memory.brokers["a"].refusals[b"1"] = 2
    for _ in range(60):
        way.turn(alone=True)
        shield.clock.advance(0.3)
        assert shield.ledger().balanced
    assert sorted(back()) == [b"0", b"1", b"2"]
    assert counts(shield.ledger()) == {"offered": 5, "delivered": 3, "overflowed": 2}


def test_observers_hear_of_each_that_is_back(target, overflow):
    """As of what was spooled."""
    listening = Listening()
    shield = shield_with(RULE, plugins=[*PLUGINS, listening])
    made = RedriveSession(shield.engine, shield.rules[0], lambda _client: MemorySource(overflow))
    made.clients.add(target)
    overflow += [diverted(n) for n in range(2)]
    turns(made, 4)
    assert len(back()) == 2
    assert listening.destinations(Kind.REDRIVEN) == ["orders.created"] * 2


def test_a_source_that_cannot_be_read_is_tried_again(shield, way, overflow, caplog):
    """With a line in the log, and not at once."""
    broker = Memory.brokers["b"]
    broker.missing.add("overflow")
    overflow.append(diverted(0))
    turns(way, 5)
    assert caplog.messages == ["rule orders: what overflowed cannot be brought back now: not there"]
    broker.missing.clear()
    shield.clock.advance(2.0)
    turns(way, 3)
    assert back() == [b"0"]


def test_what_belongs_to_another_broker_is_left_to_others(way, overflow, target):
    """Each message goes to a client of the broker it was going to."""
    target.origin = "memory://a"
    overflow += [diverted(0, broker="memory://z"), diverted(1, broker="memory://a"), diverted(2)]
    turns(way, 5)
    assert back() == [b"1", b"2"]
    assert [envelope.body for envelope in overflow] == [b"0"]
    assert all(e.broker is None for e in Memory.brokers["a"].places["orders.created"])


def test_what_was_set_aside_too_often_is_parked(overflow, target):
    """Where the settings say, on the messages' own broker."""
    settings = {"redrive_attempts": 2, "redrive_park": "parked"}
    shield = shield_with(RULE, plugins=PLUGINS, **settings)
    way = RedriveSession(
        shield.engine, shield.rules[0], Elsewhere({}, shield.rules[0], "x").way_back
    )
    way.clients.add(target)
    overflow += [diverted(0, attempt=2), diverted(1)]
    turns(way, 5)
    assert back() == [b"1"]
    assert [e.body for e in Memory.brokers["a"].places["parked"]] == [b"0"]
    assert overflow == []


# --- a whole process ----------------------------------------------------------------------------


def until(told, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not told():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def redrivers():
    return [t for t in threading.enumerate() if t.name == "shield-redrive"]


def test_one_thread_serves_all_clients_and_ends_with_the_last(shield):
    """It begins with the first."""
    assert redrivers() == []
    clients = [FakeClient(shield) for _ in range(3)]
    assert len(redrivers()) == 1
    for client in clients[:2]:
        client.close()
    assert len(redrivers()) == 1
    clients[2].close()
    until(lambda: not redrivers())
    FakeClient(shield).close()
    until(lambda: not redrivers())


class Unspeakable(Memory):
    """A client that cannot say whether it is open."""

    @property
    def is_open(self):
        raise RuntimeError("who knows")


def test_a_client_that_cannot_say_whether_it_is_open_is_taken_for_closed(shield, overflow, caplog):
    """It is named in the log, and what another can send comes back all the same."""
    shield.engine.opened(Unspeakable(Memory.brokers["c"], ""))
    until(lambda: not redrivers())
    assert "Unspeakable" in caplog.text
    assert "who knows" in caplog.text
    overflow.append(diverted(0))
    client = FakeClient(shield)
    shield.engine.opened(Unspeakable(Memory.brokers["c"], ""))
    until(lambda: client.unanswered)
    client.ack()
    until(lambda: overflow == [])
    client.close()
    until(lambda: not redrivers())


def test_a_shield_without_such_a_rule_has_no_thread():
    """Nothing is started that is not asked for."""
    shield = shield_with({**RULE, "redrive": None}, plugins=PLUGINS)
    client = FakeClient(shield)
    assert redrivers() == []
    client.close()


def test_what_overflows_comes_back_by_itself(shield, overflow):
    """Sent, refused, diverted, and back at its destination by the same client."""
    client = FakeClient(shield)
    futures = [client.publish("orders.created", b"%d" % n) for n in range(15)]
    client.ack()
    assert len(overflow) >= 1
    while len(client.arrived["orders.created"]) < 15:
        until(lambda: client.unanswered or len(client.arrived["orders.created"]) == 15)
        client.ack()
    until(lambda: overflow == [])
    client.close(None)
    assert all(future.done() for future in futures)
    ledger = shield.ledger()
    assert ledger.balanced
    assert ledger.delivered == 15
    assert ledger.in_flight == 0


def test_closing_waits_for_what_is_sent(overflow):
    """A message that the broker has not answered is not forgotten, and in nobody's flight."""
    shield = Shield({"rules": [RULE]}, plugins=PLUGINS, clock=SystemClock())
    client = FakeClient(shield)
    overflow.append(diverted(0))
    until(lambda: client.unanswered)
    closing = threading.Thread(target=shield.engine.closing, args=(client.transport, 10.0))
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    client.ack()
    closing.join(60)
    assert overflow == []
    assert counts(shield.ledger()) == {"offered": 1, "delivered": 1}


def test_a_closing_client_is_not_waited_for_longer_than_it_says():
    """Its message is answered when the client fails it, and stays where it is."""
    shield = Shield({"rules": [RULE]}, plugins=PLUGINS, clock=SystemClock())
    overflow = Memory.brokers["b"].places["overflow"]
    client = FakeClient(shield)
    overflow.append(diverted(0))
    until(lambda: client.unanswered)
    client.close(0.1)
    until(lambda: not redrivers())
    assert len(overflow) == 1
    assert counts(shield.ledger()) == {"offered": 1, "overflowed": 1}


def test_a_client_that_opens_while_another_closes_leaves_its_session_to_be_closed(
    overflow, monkeypatch
):
    """`close(None)` returns, and what was read from is let go of, once."""
    shield = Shield({"rules": [RULE]}, plugins=PLUGINS, clock=SystemClock())
    closed, sending, go_on = [], threading.Event(), threading.Event()
    monkeypatch.setattr(MemorySource, "close", lambda source: closed.append(source))
    first = FakeClient(shield)
    monkeypatch.setattr(first.transport, "send", lambda _envelope, done: held(done))

    def held(done):
        sending.set()
        assert go_on.wait(10)
        done(None)

    overflow.append(diverted(0))
    assert sending.wait(10)
    closing = threading.Thread(target=shield.engine.closing, args=(first.transport, None))
    closing.start()
    until(lambda: not shield.engine._core.auto._ways or all(w.ending for w in ways_of(shield)))
    second = FakeClient(shield)
    go_on.set()
    closing.join(10)
    assert not closing.is_alive()
    assert len(closed) == 1
    second.close(None)
    until(lambda: not redrivers())


def ways_of(shield):
    return list(shield.engine._core.auto._ways.values())


def test_closing_without_a_limit_has_an_end(shield, overflow):
    """A broker that never answers does not hold its client for ever."""
    client = FakeClient(shield)
    overflow.append(diverted(0))
    until(lambda: client.unanswered)
    closing = threading.Thread(target=shield.engine.closing, args=(client.transport, None))
    closing.start()
    closing.join(10)  # the clock of this shield goes on by itself whenever somebody waits
    assert not closing.is_alive()
    assert len(overflow) == 1


# --- counted deliveries -------------------------------------------------------------------------


class Counted(MemorySource):
    """Counts what it hands out, and what is given back when it is closed."""

    def __init__(self, held):
        super().__init__(held)
        self.most = []
        self.given_back = 0

    counts_deliveries = True

    def take(self, most, timeout_s):
        self.most.append(most)
        return super().take(most, timeout_s)

    def close(self):
        self.given_back += sum(id(envelope) in self.handed_out for envelope in self.held)


@pytest.fixture
def counted(shield, target, overflow):
    """A way back from a source that counts."""
    source = Counted(overflow)
    made = RedriveSession(shield.engine, shield.rules[0], lambda _client: source)
    made.clients.add(target)
    made.counted = source
    return made


def test_a_pause_gives_nothing_back_where_that_is_counted(shield, counted, overflow):
    """The source stays open; what was taken goes first when the rules are quiet again."""
    overflow += [diverted(n) for n in range(40)]
    turns(counted, 2)
    for _ in range(20):
        refuse(shield)
        turns(counted, 3)
        shield.clock.advance(LONGEST_QUIET_S + 1)
        turns(counted, 2)
    assert counted.counted.given_back == 0
    turns(counted, 60)
    assert len(back()) == 40


def test_of_what_counts_no_more_is_taken_than_is_about_to_be_sent(shield, counted, overflow):
    """One to begin with, then what the pace lets go in a moment."""
    overflow += [diverted(n) for n in range(30)]
    while admits(shield):
        pass
    shield.clock.advance(QUIET_S + 0.01)
    turns(counted, 5)
    assert counted.counted.most == [1, 2, 2, 2]


# --- settings -----------------------------------------------------------------------------------


def test_it_needs_something_to_bring_back():
    """A chain that sends nothing elsewhere is refused, with what would."""
    rule = {"match": "*", "quota": "1/s", "over_limit": ["wait 1s", "drop"], "redrive": "auto"}
    with pytest.raises(SettingsError) as refused:
        shield_with(rule)
    assert str(refused.value) == (
        "settings: rules[0].redrive: found 'auto', and nothing in over_limit sends messages where "
        "they could come back from; allowed with overflow in it"
    )


def test_messages_that_pass_cost_a_rule_no_refusal(shield):
    """What is admitted leaves no mark."""
    shield.admit(message())
    assert shield.rules[0].refused_s == float("-inf")
