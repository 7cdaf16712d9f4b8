"""How a run stands, or has ended: what the ledger says beside what the broker holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

from shield.accounts import Ledger
from shield.cli.demo.gauge import Reading
from shield.cli.demo.observer import Episode
from shield.cli.demo.script import Part

BLANK = Ledger()
ENDS = ("overflowed", "dropped", "raised", "failed")


class ReportLine(NamedTuple):
    """One destination: the count that the ledger gives for it, and the count read back."""

    destination: str
    end: str
    ledger: int
    broker: int

    @property
    def equal(self) -> bool:
        """Whether they agree to the message."""
        return self.ledger == self.broker


@dataclass(frozen=True, slots=True)
class Report:
    """Everything the screen shows, at one moment; the ledger's counts are of the same instant."""

    elapsed_s: float
    ledger: Ledger
    waited: Counter[str]
    readings: dict[str, Reading]
    shedding: tuple[Episode, ...] = ()
    lines: tuple[ReportLine, ...] = ()
    errors: tuple[str, ...] = ()

    def of(self, part: Part) -> Ledger:
        """Return one producer's part of the ledger."""
        return self.ledger.producers.get(part.name, BLANK)

    def became(self, part: Part) -> dict[str, int]:
        """Return what became of a producer's messages that were over the limit."""
        ends = {end: getattr(self.of(part), end) for end in ENDS}
        return {"waited": self.waited[part.name], **ends}

    @property
    def equal(self) -> bool:
        """Whether ledger and broker agree everywhere; at the end only, as the ledger is ahead."""
        return all(line.equal for line in self.lines)

    @property
    def balanced(self) -> bool:
        """Whether every message offered has come to its one end."""
        return self.ledger.balanced and not self.ledger.in_flight

    @property
    def proven(self) -> bool:
        """Whether nothing is wrong."""
        return self.equal and self.balanced and not self.errors

    def as_dict(self, title: str, parts: tuple[Part, ...]) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            "broker": title,
            "seconds": round(self.elapsed_s, 3),
            "equal": self.equal,
            "balanced": self.balanced,
            "errors": list(self.errors),
            "counts": {
                destination: {"end": end, "ledger": ledger, "broker": broker}
                for destination, end, ledger, broker in self.lines
            },
            "producers": {part.name: self._producer(part) for part in parts},
            "shedding": [
                {name: round(value, 3) for name, value in episode._asdict().items()}
                for episode in self.shedding
            ],
            "ledger": self.ledger.as_dict(),
        }

    def _producer(self, part: Part) -> dict[str, Any]:
        offered, over_limit = self.of(part).offered, self.of(part).over_limit.total()
        return {
            "rule": part.rule,
            part.gauge.kind: part.gauge.limit,
            "peak": self.readings[part.name].peak,
            "offered": offered,
            "admitted": offered - over_limit,
            "over_limit": over_limit,
            **self.became(part),
        }
