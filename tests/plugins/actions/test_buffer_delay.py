"""`buffer` with a `queue_delay`: what is kept too long while too much is kept."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shield
from shield import OverLimitError, SettingsError, Shield
from shield.plugins.actions.buffer.sender import BufferSender, drain_of
from shield.testing import FakeClient, ManualClock
from tests.making import counts, shield_with

DELAY = {"target": "1s", "interval": "10s", "longest": "5s"}
BUFFER = {"buffer": {"messages": 1000, "queue_delay": DELAY}}


@pytest.fixture(autouse=True)
def by_hand(monkeypatch):
    """No thread drains: the test does, with `live`."""
    monkeypatch.setattr(BufferSender, "_start", lambda self: None)


def client_with(*chain, **policies):
    return FakeClient(shield_with({"match": "*", "over_limit": [BUFFER, *chain], **policies}))


def live(client, seconds, step_s=0.5):
    """Let time pass; the drain is asked whenever it wants to be."""
    clock = client.shield.clock
    drain = drain_of(clock)
    for _ in range(int(seconds / step_s)):
        clock.advance(step_s)
        while drain.step() == 0.0:
            pass


def sent(client):
    return [record.body for record in client.unanswered]


def fates(futures):
    return [shield.fate(future) for future in futures]


def fill(client, many):
    return [client.publish("orders", b"%d" % n) for n in range(many)]


def test_without_it_messages_are_kept_as_long_as_it_takes():
    """In their order, and none is shed."""
    own = shield_with({"match": "*", "in_flight": {"messages": 1}, "over_limit": ["buffer"]})
    client = FakeClient(own)
    futures = fill(client, 10)
    live(client, 1000)
    assert fates(futures) == ["sent"] + ["buffered"] * 9


def test_a_buffer_that_stands_lets_go_what_is_kept_too_long():
    """To the chain's next action; not before a whole interval has shown that it stands."""
    client = client_with("drop", in_flight={"messages": 1})
    futures = fill(client, 4)
    live(client, 10)
    assert fates(futures) == ["sent"] + ["buffered"] * 3
    live(client, 15)
    assert fates(futures) == ["sent"] + ["dropped"] * 3
    assert all(future.done() for future in futures[1:])
    assert counts(client.shield.ledger()) == {"offered": 4, "in_flight": 1, "dropped": 3}
    assert client.shield.rules[0].chain[0]._bound.messages == 0


def test_where_nothing_follows_they_are_raised():
    """To their futures, with what refused them at first."""
    client = client_with(in_flight={"messages": 1})
    futures = fill(client, 2)
    live(client, 30)
    error = futures[1].exception(0)
    assert isinstance(error, OverLimitError)
    assert error.policy == "in_flight"
    assert counts(client.shield.ledger()) == {"offered": 2, "in_flight": 1, "raised": 1}


def test_while_it_stands_the_newest_are_sent_first():
    """Then oldest first again, once it has been empty."""
    patient = {"buffer": {"queue_delay": {**DELAY, "longest": "1h"}}}
    client = FakeClient(
        shield_with({"match": "*", "in_flight": {"messages": 1}, "over_limit": [patient]})
    )
    for _ in range(2):
        futures = fill(client, 4)
        live(client, 25)
        order = []
        for _ in futures:
            order += sent(client)
            client.ack()
            live(client, 0.5)
        assert order == [b"0", b"3", b"2", b"1"]
        assert all(future.done() for future in futures)
    fill(client, 4)
    for number in range(4):
        assert sent(client) == [b"%d" % number]
        client.ack()
        live(client, 0.5)


def test_a_peak_that_is_over_within_the_interval_is_sent_in_its_order():
    """That is what a buffer is for."""
    client = client_with("drop", quota={"rate": "10/s", "burst": 1})
    futures = fill(client, 60)
    live(client, 6, step_s=0.05)
    assert sent(client) == [b"%d" % n for n in range(60)]
    assert "dropped" not in fates(futures)


def test_what_an_order_binds_stays_in_its_order():
    """The oldest of a key are let go first, and the rest sent oldest first."""
    client = client_with("drop", in_flight={"messages": 1}, order="key")
    client.publish("orders", b"before", b"other")
    futures = [client.publish("orders", b"0", b"k")]
    live(client, 25)
    assert fates(futures) == ["dropped"]
    futures = [client.publish("orders", b"%d" % n, b"k") for n in (1, 2, 3)]
    live(client, 1)
    order = []
    for _ in range(4):
        order += sent(client)
        client.ack()
        live(client, 0.5)
    assert order == [b"before", b"1", b"2", b"3"]


def test_a_client_that_closes_accounts_for_all():
    """Whatever was let go before."""
    client = client_with("drop", in_flight={"messages": 1})
    futures = fill(client, 5)
    live(client, 14)
    client.close()
    assert all(future.done() for future in futures)
    assert counts(client.shield.ledger())["offered"] == 5
    assert client.shield.ledger().in_flight == 0


STEPS = st.lists(
    st.one_of(st.just("publish"), st.just("ack"), st.sampled_from([0.5, 6.0, 30.0])), max_size=40
)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_whatever_happens_each_message_has_one_end(steps):
    """The ledger balances at every step, and nobody's place in the buffer is lost."""
    clock = ManualClock()
    rule = {"match": "*", "in_flight": {"messages": 2}, "over_limit": [BUFFER, "drop"]}
    client = FakeClient(Shield({"rules": [rule]}, clock=clock))
    futures = []
    for step in steps:
        if step == "publish":
            futures.append(client.publish("orders", b"x"))
        elif step == "ack":
            client.ack()
            live(client, 0.5)
        else:
            live(client, step)
        ledger = client.shield.ledger()
        assert ledger.balanced
        assert ledger.failed == ledger.raised == 0
        assert client.shield.rules[0].chain[0]._bound.messages == ledger.buffered
        assert len(client.unanswered) == ledger.in_flight <= 2
    client.close()
    assert all(future.done() for future in futures)
    assert client.shield.ledger().buffered == 0
    assert not client.shield.engine.lines


def test_times_that_do_not_fit_are_refused_at_load():
    """With where they stand."""
    wrong = {"buffer": {"queue_delay": {"target": "1s", "interval": "100ms"}}}
    with pytest.raises(SettingsError, match=r"interval is 0\.1 s and target 1 s") as caught:
        shield_with({"match": "*", "over_limit": [wrong]})
    assert "rules[0].over_limit[0]" in str(caught.value)
