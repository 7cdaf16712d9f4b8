"""What Shields that are gone have counted is summed up once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from shield.accounts import OTHER_PRODUCERS, Account, ledger_of, together
from shield.engine.reporting import retired
from shield.engine.reporting.retired import OTHER_RULES, Retired


def account(rules: tuple[str, ...], producer: str, delivered: int, *drops: str) -> Account:
    made = Account(rules, producer)
    made.offered = delivered + len(drops)
    made.delivered = delivered
    made.dropped = len(drops)
    made.over_limit.update(("r", "quota", reason) for reason in drops)
    made.drops.update(("r", "quota", reason) for reason in drops)
    return made


ACCOUNTS = [
    account(("a",), "p", 1, "full"),
    account(("a", "b"), "p", 2),
    account(("b",), "q", 4, "full", "late"),
    account((), "q", 8),
]


def summed(accounts):
    sums = Retired()
    for one in accounts:
        sums.add(one)
    return sums.ledger()


def test_the_sums_are_those_of_all_accounts_together():
    """In all, of each rule and of each producer."""
    assert summed(ACCOUNTS) == ledger_of(ACCOUNTS)
    assert summed(ACCOUNTS).balanced


@pytest.mark.parametrize("number", range(len(ACCOUNTS) + 1))
def test_what_is_gone_and_what_lives_come_to_one_ledger(number):
    """Wherever the line is drawn between them."""
    gone, living = ACCOUNTS[:number], ACCOUNTS[number:]
    assert together(summed(gone), ledger_of(living)) == ledger_of(ACCOUNTS)


def test_what_is_added_later_changes_no_ledger_that_was_read():
    """Its parts stand as they were."""
    sums = Retired()
    sums.add(ACCOUNTS[0])
    before = sums.ledger()
    kept = replace(before, rules=dict(before.rules), producers=dict(before.producers))
    sums.add(ACCOUNTS[1])
    assert before == kept
    assert sums.ledger().rules["a"].delivered == 3


def test_names_without_end_are_summed_up(monkeypatch):
    """No message is lost from the books by that."""
    monkeypatch.setattr(retired, "MAX_RULES", 2)
    monkeypatch.setattr(retired, "MAX_PRODUCERS", 3)
    ledger = summed(account((f"r{n}",), f"p{n}", 1) for n in range(10))
    assert {name: part.delivered for name, part in ledger.rules.items()} == {
        "r0": 1,
        "r1": 1,
        OTHER_RULES: 8,
    }
    assert ledger.producers[OTHER_PRODUCERS].delivered == 7
    assert ledger.delivered == 10


def test_reasons_are_bounded_over_all_of_them():
    """As those of one Shield are."""
    ledger = summed(account(("r",), "p", 0, f"reason {n}") for n in range(300))
    assert len(ledger.drops) == 101
    assert ledger.drops == ledger.over_limit == ledger.rules["r"].drops
    assert sum(ledger.drops.values()) == 300
    assert isinstance(ledger.drops, Counter)
