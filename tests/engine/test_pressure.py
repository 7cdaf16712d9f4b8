"""Backpressure that reaches the caller: pressure, status, ready."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

import shield as package
from shield import Permit, Policy, Shield, ShieldError
from shield.capabilities import Observable
from shield.testing import FakeClient, HeldClock
from tests.making import Kinds, message, over, permit, shield_with


def bounded(name, messages=10, **more):
    return {"name": name, "match": f"{name}*", "in_flight": {"messages": messages}, **more}


def test_pressure_is_the_highest_of_the_policies_in_use():
    """Per rule, and of all rules together; of nothing offered yet it is nothing."""
    shield = shield_with(bounded("a"), bounded("b") | {"quota": "4/s"})
    assert shield.pressure() == shield.pressure("a") == 0.0
    for _ in range(3):
        permit(shield, "a")
    assert shield.pressure("a") == pytest.approx(0.3)
    assert shield.pressure("b") == 0.0
    for _ in range(2):
        permit(shield, "b")
    assert shield.pressure("b") == pytest.approx(0.5)
    assert shield.pressure() == pytest.approx(0.5)


def test_pressure_is_one_exactly_while_the_next_message_would_be_refused():
    """And falls when answers come."""
    shield = shield_with(bounded("a", 4))
    permits = [permit(shield, "a") for _ in range(4)]
    assert shield.pressure("a") == 1.0
    over(shield, "a")
    permits[0].delivered()
    assert shield.pressure("a") == pytest.approx(0.75)


def test_pressure_falls_with_time_where_time_is_what_it_takes():
    """A quota's, by its rate."""
    shield = shield_with({"name": "q", "match": "*", "quota": {"rate": "10/s", "burst": 10}})
    for _ in range(10):
        permit(shield)
    assert shield.pressure() == 1.0
    shield.clock.advance(0.5)
    assert shield.pressure() == pytest.approx(0.5)


def test_who_waits_in_line_is_full_pressure():
    """Whoever comes next would stand behind."""
    clock = HeldClock()
    rule = {"name": "q", "match": "*", "quota": {"rate": "1/s", "burst": 1}}
    shield = Shield({"rules": [rule | {"over_limit": ["wait 5s", "drop"]}]}, clock=clock)
    client = FakeClient(shield)
    client.publish("orders", b"1")
    thread = threading.Thread(target=client.publish, args=("orders", b"2"), daemon=True)
    thread.start()
    clock.until_waiting(1)
    clock._now += 0.999999  # the level is as good as free, and the waiter has not asked yet
    assert shield.pressure("q") == 1.0
    clock.advance(0.1)
    thread.join(60)
    assert not thread.is_alive()


def test_a_rule_in_shadow_is_no_pressure_unless_it_is_named():
    """It refuses nobody; its pressure is there to be looked at."""
    shield = shield_with(bounded("a", 2, mode="shadow"))
    for _ in range(2):
        permit(shield, "a")
    assert shield.pressure() == 0.0
    assert shield.pressure("a") == 1.0


def test_an_unknown_rule_is_an_error_that_names_the_nearest():
    """A misspelt name must not look like no pressure."""
    shield = shield_with(bounded("orders"), bounded("audit"))
    for ask in (shield.pressure, package.pressure):
        with pytest.raises(ShieldError, match="no rule 'order'; did you mean 'orders'"):
            ask("order")


class Own(Policy):
    """One without a pressure of its own."""

    def check(self, message, now):
        return self.refuse("not on this one") if message.destination == "bad" else None


class Broken(Own, Observable):
    def pressure(self, message, now):
        raise RuntimeError("broken")


KINDS = Kinds({"own": Own, "broken": Broken})


def test_a_policy_without_a_pressure_of_its_own_is_all_or_nothing():
    """What it would do with the last message."""
    shield = shield_with({"match": "*", "own": {}}, plugins=[KINDS])
    permit(shield, "good")
    assert shield.pressure() == 0.0
    over(shield, "bad")
    assert shield.pressure() == 1.0


@pytest.mark.parametrize(("setting", "pressure"), [("open", 0.0), ("closed", 1.0)])
def test_a_policy_that_raises_is_isolated(setting, pressure):
    """It is counted, and means what `on_plugin_error` says."""
    shield = shield_with({"match": "*", "broken": {}}, plugins=[KINDS], on_plugin_error=setting)
    permit(shield)
    assert shield.pressure() == pressure
    assert shield.plugin_errors == {"rule-1.broken": 1}


def test_status_shows_each_policy_with_its_pressure():
    """By rule and policy; the second of a kind has a number."""
    rule = {"name": "r", "match": "*", "adaptive": {"min": 2, "max": 4}, "quota": ["8/s", "4/s"]}
    shield = shield_with(rule)
    permit(shield)
    status = shield.status()
    assert set(status["r"]) == {"adaptive", "quota", "quota[1]"}
    assert status["r"]["adaptive"] == {"pressure": 0.25, "limit": 4, "in_flight": 1}
    assert status["r"]["quota"]["pressure"] == pytest.approx(1 / 8)
    assert status["r"]["quota[1]"]["pressure"] == pytest.approx(1 / 4)


# --- ready ----------------------------------------------------------------------------------------


def test_ready_at_once_while_there_is_room():
    """Nothing waits."""
    shield = shield_with(bounded("a"))
    permit(shield, "a")
    assert shield.wait_ready(0.0, "a")
    assert asyncio.run(shield.ready("a", timeout_s=0.0))
    assert shield.clock.waits == 0


def test_wait_ready_ends_when_the_pressure_falls():
    """A quota's level drains by itself."""
    shield = shield_with({"name": "q", "match": "*", "quota": {"rate": "1/s", "burst": 2}})
    for _ in range(2):
        permit(shield)
    begun = shield.clock.now()
    assert shield.wait_ready(10.0, "q")
    assert shield.clock.now() - begun == pytest.approx(1.0, abs=0.06)
    assert isinstance(shield.admit(message()), Permit)


def test_wait_ready_gives_up_in_time():
    """False, and not a moment later."""
    shield = shield_with(bounded("a", 1))
    permit(shield, "a")
    begun = shield.clock.now()
    assert not shield.wait_ready(0.33, "a")
    assert shield.clock.now() - begun == pytest.approx(0.33)


def test_below_asks_for_more_room():
    """Half of it, here."""
    shield = shield_with(bounded("a", 10))
    permits = [permit(shield, "a") for _ in range(8)]
    assert shield.wait_ready(0.0, "a")
    assert not shield.wait_ready(0.0, "a", below=0.5)
    for each in permits[:5]:
        each.delivered()
    assert shield.wait_ready(0.0, "a", below=0.5)


def test_ready_does_not_block_the_loop_and_wakes_up():
    """Another task answers meanwhile."""
    own = Shield({"rules": [bounded("a", 1)]})
    held = permit(own, "a")

    async def run():
        async def answer():
            await asyncio.sleep(0.02)
            held.delivered()

        answering = asyncio.create_task(answer())
        begun = time.monotonic()
        found = await own.ready("a", timeout_s=10.0)
        await answering
        return found, time.monotonic() - begun

    found, took_s = asyncio.run(run())
    assert found
    assert 0.02 <= took_s < 5.0


def test_ready_gives_up_in_time():
    """False."""
    own = Shield({"rules": [bounded("a", 1)]})
    permit(own, "a")
    assert not asyncio.run(own.ready("a", timeout_s=0.06))


def test_the_processes_pressure_is_that_of_all_its_shields():
    """By name too, whichever Shield has the rule."""
    one, two = shield_with(bounded("only-in-one", 2)), shield_with(bounded("only-in-two", 2))
    permit(one, "only-in-one")
    for _ in range(2):
        permit(two, "only-in-two")
    assert package.pressure("only-in-one") == pytest.approx(0.5)
    assert package.pressure("only-in-two") == 1.0
    assert package.pressure() == 1.0
    assert package.wait_ready(0.0, "only-in-one")
    assert not package.wait_ready(0.01, "only-in-two")
    assert not asyncio.run(package.ready("only-in-two", timeout_s=0.01))
