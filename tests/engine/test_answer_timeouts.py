"""What is handed to somebody who never answers, answers twice, or asks back: nothing hangs."""

from __future__ import annotations

import gc
import logging
import threading

import pytest

import shield as core
from shield import (
    Action,
    DeliveryUnknownError,
    Message,
    Policy,
    Shield,
    ShieldError,
    Transport,
)
from shield.action import Divert, Keep
from shield.algorithms.gcra import Gcra
from shield.capabilities import Observable
from shield.engine import policy_sets, process
from shield.engine.reporting.retired import Retired
from shield.testing import AdmitNothing, FakeClient
from tests.making import Kinds, counts, message, permit, shield_with

WITHIN_S = 10.0


class Silent(Transport):
    """Takes messages and says nothing until it is told to."""

    scheme = "silent"

    def __init__(self):
        self.dones = []

    def send(self, envelope, done):
        self.dones.append(done)

    def close(self, timeout_s):
        pass


def diverting(transport, done=lambda: None, *after, **settings):
    """Return a client all of whose messages go to that transport."""

    class Away(Action):
        def step(self, over):
            return Divert("away", done, transport)

    rule = {"name": "r", "match": "*", "admit_nothing": {}, "over_limit": ["away", *after]}
    plugins = [AdmitNothing, Kinds(actions={"away": Away})]
    return FakeClient(shield_with(rule, plugins=plugins, **settings))


def test_a_transport_that_never_answers_has_a_limit_of_time(caplog):
    """Then the message counts as failed, and its future says that its fate is unknown."""
    client = diverting(Silent(), answer_within=0.05)
    future = client.publish("orders", b"1")
    assert isinstance(future.exception(WITHIN_S), DeliveryUnknownError)
    assert counts(client.shield.ledger()) == {"offered": 1, "failed": 1}
    assert "nothing has answered for it in 0.05 s" in caplog.text


def test_closing_settles_what_nobody_has_answered_for():
    """Whatever comes after that changes nothing any more."""
    transport = Silent()
    client = diverting(transport)
    future = client.publish("orders", b"1")
    client.close(0.0)
    assert isinstance(future.exception(0), DeliveryUnknownError)
    transport.dones[0](None)
    assert counts(client.shield.ledger()) == {"offered": 1, "failed": 1}


def test_a_transport_may_answer_twice_and_with_nonsense():
    """The first answer counts; what is no error is a failure."""
    transport = Silent()
    client = diverting(transport, lambda: None, "drop")
    first, second = client.publish("orders", b"1"), client.publish("orders", b"2")
    transport.dones[0](None)
    transport.dones[0](RuntimeError("after all"))
    transport.dones[1]("stored")
    assert core.fate(first) == "overflowed"
    assert core.fate(second) == "dropped"
    assert counts(client.shield.ledger()) == {"offered": 2, "overflowed": 1, "dropped": 1}


def test_a_done_that_raises_holds_up_nothing():
    """It is the action's failure, and counted as that."""

    def done():
        raise RuntimeError("broken")

    transport = Silent()
    client = diverting(transport, done)
    future = client.publish("orders", b"1")
    transport.dones[0](None)
    assert future.result(0) is None
    assert client.shield.plugin_errors == {"r.away": 1}
    assert counts(client.shield.ledger()) == {"offered": 1, "overflowed": 1}


def test_failures_of_a_third_partys_transport_are_logged_once_a_minute(caplog):
    """As built-in ones are: which, how often, and why."""
    transport = Silent()
    client = diverting(transport, lambda: None, "drop")
    for _ in range(3):
        client.publish("orders", b"1")
        transport.dones.pop()(OSError("disk full"))
    lines = [record for record in caplog.records if "disk full" in record.getMessage()]
    assert [record.levelno for record in lines] == [logging.WARNING]


def test_a_keeper_that_never_ends_a_message_loses_it_to_the_chain_when_its_client_closes():
    """Nothing stays in flight behind a client that is gone."""

    class Hoard(Action):
        def step(self, over):
            return Keep("buffered", lambda kept: None)

    rule = {"match": "*", "admit_nothing": {}, "over_limit": ["hoard", "drop"]}
    plugins = [AdmitNothing, Kinds(actions={"hoard": Hoard})]
    client = FakeClient(shield_with(rule, plugins=plugins))
    future = client.publish("orders", b"1")
    assert not future.done()
    client.close(0.0)
    assert future.done()
    assert counts(client.shield.ledger()) == {"offered": 1, "dropped": 1}


@pytest.mark.parametrize("asks", ["ledger", "pressure", "status"])
@pytest.mark.parametrize("where", ["check", "acquire", "release", "pressure"])
def test_a_policy_that_asks_its_own_shield_is_told_so(asks, where):
    """Instead of waiting for a lock that its own thread holds; the message goes on."""
    found = []

    def asking(self, *_arguments):
        try:
            getattr(self.shield, asks)()
        except ShieldError as error:
            found.append(str(error))
            raise

    own = {"check": lambda self, message, now: None, where: asking}
    bases = (Policy, Observable) if where == "pressure" else (Policy,)
    kind = type("Asking", bases, own)
    chosen = shield_with({"match": "*", "asking": {}}, plugins=[Kinds({"asking": kind})])
    kind.shield = chosen
    admitted = permit(chosen)
    admitted.delivered()
    assert chosen.pressure() == 0.0
    assert found
    assert "asks its own Shield" in found[0]
    assert chosen.ledger().delivered == 1


def test_a_hook_may_ask_its_own_shield():
    """Hooks are called without the lock."""
    seen = []

    class Looks:
        @core.hookimpl
        def shield_before_publish(self, message):
            seen.append(chosen.ledger().offered)

        @core.hookimpl
        def shield_after_publish(self, message, outcome):
            seen.append(chosen.ledger().delivered)

    chosen = shield_with(plugins=[Looks()])
    permit(chosen).delivered()
    assert seen == [0, 1]
    assert chosen.plugin_errors == {}


# --- bookkeeping --------------------------------------------------------------------------------


def test_fate_is_told_of_what_a_publish_returned_alone():
    """Anything else is an error, and not `sent`."""
    for odd in (object(), None, "orders", 5):
        with pytest.raises(TypeError, match="fate: found"):
            core.fate(odd)


def test_reasons_beyond_the_first_hundred_are_counted_together():
    """A plugin that puts an id into each takes no memory with it."""

    class Talkative(Policy):
        number = 0

        def check(self, message, now):
            self.number += 1
            return self.refuse(f"no. {self.number} {'x' * 10_000}")

    rule = {"match": "*", "talkative": {}, "over_limit": "drop"}
    client = FakeClient(shield_with(rule, plugins=[Kinds({"talkative": Talkative})]))
    for _ in range(300):
        client.publish("orders", b"1")
    ledger = client.shield.ledger()
    assert len(ledger.over_limit) == len(ledger.drops) == 101
    assert sum(ledger.drops.values()) == 300
    assert max(len(reason) for _, _, reason in ledger.drops) <= 200


def test_the_accounts_of_shields_that_are_gone_are_added_up(monkeypatch):
    """One per connection would be kept for ever; what they have counted stays."""
    monkeypatch.setattr(process, "_retired", Retired())  # other tests have had many
    before = core.ledger().delivered
    for _ in range(50):
        permit(Shield({}), producer="gone").delivered()
    gc.collect()
    assert core.ledger().delivered == before + 50
    assert core.ledger().producers["gone"].delivered == 50
    assert core.ledger().balanced
    assert not process._gone


def test_the_process_ledger_can_be_read_while_others_make_shields(monkeypatch):
    """Neither sees the other half done."""
    monkeypatch.setattr(process, "_retired", Retired())
    errors, done = [], threading.Event()

    def make():
        while not done.is_set():
            Shield({})

    thread = threading.Thread(target=make)
    thread.start()
    try:
        for _ in range(300):
            core.ledger()
    except RuntimeError as error:
        errors.append(error)
    finally:
        done.set()
        thread.join(WITHIN_S)
    assert errors == []


def test_pressure_is_known_past_as_many_destinations_as_are_remembered(monkeypatch):
    """While messages are refused it is 1, however many others have come."""
    monkeypatch.setattr(policy_sets, "MAX_FLOWS", 10)
    rule = {"match": "busy", "quota": {"rate": "1/h", "burst": 1}}
    chosen = shield_with(rule)
    for _ in range(2):
        chosen.admit(message("busy"))
    for number in range(100):
        chosen.admit(message(f"other-{number}"))
    assert chosen.pressure() == 1.0
    assert len(chosen.engine._core.all_flows()) <= 20


def test_a_key_that_is_forgotten_gives_nothing_back_to_the_others():
    """The shared level is refunded for what was charged there alone."""
    gcra = Gcra(1.0, 2.0, max_keys=2)
    gcra.take("gone", 1, 0.0)
    for key in ("first", "second", "a", "b"):
        gcra.take(key, 1, 10.0)
    gcra.give_back("gone", 1)
    assert gcra.wait_s("c", 1, 10.0) > 0
    gcra.give_back("a", 1)
    assert gcra.wait_s("c", 1, 10.0) <= 0


def test_who_waits_for_answers_is_not_woken_by_a_signal():
    """A client's I/O thread tells of signals on every turn of its loop."""
    chosen = shield_with({"match": "*", "in_flight": {"messages": 1}, "over_limit": "wait 1h"})
    first = permit(chosen)
    over = chosen.admit(Message("orders", 1, "p"))
    woken = []
    waiter = chosen.engine.line_up(over, lambda: woken.append(1))
    for _ in range(100):
        chosen.engine.signals_changed()
    assert woken == []
    first.delivered()
    assert woken == [1]
    chosen.engine.leave(waiter)
