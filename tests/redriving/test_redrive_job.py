"""`shield.redrive(...)`: what goes back and where to, what stays, and what is said of it."""

from __future__ import annotations

from collections import defaultdict

import pytest

import shield as public
from shield import (
    Envelope,
    Kind,
    Redriven,
    Reject,
    SettingsError,
    ShieldError,
    UnavailableError,
    hookimpl,
    redrive,
)
from shield.operations.redrive_job import MOST_IN_VAIN, Redriving
from tests.making import Listening, counts, shield_with
from tests.memory import Broker, Memory, MemorySource, Plugin, diverted

OVERFLOW = "memory://b/overflow"


@pytest.fixture(autouse=True)
def brokers(monkeypatch):
    """Fresh ones for each test."""
    fresh = defaultdict(Broker)
    monkeypatch.setattr(Memory, "brokers", fresh)
    return fresh


def shield_of(*rules, allow=("orders.*", "x"), **settings):
    return shield_with(*rules, plugins=[Plugin()], redrive_allow=list(allow), **settings)


def fill(brokers, *envelopes):
    brokers["b"].places["overflow"] += envelopes


def bodies(brokers, place, broker="b"):
    return [envelope.body for envelope in brokers[broker].places[place]]


# --- back ---------------------------------------------------------------------------------------


def test_all_go_back_to_where_they_were_going(brokers):
    """On the broker they are on, as they were, with their id and attempt count alone."""
    fill(brokers, *(diverted(n, key=b"k", headers=(("own", b"1"),)) for n in range(3)))
    done = redrive(OVERFLOW, shield=shield_of())
    back = brokers["b"].places["orders.created"]
    assert [envelope.body for envelope in back] == [b"0", b"1", b"2"]
    assert back[0].key == b"k"
    assert back[0].headers == (("own", b"1"),)
    assert dict(back[0].marks) == {"shield-message-id": "id-0", "shield-attempt": "1"}
    assert brokers["b"].places["overflow"] == []
    assert (done.sent, done.complete) == (3, True)
    assert done.messages == {("orders", "orders.created"): 3}


def test_a_message_of_another_broker_goes_back_there(brokers):
    """Its headers name it; they are taken off like the others."""
    fill(brokers, diverted(0, broker="memory://a"), diverted(1))
    assert redrive(OVERFLOW, allow=["memory://a"], shield=shield_of()).complete
    assert bodies(brokers, "orders.created", "a") == [b"0"]
    assert bodies(brokers, "orders.created", "b") == [b"1"]
    assert "shield-original-broker" not in dict(brokers["a"].places["orders.created"][0].marks)


@pytest.mark.parametrize(
    ("to", "place"), [("memory://c", "orders.created"), ("memory://c/all", "all")]
)
def test_a_target_that_is_named_stands_in(brokers, to, place):
    """A broker for the original's, or one place for all."""
    fill(brokers, diverted(0, broker="memory://a"))
    assert redrive(OVERFLOW, to=to, shield=shield_of()).complete
    assert bodies(brokers, place, "c") == [b"0"]


def test_they_pass_the_rules_behind_all_others(brokers):
    """Ten a second and a burst of ten: thirty take two seconds, and none is diverted again."""
    rule = {
        "name": "orders",
        "match": "orders.*",
        "quota": {"rate": "10/s", "burst": 10},
        "over_limit": ["drop"],
    }
    fill(brokers, *(diverted(n) for n in range(30)))
    shield = shield_of(rule)
    done = redrive(OVERFLOW, shield=shield)
    assert done.sent == 30
    assert done.seconds == pytest.approx(2.0, abs=0.1)
    assert counts(shield.ledger()) == {"offered": 30, "delivered": 30}


def test_the_rate_holds_besides(brokers):
    """Eleven at two a second take five seconds."""
    fill(brokers, *(diverted(n) for n in range(11)))
    assert redrive(OVERFLOW, rate="2/s", shield=shield_of()).seconds == pytest.approx(5.0, abs=0.1)


def test_a_send_that_fails_is_tried_again(brokers):
    """And what has come through is complete."""
    fill(brokers, diverted(0), diverted(1))
    brokers["b"].refusals[b"0"] = 3
    shield = shield_of()
    done = redrive(OVERFLOW, shield=shield)
    assert done.complete
    assert sorted(bodies(brokers, "orders.created")) == [b"0", b"1"]
    ledger = counts(shield.ledger())
    assert (ledger["delivered"], ledger["overflowed"]) == (2, 3)


def test_observers_hear_of_each_that_is_back(brokers):
    """Once; not of one whose send failed."""
    fill(brokers, diverted(0), diverted(1, to="orders.cancelled"))
    brokers["b"].refusals[b"0"] = 1
    listening = Listening()
    assert (
        redrive(
            OVERFLOW, shield=shield_with(redrive_allow=["orders.*"], plugins=[Plugin(), listening])
        ).sent
        == 2
    )
    back = listening.destinations(Kind.REDRIVEN)
    assert sorted(back) == ["orders.cancelled", "orders.created"]
    assert len(listening.destinations(Kind.SETTLED)) == 3


# --- what stays ---------------------------------------------------------------------------------


def test_what_is_not_meant_stays(brokers):
    """`where` asks the message as it was diverted."""
    fill(brokers, diverted(0), diverted(1, rule="other"), diverted(2))
    done = redrive(OVERFLOW, where="rule==orders", shield=shield_of())
    assert (done.sent, done.skipped, done.complete) == (2, 1, True)
    assert bodies(brokers, "overflow") == [b"1"]


def test_a_limit_is_one_on_what_goes_back(brokers):
    """Not on what is looked at; a failure does not count."""
    fill(brokers, diverted(0, rule="other"), *(diverted(n) for n in range(1, 5)))
    brokers["b"].refusals[b"1"] = 1
    done = redrive(OVERFLOW, where="rule==orders", limit=2, shield=shield_of())
    assert done.sent == 2
    assert len(brokers["b"].places["overflow"]) == 3


def test_a_dry_run_counts_and_leaves_everything(brokers):
    """By rule and destination."""
    fill(brokers, diverted(0), diverted(1, rule="other", to="x"), diverted(2))
    shield = shield_of()
    done = redrive(OVERFLOW, dry_run=True, shield=shield)
    assert done.messages == {("orders", "orders.created"): 2, ("other", "x"): 1}
    assert (done.sent, done.dry_run) == (0, True)
    assert len(brokers["b"].places["overflow"]) == 3
    assert counts(shield.ledger()) == {}


def test_a_message_that_says_not_where_it_was_going_stays(brokers):
    """It would go round in a circle; named a place it goes there."""
    fill(brokers, Envelope("overflow", b"?", "memory"), diverted(0))
    done = redrive(OVERFLOW, shield=shield_of())
    assert (done.sent, done.unknown, done.complete) == (1, 1, False)
    assert bodies(brokers, "overflow") == [b"?"]
    assert redrive(OVERFLOW, to="memory://b/all", shield=shield_of()).complete
    assert bodies(brokers, "all") == [b"?"]


def test_a_source_that_knows_where_they_were_going_needs_no_headers(brokers, monkeypatch):
    """As a spool does."""
    monkeypatch.setattr(MemorySource, "diverted", False)
    monkeypatch.setattr(MemorySource, "believed", True)
    fill(brokers, Envelope("orders", b"1", "memory"))
    assert redrive(OVERFLOW, shield=shield_of()).complete
    assert bodies(brokers, "orders") == [b"1"]


def test_what_cannot_be_sent_is_given_up_and_listed(brokers):
    """After five tries; it stays, and so does what comes later of its key."""
    fill(brokers, *(diverted(n, key=b"a") for n in range(2)), diverted(2, key=b"b"))
    brokers["b"].refusals[b"0"] = 99
    done = redrive(OVERFLOW, shield=shield_of())
    assert (done.sent, done.failed, done.complete) == (1, 2, False)
    assert bodies(brokers, "overflow") == [b"0", b"1"]
    assert [(left.id, left.why) for left in done.listed] == [
        ("id-0", "TimeoutError: no answer"),
        ("id-1", "one before it with the same key failed"),
    ]


def test_a_target_that_takes_nothing_ends_it(brokers):
    """With what it says; the rest is not even tried."""
    fill(brokers, *(diverted(n) for n in range(5000)))
    brokers["b"].missing.add("orders.created")
    done = redrive(OVERFLOW, shield=shield_of())
    assert done.error == "nothing is taken any more: LookupError: orders.created is not there"
    assert (done.sent, done.complete) == (0, False)
    assert done.failed >= MOST_IN_VAIN
    assert len(brokers["b"].places["overflow"]) == 5000


def test_what_a_plugin_rejects_stays(brokers):
    """It is counted as raised, and listed."""

    class NoOrders:
        @hookimpl
        def shield_before_publish(self, message):
            if message.header("shield-message-id") == "id-0":
                raise Reject("not this one")

    shield = shield_with(redrive_allow=["orders.*"], plugins=[Plugin(), NoOrders()])
    fill(brokers, diverted(0), diverted(1))
    done = redrive(OVERFLOW, shield=shield)
    assert (done.sent, done.failed) == (1, 1)
    assert done.listed[0].why == "Reject: not this one"
    assert counts(shield.ledger()) == {"offered": 2, "delivered": 1, "raised": 1}


# --- set aside too often ------------------------------------------------------------------------


def test_what_was_set_aside_too_often_is_parked_with_its_headers(brokers):
    """On the same broker by its name, or anywhere by a URL; it can be redriven from there."""
    fill(brokers, diverted(0, attempt=3), diverted(1, attempt=2))
    done = redrive(OVERFLOW, park="parked", max_attempts=3, shield=shield_of())
    assert (done.sent, done.parked, done.complete) == (1, 1, False)
    assert [(left.id, left.why) for left in done.listed] == [("id-0", "set aside 3 times")]
    (parked,) = brokers["b"].places["parked"]
    assert dict(parked.marks)["shield-original-destination"] == "orders.created"
    assert brokers["b"].places["overflow"] == []
    again = redrive("memory://b/parked", max_attempts=4, shield=shield_of())
    assert again.complete
    assert bodies(brokers, "orders.created") == [b"1", b"0"]


def test_without_a_parking_destination_it_stays(brokers):
    """The settings say how often is too often, and where to."""
    fill(brokers, diverted(0, attempt=5))
    done = redrive(OVERFLOW, shield=shield_of())
    assert (done.kept, done.complete) == (1, False)
    assert bodies(brokers, "overflow") == [b"0"]
    settings = {"redrive_attempts": 5, "redrive_park": "memory://c/parked"}
    assert redrive(OVERFLOW, shield=shield_of(**settings)).parked == 1
    assert bodies(brokers, "parked", "c") == [b"0"]


def test_what_cannot_be_parked_stays(brokers):
    """And is listed with the error."""
    brokers["b"].missing.add("parked")
    fill(brokers, diverted(0, attempt=9))
    done = redrive(OVERFLOW, park="parked", shield=shield_of())
    assert (done.parked, done.failed) == (0, 1)
    assert done.listed[0].why == "cannot be parked: parked is not there"
    assert bodies(brokers, "overflow") == [b"0"]


# --- stopping and following ---------------------------------------------------------------------


def test_what_is_stopped_goes_on_with_the_next_call(brokers):
    """Nothing is lost, and nothing sent twice."""
    fill(brokers, *(diverted(n) for n in range(10)))
    shield = shield_of()
    redriving = Redriving(OVERFLOW, shield=shield)
    brokers["b"].on_send = lambda: len(bodies(brokers, "orders.created")) == 4 and redriving.stop()
    done = redriving.run()
    assert done.interrupted
    assert 4 <= done.sent < 10
    brokers["b"].on_send = lambda: None
    assert redrive(OVERFLOW, shield=shield).sent == 10 - done.sent
    assert bodies(brokers, "orders.created") == [b"%d" % n for n in range(10)]


def test_following_goes_on_until_it_is_stopped(brokers):
    """What comes later goes back as well."""
    fill(brokers, diverted(0))
    redriving = Redriving(OVERFLOW, shield=shield_of(), follow=True)
    more = iter([lambda: fill(brokers, diverted(1)), redriving.stop])
    brokers["b"].on_send = lambda: next(more)()
    assert redriving.run().sent == 2


def test_following_waits_for_a_target_that_is_away(brokers, caplog):
    """However long: none is given up, and a line in the log says what it waits for."""
    fill(brokers, *(diverted(n) for n in range(MOST_IN_VAIN + 5)))
    brokers["b"].missing.add("orders.created")
    redriving = Redriving(OVERFLOW, shield=shield_of(), follow=True)

    def mended():
        if "nothing is taken there: LookupError" in caplog.text:
            brokers["b"].missing.clear()
        if len(bodies(brokers, "orders.created")) == MOST_IN_VAIN + 4:
            redriving.stop()

    brokers["b"].on_send = mended
    done = redriving.run()
    assert (done.failed, done.error) == (0, None)
    assert done.sent == MOST_IN_VAIN + 5


def test_following_waits_for_a_source_that_is_away(brokers, monkeypatch, caplog):
    """It says so once; one that does not follow ends with what it was told."""
    fill(brokers, diverted(0))
    errors = [UnavailableError("cannot read from memory://b")] * 3
    take = MemorySource.take

    def away(source, most, timeout_s):
        if errors:
            raise errors.pop()
        return take(source, most, timeout_s)

    monkeypatch.setattr(MemorySource, "take", away)
    redriving = Redriving(OVERFLOW, shield=shield_of(), follow=True)
    brokers["b"].on_send = redriving.stop
    assert redriving.run().sent == 1
    assert caplog.text.count("cannot read from memory://b") == 1
    errors.append(UnavailableError("cannot read from memory://b"))
    with pytest.raises(UnavailableError, match="cannot read"):
        redrive(OVERFLOW, shield=shield_of())


def test_any_number_that_are_at_fault_themselves_end_nothing(brokers, monkeypatch):
    """Those behind them go back; those that no target takes stay and are named."""
    monkeypatch.setattr(Memory, "is_hopeless", lambda _, error: isinstance(error, TimeoutError))
    monkeypatch.setattr(Memory, "is_faulty", lambda _, error: isinstance(error, TimeoutError))
    bad = MOST_IN_VAIN * 2
    fill(brokers, *(diverted(n) for n in range(bad + 3)))
    for number in range(bad):
        brokers["b"].refusals[b"%d" % number] = 1
    done = redrive(OVERFLOW, shield=shield_of())
    assert (done.sent, done.failed, done.error) == (3, bad, None)


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"source": "nowhere"}, "source: found 'nowhere'; allowed is a URL as kafka://"),
        ({"source": "memroy://b/x"}, "source: found 'memroy://b/x'; unknown scheme 'memroy'"),
        ({"to": "elsewhere"}, "to: found 'elsewhere'; allowed is 'original', or a URL"),
        ({"to": "nothing://x"}, "to: found 'nothing://x'; unknown scheme 'nothing'"),
        ({"rate": "fast"}, "rate: found 'fast'; a rate needs a unit"),
        ({"rate": "5MiB/s"}, "rate: found '5MiB/s'; a redrive counts messages"),
        ({"where": "rule"}, "where: found the end"),
        ({"limit": 0}, "limit: found 0; allowed is 1 or more"),
        ({"max_attempts": 0}, "max_attempts: found 0; allowed is 1 or more"),
        ({"park": "memory://b"}, "park: found 'memory://b'; it names no"),
    ],
)
def test_a_wrong_argument_is_named(brokers, wrong, error):
    """With what was found and what is allowed; nothing is opened."""
    fill(brokers, diverted(0))
    with pytest.raises(SettingsError) as refused:
        redrive(**{"source": OVERFLOW, "shield": shield_of(), **wrong})
    assert str(refused.value).startswith(error)
    assert bodies(brokers, "overflow") == [b"0"]


def test_a_place_that_is_not_there_is_an_error(brokers):
    """In the words of its transport."""
    with pytest.raises(ShieldError, match="memory://b/none: there is no such place"):
        redrive("memory://b/none", shield=shield_of())


def test_the_result_is_ready_for_json():
    """Plain numbers, texts and lists."""
    done = Redriven(sent=1, messages={("orders", "x"): 1})
    assert done.as_dict()["messages"] == [{"rule": "orders", "destination": "x", "messages": 1}]
    assert done.as_dict()["complete"]
    assert public.Redriven is Redriven
