"""The ledger: every message offered has exactly one end, or is in flight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from shield.verdict import OverLimit


class End(StrEnum):
    """The ends a message can come to."""

    DELIVERED = "delivered"
    DROPPED = "dropped"
    RAISED = "raised"
    BUFFERED = "buffered"
    SPOOLED = "spooled"
    OVERFLOWED = "overflowed"
    FAILED = "failed"


COUNTS = ("offered", *(str(end) for end in End), "in_flight")
OTHER_PRODUCERS = "(other)"
MAX_PRODUCERS = 10_000
OTHER_REASONS = "(other)"
MAX_REASONS = 100

Key = tuple[str, str, str]
"""What verdicts and drops are counted by: rule, policy, reason."""


class Reasons:
    """Which reasons are counted under their own text: of each policy the first hundred.

    A plugin may put an id into each of its reasons; what comes later is `(other)`.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], set[str]] = {}

    def bounded(self, key: Key) -> Key:
        """Return the key under which one is counted."""
        rule, policy, reason = key
        known = self._known.setdefault((rule, policy), set())
        if reason not in known:
            if len(known) >= MAX_REASONS:
                return rule, policy, OTHER_REASONS
            known.add(reason)
        return key


class Claimant(Protocol):
    """What is open until its messages' end is counted."""

    open: bool


class Account:
    """Counts of the messages that one set of rules covers, from one producer.

    A message is written into one account only; the process, each rule and each producer are
    sums over accounts, so that a message covered by three rules costs no more than one.
    """

    __slots__ = (*COUNTS, "_reasons", "direction", "drops", "over_limit", "producer", "rules")

    def __init__(
        self,
        rules: tuple[str, ...],
        producer: str,
        direction: str = "publish",
        reasons: Reasons | None = None,
    ) -> None:
        self.rules = rules
        self._reasons = reasons or Reasons()
        self.producer = producer
        self.direction = direction
        self.offered = self.in_flight = 0
        self.delivered = self.dropped = self.raised = self.failed = 0
        self.buffered = self.spooled = self.overflowed = 0
        self.over_limit: Counter[Key] = Counter()
        self.drops: Counter[Key] = Counter()

    def refused(self, key: Key) -> None:
        """Count a verdict over the limit."""
        self.over_limit[self._reasons.bounded(key)] += 1

    def has_dropped(self, key: Key) -> None:
        """Count by its reason a message that is dropped."""
        self.drops[self._reasons.bounded(key)] += 1

    def add(self, other: Account) -> None:
        """Count all that another account has counted, too."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for key, times in other.over_limit.items():
            self.over_limit[self._reasons.bounded(key)] += times
        for key, times in other.drops.items():
            self.drops[self._reasons.bounded(key)] += times

    # An exception from outside may strike after any call. What is written first here is written
    # together with what `finally` writes, before one can.

    def move(self, source: str, target: str, messages: int = 1) -> None:
        """Count messages under another of the names in `COUNTS` than they were."""
        left = getattr(self, source) - messages
        there = getattr(self, target) + (0 if source == target else messages)
        try:
            setattr(self, source, left)
        finally:
            setattr(self, target, there)

    def end(self, claim: Claimant, source: str, target: str, messages: int = 1) -> None:
        """Close a claim and count its messages' end."""
        left = getattr(self, source) - messages
        there = getattr(self, target) + messages
        try:
            claim.open = False
            setattr(self, source, left)
        finally:
            setattr(self, target, there)

    def keep(self, over: OverLimit, where: End) -> None:
        """Count a message over the limit as kept there."""
        source = over.kept_as or "in_flight"
        left = getattr(self, source) - 1
        there = getattr(self, where) + (0 if source == where else 1)
        try:
            over.kept_as = where
            setattr(self, source, left)
        finally:
            setattr(self, where, there)


@dataclass(frozen=True)
class Ledger:
    """What became of every message offered, at one moment.

    `over_limit` and `drops` count verdicts and dropped messages by (rule, policy, reason); a
    message that waited and then went out is in `over_limit` and in `delivered`. `rules` and
    `producers` hold a ledger each; a message is in that of every rule that covers it.
    """

    offered: int = 0
    delivered: int = 0
    dropped: int = 0
    raised: int = 0
    buffered: int = 0
    spooled: int = 0
    overflowed: int = 0
    in_flight: int = 0
    failed: int = 0
    over_limit: Counter[Key] = field(default_factory=Counter)
    drops: Counter[Key] = field(default_factory=Counter)
    rules: dict[str, Ledger] = field(default_factory=dict)
    producers: dict[str, Ledger] = field(default_factory=dict)

    @property
    def balanced(self) -> bool:
        """Whether every message offered is accounted for, here and in every part."""
        ends = sum(getattr(self, end) for end in End)
        parts = (*self.rules.values(), *self.producers.values())
        return self.offered == ends + self.in_flight and all(part.balanced for part in parts)

    def as_dict(self) -> dict[str, object]:
        """Return plain numbers and nested mappings, ready for JSON."""
        result: dict[str, object] = {name: getattr(self, name) for name in COUNTS}
        result["balanced"] = self.balanced
        for name in ("over_limit", "drops"):
            counter: Counter[Key] = getattr(self, name)
            keys = ("rule", "policy", "reason")
            result[name] = [
                dict(zip(keys, key, strict=True)) | {"count": n} for key, n in counter.items()
            ]
        if self.rules or self.producers:
            result["rules"] = {name: part.as_dict() for name, part in self.rules.items()}
            result["producers"] = {name: part.as_dict() for name, part in self.producers.items()}
        return result


class Accounts:
    """All accounts of one Shield. Not locked: the Shield's lock covers every call but iteration."""

    def __init__(self) -> None:
        self._accounts: dict[tuple[tuple[str, ...], str, str], Account] = {}
        self._producers: set[str] = set()
        self._reasons = Reasons()

    def account(self, rules: tuple[str, ...], producer: str, direction: str = "publish") -> Account:
        """Return the account of these rules and producer; past 10,000 producers a shared one."""
        if producer not in self._producers:
            if len(self._producers) >= MAX_PRODUCERS:
                producer = OTHER_PRODUCERS
            self._producers.add(producer)
        key = (rules, producer, direction)
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = Account(*key, self._reasons)
        return account

    def __len__(self) -> int:
        return len(self._accounts)

    def __iter__(self) -> Iterator[Account]:
        return iter(self._accounts.copy().values())


def ledger_of(accounts: Iterable[Account]) -> Ledger:
    """Add accounts up into a ledger with its parts."""
    accounts = list(accounts)
    rules: dict[str, list[Account]] = {}
    producers: dict[str, list[Account]] = {}
    for account in accounts:
        producers.setdefault(account.producer, []).append(account)
        for rule in account.rules:
            rules.setdefault(rule, []).append(account)
    return ledger_with(
        accounts,
        {name: ledger_with(part) for name, part in sorted(rules.items())},
        {name: ledger_with(part) for name, part in sorted(producers.items())},
    )


def ledger_with(
    accounts: Iterable[Account | Ledger],
    rules: Mapping[str, Ledger] | None = None,
    producers: Mapping[str, Ledger] | None = None,
) -> Ledger:
    """Add up what accounts, or ledgers, count; their parts are given."""
    accounts = list(accounts)
    counts = {name: sum(getattr(account, name) for account in accounts) for name in COUNTS}
    over_limit: Counter[Key] = Counter()
    drops: Counter[Key] = Counter()
    for account in accounts:
        over_limit.update(account.over_limit)
        drops.update(account.drops)
    return Ledger(
        **counts,
        over_limit=over_limit,
        drops=drops,
        rules=dict(rules or {}),
        producers=dict(producers or {}),
    )


def together(one: Ledger, other: Ledger) -> Ledger:
    """Return the ledger of both."""
    rules, producers = _merged(one.rules, other.rules), _merged(one.producers, other.producers)
    return ledger_with((one, other), rules, producers)


def _merged(one: Mapping[str, Ledger], other: Mapping[str, Ledger]) -> dict[str, Ledger]:
    both = {name: ledger_with((one[name], other[name])) for name in one.keys() & other.keys()}
    return dict(sorted({**one, **other, **both}.items()))


def copy_of(account: Account) -> Account:
    """Return the account as it stands, free of its lock."""
    copy = Account(account.rules, account.producer, account.direction)
    for name in COUNTS:
        setattr(copy, name, getattr(account, name))
    copy.over_limit = account.over_limit.copy()
    copy.drops = account.drops.copy()
    return copy
