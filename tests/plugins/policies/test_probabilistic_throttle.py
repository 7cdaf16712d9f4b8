"""The policy `probabilistic_throttle`: refuse by chance what a broker turns down anyway."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shield import Outcome, OverLimit, Permit, SettingsError
from shield.testing import PolicyContract
from tests.making import admits, message, shield_with

ANSWER_OF = {True: Outcome.DELIVERED, False: Outcome.OVERLOADED}


class TestThrottle(PolicyContract):
    name = "probabilistic_throttle"
    settings = 2.0


class TestStrictThrottle(PolicyContract):
    name = "probabilistic_throttle"
    settings = {"k": 1.1, "minimum": 1}


def throttled(**table):
    shield = shield_with({"match": "*", "probabilistic_throttle": table, "over_limit": "drop"})
    policy_of(shield).random = random.Random(7).random
    return shield


def policy_of(shield):
    return next(p for p in shield.rules[0].policies if p.name == "probabilistic_throttle")


def share(shield):
    return policy_of(shield).rejection_share(message(), shield.clock.now())


def answers(shield, count, *, accepted):
    """Settle so many at this moment, past the chance of being refused."""
    policy = policy_of(shield)
    for _ in range(count):
        policy.release(message(), ANSWER_OF[accepted], shield.clock.now())


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 50), st.floats(0, 20)), max_size=40),
    st.floats(1, 4),
)
@settings(deadline=None)
def test_the_share_is_the_formulas_over_the_last_minute(events, k):
    """To a slice of three seconds; at the end of a minute without answers it is nothing."""
    shield = throttled(k=k, minimum=1, most=1.0)
    clock = shield.clock
    history = []
    for accepted, count, gap_s in events:
        answers(shield, count, accepted=accepted)
        history += [(clock.now(), accepted)] * count
        clock.advance(gap_s)
        found = share(shield)
        assert 0.0 <= found < 1.0
        of_slices = [
            max(0.0, (len(seen) - k * sum(seen)) / (len(seen) + 1))
            for edge in (57.0, 60.0)
            for seen in [[was for when, was in history if clock.now() - when < edge]]
        ]
        if of_slices[0] == of_slices[1]:
            assert found == pytest.approx(of_slices[0])
    clock.advance(60)
    assert share(shield) == 0.0


def test_half_of_what_is_offered_may_be_turned_down():
    """With k = 2; from there on it refuses."""
    shield = throttled()
    answers(shield, 50, accepted=True)
    answers(shield, 50, accepted=False)
    assert share(shield) == 0.0
    answers(shield, 100, accepted=False)
    assert share(shield) == pytest.approx(100 / 201)


def test_a_first_failure_alone_refuses_nobody():
    """It takes `minimum` answers to judge."""
    shield = throttled(minimum=20)
    answers(shield, 19, accepted=False)
    assert share(shield) == 0.0
    answers(shield, 1, accepted=False)
    assert share(shield) == pytest.approx(min(0.95, 20 / 21))


def test_what_is_in_flight_is_neither_accepted_nor_turned_down():
    """A thousand sends before the first answer are no reason to refuse."""
    shield = throttled()
    permits = [shield.admit(message()) for _ in range(1000)]
    assert all(isinstance(permit, Permit) for permit in permits)
    assert share(shield) == 0.0
    for permit in permits:
        permit.settle(Outcome.DELIVERED)
    assert share(shield) == 0.0


def test_failures_that_are_not_the_brokers_teach_nothing():
    """Bad messages say nothing about load."""
    shield = throttled(minimum=1)
    for _ in range(100):
        shield.admit(message()).settle(Outcome.FAILED)
    assert share(shield) == 0.0


def test_a_broker_that_takes_a_tenth_is_offered_about_twice_that():
    """One message in each tenth of a second of ten: chance sends none in one of ten of them."""
    shield = throttled()
    found = Counter()
    for tenth in range(1200):
        room = 1
        for _ in range(10):
            verdict = shield.admit(message())
            if tenth >= 600:
                found[type(verdict).__name__] += 1
            if isinstance(verdict, Permit):
                verdict.settle(ANSWER_OF[room > 0])
                found["accepted"] += tenth >= 600 and room > 0
                room -= 1
        shield.clock.advance(0.1)
    assert found["Permit"] == pytest.approx(2 * found["accepted"], rel=0.1)
    assert found["accepted"] > 0.75 * 600


def test_it_recovers_in_three_minutes_from_an_outage():
    """Some messages pass at any time, and their answers tell."""
    shield = throttled()
    for _ in range(600):
        answers(shield, 10, accepted=False)
        shield.clock.advance(0.1)
    assert share(shield) == 0.95
    for _ in range(1800):
        for _ in range(10):
            verdict = shield.admit(message())
            if isinstance(verdict, Permit):
                verdict.settle(Outcome.DELIVERED)
        shield.clock.advance(0.1)
    assert share(shield) == 0.0


def test_the_same_seed_refuses_the_same_messages():
    """Chance is drawn from what a test puts there."""

    def run():
        shield = throttled()
        answers(shield, 100, accepted=False)
        answers(shield, 25, accepted=True)
        return [admits(shield) for _ in range(200)]

    first = run()
    assert first == run()
    assert 0 < sum(first) < 200


def test_asking_again_draws_no_new_lot():
    """Who waits is refused until the share has fallen, and not until it is lucky."""
    shield = throttled()
    answers(shield, 100, accepted=False)
    one = message()
    verdict = shield.admit(one)
    assert isinstance(verdict, OverLimit)
    assert 0 < verdict.retry_after_s <= 3.0
    for _ in range(1000):
        assert policy_of(shield).check(one, shield.clock.now()) is not None
    shield.clock.advance(60)
    assert policy_of(shield).check(one, shield.clock.now()) is None


def test_in_shadow_what_would_be_refused_is_counted_once():
    """It passes, and counts as refused: so the share is what it would be."""
    shield = shield_with({"match": "*", "probabilistic_throttle": {"minimum": 1}, "mode": "shadow"})
    answers(shield, 100, accepted=False)
    before = share(shield)
    policy_of(shield).random = lambda: 0.0
    permit = shield.admit(message())
    assert isinstance(permit, Permit)
    permit.settle(Outcome.DELIVERED)
    assert before == share(shield) == 0.95
    assert policy_of(shield).status(shield.clock.now()) == {"refused_share": 0.95}
    assert policy_of(shield)._requests == 101


def test_beside_shed_it_says_how_many_and_shed_says_who():
    """Of half critical and half sheddable, half are to be refused: the sheddable ones."""
    rule = {"match": "*", "probabilistic_throttle": {"minimum": 1}, "shed": "priority"}
    shield = shield_with(rule)
    refused = Counter()
    answers(shield, 100_000, accepted=False)
    answers(shield, 25_000, accepted=True)
    assert share(shield) == pytest.approx(0.6, abs=0.001)
    for n in range(4000):
        name = ("critical", "sheddable", "sheddable", "sheddable")[n % 4]
        verdict = shield.admit(message(headers={"shield-criticality": name}))
        if n >= 1000 and isinstance(verdict, OverLimit):
            refused[verdict.policy, name] += 1
    assert set(refused) == {("shed", "sheddable")}
    assert refused["shed", "sheddable"] == pytest.approx(0.6 * 3000, rel=0.05)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (0.5, "throttle[0].k: found 0.5; allowed is 1"),
        ({"k": float("inf")}, "throttle[0].k"),
        ({"most": "200%"}, "throttle[0].most: found '200%'; a share is from 0 to 1"),
        ({"minimum": 0}, "throttle[0].minimum: found 0; allowed is 1 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(table, says):
    """With the key, what was found and what is allowed."""
    with pytest.raises(SettingsError) as caught:
        shield_with({"match": "*", "probabilistic_throttle": table})
    assert says in str(caught.value)
