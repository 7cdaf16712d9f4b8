"""Hooks on messages: labels, refusals, after-hooks, observers; each isolated from all others."""

from __future__ import annotations

import contextlib
import logging

import pytest

from shield import (
    Action,
    End,
    Event,
    Kind,
    Labels,
    Message,
    Outcome,
    OverLimitError,
    Policy,
    Reject,
    Shield,
    hookimpl,
)
from shield.testing import AdmitNothing, FakeClient
from tests.making import Kinds, admits, counts, message, over, permit, shield_with

ONE = {"rate": "1/h", "burst": 1}


class Hook:
    """A plugin with the hooks it is given."""

    def __init__(self, **hooks):
        for name, function in hooks.items():
            setattr(self, name, _hook(name, function))


def _hook(name, function):
    """Return a hook implementation with the argument names that the hook has."""
    if name == "shield_on_event":
        return hookimpl(lambda event: function(event))
    if name == "shield_after_publish":
        return hookimpl(lambda message, outcome: function(message, outcome))
    return hookimpl(lambda message: function(message))


def fails(*_arguments):
    raise RuntimeError("broken plugin")


def kinds(events: list[Event]) -> list[str]:
    return [str(event.kind) for event in events]


# --- labels -----------------------------------------------------------------------------------


def test_the_first_classifier_to_say_something_wins():
    """Each label is taken from the first plugin that has one; the others add what is missing."""
    shield = shield_with(
        plugins=[
            Hook(shield_classify=lambda m: None),
            Hook(shield_classify=lambda m: Labels(producer="first", priority="critical")),
            Hook(shield_classify=lambda m: Labels(producer="second", tenant=5, deadline=9.0)),
        ]
    )
    one = permit(shield).message
    labels = (one.producer, one.priority, one.tenant, one.deadline)
    assert labels == ("first", "critical", 5, 9.0)
    assert list(shield.ledger().producers) == ["first"]


def test_a_classified_producer_has_that_producers_quota():
    """Who a message is from decides whose quota it is charged to."""
    by_header = Hook(shield_classify=lambda m: Labels(producer=m.header("service")))
    shield = shield_with({"match": "*", "quota": ONE}, plugins=[by_header])
    assert admits(shield, headers={"service": "a"})
    assert not admits(shield, headers={"service": "a"})
    assert admits(shield, headers={"service": "b"})
    assert admits(shield, headers={})


@pytest.mark.parametrize("wrong", [fails, lambda m: {"producer": "x"}, lambda m: 5])
def test_a_classifier_that_is_broken_labels_nothing(wrong):
    """It may raise, or return what it must not: the message goes on as it is."""
    shield = shield_with(plugins=[Hook(shield_classify=wrong)])
    assert permit(shield).message.producer == "p"
    assert sum(shield.plugin_errors.values()) == 1


def test_a_broken_classifier_refuses_where_plugins_must_not_fail():
    """With `on_plugin_error = "closed"` its message is raised to its caller."""
    shield = shield_with(plugins=[Hook(shield_classify=fails)], on_plugin_error="closed")
    with pytest.raises(Reject, match="broken plugin"):
        shield.admit(message())
    assert counts(shield.ledger()) == {"offered": 1, "raised": 1}


# --- before and after -------------------------------------------------------------------------


def test_before_hooks_run_in_order_and_after_hooks_in_reverse():
    """As a nest: who saw the message first hears of its end last."""
    seen = []

    def plugin(name):
        return Hook(
            shield_before_publish=lambda m: seen.append(f"before {name}"),
            shield_after_publish=lambda m, o: seen.append(f"after {name} {o}"),
        )

    shield = shield_with(plugins=[plugin("a"), plugin("b")])
    permit(shield).settle(Outcome.DELIVERED)
    assert seen == ["before a", "before b", "after b delivered", "after a delivered"]


@pytest.mark.parametrize("how", ["settle", "cancel", "answer", "delivered"])
def test_after_hooks_hear_once_of_every_admitted_message(how):
    """Also of a send that never began; and at once, not when somebody looks."""
    heard = []
    after = Hook(shield_after_publish=lambda m, outcome: heard.append(outcome))
    one = permit(shield_with(plugins=[after]))
    arguments = [Outcome.OVERLOADED] if how in ("settle", "answer") else []
    for _ in range(2):
        getattr(one, how)(*arguments)
    expected = {"cancel": Outcome.FAILED, "delivered": Outcome.DELIVERED}
    assert heard == [expected.get(how, Outcome.OVERLOADED)]


def test_a_before_hook_that_rejects_stops_those_behind_it():
    """The caller gets the plugin's own Reject."""
    seen = []
    refuses = Hook(shield_before_publish=_reject)
    sees = Hook(shield_before_publish=seen.append)
    with pytest.raises(Reject, match="no"):
        shield_with(plugins=[refuses, sees]).admit(message())
    assert seen == []


def _reject(_message):
    raise Reject("no")


@pytest.mark.parametrize("hook", ["shield_before_publish", "shield_classify"])
def test_a_broken_hook_does_not_keep_the_others_from_working(hook):
    """What stands behind it still runs, and the message goes through."""
    seen = []
    behind = Hook(**{hook: lambda m: seen.append(m) or None})
    shield = shield_with(plugins=[Hook(**{hook: fails}), behind])
    assert admits(shield)
    assert len(seen) == 1


def test_a_broken_before_hook_refuses_where_plugins_must_not_fail():
    """With `on_plugin_error = "closed"` the message is raised to its caller and counted."""
    hook = Hook(shield_before_publish=fails)
    shield = shield_with(plugins=[hook], on_plugin_error="closed")
    with pytest.raises(Reject, match="broken plugin"):
        shield.admit(message())
    assert counts(shield.ledger()) == {"offered": 1, "raised": 1}


def test_broken_after_hooks_and_observers_change_nothing():
    """Not for the caller, not in the ledger, not for those behind them."""
    heard, events = [], []
    shield = shield_with(
        plugins=[
            Hook(shield_after_publish=lambda m, o: heard.append(o), shield_on_event=fails),
            Hook(shield_after_publish=fails, shield_on_event=events.append),
        ]
    )
    assert permit(shield).settle(Outcome.DELIVERED)
    assert heard == [Outcome.DELIVERED]
    assert kinds(events) == ["admitted", "plugin_failed", "settled"]
    assert counts(shield.ledger()) == {"offered": 1, "delivered": 1}


# --- policies and actions that raise ----------------------------------------------------------


class Fragile(Policy):
    """Raises where it is told to."""

    broken = "check"

    def check(self, message: Message, now: float):
        self._maybe("check")

    def acquire(self, message: Message, now: float):
        self._maybe("acquire")

    def release(self, message: Message, outcome: Outcome, now: float):
        self._maybe("release")

    def cancel(self, message: Message):
        self._maybe("cancel")

    def _maybe(self, where: str):
        if where == self.broken:
            raise RuntimeError(where)


def fragile(where: str) -> Kinds:
    return Kinds({"fragile": type("Fragile", (Fragile,), {"broken": where})})


RULE = {"name": "r", "match": "*", "fragile": {}, "quota": ONE}


@pytest.mark.parametrize("where", ["check", "acquire", "release", "cancel"])
def test_a_policy_that_raises_is_isolated_and_counted(where):
    """Its message goes through, the policies beside it do their work."""
    shield = shield_with(RULE, plugins=[fragile(where)])
    one = permit(shield)
    one.cancel() if where == "cancel" else one.settle(Outcome.DELIVERED)
    assert shield.plugin_errors == {"r.fragile": 1}
    assert shield.ledger().balanced
    assert admits(shield) is (where == "cancel")


def test_a_policy_that_raises_refuses_where_plugins_must_not_fail():
    """With `on_plugin_error = "closed"` the rule's chain acts."""
    rule = RULE | {"over_limit": "drop"}
    shield = shield_with(rule, plugins=[fragile("check")], on_plugin_error="closed")
    refused = over(shield)
    assert (refused.rule.name, refused.policy, refused.reason) == (
        "r",
        "fragile",
        "the policy failed",
    )


def test_built_ins_are_not_exempt():
    """A quota whose key cannot be found, or hashed, is a plugin that failed."""
    for broken in (fails, lambda m: []):
        resolver = Kinds(resolvers={"odd": lambda argument, broken=broken: broken})
        rule = {"name": "r", "match": "*", "quota": ONE | {"per": "odd"}}
        shield = shield_with(rule, plugins=[resolver])
        assert admits(shield)
        assert shield.plugin_errors == {"r.quota": 1}


def test_an_action_that_raises_has_declined():
    """The next one in the chain acts."""

    class Broken(Action):
        def step(self, over):
            raise RuntimeError("broken action")

    rule = {"match": "*", "admit_nothing": {}, "over_limit": ["broken", "drop"]}
    plugins = [AdmitNothing, Kinds(actions={"broken": Broken})]
    client = FakeClient(shield_with(rule, plugins=plugins))
    client.publish("orders", b"x")
    assert counts(client.shield.ledger()) == {"offered": 1, "dropped": 1}
    assert sum(client.shield.plugin_errors.values()) == 1


def test_a_plugin_that_raises_is_logged_once_a_minute(caplog):
    """With its error, and how often by now; each plugin for itself."""
    rule = {"name": "r", "match": "*", "fragile": {}}
    shield = shield_with(rule, plugins=[fragile("check"), Hook(shield_on_event=fails)])
    with caplog.at_level(logging.ERROR, "shield"):
        for _ in range(10):
            shield.admit(message())
        assert len(caplog.records) == 2
        shield.clock.advance(59.0)
        shield.admit(message())
        assert len(caplog.records) == 2
        shield.clock.advance(1.0)
        shield.admit(message())
        assert len(caplog.records) == 4
    assert "r.fragile raised (12 so far)" in caplog.text
    assert "RuntimeError: check" in caplog.text


def test_an_observer_that_raises_is_not_told_of_its_own_failure():
    """It is counted once an event, and does not go round in circles."""
    shield = shield_with(plugins=[Hook(shield_on_event=fails)])
    permit(shield).settle(Outcome.DELIVERED)
    assert sum(shield.plugin_errors.values()) == 2


# --- events -----------------------------------------------------------------------------------


def watched(*rules, plugins=()):
    """Return a client, and the list that its events are put into."""
    events: list[Event] = []
    plugins = [*plugins, Hook(shield_on_event=events.append)]
    return FakeClient(shield_with(*rules, plugins=plugins)), events


def test_an_admitted_message_is_two_events():
    """Admitted, and settled with its outcome."""
    client, events = watched()
    client.publish("orders", b"x")
    client.ack()
    assert kinds(events) == ["admitted", "settled"]
    assert events[1].detail == "delivered"
    assert events[0].message is events[1].message


@pytest.mark.parametrize(
    ("chain", "end"), [("drop", "dropped"), ("raise", "raised"), ("overflow x", "overflowed")]
)
def test_a_message_over_the_limit_is_two_events(chain, end):
    """Over the limit, and its end; both name rule, policy and reason."""
    rule = {"name": "r", "match": "*", "admit_nothing": {}, "over_limit": chain}
    client, events = watched(rule, plugins=[AdmitNothing])
    with contextlib.suppress(OverLimitError):
        client.publish("orders", b"x")
    client.ack()
    assert kinds(events) == ["over_limit", end]
    for event in events:
        assert (event.rule, event.policy, event.reason) == (
            "r",
            "admit_nothing",
            "nothing is admitted",
        )


def test_a_message_that_waited_is_three_events():
    """Over the limit, waited, settled."""
    client, events = watched({"match": "*", "quota": ONE, "over_limit": "wait 2h"})
    client.publish("orders", b"1")
    del events[:]
    client.publish("orders", b"2")
    client.ack()
    assert kinds(events) == ["over_limit", "waited", "settled", "settled"]


def test_a_send_that_never_began_is_settled_as_failed():
    """Observers hear of the end of everything that was admitted."""
    client, events = watched()
    client.missing.add("orders")
    with pytest.raises(ConnectionError):
        client.publish("orders", b"x")
    assert kinds(events) == ["admitted", "settled"]
    assert events[1].detail == "failed"


def test_a_rejected_message_is_an_event():
    """Raised, with the plugin's reason, and no rule: none was asked."""
    client, events = watched(plugins=[Hook(shield_before_publish=_reject)])
    with pytest.raises(Reject):
        client.publish("orders", b"x")
    assert kinds(events) == ["raised"]
    assert (events[0].rule, events[0].reason) == (None, "no")


def test_a_plugins_failure_is_an_event():
    """Told with the next one, with the plugin's name and its error."""
    client, events = watched(RULE, plugins=[fragile("check")])
    client.publish("orders", b"x")
    (failure,) = [event for event in events if event.kind is Kind.PLUGIN_FAILED]
    assert (failure.reason, failure.detail) == ("r.fragile", "RuntimeError('check')")


def test_without_hooks_nothing_is_called_per_message():
    """A hook that nobody implements costs nothing: there is nobody to ask."""
    shield = shield_with()
    assert not shield.engine._core.watched
    assert not shield.engine._core.prepares_sent
    assert not shield.engine._core.prepares_received


def test_a_failure_is_logged_without_the_lock():
    """A log handler that publishes through the same Shield does not wait for itself."""

    class Broken(Policy):
        def check(self, message, now):
            raise RuntimeError("broken")

    class Plugin:
        @hookimpl
        def shield_policies(self):
            return {"broken": Broken}

    shield = Shield({"rules": [{"match": "orders", "broken": {}}]}, plugins=[Plugin()])

    class Publishing(logging.Handler):
        def emit(self, record):
            shield.admit(Message("logs", 1)).delivered()

    handler = Publishing()
    logging.getLogger("shield").addHandler(handler)
    try:
        shield.admit(Message("orders", 1)).delivered()
    finally:
        logging.getLogger("shield").removeHandler(handler)
    assert shield.ledger().delivered == 2


def test_what_comes_back_is_classified_again():
    """Its tenant is not kept with it, and its quota is charged all the same."""

    class Tenants:
        @hookimpl
        def shield_classify(self, message):
            return Labels(tenant=message.header("tenant"))

    shield = shield_with({"match": "*", "quota": "5/s"}, plugins=[Tenants()])
    message = Message("orders", 1, headers=[("tenant", b"acme")])
    shield.engine.found(message, End.SPOOLED)
    shield.engine.readmit(message, End.SPOOLED)
    assert message.tenant == "acme"
