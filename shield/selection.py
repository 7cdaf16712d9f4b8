"""Which messages a redrive takes, in a form that outlives it: sources remember by it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import ClassVar

from shield import dead_letters
from shield.algorithms import spans
from shield.envelope import Envelope
from shield.signing import Signer
from shield.where import Predicate, where


@dataclass(frozen=True, slots=True)
class Selection:
    """Says of a message, as it was set aside, whether it is meant.

    Args:
        where: the expression, or None for all.
        below: those that have been set aside less often; None for all.
        anywhere: also those that do not say where they were going.
        origin_header: where others than Shield say it.
        signer: whose word is taken; None for everybody's. It is not remembered.
    """

    where: str | None = None
    below: int | None = None
    anywhere: bool = False
    origin_header: str | None = None
    signer: Signer | None = field(default=None, compare=False, repr=False)

    def known(self, envelope: Envelope) -> Envelope:
        """Return a message as it is to be taken: with a stranger's words as his own.

        Others than Shield, too, say where a message was going that they set aside: no more than
        that, and where the rules do not cover it, it does not go there.
        """
        known = envelope if self.signer is None else self.signer.known(envelope)
        return dead_letters.known(known, self.origin_header)

    def means(self, envelope: Envelope) -> bool:
        """Tell whether a message, as it is `known`, is meant."""
        return (
            self.wants(envelope)
            and not self.is_lost(envelope)
            and not self.is_worn_out(envelope)
            and envelope.fault is None
        )

    def wants(self, envelope: Envelope) -> bool:
        """Tell whether the expression is true of it."""
        return self.where is None or _predicate(self.where)(envelope)

    def is_lost(self, envelope: Envelope) -> bool:
        """Tell whether it does not say where it was going, and that matters."""
        return not self.anywhere and not envelope.is_diverted

    def is_worn_out(self, envelope: Envelope) -> bool:
        """Tell whether it has been set aside too often."""
        return self.below is not None and envelope.attempt >= self.below


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a log has been redriven, for sources that cannot forget single messages.

    Up to `at` everything is forgotten. Of some selections more is, up to offsets further on: what
    they do not mean stands between. Beyond those, `apart` is forgotten: what was sent while others
    before it were not. As text it fits beside an offset that Kafka commits.
    """

    at: int
    done: tuple[tuple[Selection, int], ...] = ()
    apart: tuple[spans.Span, ...] = ()

    MOST_CHARACTERS: ClassVar[int] = 4000
    LEAST_APART: ClassVar[int] = 2000

    def covers(self, offset: int, envelope: Envelope) -> bool:
        """Tell whether the message at an offset was forgotten by an earlier redrive."""
        return (
            offset < self.at
            or spans.covers(self.apart, offset)
            or any(
                offset < upto and selection.means(selection.known(envelope))
                for selection, upto in self.done
            )
        )

    def moved(self, at: int, selection: Selection, upto: int) -> Mark:
        """Return it with all forgotten up to `at`, and what the selection means up to `upto`."""
        kept = [(one, to) for one, to in self.done if one != selection and to > at]
        upto = max([upto, *(to for one, to in self.done if one == selection)])
        if upto > at:
            kept.append((selection, upto))
        return Mark(max(at, self.at), tuple(kept), self.apart).besides(())

    def besides(self, forgotten: Iterable[spans.Span]) -> Mark:
        """Return it with these forgotten, too."""
        apart, at = spans.merged((*self.apart, *forgotten), self.at), self.at
        if apart and apart[0][0] <= at:
            at, apart = apart[0][1], apart[1:]
        return replace(self, at=at, apart=apart)

    @property
    def text(self) -> str:
        """What stands beside the offset; of too many selections the oldest are left out.

        What is apart has the room that these leave.
        """
        kept = list(self.done)
        while len(text := _dumps(kept)) > self.MOST_CHARACTERS - self.LEAST_APART:
            kept.pop(0)
        apart = spans.text_of(self.apart, self.at, self.MOST_CHARACTERS - len(text))
        return f"{apart}|{text}" if apart else text

    @classmethod
    def read(cls, at: int, text: str) -> Mark:
        """Return a position from an offset and its text; what cannot be read says nothing."""
        packed, _, rows_text = ("", "", text) if text.startswith("[") else text.partition("|")
        apart = spans.read(packed, at) if packed else ()
        try:
            rows = json.loads(rows_text or "[]")
            done = tuple(
                (Selection(one, below, any_, *header), int(to))
                for one, below, any_, to, *header in rows
            )
            for expression in (one.where for one, _ in done if one.where is not None):
                _predicate(expression)
        except Exception:
            return cls(at, apart=apart)
        return cls(at, done, apart)


def _dumps(done: list[tuple[Selection, int]]) -> str:
    if not done:
        return ""
    rows = [
        [one.where, one.below, one.anywhere, upto, *filter(None, [one.origin_header])]
        for one, upto in done
    ]
    return json.dumps(rows, separators=(",", ":"))


@lru_cache(maxsize=100)
def _predicate(text: str) -> Predicate:
    return where(text)
