"""Any chain, whatever happens: each message has one end, and every future completes."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import shield
from shield import Action, End, Envelope, Outcome, OverLimitError
from shield.action import Keep
from shield.kept import Kept
from shield.plugins.drain import Drain, drain_of
from shield.testing import FakeClient
from tests.making import Kinds, shield_with

DESTINATIONS = ("orders", "payments", "elsewhere")
NOWHERE = "nowhere"
LINKS = (
    "drop",
    "raise",
    "wait 300ms",
    "wait 20s",
    "retry 2",
    "buffer",
    "buffer 3",
    {"buffer": {"bytes": 40}},
    "overflow elsewhere",
    {"overflow": {"destination": "later", "messages": 2}},
    f"overflow {NOWHERE}",
    "set_by",
)


class SetBy(Action):
    """Keeps messages on a shelf: the test stores them, lets them go on, or has them sent."""

    sets_aside = True
    room = 3

    def __init__(self, settings, rule, name):
        super().__init__(settings, rule, name)
        self.shelf: list[Kept] = []
        self.closed: list[object] = []

    def step(self, over):
        return Keep("spooled", self.keep) if len(self.shelf) < self.room else None

    def keep(self, kept):
        if kept.client in self.closed:
            kept.go_on()
        else:
            self.shelf.append(kept)

    def closing(self, client, timeout_s):
        self.closed.append(client)
        for kept in [kept for kept in self.shelf if kept.client is client]:
            self.shelf.remove(kept)
            kept.go_on()


def chains() -> st.SearchStrategy[list[object]]:
    """Chains of any length; nothing stands behind what ends them."""

    def cut(links: list[object]) -> list[object]:
        ends = [n for n, link in enumerate(links) if link in ("drop", "raise")]
        return links[: ends[0] + 1] if ends else links

    return st.lists(st.sampled_from(LINKS), min_size=1, max_size=5).map(cut)


def kinds() -> Kinds:
    return Kinds(actions={"set_by": SetBy})


class Chains(RuleBasedStateMachine):
    """Two clients under two rules of random chains, whose broker answers, fails and is silent."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(Drain, "_start", lambda self: None)
        self.futures: list = []
        self.raised = self.not_begun = self.numbers = 0
        self.stored: list[Envelope] = []

    @initialize(first=chains(), second=chains(), order=st.booleans(), seed=st.integers(0, 99))
    def begin(self, first, second, order, seed):
        random.seed(seed)  # what backoff draws
        ordered = {"order": "key"} if order and _may_be_ordered(first) else {}
        quota = {"rate": "1/s", "burst": 1, "per": "producer"}
        rules = [
            {"name": "one", "match": "*", "except": "later", "quota": quota} | ordered,
            {"name": "two", "match": "*s", "in_flight": {"messages": 4, "bytes": 60}},
        ]
        rules[0]["over_limit"], rules[1]["over_limit"] = first, second
        self.shield = shield_with(*rules, plugins=[kinds()])
        self.clients = [self.client("p"), self.client("q")]

    def client(self, name: str) -> FakeClient:
        client = FakeClient(self.shield, name)
        client.missing.add(NOWHERE)
        return client

    @rule(
        which=st.integers(0, 1),
        destination=st.sampled_from(DESTINATIONS),
        size=st.integers(0, 30),
        key=st.sampled_from([None, b"a", b"b"]),
        times=st.integers(1, 8),
    )
    def publish(self, which, destination, size, key, times):
        for _ in range(times):
            self.publish_one(which, destination, size, key)

    def publish_one(self, which, destination, size, key):
        self.numbers += 1
        try:
            future = self.clients[which].publish(destination, b"x" * size, key)
        except OverLimitError:
            self.raised += 1
        except ConnectionError:
            self.not_begun += 1
        else:
            self.futures.append(future)

    @rule(which=st.integers(0, 1), sends=st.integers(1, 5))
    def ack(self, which, sends):
        self.clients[which].ack(sends)

    @rule(which=st.integers(0, 1), sends=st.integers(1, 3), overloaded=st.booleans())
    def fail(self, which, sends, overloaded):
        error = TimeoutError("silent") if overloaded else ConnectionError("gone")
        self.clients[which].fail(error, sends)

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.5, 2.0, 30.0]))
    def time_passes(self, seconds):
        self.shield.clock.advance(seconds)
        drain_of(self.shield.clock).step()

    @rule(which=st.integers(0, 1))
    def destination_goes_and_comes(self, which):
        self.clients[which].missing ^= {"payments"}

    @rule(which=st.integers(0, 1), timeout_s=st.sampled_from([0.0, 1.0]))
    def flush(self, which, timeout_s):
        self.shield.flush(self.clients[which].transport, timeout_s)

    @rule(which=st.integers(0, 1), timeout_s=st.sampled_from([0.0, 1.0]))
    def close(self, which, timeout_s):
        client = self.clients[which]
        client.close(timeout_s)
        self.clients[which] = self.client(client.producer)

    @rule(do=st.sampled_from(["store", "go_on", "send"]))
    def shelf(self, do):
        for action in self.shelves():
            if action.shelf:
                self.end_of(action.shelf.pop(0), do)

    def end_of(self, kept: Kept, do: str) -> None:
        if do == "send":
            permit = self.shield.ask_once(kept.over)
            kept.go_on() if permit is None else kept.send(permit)
        elif do == "go_on":
            kept.go_on()
        else:
            self.stored.append(kept.envelope())
            Kept.stored([kept])

    def shelves(self) -> list[SetBy]:
        return [a for r in self.shield.rules for a in r.chain if isinstance(a, SetBy)]

    @rule()
    def a_stored_message_comes_back(self):
        if not self.stored:
            return
        envelope = self.stored.pop(0)
        message = envelope.message()
        message.aside = True
        verdict = self.shield.readmit(message, End.SPOOLED)
        if not isinstance(verdict, shield.Permit):
            self.stored.append(envelope)
            return

        def done(error):
            if error is None:
                verdict.delivered()
            else:
                self.shield.settle(verdict, Outcome.OVERLOADED, End.SPOOLED)
                self.stored.append(envelope)

        (client,) = (client for client in self.clients if client.producer == envelope.producer)
        client.transport.send(envelope, done)

    @invariant()
    def the_ledger_balances(self):
        if not hasattr(self, "shield"):
            return
        ledger = self.shield.ledger()
        assert ledger.balanced
        assert ledger.offered == self.numbers
        assert ledger.spooled >= len(self.stored)
        assert all(getattr(ledger, name) >= 0 for name in ("in_flight", *map(str, End)))
        assert ledger.raised >= self.raised
        assert ledger.failed >= self.not_begun
        assert self.shield.plugin_errors == {}

    def teardown(self):
        try:
            if hasattr(self, "shield"):
                self.come_to_the_end()
        finally:
            self.patch.undo()

    def come_to_the_end(self):
        for client in self.clients:
            client.close()
        drain_of(self.shield.clock).step()
        for client in self.clients:
            client.close()
        assert all(future.done() for future in self.futures)
        ledger = self.shield.ledger()
        assert ledger.balanced
        assert ledger.in_flight == ledger.buffered == 0
        assert ledger.spooled == len(self.stored)
        assert not self.shield.lines
        fates = [shield.fate(future) for future in self.futures]
        assert fates.count("dropped") == ledger.dropped
        assert fates.count("overflowed") == ledger.overflowed
        assert fates.count("raised") + self.raised == ledger.raised
        self.nothing_is_held()

    def nothing_is_held(self):
        """Every bound is free again, and no key is thought to be set aside."""
        for action in (a for r in self.shield.rules for a in r.chain if hasattr(a, "_bound")):
            assert (action._bound.messages, action._bound.size) == (0, 0)
        for policy in (p for r in self.shield.rules for p in r.policies):
            if policy.name == "in_flight":
                assert (policy._bound.messages, policy._bound.size) == (0, 0)


def _may_be_ordered(chain) -> bool:
    """Settings refuse the others."""
    words = [link if isinstance(link, str) else next(iter(link)) for link in chain]
    kinds_of: list[str] = [word.split()[0] for word in words]
    aside = [kind for kind in kinds_of if kind in ("buffer", "overflow", "set_by")]
    return len(aside) <= 1 and "overflow" not in aside


TestChains = Chains.TestCase
TestChains.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
