"""Sets what the ledger says beside what the broker holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shield.accounts import Ledger
from shield.cli.demo.run import BLANK, Snapshot
from shield.cli.demo.script import Part, Script
from shield.cli.demo.shedding import Episode
from shield.demo import Demo
from shield.shield import Shield


@dataclass(frozen=True, slots=True)
class ReportLine:
    """One destination: the count that the ledger gives for it, and the count read back."""

    destination: str
    end: str
    ledger: int
    broker: int

    @property
    def equal(self) -> bool:
        """Whether they agree to the message."""
        return self.ledger == self.broker


def read_back(demo: Demo[Shield], script: Script) -> dict[str, int]:
    """Return how many messages the broker holds at each destination."""
    return {count.destination: demo.count(count.destination) for count in script.counts}


def compare(script: Script, ledger: Ledger, held: dict[str, int]) -> tuple[ReportLine, ...]:
    """Set what the ledger says beside what was read back."""
    return tuple(
        ReportLine(
            count.destination,
            count.end,
            getattr(ledger.rules.get(count.rule, BLANK), count.end),
            held[count.destination],
        )
        for count in script.counts
    )


@dataclass(frozen=True, slots=True)
class Report:
    """How a run ended."""

    demo: Demo[Shield]
    script: Script
    last: Snapshot
    lines: tuple[ReportLine, ...]
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
            "producers": {part.name: _producer(self.last, part) for part in self.script.parts},
            "shedding": [_rounded(episode) for episode in self.last.shedding],
            "ledger": self.last.ledger.as_dict(),
        }


def _producer(last: Snapshot, part: Part) -> dict[str, Any]:
    ledger = last.of(part)
    return {
        "rule": part.rule,
        part.gauge.kind: part.gauge.limit,
        "peak": last.readings[part.name].peak,
        "offered": ledger.offered,
        "admitted": ledger.offered - ledger.over_limit.total(),
        "over_limit": ledger.over_limit.total(),
        "overflowed": ledger.overflowed,
        "waited": last.waited[part.name],
        "dropped": ledger.dropped,
        "raised": ledger.raised,
        "failed": ledger.failed,
    }


def _rounded(episode: Episode) -> dict[str, Any]:
    return {
        "from_s": round(episode.from_s, 3),
        "to_s": round(episode.to_s, 3),
        "dropped": episode.dropped,
    }
