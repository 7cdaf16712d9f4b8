"""All Shields of this process together: one ledger, one pressure, one budget for retries."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from shield.clock import SYSTEM_CLOCK, Clock
from shield.ledger import Account, Books, Ledger, ledger_of
from shield.readiness import rules_named, until_below, wait_until_below
from shield.retry_budget import RetryBudget

if TYPE_CHECKING:
    from shield.shield import Shield

_shields: weakref.WeakSet[Shield] = weakref.WeakSet()
_retired: list[Account] = []
_books: weakref.WeakKeyDictionary[Clock, weakref.WeakSet[Books]] = weakref.WeakKeyDictionary()
_retries: weakref.WeakKeyDictionary[Clock, RetryBudget] = weakref.WeakKeyDictionary()


def enter(shield: Shield) -> None:
    """Take in a new Shield."""
    _shields.add(shield)


def living() -> list[Shield]:
    """Return all that there are now."""
    return list(_shields)


def retire(accounts: Iterable[Account]) -> None:
    """Keep the accounts of a Shield that is gone."""
    _retired.extend(accounts)


def forget() -> None:
    """Begin anew, in a forked child: what was counted and retried is the parent's."""
    _retired.clear()
    _books.clear()
    _retries.clear()


def retry_budget(clock: Clock, books: Books) -> RetryBudget:
    """Return the budget of all Shields with this clock; what these books count is sent, too."""
    all_books = _books.setdefault(clock, weakref.WeakSet())
    all_books.add(books)
    return _retries.setdefault(clock, RetryBudget(partial(_sent, all_books)))


def _sent(all_books: weakref.WeakSet[Books]) -> int:
    """Return how many messages have been offered to publish; read without any lock."""
    accounts = (account for books in list(all_books) for account in books)
    return sum(account.offered for account in accounts if account.direction == "publish")


def ledger() -> Ledger:
    """Return the ledger of this process: of all its Shields together, also of those gone."""
    accounts = list(_retired)
    for shield in living():
        accounts += shield.accounts()
    return ledger_of(accounts)


def pressure(rule: str | None = None) -> float:
    """Return how near this process's messages are to being refused: of its Shields the highest.

    Raises:
        ShieldError: none of them has a rule of that name.
    """
    every = living()
    asked = [one for one in every if rule is None or rule in {r.name for r in one.rules}]
    if rule is not None and not asked:
        rules_named([known for one in every for known in one.rules], rule)
    return max((one.pressure(rule) for one in asked), default=0.0)


def wait_ready(timeout_s: float | None = None, rule: str | None = None, below: float = 1.0) -> bool:
    """Block until the pressure of this process is below that; False where time was over first."""
    return wait_until_below(lambda: pressure(rule), below, timeout_s, SYSTEM_CLOCK)


async def ready(
    rule: str | None = None, timeout_s: float | None = None, below: float = 1.0
) -> bool:
    """Wait as `wait_ready`, without blocking the loop."""
    return await until_below(lambda: pressure(rule), below, timeout_s, SYSTEM_CLOCK)
