"""`order = "key"`: within each key the sequence never goes backwards; other keys pass."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

import shield
from shield import End, SettingsError
from shield.plugins.actions.buffer.sender import BufferSender, drain_of
from shield.plugins.policies.order import Order
from shield.testing import FakeClient, PolicyContract
from tests.making import admits, counts, message, over, permit, shield_with

ONE_A_SECOND = {"rate": "1/s", "burst": 1}


class TestOrder(PolicyContract):
    name = "order"
    settings = "key"


@pytest.fixture
def one():
    return shield_with({"name": "r", "match": "*", "order": "key", "over_limit": "buffer"})


def set_aside(one, **kwargs):
    """Have a message of that key set aside by hand."""
    claim = shield.OverLimit(
        one.engine._core.flow_of(message(**kwargs)), message(**kwargs), refusal(one)
    )
    one.engine.hold(claim)
    return claim


def refusal(one):
    return one.rules[0].policies[0].refuse("for the test")


def test_later_messages_of_a_key_that_is_set_aside_are_refused(one):
    """Until all of them have come to their end; those of other keys pass."""
    first, second = set_aside(one, key=b"a"), set_aside(one, key=b"a")
    refused = over(one, key=b"a")
    assert (refused.policy, refused.reason, refused.retry_after_s) == (
        "order",
        "its key is set aside",
        None,
    )
    assert admits(one, key=b"b")
    assert admits(one)
    assert admits(one, "another topic", key=b"a")
    one.engine._core.let_go(first.flow, first.message, End.DELIVERED)
    assert not admits(one, key=b"a")
    one.engine._core.let_go(second.flow, second.message, End.DROPPED)
    assert admits(one, key=b"a")


def test_what_is_itself_on_its_way_back_passes(one):
    """It would wait for itself."""
    set_aside(one, key=b"a")
    back = message(key=b"a")
    back.aside = True
    assert isinstance(one.admit(back), shield.Permit)


def test_on_rabbitmq_it_is_exchange_and_routing_key(one):
    """A message there has no key; what routes it is its destination."""
    set_aside(one, destination="shop/created", routing_key="created")
    assert not admits(one, "shop/created", routing_key="created")
    assert admits(one, "shop/paid", routing_key="paid")


def test_what_an_earlier_process_set_aside_can_come_to_its_end(one):
    """It was never counted here, and does not make others pass."""
    set_aside(one, key=b"a")
    back = permit(one, key=b"b")
    back.message.aside = True
    back.delivered()
    one.ledger()
    assert not admits(one, key=b"a")
    assert admits(one, key=b"b")


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        (["buffer", "overflow elsewhere"], "over_limit has buffer and overflow, between which"),
        (["wait 1s", "overflow elsewhere"], 'allowed is redrive = "auto" beside it'),
    ],
)
def test_a_chain_that_would_lose_the_order_is_refused(chain, words):
    """In one line that names the rule's key."""
    with pytest.raises(SettingsError) as caught:
        shield_with({"match": "*", "order": "key", "over_limit": chain})
    (problem,) = caught.value.problems
    assert problem.startswith("settings: rules[0].order: ")
    assert words in problem


def test_a_rule_may_keep_order_without_setting_anything_aside():
    """It has nothing to do there."""
    for chain in (["raise"], ["drop"], ["wait 1s", "retry 2", "buffer 10", "raise"]):
        shield_with({"match": "*", "order": "key", "over_limit": chain})


def test_only_key_can_be_ordered_by():
    """What else is written is refused, and what is allowed is said."""
    with pytest.raises(SettingsError, match="'key'"):
        shield_with({"match": "*", "order": "topic"})


publishes = st.tuples(st.just("publish"), st.sampled_from([b"a", b"b", b"c"]))
elses = st.sampled_from([("ack", 1), ("ack", 3), ("fail", 1), ("drain", 0.3), ("drain", 2.0)])


@given(
    story=st.lists(publishes | elses, max_size=60),
    per=st.sampled_from(["producer", "key", "header:tenant"]),
    first=st.sampled_from([[], ["wait 300ms"]]),
)
def test_within_each_key_the_sequence_never_goes_backwards(story, per, first):
    """Read back from the broker, whatever is admitted, waits, is buffered, fails, and when."""
    chain = [*first, "buffer 8", "drop"]
    rule = {"match": "*", "order": "key", "quota": {**ONE_A_SECOND, "per": per}}
    rules = [
        rule | {"over_limit": chain},
        {"match": "*", "in_flight": {"messages": 3}} | {"over_limit": ["buffer 8", "drop"]},
    ]
    client = FakeClient(shield_with(*rules))
    clock = client.shield.clock
    futures = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BufferSender, "_start", lambda self: None)
        for n, (what, argument) in enumerate(story):
            if what == "publish":
                tenant = {"tenant": "xyz"[n % 3]}
                futures.append(client.publish("orders", b"%d" % n, argument, tenant))
            elif what == "ack":
                client.ack(argument)
            elif what == "fail":
                client.fail(sends=argument)
            else:
                clock.advance(argument)
                drain_of(clock).step()
            assert client.shield.ledger().balanced
        for _ in range(200):
            clock.advance(1.0)
            drain_of(clock).step()
            client.ack()
    sequences = defaultdict(list)
    for record in client.arrived["orders"]:
        sequences[record.key].append(int(record.body))
    for sequence in sequences.values():
        assert sequence == sorted(sequence)
    assert all(future.done() for future in futures)
    assert client.shield.ledger().in_flight == client.shield.ledger().buffered == 0
    (order,) = (p for p in client.shield.rules[0].policies if isinstance(p, Order))
    assert not order._aside


def test_others_pass_while_a_key_is_set_aside():
    """With a quota for each key, a greedy one is buffered and the rest go straight through."""
    rule = {"match": "*", "order": "key", "quota": {**ONE_A_SECOND, "per": "key"}}
    client = FakeClient(shield_with(rule | {"over_limit": "buffer"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BufferSender, "_start", lambda self: None)
        for n in range(5):
            client.publish("orders", b"%d" % n, b"greedy")
        assert shield.fate(client.publish("orders", b"5", b"modest")) == "sent"
        client.ack()
        client.shield.clock.advance(1.0)
        drain_of(client.shield.clock).step()
    assert counts(client.shield.ledger()) == {
        "offered": 6,
        "delivered": 2,
        "in_flight": 1,
        "buffered": 3,
    }


def test_a_key_stays_in_one_queue_whatever_its_messages_compete_for():
    """A message of another tenant, whose quota would admit it, does not overtake its key's."""
    rule = {"match": "*", "order": "key", "quota": {**ONE_A_SECOND, "per": "header:tenant"}}
    client = FakeClient(shield_with(rule | {"over_limit": "buffer"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BufferSender, "_start", lambda self: None)
        for n, tenant in enumerate("xxyx"):
            client.publish("orders", b"%d" % n, b"a", {"tenant": tenant})
        for _ in range(5):
            drain_of(client.shield.clock).step()
            client.shield.clock.advance(1.0)
    assert [record.body for record in client.unanswered] == [b"0", b"1", b"2", b"3"]
