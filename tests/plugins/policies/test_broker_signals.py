"""The policies that decide by what the broker tells: blocked, window, queue, answers, latency."""

from __future__ import annotations

import threading
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield import (
    End,
    Envelope,
    Message,
    Outcome,
    Permit,
    SettingsError,
    Shield,
    Signals,
    Source,
    Taken,
    fate,
)
from shield.redriving.worker import Redriver
from shield.testing import FakeClient, HeldClock, ManualClock, PolicyContract
from tests.making import counts, message, shield_with


def signals_with(now: float = 1_000.0, **values: object) -> Signals:
    """Return signals on a clock that stands still."""
    signals = Signals(lambda: now)
    for name, value in values.items():
        setattr(signals, name, value)
    return signals


def refusal(shield: Shield, signals: Signals | None, size: int = 100):
    """Ask the first policy about one message; return its refusal, or None."""
    one = Message("orders", size, "p", signals=signals)
    return shield.rules[0].policies[0].check(one, shield.clock.now())


class OneKept(Source):
    """Holds one message."""

    def __init__(self, envelope):
        self.held = [Taken(envelope, 1)]

    def take(self, most, timeout_s):
        taken, self.held = self.held, []
        return taken

    def forget(self, taken):
        """Nothing to do."""

    def failed(self, taken):
        self.held.append(taken)

    def left(self):
        return len(self.held)

    def close(self):
        """Nothing to do."""


class SignalsContract(PolicyContract):
    def message(self) -> Message:
        return message(signals=Signals(lambda: 1_000.0))


class TestBlocked(SignalsContract):
    name = "blocked"
    settings = "over_limit"


class TestConfirmWindow(SignalsContract):
    name = "confirm_window"
    settings = {"above": "50%", "delay": "1s", "limit": "100%"}


class TestQueue(SignalsContract):
    name = "client_queue"
    settings = {"messages": 5, "bytes": "1KiB"}


class TestThrottled(SignalsContract):
    name = "broker_throttle"
    settings = "100ms"


class TestQueueTime(SignalsContract):
    name = "client_queue_age"
    settings = "500ms"


class TestRequestsInFlight(SignalsContract):
    name = "requests_in_flight"
    settings = 5


class TestNacks(SignalsContract):
    name = "nacks"
    settings = {"above": "20%"}


class TestReturns(SignalsContract):
    name = "returns"
    settings = "50%"


class TestConfirmLatency(SignalsContract):
    name = "confirm_latency"
    settings = 3.0


@pytest.mark.parametrize(
    "policy",
    [
        {"blocked": "over_limit"},
        {"confirm_window": {}},
        {"client_queue": {"messages": 1, "bytes": 1}},
        {"client_queue_age": "1ms"},
        {"requests_in_flight": 1},
        {"nacks": {"above": 0.0, "minimum": 1}},
        {"returns": {"above": 0.0, "minimum": 1}},
        {"confirm_latency": {"min_in_flight": 1}},
    ],
    ids=str,
)
@pytest.mark.parametrize("signals", [None, Signals()], ids=["none", "unknown"])
def test_what_is_not_known_limits_nobody(policy, signals):
    """A client without signals, or one that has heard nothing yet, is admitted at once."""
    shield = shield_with({"match": "*", **policy})
    assert refusal(shield, signals) is None
    verdict = shield.admit(message(signals=signals))
    assert isinstance(verdict, Permit)
    assert verdict.delay_s == 0.0


# --- blocked --------------------------------------------------------------------------------------


def test_a_blocked_connection_is_over_its_limit_until_it_is_not():
    """Nobody knows for how long, so the refusal has no time."""
    shield = shield_with({"match": "*", "blocked": "over_limit"})
    signals = signals_with(blocked=True)
    found = refusal(shield, signals)
    assert (found.reason, found.retry_after_s) == ("blocked by the broker", None)
    signals.blocked = False
    assert refusal(shield, signals) is None


def test_one_connections_alarm_is_not_anothers():
    """Two clients under one rule: the blocked one's messages take the chain."""
    shield = shield_with({"match": "*", "blocked": "over_limit", "over_limit": "drop"})
    first, second = FakeClient(shield, "first"), FakeClient(shield, "second")
    first.signals.blocked, second.signals.blocked = True, False
    first.publish("orders", b"1")
    second.publish("orders", b"2")
    second.ack()
    assert second.arrived["orders"]
    assert counts(shield.ledger()) == {"offered": 2, "dropped": 1, "delivered": 1}


def test_who_waits_is_woken_when_the_block_ends():
    """Five stand in line, none polls; `changed` lets all of them in, first come, first served."""
    clock = HeldClock()
    rule = {"match": "*", "blocked": "over_limit", "over_limit": ["wait 1h", "drop"]}
    shield = Shield({"rules": [rule]}, clock=clock)
    client = FakeClient(shield)
    client.signals.blocked = True
    threads = []
    for n in range(5):
        threads.append(
            threading.Thread(target=client.publish, args=("orders", b"%d" % n), daemon=True)
        )
        threads[-1].start()
        clock.until_waiting(n + 1)
    assert clock.waits == 5
    client.signals.blocked = False
    client.signals.changed()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert [record.body for record in client.unanswered] == [b"0", b"1", b"2", b"3", b"4"]
    client.ack()
    assert counts(shield.ledger()) == {"offered": 5, "delivered": 5}


def test_a_blocked_clients_line_holds_up_no_other_client():
    """One waits for its own connection; a message of another connection passes it."""
    clock = HeldClock()
    rule = {"match": "*", "blocked": "over_limit", "over_limit": ["wait 1h", "drop"]}
    shield = Shield({"rules": [rule]}, clock=clock)
    stuck, free = FakeClient(shield), FakeClient(shield)
    stuck.signals.blocked = True
    thread = threading.Thread(target=stuck.publish, args=("orders", b"stuck"), daemon=True)
    thread.start()
    clock.until_waiting(1)
    free.publish("orders", b"free")
    assert len(free.unanswered) == 1
    stuck.signals.blocked = None  # the connection is gone
    stuck.signals.changed()
    thread.join(60)
    assert len(stuck.unanswered) == 1


def test_what_was_set_aside_stays_aside_while_the_connection_is_blocked():
    """It is asked about with the signals of the client that it goes through; then it is sent."""
    clock = HeldClock()
    shield = Shield({"rules": [{"match": "*", "blocked": "over_limit"}]}, clock=clock)
    client = FakeClient(shield)
    shield.engine.found(message(), End.SPOOLED)
    offer = partial(shield.engine.readmit, where=End.SPOOLED)
    source = OneKept(Envelope("orders", b"kept", "fake", producer="p"))
    redriver = Redriver(source, client.transport, offer, clock=clock)
    client.signals.blocked = True
    thread = threading.Thread(target=redriver.step, daemon=True)
    thread.start()
    clock.until_waiting(1)
    assert client.unanswered == []
    client.signals.blocked = False
    client.signals.changed()
    thread.join(60)
    assert [record.body for record in client.unanswered] == [b"kept"]
    client.ack()
    assert counts(shield.ledger()) == {"offered": 1, "delivered": 1}


def test_in_shadow_a_blocked_connection_is_counted_and_passes():
    """The verdict is in the ledger, the message goes."""
    shield = shield_with({"match": "*", "blocked": "over_limit", "mode": "shadow"})
    client = FakeClient(shield)
    client.signals.blocked = True
    client.publish("orders", b"1")
    client.ack()
    ledger = shield.ledger()
    assert counts(ledger) == {"offered": 1, "delivered": 1}
    assert ledger.over_limit == {("rule-1", "blocked", "blocked by the broker"): 1}


# --- confirm_window -------------------------------------------------------------------------------

SHARES = st.floats(0, 1)


@given(SHARES, SHARES, st.floats(0.001, 60), st.floats(0, 0.98), st.floats(0.01, 1))
def test_the_delay_grows_with_the_window_and_has_bounds(low, high, most_s, above, room):
    """Nothing up to `above`; then never less for a fuller window, and never over `delay`."""
    limit = min(1.0, above + room)
    table = {"above": above, "delay": most_s, "limit": limit}
    policy = shield_with({"match": "*", "confirm_window": table}).rules[0].policies[0]
    low, high = sorted((low, high))

    def delay_s(used: float) -> float:
        return policy.delay_s(message(signals=signals_with(window_used=used)), 0.0)

    assert 0.0 <= delay_s(low) <= delay_s(high) <= most_s
    assert delay_s(above) == 0.0
    assert delay_s(limit) == pytest.approx(most_s)


def test_a_window_in_use_delays_and_at_its_limit_refuses():
    """Half: at once; three quarters: half a second; the whole: over the limit."""
    rule = {"match": "*", "confirm_window": {}, "over_limit": "drop"}
    shield = shield_with(rule)
    client = FakeClient(shield)
    begun = shield.clock.now()
    for used, waited_s in ((0.5, 0.0), (0.75, 0.5), (0.9, 1.3), (1.0, 1.3)):
        client.signals.window_used = used
        client.publish("orders", b"1")
        assert shield.clock.now() - begun == pytest.approx(waited_s, abs=1e-6)
    client.ack()
    assert counts(shield.ledger()) == {"offered": 4, "delivered": 3, "dropped": 1}


# --- queue ----------------------------------------------------------------------------------------


def test_a_full_queue_sheds_and_stops_as_soon_as_there_is_room():
    """At the bound exactly, without hysteresis."""
    shield = shield_with({"match": "*", "client_queue": {"messages": 3}})
    signals = signals_with()
    for expected in (None, None, None, "messages"):
        found = refusal(shield, signals)
        assert (found and found.reason) == expected
        signals.queued(1, 100)
    signals.queued(-2, -200)
    assert refusal(shield, signals) is None


def test_a_queue_is_bounded_in_bytes_and_a_large_message_passes_alone():
    """It is not refused for ever."""
    shield = shield_with({"match": "*", "client_queue": {"bytes": "1KB"}})
    signals = signals_with()
    assert refusal(shield, signals, size=5000) is None
    signals.queued(1, 900)
    assert refusal(shield, signals, size=100) is None
    assert refusal(shield, signals, size=101).reason == "bytes"


def test_a_queue_takes_the_place_of_a_clients_own_bound():
    """Or the client would block its callers before anything is shed."""
    shield = shield_with({"match": "*", "client_queue": {"messages": 3}})
    verdict = shield.admit(message())
    assert isinstance(verdict, Permit)
    assert verdict.flow.bounded


# --- nacks, returns, latency ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["nacks", "returns"])
def test_too_large_a_share_of_answers_refuses_until_they_are_forgotten(kind):
    """The refusal says when, and then the message is admitted."""
    shield = shield_with({"match": "*", kind: {"above": "20%", "minimum": 10}})
    clock = shield.clock
    signals = Signals(clock.now)
    signals.answers.count(clock.now(), 10, **{kind: 2})
    assert refusal(shield, signals) is None
    signals.answers.count(clock.now(), 1, **{kind: 1})
    assert refusal(shield, signals).retry_after_s == pytest.approx(10)
    clock.advance(10)
    assert refusal(shield, signals) is None


def test_nacks_are_not_returns():
    """Each policy minds its own."""
    shield = shield_with({"match": "*", "nacks": "20%", "returns": "20%"})
    signals = signals_with()
    signals.answers.count(1_000.0, 100, returns=100)
    nacks, returns = shield.rules[0].policies
    one = message(signals=signals)
    if nacks.name != "nacks":
        nacks, returns = returns, nacks
    assert nacks.check(one, 1_000.0) is None
    assert returns.check(one, 1_000.0).reason == "returned by the broker"


def test_a_wait_ends_when_the_share_has_fallen():
    """Nobody wakes it: the refusal has a time."""
    rule = {"match": "*", "nacks": "20%", "over_limit": ["wait 20s", "drop"]}
    shield = shield_with(rule)
    client = FakeClient(shield)
    client.signals.answers.count(shield.clock.now(), 100, nacks=50)
    begun = shield.clock.now()
    client.publish("orders", b"1")
    client.ack()
    assert shield.clock.now() - begun == pytest.approx(10, abs=0.01)
    assert counts(shield.ledger()) == {"offered": 1, "delivered": 1}


def test_slow_confirms_refuse_only_while_enough_is_in_flight():
    """Over the baseline and with many unanswered; below that messages go on and show how it is."""
    shield = shield_with({"match": "*", "confirm_latency": {"min_in_flight": 50}})
    signals = signals_with(in_flight=40, queue_messages=9)
    signals.latency.add(999.0, 0.010)
    for _ in range(100):
        signals.latency.add(999.5, 0.050)
    assert refusal(shield, signals) is None
    signals.queued(1, 100)
    assert refusal(shield, signals).reason == "confirm latency"
    for _ in range(100):
        signals.latency.add(999.9, 0.020)
    assert refusal(shield, signals) is None


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"blocked": "drop"}, "rules[0].blocked"),
        ({"blocked": True}, "rules[0].blocked"),
        ({"confirm_window": {"above": "100%"}}, "above is 100% and limit 100%"),
        ({"confirm_window": {"above": 0.9, "limit": 0.5}}, "an above that is below the limit"),
        ({"confirm_window": {"above": "150%"}}, "a share is from 0 to 1"),
        ({"confirm_window": {"delay": "0s"}}, "a time is above 0"),
        ({"confirm_window": {"delay": "2m"}}, "60"),
        ({"client_queue": {}}, "allowed is messages, bytes, or both"),
        ({"client_queue": {"messages": 0}}, "allowed is 1 or more"),
        ({"client_queue": {"message": 5}}, "did you mean 'messages'"),
        ({"client_queue_age": "0s"}, "a time is above 0"),
        ({"client_queue_age": {"over": "1s"}}, "allowed: above"),
        ({"requests_in_flight": 0}, "allowed is 1 or more"),
        ({"requests_in_flight": {}}, "is missing"),
        ({"nacks": {}}, "is missing"),
        ({"nacks": "a few"}, "not a share"),
        ({"nacks": "100%"}, "allowed is less than 100%"),
        ({"returns": {"above": "20%", "minimum": 0}}, "allowed is 1 or more"),
        ({"confirm_latency": {"over_baseline": 1.0}}, "greater than 1"),
        ({"confirm_latency": {"over_baseline": float("inf")}}, "finite"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_at_load(table, said):
    """One line names the key, and what is allowed."""
    with pytest.raises(SettingsError) as caught:
        Shield({"rules": [{"match": "*", **table}]}, clock=ManualClock())
    assert said in str(caught.value)
    assert f"rules[0].{next(iter(table))}" in str(caught.value)


# --- broker_throttle ------------------------------------------------------------------------------


def test_what_comes_while_the_broker_throttles_takes_the_chain():
    """Until the wait is as short as is allowed; the refusal says how long it is yet."""
    own = shield_with({"match": "*", "broker_throttle": "100ms", "over_limit": "drop"})
    client = FakeClient(own)
    client.publish("orders", b"before")
    client.signals.throttled_until = own.clock.now() + 2.0
    assert own.rules[0].policies[0].check(
        message(signals=client.signals), own.clock.now()
    ).retry_after_s == pytest.approx(2.0)
    client.publish("orders", b"during")
    own.clock.advance(1.95)
    assert own.pressure() == pytest.approx(0.5)
    client.publish("orders", b"after")
    client.ack()
    ledger = own.ledger()
    assert counts(ledger) == {"offered": 3, "delivered": 2, "dropped": 1}
    assert ledger.drops == {("rule-1", "broker_throttle", "throttled by the broker"): 1}


def test_who_waits_for_a_throttled_broker_is_let_in_when_the_time_is_over():
    """By time alone; nothing is answered meanwhile."""
    own = shield_with({"match": "*", "broker_throttle": {}, "over_limit": ["wait 10s", "drop"]})
    client = FakeClient(own)
    begun = own.clock.now()
    client.signals.throttled_until = begun + 3.0
    assert fate(client.publish("orders", b"1")) == "sent"
    assert own.clock.now() - begun == pytest.approx(3.0, abs=0.2)


def test_a_clients_full_queue_tells_of_load():
    """A BufferError, as confluent-kafka raises it, teaches the limits as a timeout does."""
    transport = FakeClient(shield_with()).transport
    assert transport.outcome_of(BufferError("Local: Queue full")) is Outcome.OVERLOADED
    assert transport.outcome_of(TimeoutError()) is Outcome.OVERLOADED
    assert transport.outcome_of(ValueError()) is Outcome.FAILED


# --- client_queue_age, requests_in_flight ---------------------------------------------------------


def test_what_comes_while_the_oldest_record_has_waited_too_long_takes_the_chain():
    """By time alone, though nothing is told meanwhile; over as soon as the oldest has gone."""
    own = shield_with({"match": "*", "client_queue_age": "500ms", "over_limit": "drop"})
    client = FakeClient(own)
    client.signals.waits_since = own.clock.now()
    for advance_s, pressure, lost in ((0.25, 0.5, 0), (0.25, 1.0, 0), (0.01, 1.0, 1)):
        own.clock.advance(advance_s)
        client.publish("orders", b"1")
        assert own.pressure() == pytest.approx(pressure)
        assert own.ledger().dropped == lost
    client.signals.waits_since = own.clock.now() - 0.1
    client.publish("orders", b"1")
    client.signals.waits_since = None
    client.publish("orders", b"1")
    assert own.pressure() == 0.0
    client.ack()
    ledger = own.ledger()
    assert counts(ledger) == {"offered": 5, "delivered": 4, "dropped": 1}
    assert ledger.drops == {("rule-1", "client_queue_age", "queue time"): 1}


def test_a_record_that_cannot_be_sent_yet_has_not_waited():
    """One that the client lingers for counts from when it may go: that may be to come."""
    own = shield_with({"match": "*", "client_queue_age": "1ms", "over_limit": "drop"})
    signals = signals_with(waits_since=own.clock.now() + 5.0)
    assert refusal(own, signals) is None
    assert own.rules[0].policies[0].pressure(message(signals=signals), own.clock.now()) == 0.0


def test_so_many_requests_are_over_the_limit_and_one_less_is_not():
    """Nobody knows until when, so the refusal has no time."""
    own = shield_with({"match": "*", "requests_in_flight": 4})
    signals = signals_with(requests=3)
    assert refusal(own, signals) is None
    assert own.rules[0].policies[0].pressure(message(signals=signals), 0.0) == 0.75
    signals.requests = 4
    found = refusal(own, signals)
    assert (found.reason, found.retry_after_s) == ("requests", None)


@pytest.mark.parametrize(
    ("policy", "stuck"),
    [
        ({"client_queue_age": "1s"}, {"waits_since": 0.0}),
        ({"requests_in_flight": 2}, {"requests": 2}),
    ],
    ids=str,
)
def test_who_waits_for_a_clients_queue_is_woken_when_that_moves(policy, stuck):
    """By `changed`, as the client tells it; another client's messages pass meanwhile."""
    clock = HeldClock()
    rule = {"match": "*", **policy, "over_limit": ["wait 1h", "drop"]}
    shield = Shield({"rules": [rule]}, clock=clock)
    client, free = FakeClient(shield), FakeClient(shield)
    for name, value in stuck.items():
        setattr(client.signals, name, value)
    thread = threading.Thread(target=client.publish, args=("orders", b"1"), daemon=True)
    thread.start()
    clock.until_waiting(1)
    free.publish("orders", b"2")
    assert len(free.unanswered) == 1
    client.signals.waits_since, client.signals.requests = None, 1
    client.signals.changed()
    thread.join(60)
    assert len(client.unanswered) == 1
