"""A state machine over two rules of any chains: what happens to clients and brokers meanwhile."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import shield
from shield import End, OverLimitError, Shield
from shield.plugins.actions.buffer.sender import BufferSender, drain_of
from shield.testing import FakeClient

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
)


def chains(*more: object) -> st.SearchStrategy[list[object]]:
    """Chains of any length, with these links besides; nothing stands behind what ends them."""

    def cut(links: list[object]) -> list[object]:
        ends = [n for n, link in enumerate(links) if link in ("drop", "raise")]
        return links[: ends[0] + 1] if ends else links

    return st.lists(st.sampled_from((*LINKS, *more)), min_size=1, max_size=5).map(cut)


def two_rules(first: list, second: list, order: bool, seed: int) -> list[dict[str, Any]]:
    """One of them bounds the rate, the other what is in flight."""
    random.seed(seed)  # what backoff draws
    ordered = {"order": "key"} if order and _may_be_ordered(first) else {}
    quota = {"rate": "1/s", "burst": 1, "per": "producer"}
    return [
        {
            "name": "one",
            "match": "*",
            "except": "later",
            "quota": quota,
            "over_limit": first,
            **ordered,
        },
        {
            "name": "two",
            "match": "*s",
            "in_flight": {"messages": 4, "bytes": 60},
            "over_limit": second,
        },
    ]


class Ways(RuleBasedStateMachine):
    """Two clients under two rules, whose broker answers, fails and is silent.

    Who inherits it makes the Shield and then the clients in an initializer.
    """

    shield: Shield

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(BufferSender, "_start", lambda self: None)
        self.futures: dict[bytes, Any] = {}
        self.raised: set[bytes] = set()
        self.not_begun: set[bytes] = set()
        self.offered = self.numbers = 0
        self.clients: list[Any] = []

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
        self.offered += 1
        body = (b"%d " % self.numbers).ljust(size, b"x")
        try:
            self.futures[body] = self.clients[which].publish(destination, body, key)
        except OverLimitError:
            self.raised.add(body)
        except ConnectionError:
            self.not_begun.add(body)

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
        self.shield.engine.flush(self.clients[which].transport, timeout_s)

    @rule(which=st.integers(0, 1), timeout_s=st.sampled_from([0.0, 1.0]))
    def close(self, which, timeout_s):
        client = self.clients[which]
        client.close(timeout_s)
        self.clients[which] = self.client(client.producer)

    @invariant()
    def the_ledger_balances(self):
        if not self.clients:
            return
        ledger = self.shield.ledger()
        assert ledger.balanced
        assert ledger.offered == self.offered
        assert all(getattr(ledger, name) >= 0 for name in ("in_flight", *map(str, End)))
        assert self.shield.plugin_errors == {}

    def teardown(self):
        try:
            if self.clients:
                self.come_to_the_end()
        finally:
            self.patch.undo()

    def close_all(self):
        """Close both, and again: a chain that goes on may have led from one to the other."""
        for client in self.clients:
            client.close()
        drain_of(self.shield.clock).step()
        for client in self.clients:
            client.close()

    def come_to_the_end(self):
        self.close_all()
        assert all(future.done() for future in self.futures.values())
        ledger = self.shield.ledger()
        assert ledger.balanced
        assert ledger.in_flight == ledger.buffered == 0
        assert not self.shield.engine.lines
        self.nothing_is_held()

    def nothing_is_held(self):
        """Every bound is free again."""
        for action in (a for r in self.shield.rules for a in r.chain if hasattr(a, "_bound")):
            assert (action._bound.messages, action._bound.size) == (0, 0)
        for policy in (p for r in self.shield.rules for p in r.policies):
            if policy.name == "in_flight":
                assert (policy._bound.messages, policy._bound.size) == (0, 0)

    def fates(self) -> list[str | None]:
        return [shield.fate(future) for future in self.futures.values()]


def _may_be_ordered(chain: list) -> bool:
    """Settings refuse the others."""
    words = [link if isinstance(link, str) else next(iter(link)) for link in chain]
    kinds_of: list[str] = [word.split()[0] for word in words]
    aside = [kind for kind in kinds_of if kind in ("buffer", "overflow", "spool", "set_by")]
    return len(aside) <= 1 and "overflow" not in aside
