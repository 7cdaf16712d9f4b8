"""Sets what the ledger says beside what the broker holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shield.cli.demo_run import BLANK, Snapshot
from shield.cli.demo_script import PARTS, QUOTA, Part
from shield.demo import Demo
from shield.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Line:
    """One destination: the count that the ledger gives for it, and the count read back."""

    destination: str
    end: str
    ledger: int
    broker: int

    @property
    def equal(self) -> bool:
        """Whether they agree to the message."""
        return self.ledger == self.broker


def read_back(demo: Demo) -> dict[str, int]:
    """Return how many messages the broker holds at each destination."""
    return {place: demo.count(place) for place in (demo.orders, demo.overflow, demo.audit)}


def compare(demo: Demo, ledger: Ledger, held: dict[str, int]) -> tuple[Line, ...]:
    """Set what the ledger says beside what was read back."""
    orders, audit = (ledger.rules.get(rule, BLANK) for rule in ("orders", "audit"))
    return (
        Line(demo.orders, "delivered", orders.delivered, held[demo.orders]),
        Line(demo.overflow, "overflowed", ledger.overflowed, held[demo.overflow]),
        Line(demo.audit, "delivered", audit.delivered, held[demo.audit]),
    )


@dataclass(frozen=True, slots=True)
class Report:
    """How a run ended."""

    demo: Demo
    last: Snapshot
    lines: tuple[Line, ...]
    errors: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether ledger and broker agree everywhere."""
        return all(line.equal for line in self.lines)

    @property
    def balanced(self) -> bool:
        """Whether every message offered has come to its one end."""
        return self.last.ledger.balanced and not self.last.ledger.in_flight

    @property
    def proven(self) -> bool:
        """Whether nothing is wrong."""
        return self.equal and self.balanced and not self.errors

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            "broker": self.demo.title,
            "seconds": round(self.last.elapsed_s, 3),
            "equal": self.equal,
            "balanced": self.balanced,
            "errors": list(self.errors),
            "counts": {
                line.destination: {"end": line.end, "ledger": line.ledger, "broker": line.broker}
                for line in self.lines
            },
            "producers": {part.name: _producer(self.last, part) for part in PARTS},
            "ledger": self.last.ledger.as_dict(),
        }


def _producer(last: Snapshot, part: Part) -> dict[str, Any]:
    ledger = last.of(part)
    return {
        "rule": part.rule,
        "quota_per_second": QUOTA,
        "peak_per_second": last.paces[part.name].peak,
        "offered": ledger.offered,
        "admitted": ledger.offered - ledger.over_limit.total(),
        "over_limit": ledger.over_limit.total(),
        "overflowed": ledger.overflowed,
        "waited": last.waited[part.name],
        "raised": ledger.raised,
        "failed": ledger.failed,
    }
