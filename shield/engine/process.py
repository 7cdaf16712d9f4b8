"""All Shields of this process together: one ledger, one pressure, one budget for retries."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from shield.accounts import Account, Accounts, Ledger, ledger_of, together
from shield.algorithms.retry_budget import RetryBudget
from shield.clock import SYSTEM_CLOCK, Clock
from shield.engine.reporting.readiness import rules_named, until_below, wait_until_below
from shield.engine.reporting.retired import Retired
from shield.process_hooks import ForkStage, after_fork, count_lost_with

if TYPE_CHECKING:
    from shield.rule import Rule

Member = TypeVar("Member")
LOST = ("raised", "dropped", "failed")
"""The ends of messages that are lost when a program ends."""


class Decider(Protocol):
    """One Shield, as its process knows it."""

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Its compiled rules."""

    def accounts(self) -> list[Account]:
        """Return copies of its accounts."""

    def pressure(self, rule: str | None = None) -> float:
        """Return how near its messages are to being refused."""

    def begin_anew(self) -> None:
        """In a forked child: forget what is the parent's."""


_deciders: weakref.WeakSet[Decider] = weakref.WeakSet()
_gone: deque[Iterable[Account]] = deque()
"""Books of Shields that are gone, not yet added up: a finalizer takes no lock."""
_retired = Retired()
"""What they come to."""
_adding_up = threading.Lock()
_books: weakref.WeakKeyDictionary[Clock, weakref.WeakSet[Accounts]] = weakref.WeakKeyDictionary()
_retries: weakref.WeakKeyDictionary[Clock, RetryBudget] = weakref.WeakKeyDictionary()


def enter(decider: Decider) -> None:
    """Take in a new one."""
    _deciders.add(decider)
    _add_up()


def living() -> list[Decider]:
    """Return all that there are now."""
    return _members(_deciders)


def _members(those: weakref.WeakSet[Member]) -> list[Member]:
    """Return all that there are now, also while another thread makes one."""
    while True:
        try:
            return list(those)
        except RuntimeError:  # it has grown meanwhile
            continue


def retire(accounts: Iterable[Account]) -> None:
    """Keep the accounts of a Shield that is gone."""
    _gone.append(accounts)


def _add_up() -> None:
    """Add to the sums what Shields have left."""
    with _adding_up:
        while _gone:
            for account in _gone.popleft():
                _retired.add(account)


def _begin_anew() -> None:
    """Begin anew, in a forked child: what was counted and retried is the parent's."""
    global _retired, _adding_up
    _adding_up = threading.Lock()
    _gone.clear()
    _retired = Retired()
    _books.clear()
    _retries.clear()
    for decider in living():
        decider.begin_anew()


after_fork(_begin_anew, ForkStage.ENGINES)


def retry_budget(clock: Clock, books: Accounts) -> RetryBudget:
    """Return the budget of all Shields with this clock; what these books count is sent, too."""
    all_books = _books.setdefault(clock, weakref.WeakSet())
    all_books.add(books)
    return _retries.setdefault(clock, RetryBudget(partial(_sent, all_books)))


def _sent(all_books: weakref.WeakSet[Accounts]) -> int:
    """Return how many messages have been offered to publish; read without any lock."""
    accounts = (account for books in _members(all_books) for account in books)
    return sum(account.offered for account in accounts if account.direction == "publish")


def ledger() -> Ledger:
    """Return the ledger of this process: of all its Shields together, also of those gone."""
    accounts = [account for decider in living() for account in decider.accounts()]
    _add_up()
    with _adding_up:
        gone = _retired.ledger()
    return together(gone, ledger_of(accounts))


def _lost() -> dict[str, int]:
    counts = ledger()
    return {end: getattr(counts, end) for end in LOST}


count_lost_with(_lost)


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
