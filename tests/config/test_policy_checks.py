"""A policy that says what Shield would never ask is told so when it is loaded."""

from __future__ import annotations

import pytest

from shield import Policy, Traits, capabilities
from shield.config.plugin_checks import CAPABILITIES, wrong_kind
from shield.errors import PluginError
from tests.making import Kinds, shield_with

INHERIT = "; inherit shield.capabilities."


def wrong(*bases: type, **members: object) -> str | None:
    """Return what is wrong with a policy that has these."""
    members.setdefault("check", lambda self, message, now: None)
    return wrong_kind("shield_policies", "own", type("Own", (Policy, *bases), members))


def method(self: object, *_: object) -> None:
    """Stands for any method."""


@pytest.mark.parametrize("name", CAPABILITIES)
def test_a_method_of_a_capability_that_is_not_inherited_is_an_error(name):
    """It would never be called; the error names the class to inherit."""
    owner = CAPABILITIES[name].__name__
    assert wrong(**{name: method}) == (
        f"shield_policies: 'own' defines {name} and would not be asked{INHERIT}{owner}"
    )


@pytest.mark.parametrize(
    "kind", sorted(set(CAPABILITIES.values()), key=str), ids=lambda kind: kind.__name__
)
def test_what_is_inherited_may_be_defined(kind):
    """All methods of a capability together."""
    names = (name for name in dir(kind) if name[0] != "_")
    assert wrong(kind, **dict.fromkeys(names, method)) is None


@pytest.mark.parametrize(
    ("former", "said"),
    [
        ("take", "take, which is called acquire now"),
        ("give_back", "give_back, which is called cancel now"),
        ("settle", "settle, which is called release now"),
        ("line", f"line, which is called queue_key now{INHERIT}Queues"),
        ("let_go", f"let_go, which is called on_returned now{INHERIT}FollowsDiversion"),
        ("goes_by", f"goes_by, which is called required_signals now{INHERIT}ReadsSignals"),
        ("runs", "runs; allowed is traits = shield.Traits(batchable=...)"),
        ("directions", "directions; allowed is traits = shield.Traits(directions=...)"),
        ("bounds", "bounds; inherit shield.capabilities.BoundsInFlight instead"),
    ],
)
def test_a_former_name_is_an_error_that_says_the_present_one(former, said):
    """A policy that was written for another version would be half deaf."""
    assert wrong(**{former: method}) == f"shield_policies: 'own' defines {said}"


@pytest.mark.parametrize("traits", [None, {"batchable": True}, Traits])
def test_traits_are_traits(traits):
    """Anything else is refused where the policy is loaded."""
    found = wrong(traits=traits)
    assert found is not None
    assert found.endswith("as its traits; allowed is shield.Traits(...)")


def test_directions_are_those_there_are():
    """A misspelt one would keep the policy out of every rule."""
    found = wrong(traits=Traits(directions=frozenset({"publihs"})))
    assert found is not None
    assert found.endswith("allowed are 'publish' and 'consume'")


def test_a_capability_lacks_what_it_needs():
    """The methods without which it is none."""
    assert wrong(capabilities.Paces) == "shield_policies: 'own' lacks delay_s"


def test_a_shield_is_refused_with_such_a_policy():
    """By name, before anything is sent."""
    own = type("Own", (Policy,), {"check": method, "pressure": method})
    with pytest.raises(PluginError, match="defines pressure and would not be asked; inherit"):
        shield_with({"match": "*", "own": {}}, plugins=[Kinds({"own": own})])
