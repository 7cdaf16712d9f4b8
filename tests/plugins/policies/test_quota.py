"""The policy `quota`: whose quota it is, in what unit, and several together."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shield import Message, OverLimit, Permit, SettingsError
from shield.testing import PolicyContract
from tests.making import Kinds, admits, message, over, permit, shield_with

ONE_AN_HOUR = {"rate": "1/h", "burst": 1}


class TestInMessages(PolicyContract):
    name = "quota"
    settings = {"rate": "10/s", "burst": 20}


class TestInBytes(PolicyContract):
    name = "quota"
    settings = "1KiB/s"


class TestSeveral(PolicyContract):
    name = "quota"
    settings = [
        {"rate": "10/s"},
        {"rate": "5MiB/m", "per": "key"},
        {"rate": "7/s", "per": "destination"},
    ]


def quota(*tables, match="*", **more):
    return {"match": match, "quota": list(tables), **more}


def test_a_second_of_the_rate_is_the_burst_unless_it_is_given():
    """`10/s` alone admits ten at once, and never less than one."""
    shield = shield_with(quota("10/s"))
    assert sum(admits(shield) for _ in range(30)) == 10
    shield = shield_with(quota("1/h"))
    assert sum(admits(shield) for _ in range(30)) == 1


def test_the_rate_comes_back_with_time():
    """After the burst, one message for each period."""
    shield = shield_with(quota({"rate": "10/s", "burst": 5}))
    assert sum(admits(shield) for _ in range(30)) == 5
    shield.clock.advance(0.3)
    assert sum(admits(shield) for _ in range(30)) == 3


@pytest.mark.parametrize(
    ("per", "same", "other"),
    [
        ("producer", {"destination": "b", "key": b"2"}, {"producer": "q"}),
        ("destination", {"producer": "q", "key": b"2"}, {"destination": "b"}),
        ("key", {"producer": "q", "destination": "b"}, {"key": b"2"}),
        ("header:tenant", {"producer": "q", "key": b"2"}, {"headers": [("tenant", b"z")]}),
        ("header:tenant", {"headers": {"tenant": "a"}}, {"headers": {}}),
        ("initial", {"destination": "orange", "key": b"2"}, {"destination": "b"}),
    ],
)
def test_each_key_has_a_quota_of_its_own(per, same, other):
    """Messages alike in `per` share one, whatever else differs; others are not touched."""
    initial = Kinds(resolvers={"initial": lambda argument: lambda m: m.destination[:1]})
    shield = shield_with(quota(ONE_AN_HOUR | {"per": per}), plugins=[initial])
    first = {"key": b"1", "headers": [("tenant", b"a")]}
    assert admits(shield, **first)
    assert not admits(shield, **(first | same))
    assert admits(shield, **(first | other))
    assert not admits(shield, **(first | other))


def test_a_plugins_resolver_gets_what_stands_behind_the_colon():
    """`per = "field:3"` calls it with "3", once a rule."""
    asked = []

    def field(argument):
        asked.append(argument)
        return lambda m: m.key[int(argument)]

    shield = shield_with(
        quota(ONE_AN_HOUR | {"per": "field:0"}), plugins=[Kinds(resolvers={"field": field})]
    )
    assert admits(shield, key=b"ax")
    assert not admits(shield, key=b"ay")
    assert admits(shield, key=b"bx")
    assert asked == ["0"]


def test_a_resolver_that_refuses_its_argument_is_a_settings_error():
    """Its ValueError stands behind what was found."""
    with pytest.raises(SettingsError) as caught:
        shield_with(quota(ONE_AN_HOUR | {"per": "header"}))
    assert caught.value.problems == (
        "settings: rules[0].quota[0].per: found 'header'; "
        'allowed is a header\'s name behind the colon, as "header:tenant"',
    )


def test_bytes_are_counted_by_size():
    """A byte quota admits as many bytes as its burst, in however many messages."""
    shield = shield_with(quota({"rate": "1KiB/h", "burst": "1KiB"}))
    assert admits(shield, size=1000)
    assert not admits(shield, size=100)
    assert admits(shield, size=24)


def test_a_message_larger_than_a_byte_quotas_burst_is_not_hung():
    """It is admitted while nothing is owed, and those behind it wait until its debt is paid."""
    shield = shield_with(quota({"rate": "100B/s", "burst": "100B"}))
    assert admits(shield, size=1000)
    assert over(shield, size=1).retry_after_s == pytest.approx(9.01, abs=1e-3)
    assert over(shield, size=5000).retry_after_s == pytest.approx(9.0, abs=1e-3)
    shield.clock.advance(9.0)
    assert admits(shield, size=5000)


def test_a_refusal_names_the_rate_and_the_time():
    """The reason is stable enough to count by, the time is when it would be admitted."""
    shield = shield_with(quota({"rate": "90/m", "burst": 1, "per": "key"}))
    permit(shield)
    refused = over(shield)
    assert (refused.policy, refused.reason) == ("quota", "90/m per key")
    assert refused.retry_after_s == pytest.approx(60 / 90, abs=1e-5)


LIMITS = st.tuples(
    st.sampled_from(["1/s", "2/s", "3/m", "100B/s", "1KiB/m"]),
    st.integers(1, 400),
    st.sampled_from(["producer", "destination", "key"]),
)
OFFERS = st.tuples(
    st.sampled_from("ab"), st.sampled_from("ab"), st.sampled_from([b"1", None]), st.integers(0, 900)
)


@given(
    st.lists(st.lists(LIMITS, min_size=1, max_size=3), min_size=1, max_size=3),
    st.lists(st.tuples(OFFERS, st.sampled_from([0.0, 0.1, 1.0, 30.0])), max_size=30),
)
@settings(max_examples=100, deadline=None)
def test_a_refusal_by_one_leaves_all_others_untouched(rules, offers):
    """What a refused message met is as it was: every quota of every rule says the same again."""
    shield = shield_with(
        *(
            quota(*({"rate": rate, "burst": burst, "per": per} for rate, burst, per in limits))
            for limits in rules
        )
    )
    policies = [policy for rule in shield.rules for policy in rule.policies]
    probes = [Message(d, 50, p, k) for d in "ab" for p in "ab" for k in (b"1", None)]

    def levels():
        refusals = [p.check(m, shield.clock.now()) for p in policies for m in probes]
        return [r and r.retry_after_s for r in refusals]

    for (producer, destination, key, size), gap in offers:
        shield.clock.advance(gap)
        before = levels()
        verdict = shield.admit(Message(destination, size, producer, key))
        if isinstance(verdict, OverLimit):
            assert levels() == before
        elif size and gap:
            assert isinstance(verdict, Permit)
            verdict.cancel()
            assert all(
                (now is None) == (then is None) and math.isclose(now or 0, then or 0, abs_tol=1e-6)
                for now, then in zip(levels(), before, strict=True)
            )


def test_the_last_quotas_refusal_charges_no_other():
    """The first quota's whole burst is still there after the second has refused."""
    shield = shield_with(quota({"rate": "5/h", "burst": 5}, ONE_AN_HOUR | {"per": "key"}))
    assert admits(shield, key=b"a")
    assert not any(admits(shield, key=b"a") for _ in range(10))
    assert [admits(shield, key=b"%d" % n) for n in range(5)] == [True] * 4 + [False]


def test_two_producers_of_one_name_share_a_quota_and_two_names_do_not():
    """`per = "producer"`, the default, is the name's."""
    shield = shield_with(quota(ONE_AN_HOUR))
    assert admits(shield, producer="shop")
    assert not admits(shield, producer="shop")
    assert admits(shield, producer="billing")


def test_a_label_can_be_the_key():
    """`per = "tenant"` is what a classifier has said."""
    shield = shield_with(quota(ONE_AN_HOUR | {"per": "tenant"}))
    for tenant, admitted in (("a", True), ("a", False), ("b", True)):
        one = message()
        one.tenant = tenant
        assert isinstance(shield.admit(one), Permit) is admitted
