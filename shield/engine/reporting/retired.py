"""What Shields that are gone have counted: running sums, so that nobody adds them up anew."""

from __future__ import annotations

from shield.accounts import MAX_PRODUCERS, OTHER_PRODUCERS, Account, Ledger, Reasons, ledger_with

MAX_RULES = 10_000
"""How many rules of theirs are kept apart; others are summed up."""
OTHER_RULES = "(other)"


class Retired:
    """The sum of their accounts, and that of each rule and producer. Its owner's lock covers it."""

    def __init__(self) -> None:
        reasons = Reasons()
        self._all = Account((), "", reasons=reasons)
        self._rules = Sums(MAX_RULES, OTHER_RULES, reasons)
        self._producers = Sums(MAX_PRODUCERS, OTHER_PRODUCERS, reasons)

    def add(self, account: Account) -> None:
        """Count what an account has counted: nothing is added to that any more."""
        self._all.add(account)
        self._producers.add(account.producer, account)
        for rule in account.rules:
            self._rules.add(rule, account)

    def ledger(self) -> Ledger:
        """Return the sums; their parts are the same objects until something is added to them."""
        return ledger_with([self._all], self._rules.ledgers(), self._producers.ledgers())


class Sums:
    """A sum for each name, up to so many; what is beyond goes to one for all others."""

    def __init__(self, most: int, others: str, reasons: Reasons) -> None:
        self._most = most
        self._others = others
        self._reasons = reasons
        self._sums: dict[str, Account] = {}
        self._ledgers: dict[str, Ledger] = {}
        self._changed: set[str] = set()

    def add(self, name: str, account: Account) -> None:
        """Add an account to the sum of that name."""
        if name not in self._sums and len(self._sums) >= self._most:
            name = self._others
        if name not in self._sums:
            self._sums[name] = Account((), name, reasons=self._reasons)
        self._sums[name].add(account)
        self._changed.add(name)

    def ledgers(self) -> dict[str, Ledger]:
        """Return the sums by their names."""
        for name in self._changed:
            self._ledgers[name] = ledger_with([self._sums[name]])
        self._changed.clear()
        return self._ledgers
