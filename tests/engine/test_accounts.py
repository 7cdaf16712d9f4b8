"""The books balance at every moment, whatever happens to messages, on however many threads."""

from __future__ import annotations

import contextlib
import random
import threading

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from shield import End, Outcome, OverLimit, OverLimitError, Permit, Shield, fate
from shield.testing import FakeClient, ManualClock
from tests.making import counts, message, over, permit, shield_with

LINKS = ["drop", "raise", "wait 1ms", "wait 2s", "wait 2h", "overflow spare", "overflow missing"]
LINKS += [{"overflow": {"destination": "small", "messages": 1}}]
FINAL = ("drop", "raise")

chains = st.lists(st.sampled_from(LINKS), max_size=4).map(
    lambda links: links[: next((i + 1 for i, one in enumerate(links) if one in FINAL), None)]
)
policies = st.fixed_dictionaries(
    {},
    optional={
        "quota": st.lists(
            st.fixed_dictionaries(
                {
                    "rate": st.sampled_from(["1/s", "20B/s", "1/h"]),
                    "burst": st.integers(1, 30),
                    "per": st.sampled_from(["producer", "key", "destination"]),
                }
            ),
            max_size=2,
        ),
        "in_flight": st.fixed_dictionaries({"messages": st.integers(1, 3)}),
    },
)
rules = st.lists(
    st.builds(
        lambda match, mode, limits, chain: (
            {"match": match, **limits}
            | ({"over_limit": chain} if chain else {})
            | ({"mode": mode} if mode else {})
        ),
        st.sampled_from(["*", "a", "b"]),
        st.sampled_from([None, None, None, "shadow", "off"]),
        policies,
        chains,
    ),
    max_size=3,
)


class Books(RuleBasedStateMachine):
    """Random rules and chains over a fake client; answers and failures in any order."""

    @initialize(rules=rules)
    def start(self, rules):
        self.clock = ManualClock()
        self.shield = Shield({"rules": rules}, clock=self.clock)
        self.clients = [FakeClient(self.shield, name) for name in ("p", "q")]
        for client in self.clients:
            client.missing.add("missing")
        self.futures = []
        self.offered = self.raised = self.failed_at_once = 0
        self.loose = []

    @rule(client=st.integers(0, 1), destination=st.sampled_from("ab"), body=st.binary(max_size=40))
    def publish(self, client, destination, body):
        self.offered += 1
        try:
            self.futures.append(self.clients[client].publish(destination, body, key=body[:1]))
        except OverLimitError:
            self.raised += 1

    @rule(client=st.integers(0, 1))
    def publish_to_nowhere(self, client):
        with contextlib.suppress(ConnectionError, OverLimitError):
            self.futures.append(self.clients[client].publish("missing", b""))
        self.offered += 1

    @rule(client=st.integers(0, 1), sends=st.integers(1, 3))
    def ack(self, client, sends):
        self.clients[client].ack(sends)

    @rule(
        client=st.integers(0, 1),
        sends=st.integers(1, 3),
        error=st.sampled_from([TimeoutError(), ValueError()]),
    )
    def fail(self, client, sends, error):
        self.clients[client].fail(error, sends)

    @rule()
    def admit_by_hand(self):
        self.offered += 1
        self.loose.append(self.shield.admit(message("a")))

    @rule(
        data=st.data(),
        how=st.sampled_from([*Outcome, "cancel", "delivered"]),
        end=st.sampled_from(End),
    )
    def end_by_hand(self, data, how, end):
        """Also what has ended already: it must not count again."""
        if not self.loose:
            return
        verdict = data.draw(st.sampled_from(self.loose))
        if isinstance(verdict, OverLimit):
            verdict.end(end)
        elif isinstance(how, Outcome):
            verdict.settle(how)
        else:
            getattr(verdict, how)()

    @rule(seconds=st.sampled_from([0.001, 1.0, 5000.0]))
    def pass_time(self, seconds):
        self.clock.advance(seconds)

    @invariant()
    def balances(self):
        if hasattr(self, "shield"):
            ledger = self.shield.ledger()
            assert ledger.balanced
            assert ledger.offered == self.offered
            assert ledger.in_flight >= 0
            assert not self.shield.engine.lines
            assert self.shield.plugin_errors == {}

    def teardown(self):
        """Close everything: each message has exactly one end, the one that its future tells."""
        if not hasattr(self, "shield"):
            return
        for client in self.clients:
            client.close()
        for verdict in self.loose:
            if isinstance(verdict, Permit):
                verdict.cancel()
            else:
                verdict.end(End.DROPPED)
        ledger = self.shield.ledger()
        assert ledger.balanced
        assert ledger.in_flight == 0
        assert all(future.done() for future in self.futures)
        by_fate = [fate(future) for future in self.futures if future.exception() is None]
        if not self.loose:
            assert by_fate.count("dropped") == ledger.dropped
            assert by_fate.count("overflowed") == ledger.overflowed
            assert by_fate.count("sent") == ledger.delivered
        arrived = [c.arrived[d] for c in self.clients for d in ("spare", "small")]
        assert sum(map(len, arrived)) == by_fate.count("overflowed")


Books.TestCase.settings = hypothesis.settings(
    max_examples=150, stateful_step_count=40, deadline=None
)
TestBooks = Books.TestCase


def test_a_ledger_balances_while_threads_send_fail_and_cancel():
    """Eight threads and one that looks all the time; at the end each message is accounted for."""
    shield = shield_with(
        {"match": "*", "in_flight": {"messages": 50}, "over_limit": "drop"},
        {
            "match": "a*",
            "quota": {"rate": "200/h", "burst": 200},
            "over_limit": [{"overflow": {"destination": "x", "messages": 5}}, "wait 1ms", "raise"],
        },
    )
    clients = [FakeClient(shield, f"p{number % 3}") for number in range(8)]
    errors, unbalanced, looks = [], [], 0
    done = threading.Event()

    def work(number):
        pick, client = random.Random(number), clients[number]
        client.missing.add("c")
        try:
            for _ in range(300):
                with contextlib.suppress(OverLimitError, ConnectionError):
                    client.publish(pick.choice("abc"), b"x" * pick.randrange(100))
                answer = pick.choice([client.ack, client.fail, lambda: None, lambda: None])
                answer()
                verdict = shield.admit(message("b", producer=client.producer))
                if isinstance(verdict, Permit):
                    pick.choice([verdict.cancel, verdict.delivered])()
                else:
                    verdict.end(End.DROPPED)
            client.close()
        except Exception as error:
            errors.append(error)

    def look():
        nonlocal looks
        while not done.is_set():
            ledger = shield.ledger()
            looks += 1
            if not ledger.balanced:
                unbalanced.append(ledger)

    watcher = threading.Thread(target=look)
    workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in (watcher, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    done.set()
    watcher.join()
    assert errors == []
    assert unbalanced == []
    assert looks > 1
    ledger = shield.ledger()
    assert (ledger.offered, ledger.in_flight) == (8 * 300 * 2, 0)
    delivered = sum(len(client.arrived["a"]) + len(client.arrived["b"]) for client in clients)
    assert sum(len(client.arrived["x"]) for client in clients) == ledger.overflowed
    assert delivered <= ledger.delivered


def test_a_message_is_in_the_ledger_of_each_rule_that_covers_it():
    """Once in the process's, once in its producer's, once in each rule's."""
    shield = shield_with({"name": "all", "match": "*"}, {"name": "orders", "match": "orders"})
    permit(shield, "orders", producer="shop").settle(Outcome.DELIVERED)
    permit(shield, "audit", producer="billing")
    ledger = shield.ledger()
    assert counts(ledger) == {"offered": 2, "delivered": 1, "in_flight": 1}
    assert counts(ledger.rules["all"]) == {"offered": 2, "delivered": 1, "in_flight": 1}
    assert counts(ledger.rules["orders"]) == {"offered": 1, "delivered": 1}
    assert counts(ledger.producers["shop"]) == {"offered": 1, "delivered": 1}
    assert counts(ledger.producers["billing"]) == {"offered": 1, "in_flight": 1}


def test_drops_are_counted_by_rule_policy_and_reason():
    """And by producer, in that producer's ledger."""
    quota = {"rate": "1/h", "burst": 1}
    shield = shield_with({"name": "r", "match": "*", "quota": quota, "over_limit": "drop"})
    permit(shield, producer="shop")
    over(shield, producer="shop").end(End.DROPPED)
    expected = {("r", "quota", "1/h per producer"): 1}
    assert shield.ledger().drops == expected
    assert shield.ledger().producers["shop"].drops == expected
    assert shield.ledger().over_limit == expected


def test_a_ledger_is_of_one_moment():
    """What happens later does not change it."""
    shield = shield_with()
    before = shield.ledger()
    permit(shield)
    assert (before.offered, shield.ledger().offered) == (0, 1)


def test_a_ledger_as_plain_numbers_keeps_everything():
    """`as_dict` is ready for JSON, with its parts and its counts by reason."""
    quota = {"rate": "1/h", "burst": 1}
    shield = shield_with({"name": "r", "match": "*", "quota": quota, "over_limit": "drop"})
    permit(shield)
    over(shield).end(End.DROPPED)
    plain = shield.ledger().as_dict()
    assert (plain["offered"], plain["dropped"], plain["in_flight"]) == (2, 1, 1)
    assert plain["balanced"] is True
    reason = {"rule": "r", "policy": "quota", "reason": "1/h per producer", "count": 1}
    assert plain["drops"] == plain["over_limit"] == [reason]
    assert plain["rules"]["r"]["offered"] == plain["producers"]["p"]["offered"] == 2


def test_an_account_that_does_not_add_up_is_seen():
    """`balanced` is false where a message has no end, or two."""
    shield = shield_with({"name": "r", "match": "*"})
    one = permit(shield)
    one.flow.account.offered += 1
    assert not shield.ledger().balanced
    one.flow.account.offered -= 1  # the process's ledger goes on with it
