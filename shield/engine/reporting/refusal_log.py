"""When a rule begins to refuse and when it has ended: one line in the log each.

While it refuses there is at most one a minute. Nothing here runs for a message that is admitted
while no rule refuses: a refusal notes itself under the Shield's lock, and the lines are written by
the thread that has released it, as those of failed plugins are.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

from shield.accounts import Account

if TYPE_CHECKING:
    from shield.rule import Rule
    from shield.verdict import OverLimit

log = logging.getLogger("shield.refusals")
"""A logger of its own, for who wants these lines elsewhere, or not at all."""

CALM_S = 10.0
"""A rule that has refused nothing for so long has ended."""
EVERY_S = 60.0
"""How often a rule that goes on refusing says so."""
MOST_KEYS = 1000
"""Of how many policies, reasons, producers and tenants together refusals are counted apart."""
LONGEST_NAME = 100
TOP = 3
TAKEN_BY = ("dropped", "raised", "buffered", "spooled", "overflowed")
OTHERS = "(others)"

Source = tuple[str, str, str, Hashable]
"""What refusals are counted by: policy, reason, producer, tenant."""
Line = tuple[int, str, dict[str, Any]]
"""A log record to be: its level, its text, and its fields for `extra`."""


class RefusalEpisode:
    """One rule that refuses now."""

    __slots__ = ("at_first", "counts", "last_s", "said_s", "since_s")

    def __init__(self, now: float, at_first: Counter[str]) -> None:
        self.since_s = self.last_s = self.said_s = now
        self.at_first = at_first
        """Where the rule's messages had ended before."""
        self.counts: dict[Source, int] = {}

    def sums(self) -> dict[str, Counter[str]]:
        """Return what was counted: by whom it was refused, and whose it was."""
        sums = {"by": Counter[str](), "producers": Counter[str](), "tenants": Counter[str]()}
        for (policy, reason, producer, tenant), messages in self.counts.items():
            sums["by"][f"{policy} ({reason})" if reason else policy] += messages
            sums["producers"][producer] += messages
            if tenant is not None:
                sums["tenants"][str(tenant)[:LONGEST_NAME]] += messages
        return sums


class RefusalLog:
    """The rules of one Shield that refuse now.

    Args:
        accounts: what is counted.
        lock: the Shield's, which covers `note`, and all that is counted.
        now: monotonic seconds.
        unlogged: what is to be called once the lock is free.
    """

    def __init__(
        self,
        accounts: Iterable[Account],
        lock: AbstractContextManager[object],
        now: Callable[[], float],
        unlogged: deque[Callable[[], None]],
    ) -> None:
        self._accounts, self._lock, self._now, self._unlogged = accounts, lock, now, unlogged
        self._refusing: dict[Rule, RefusalEpisode] = {}
        self._look_at_s = float("inf")

    def note(self, over: OverLimit, now: float) -> None:
        """Note one; the first of its rule is told, and from then on somebody looks."""
        rule, refusal, message = over.rule, over.refusal, over.message
        refusing = self._refusing.get(rule)
        if refusing is None:
            self._refusing[rule] = refusing = RefusalEpisode(now, self._ends(rule))
            self._look_at_s = min(self._look_at_s, now + CALM_S)
            self._unlogged += (partial(_write, _begins(over)), self._look)
        refusing.last_s = now
        counts = refusing.counts
        key = refusal.policy.name, refusal.reason, message.producer, message.tenant
        if key not in counts and len(counts) >= MOST_KEYS:
            key = refusal.policy.name, "", OTHERS, None
        counts[key] = counts.get(key, 0) + message.messages

    def end(self) -> None:
        """Put down the lines of all that refuse now: nobody may be there to look again."""
        with self._lock:
            now = self._now()
            lines = [
                self._summary(rule, refusing, now, "refused until its client closed")
                for rule, refusing in self._refusing.items()
            ]
            self._refusing.clear()
        self._unlogged.extend(partial(_write, line) for line in lines)

    def _look(self) -> None:
        """Tell what has ended, or goes on, when it is time; look again while anything refuses."""
        now = self._now()
        if now >= self._look_at_s:
            with self._lock:
                lines = self._told(now)
            for line in lines:
                _write(line)
        if self._refusing:
            self._unlogged.append(self._look)

    def _told(self, now: float) -> list[Line]:
        lines = []
        for rule, refusing in list(self._refusing.items()):
            if now - refusing.last_s >= CALM_S:
                del self._refusing[rule]
                lines.append(self._summary(rule, refusing, refusing.last_s, "has ended refusing"))
            elif now - refusing.said_s >= EVERY_S:
                refusing.said_s = now
                lines.append(self._summary(rule, refusing, now, "goes on refusing"))
        self._look_at_s = min(
            (min(each.last_s + CALM_S, each.said_s + EVERY_S) for each in self._refusing.values()),
            default=float("inf"),
        )
        return lines

    def _ends(self, rule: Rule) -> Counter[str]:
        found: Counter[str] = Counter()
        for account in self._accounts:
            if rule.name in account.rules:
                found.update({end: getattr(account, end) for end in TAKEN_BY})
        return found

    def _summary(self, rule: Rule, refusing: RefusalEpisode, until_s: float, what: str) -> Line:
        taken = self._ends(rule) - refusing.at_first
        sums, seconds = refusing.sums(), max(0.0, until_s - refusing.since_s)
        total = sums["by"].total()
        parts = {**sums, "then": taken}
        told = "; ".join(f"{name} {_top(counts)}" for name, counts in parts.items() if counts)
        fields = {
            "rule": rule.name,
            "refused": total,
            "seconds": seconds,
            **{name: dict(counts.most_common(TOP)) for name, counts in parts.items()},
        }
        text = f"rule {rule.name!r} {what}: {total:,} in {seconds:.1f} s; {told}"
        return logging.WARNING, text, {"shield": fields}


def _begins(over: OverLimit) -> Line:
    message = over.message
    fields = {
        "rule": over.rule.name,
        "policy": over.policy,
        "reason": over.reason,
        "producer": message.producer,
        "destination": message.destination,
    }
    text = (
        f"rule {over.rule.name!r} begins to refuse: {over.policy} ({over.reason}); first "
        f"{message.producer!r} to {message.destination!r}"
    )
    return logging.WARNING, text, {"shield": fields}


def _write(line: Line) -> None:
    level, text, fields = line
    log.log(level, text, extra=fields)


def _top(counts: Counter[str]) -> str:
    return ", ".join(f"{key} {number:,}" for key, number in counts.most_common(TOP))
