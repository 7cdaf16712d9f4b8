"""Deciding: which rules cover a message, what they charge, and how a message ends."""

from __future__ import annotations

import gc
import threading

import pytest

import shield as public
from shield import (
    Action,
    Delivery,
    End,
    Message,
    Outcome,
    OverLimit,
    Permit,
    Policy,
    Reject,
    Shield,
)
from shield.action import Drop
from shield.testing import AdmitNothing, FakeClient
from tests.making import Kinds, admits, counts, message, over, permit, shield_with

ONE = {"rate": "1/h", "burst": 1}


class Recorder(Policy):
    """Admits what it is told to, and keeps what it was called with."""

    calls: list[tuple[str, str]] = []
    admit = True

    def check(self, message: Message, now: float):
        self.calls.append((self.rule.name, "check"))
        return None if self.admit else self.refuse("told to", 1.0)

    def acquire(self, message: Message, now: float):
        self.calls.append((self.rule.name, "acquire"))

    def cancel(self, message: Message):
        self.calls.append((self.rule.name, "cancel"))

    def release(self, message: Message, outcome: Outcome, now: float):
        self.calls.append((self.rule.name, f"release {outcome}"))


class Refuser(Recorder):
    admit = False


class Failing(Recorder):
    def check(self, message: Message, now: float):
        super().check(message, now)
        raise ValueError("it fails")


ORDERED = ("recorder", "refuser", "recorder")


@pytest.fixture
def recorded():
    """The plugin of both, with their calls so far."""
    Recorder.calls.clear()
    return Kinds({"recorder": Recorder, "refuser": Refuser, "failing": Failing})


# --- one pass decides -------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["admit", "receive", "readmit"])
def test_a_refused_message_is_asked_about_once(recorded, way):
    """The policies before the one that refuses are, too; those behind it are not at all."""
    rule = {"match": "*", "direction": "consume" if way == "receive" else "publish"}
    shield = shield_with(*({**rule, kind: {}} for kind in ORDERED), plugins=[recorded])
    refused = {
        "admit": lambda: shield.admit(message()),
        "receive": lambda: shield.engine.receive(Delivery("orders", 1, "p")),
        "readmit": lambda: shield.engine.readmit(message(), End.SPOOLED),
    }[way]()
    assert isinstance(refused, OverLimit)
    assert Recorder.calls == [("rule-1", "check"), ("rule-2", "check")]


def test_one_that_raises_is_asked_once_as_well(recorded):
    """What it has raised is counted once; the others are asked on."""
    shield = shield_with(
        {"match": "*", "failing": {}}, {"match": "*", "refuser": {}}, plugins=[recorded]
    )
    assert isinstance(shield.admit(message()), OverLimit)
    assert Recorder.calls == [("rule-1", "check"), ("rule-2", "check")]
    assert list(shield.plugin_errors.values()) == [1]


def test_one_in_shadow_is_asked_once_and_those_behind_it_too(recorded):
    """Its refusal is counted, and the message goes on."""
    shield = shield_with(
        {"match": "*", "refuser": {}, "mode": "shadow"},
        {"match": "*", "recorder": {}},
        plugins=[recorded],
    )
    assert isinstance(shield.admit(message()), Permit)
    assert Recorder.calls[:2] == [("rule-1", "check"), ("rule-2", "check")]
    assert [call for _, call in Recorder.calls].count("check") == 2


# --- which rules apply ------------------------------------------------------------------------


def test_a_message_that_no_rule_covers_passes_and_is_counted():
    """It is in the ledger of the process and of its producer, and in no rule's."""
    shield = shield_with({"match": "orders", "quota": ONE})
    permit(shield, "audit").settle(Outcome.DELIVERED)
    ledger = shield.ledger()
    assert counts(ledger) == {"offered": 1, "delivered": 1}
    assert (list(ledger.rules), list(ledger.producers)) == ([], ["p"])


def test_without_any_settings_everything_passes():
    """An empty Shield protects from nothing, and counts."""
    shield = shield_with()
    permit(shield).settle(Outcome.DELIVERED)
    assert counts(shield.ledger()) == {"offered": 1, "delivered": 1}


@pytest.mark.parametrize(
    ("rule", "covered", "not_covered"),
    [
        ({"match": "orders"}, [("orders", "p")], [("orders2", "p"), ("xorders", "p")]),
        ({"match": "orders.*"}, [("orders.a", "p"), ("orders.", "p")], [("orders", "p")]),
        ({"match": "*.a*z"}, [(".az", "p"), ("x.a/\nz", "p")], [("x.b.z", "p")]),
        ({"match": "a[bc]?"}, [("a[bc]?", "p")], [("ab", "p"), ("abc", "p")]),
        ({"match": "ex/*"}, [("ex/key.a", "p")], [("ex", "p")]),
        ({"match": "*", "except": "audit*"}, [("orders", "p")], [("audit.log", "p")]),
        ({"match": "*", "producers": "shop-*"}, [("a", "shop-1")], [("a", "p"), ("a", "shop")]),
    ],
)
def test_a_rule_covers_what_its_globs_say(rule, covered, not_covered):
    """`*` is any characters and nothing else is special; `except` takes destinations out."""
    rule = shield_with(rule).rules[0]
    assert all(rule.covers(*case) for case in covered)
    assert not any(rule.covers(*case) for case in not_covered)


def test_except_takes_destinations_out():
    """They are neither limited by the rule nor counted for it."""
    shield = shield_with({"name": "all", "match": "*", "except": "audit", "quota": ONE})
    assert admits(shield, "audit")
    assert admits(shield, "audit")
    assert admits(shield, "orders")
    assert not admits(shield, "orders")
    assert shield.ledger().rules["all"].offered == 2


def test_every_rule_that_covers_a_message_applies():
    """A bound on the process, a quota for a producer and a limit on one topic side by side."""
    shield = shield_with(
        {"match": "*", "in_flight": {"messages": 3}},
        {"match": "*", "producers": "shop", "quota": {"rate": "2/h", "burst": 2}},
        {"match": "orders", "quota": {"rate": "1/h", "burst": 1, "per": "destination"}},
    )
    assert admits(shield, "orders", producer="shop")
    assert over(shield, "orders", producer="other").rule.name == "rule-3"
    assert admits(shield, "audit", producer="shop")
    assert over(shield, "audit", producer="shop").rule.name == "rule-2"
    assert admits(shield, "audit", producer="other")
    assert over(shield, "audit", producer="other").rule.name == "rule-1"


def test_all_policies_of_all_rules_are_asked_before_anything_is_charged(recorded):
    """Checks come first, in file order; only then each takes."""
    rules = [{"name": name, "match": "*", "recorder": [{}, {}]} for name in ("a", "b")]
    permit(shield_with(*rules, plugins=[recorded]))
    order = [(name, call) for call in ("check", "acquire") for name in ("a", "a", "b", "b")]
    assert Recorder.calls == order


def test_what_is_refused_charges_nobody(recorded):
    """Not the policies asked before the one that refuses, nor those behind it."""
    shield = shield_with(
        {"name": "a", "match": "*", "recorder": {}},
        {"name": "b", "match": "*", "recorder": {}, "refuser": {}},
        plugins=[recorded],
    )
    over(shield)
    assert {call for _, call in Recorder.calls} == {"check"}


def test_the_chain_of_the_first_rule_that_refuses_acts():
    """File order decides between rules that are exceeded together."""
    shield = shield_with(
        {"name": "first", "match": "orders", "quota": ONE, "over_limit": "drop"},
        {"name": "second", "match": "*", "quota": ONE, "over_limit": "raise"},
    )
    client = FakeClient(shield)
    client.publish("orders", b"1")
    assert public.fate(client.publish("orders", b"2")) == "dropped"
    with pytest.raises(public.OverLimitError) as caught:
        client.publish("audit", b"3")
    assert caught.value.rule == "second"


def test_there_may_be_very_many_destinations():
    """What is kept for each of them is bounded; the ledger stays right."""
    shield = shield_with({"match": "*", "quota": {"rate": "1/h", "burst": 1, "per": "producer"}})
    for number in range(10_050):
        shield.admit(message(f"topic-{number}"))
    assert len(shield.engine._core.sent) <= 10_000
    assert sum(shield.ledger().over_limit.values()) == 10_049


def test_there_may_be_very_many_producers():
    """Beyond ten thousand they share an account in the ledger, and still have their own quotas."""
    shield = shield_with({"match": "*", "quota": ONE})
    for number in range(10_050):
        permit(shield, producer=f"p-{number}")
    producers = shield.ledger().producers
    assert producers["(other)"].offered == 50
    assert not admits(shield, producer="p-10049")


# --- the end of a message ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "end"),
    [
        (Outcome.DELIVERED, "delivered"),
        (Outcome.OVERLOADED, "failed"),
        (Outcome.FAILED, "failed"),
    ],
)
def test_a_permit_is_settled_once(outcome, end, recorded):
    """The first answer counts; whatever comes after it is told that it came too late."""
    shield = shield_with({"match": "*", "recorder": {}}, plugins=[recorded])
    one = permit(shield)
    assert counts(shield.ledger()) == {"offered": 1, "in_flight": 1}
    assert one.settle(outcome)
    assert not one.settle(Outcome.DELIVERED)
    assert not one.settle(Outcome.FAILED)
    assert not one.answer(Outcome.DELIVERED)
    assert not one.cancel()
    one.delivered()
    assert counts(shield.ledger()) == {"offered": 1, end: 1}
    assert Recorder.calls[2:] == [("rule-1", f"release {outcome}")]


@pytest.mark.parametrize("settings", [{"messages": 1}, None])
def test_a_permit_is_settled_once_by_many_threads(settings):
    """Of several threads that bring answers, one is counted."""
    rule = {"match": "*", "in_flight": settings or []}
    shield = shield_with(rule, {"match": "*", "quota": "100000/s"})
    for _ in range(200):
        one = permit(shield)
        barrier = threading.Barrier(4)
        calls = [one.delivered, one.cancel]
        calls += [lambda one=one, o=o: one.settle(o) for o in (Outcome.FAILED, Outcome.OVERLOADED)]

        def call(call, barrier=barrier):
            barrier.wait()
            call()

        threads = [threading.Thread(target=call, args=(each,)) for each in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    ledger = shield.ledger()
    assert ledger.balanced
    assert (ledger.offered, ledger.delivered + ledger.failed) == (200, 200)
    assert admits(shield)


def test_a_cancelled_send_gives_back_its_charge(recorded):
    """It counts as failed, and teaches the policies nothing."""
    shield = shield_with({"match": "*", "recorder": {}, "quota": ONE}, plugins=[recorded])
    assert permit(shield).cancel()
    assert Recorder.calls[2:] == [("rule-1", "cancel")]
    assert counts(shield.ledger()) == {"offered": 1, "failed": 1}
    assert admits(shield)


def test_an_answer_may_come_before_its_end():
    """In a transaction: the place is free, the message is in flight until its end is counted."""
    shield = shield_with({"match": "*", "in_flight": {"messages": 1}})
    one = permit(shield)
    assert one.answer(Outcome.DELIVERED)
    assert counts(shield.ledger()) == {"offered": 1, "in_flight": 1}
    assert admits(shield)
    shield.engine.count(one.flow.account, End.DELIVERED, 1)
    assert shield.ledger().delivered == 1


def test_a_message_over_the_limit_ends_once():
    """The first end counts."""
    shield = shield_with({"match": "*", "admit_nothing": {}}, plugins=[AdmitNothing])
    refused = over(shield)
    assert counts(shield.ledger()) == {"offered": 1, "in_flight": 1}
    assert refused.end(End.DROPPED)
    assert not refused.end(End.RAISED)
    assert counts(shield.ledger()) == {"offered": 1, "dropped": 1}


def test_a_send_that_breaks_is_counted(monkeypatch):
    """Whatever a client raises in the middle of a chain, the message has an end."""
    shield = shield_with({"match": "*", "quota": ONE, "over_limit": "overflow elsewhere"})
    client = FakeClient(shield)
    client.publish("orders", b"1")
    client.ack()

    def broken(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "begin", broken)
    with pytest.raises(KeyboardInterrupt):
        client.publish("orders", b"2")
    assert counts(shield.ledger()) == {"offered": 2, "delivered": 1, "failed": 1}


def test_a_send_that_cannot_begin_charges_nothing():
    """The client's error reaches its caller, the quota is as full as before."""
    client = FakeClient(shield_with({"match": "*", "quota": ONE}))
    client.missing.add("orders")
    for _ in range(3):
        with pytest.raises(ConnectionError):
            client.publish("orders", b"1")
    client.missing.clear()
    client.publish("orders", b"2")
    client.ack()
    assert counts(client.shield.ledger()) == {"offered": 4, "failed": 3, "delivered": 1}


def test_close_settles_what_is_under_way():
    """Overflows that fail run their chains; nothing stays in flight."""
    chain = ["overflow a", "overflow b", "drop"]
    client = FakeClient(shield_with({"match": "*", "quota": ONE, "over_limit": chain}))
    for _ in range(5):
        client.publish("orders", b"x")
    client.close()
    assert counts(client.shield.ledger()) == {"offered": 5, "failed": 1, "dropped": 4}


# --- modes ------------------------------------------------------------------------------------


def test_shadow_counts_what_it_would_have_refused():
    """Every message passes; refusals are counted by rule, policy and reason."""
    shield = shield_with({"name": "r", "match": "*", "quota": ONE}, mode="shadow")
    assert all(admits(shield) for _ in range(5))
    assert shield.ledger().over_limit == {("r", "quota", "1/h per producer"): 4}


def test_shadow_charges_as_if_it_had_acted():
    """What it would have refused is not charged, so that its counts are those of the real thing."""
    shield = shield_with({"match": "*", "quota": {"rate": "1/s", "burst": 1}}, mode="shadow")
    for _ in range(10):
        assert admits(shield)
    shield.clock.advance(1.0)
    assert admits(shield)
    assert sum(shield.ledger().over_limit.values()) == 9


def test_one_rule_in_shadow_does_not_weaken_the_others():
    """A rule under trial is counted, the rules beside it enforce."""
    shield = shield_with(
        {"name": "trial", "match": "*", "quota": ONE, "mode": "shadow"},
        {"name": "real", "match": "*", "quota": {"rate": "2/h", "burst": 2}},
    )
    assert [admits(shield) for _ in range(3)] == [True, True, False]
    assert shield.ledger().over_limit == {
        ("trial", "quota", "1/h per producer"): 2,
        ("real", "quota", "2/h per producer"): 1,
    }


def test_in_shadow_what_took_no_place_frees_none():
    """A message that passed a full bound does not make room when it is answered."""
    shield = shield_with({"match": "*", "in_flight": {"messages": 1}}, mode="shadow")
    first, second = permit(shield), permit(shield)
    second.delivered()
    permit(shield)
    assert sum(shield.ledger().over_limit.values()) == 2
    first.delivered()
    permit(shield)
    assert sum(shield.ledger().over_limit.values()) == 2


def test_off_applies_no_rule():
    """Nothing is limited or counted for a rule; the process's ledger goes on."""
    shield = shield_with({"match": "*", "quota": ONE}, mode="off")
    assert all(admits(shield) for _ in range(5))
    ledger = shield.ledger()
    assert (ledger.offered, ledger.rules, sum(ledger.over_limit.values())) == (5, {}, 0)


@pytest.mark.parametrize(("mode", "admitted", "refused"), [("shadow", 5, 4), ("off", 5, 0)])
def test_a_rules_own_mode_is_for_it_alone(mode, admitted, refused):
    """It goes before the process's."""
    shield = shield_with({"match": "*", "quota": ONE, "mode": mode})
    assert sum(admits(shield) for _ in range(5)) == admitted
    assert sum(shield.ledger().over_limit.values()) == refused


# --- plugins' policies and actions ------------------------------------------------------------


def test_a_plugins_policy_is_validated_like_a_built_in():
    """Its table's keys and values are checked, with the path and what is allowed."""

    class Small(Policy):
        class Settings(public.StrictModel):
            most: int = 1024

        shorthand = "most"

        def check(self, message, now):
            too_large = message.size > self.settings.most
            return self.refuse("too large", float("inf")) if too_large else None

    plugin = Kinds({"only_small": Small})
    shield = shield_with({"match": "*", "only_small": 10}, plugins=[plugin])
    assert admits(shield, size=10)
    assert over(shield, size=11).retry_after_s == float("inf")
    for table, problem in [
        ({"mots": 5}, ".mots: unknown key; did you mean 'most'? allowed: most"),
        ({"most": "x"}, ".most: found 'x'; allowed is a whole number"),
    ]:
        with pytest.raises(public.SettingsError) as caught:
            shield_with({"match": "*", "only_small": table}, plugins=[plugin])
        assert caught.value.problems[0].startswith("settings: rules[0].only_small[0]" + problem)


def test_a_plugins_action_takes_part_in_chains():
    """By its name, with its argument; one that declines hands on."""

    class DropLarge(Action):
        class Settings(public.StrictModel):
            above: int

        argument = "above"

        def step(self, over):
            return Drop() if over.message.size > self.settings.above else None

    rule = {"match": "*", "admit_nothing": {}, "over_limit": ["drop_large 10", "raise"]}
    plugins = [Kinds(actions={"drop_large": DropLarge}), AdmitNothing]
    client = FakeClient(shield_with(rule, plugins=plugins))
    assert public.fate(client.publish("orders", b"x" * 11)) == "dropped"
    with pytest.raises(public.OverLimitError):
        client.publish("orders", b"x")


def test_a_wait_that_would_never_end_declines_at_once():
    """`retry_after_s = inf` is no reason to stand in line."""

    class Never(Policy):
        def check(self, message, now):
            return self.refuse("never", float("inf"))

    rule = {"match": "*", "never": {}, "over_limit": ["wait 1000d", "drop"]}
    client = FakeClient(shield_with(rule, plugins=[Kinds({"never": Never})]))
    assert public.fate(client.publish("orders", b"x")) == "dropped"
    assert client.shield.clock.waits == 0


def test_reject_reaches_the_caller_and_counts_as_raised():
    """A before-hook that refuses charges nothing."""

    class NoAudit:
        @public.hookimpl
        def shield_before_publish(self, message):
            if message.destination == "audit":
                raise Reject("not for you")

    shield = shield_with({"match": "*", "quota": ONE}, plugins=[NoAudit()])
    with pytest.raises(Reject, match="not for you"):
        shield.admit(message("audit"))
    assert counts(shield.ledger()) == {"offered": 1, "raised": 1}
    assert counts(shield.ledger().rules["rule-1"]) == {"offered": 1, "raised": 1}
    assert admits(shield)


# --- the process ------------------------------------------------------------------------------


def test_the_process_has_one_ledger_of_all_its_shields():
    """Also of those that are gone, with the answers that nobody had looked at."""
    before = public.ledger()
    kept, gone = shield_with(), shield_with({"match": "*", "in_flight": {"messages": 9}})
    permit(kept)
    for one in [permit(gone) for _ in range(4)][:3]:
        one.delivered()
    del gone, one
    gc.collect()
    after = public.ledger()
    assert after.balanced
    assert after.offered - before.offered == 5
    assert after.delivered - before.delivered == 3
    assert after.in_flight - before.in_flight == 2


def test_a_shield_can_be_chosen_in_four_ways(tmp_path, monkeypatch):
    """One that is there, a file, a dict of settings, or none for the shared one."""
    file = tmp_path / "other.toml"
    file.write_text('[[rules]]\nmatch = "orders"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("shield.shield._default", None)
    one = Shield({})
    assert public.shield_of(one) is one
    assert public.shield_of(file).rules[0].match == "orders"
    assert public.shield_of(str(file)).rules[0].match == "orders"
    assert public.shield_of({"rules": [{"match": "a"}]}).rules[0].match == "a"
    assert public.shield_of(None) is public.shield_of(None) is public.default()


def test_verdicts_say_what_they_are_about():
    """Message, rule, policy, reason and time, and the error that `raise` raises."""
    shield = shield_with({"name": "r", "match": "*", "quota": ONE})
    first, second = message(), message()
    verdict = shield.admit(first)
    assert isinstance(verdict, Permit)
    assert verdict.message is first
    refused = shield.admit(second)
    assert isinstance(refused, OverLimit)
    assert refused.message is second
    error = refused.error()
    assert (error.rule, error.policy, error.reason) == ("r", "quota", "1/h per producer")
    assert str(error).startswith("rule 'r': over the limit of quota (1/h per producer); retry")


def test_a_process_that_is_off_applies_no_rule_whatever_it_says():
    """`mode = "off"` of the process beats a rule's own mode: it is the switch for emergencies."""
    shield = shield_with({"match": "*", "quota": ONE, "mode": "enforce"}, mode="off")
    assert all(admits(shield) for _ in range(5))
    assert shield.ledger().rules == {}
