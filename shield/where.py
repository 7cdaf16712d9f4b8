"""`--where 'rule==orders && producer==checkout'`: which messages a redrive is about.

The whole language: `FIELD == VALUE` and `FIELD != VALUE`, `&&` before `||`, parentheses. It is
read by hand and never evaluated as code.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from shield.envelope import Envelope
from shield.errors import SettingsError
from shield.headers import BROKER, POLICY, REASON, RULE

LONGEST, DEEPEST = 10_000, 50
"""How many characters, and parentheses within each other, an expression may have."""
Predicate = Callable[[Envelope], bool]

ALLOWED = (
    "allowed is FIELD == VALUE or FIELD != VALUE, joined by && and ||, with parentheses; FIELD is "
    "rule, policy, reason, producer, destination, broker, attempt or header NAME"
)
_TOKEN = re.compile(
    r"""\s*(?:(?P<sign>&&|\|\||==|!=|\(|\))|(?P<quote>["'])(?P<quoted>.*?)(?P=quote)"""
    r"""|(?P<word>[^\s()&|=!"']+))""",
    re.DOTALL,
)


def _mark(name: str) -> Callable[[Envelope], str]:
    return lambda envelope: dict(envelope.marks).get(name, "")


FIELDS: dict[str, Callable[[Envelope], str]] = {
    "rule": _mark(RULE),
    "policy": _mark(POLICY),
    "reason": _mark(REASON),
    "producer": lambda envelope: envelope.restored().producer,
    "destination": lambda envelope: envelope.restored().destination,
    "broker": _mark(BROKER),
    "attempt": lambda envelope: str(envelope.attempt),
}


def where(text: str) -> Predicate:
    """Return what tells whether a message, as it was set aside, is meant.

    Raises:
        SettingsError: the text is no such expression; it says where, and what is allowed.
    """
    return _Reader(text).whole()


class _Token(NamedTuple):
    at: int
    text: str
    is_sign: bool


class _Reader:
    """Reads an expression from left to right, one token ahead."""

    def __init__(self, text: str) -> None:
        self._text = text
        if len(text) > LONGEST:
            raise SettingsError(f"where: {len(text):,} characters; allowed are {LONGEST:,}")
        self._tokens = list(self._split())
        self._next = 0
        self._depth = 0

    def _split(self) -> list[_Token]:
        tokens, at = [], 0
        while self._text[at:].strip():
            found = _TOKEN.match(self._text, at)
            if found is None:
                at += len(self._text[at:]) - len(self._text[at:].lstrip())
                raise self._wrong(at, self._text[at:])
            sign = found["sign"]
            text = sign or (found["word"] if found["quote"] is None else found["quoted"])
            tokens.append(_Token(found.end() - len(found[0].lstrip()), text, sign is not None))
            at = found.end()
        return tokens

    def whole(self) -> Predicate:
        predicate = self._any()
        if self._next < len(self._tokens):
            raise self._unexpected()
        return predicate

    def _any(self) -> Predicate:
        parts = [self._all()]
        while self._sign("||"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else lambda e: any(part(e) for part in parts)

    def _all(self) -> Predicate:
        parts = [self._one()]
        while self._sign("&&"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else lambda e: all(part(e) for part in parts)

    def _one(self) -> Predicate:
        if self._sign("("):
            self._depth += 1
            if self._depth > DEEPEST:
                raise SettingsError(
                    f"where: found more parentheses within each other than {DEEPEST}; {ALLOWED}"
                )
            inner = self._any()
            self._depth -= 1
            if not self._sign(")"):
                raise self._unexpected()
            return inner
        of = self._field()
        if self._sign("=="):
            value = self._word()
            return lambda envelope: of(envelope) == value
        if self._sign("!="):
            value = self._word()
            return lambda envelope: of(envelope) != value
        raise self._unexpected()

    def _field(self) -> Callable[[Envelope], str]:
        before = self._next
        name = self._word()
        if name == "header":
            header = self._word()
            return lambda envelope: envelope.message().header(header) or ""
        if name not in FIELDS:
            self._next = before
            raise self._unexpected()
        return FIELDS[name]

    def _word(self) -> str:
        if self._next == len(self._tokens) or self._tokens[self._next].is_sign:
            raise self._unexpected()
        self._next += 1
        return self._tokens[self._next - 1].text

    def _sign(self, sign: str) -> bool:
        there = self._next < len(self._tokens) and self._tokens[self._next][1:] == (sign, True)
        self._next += there
        return there

    def _unexpected(self) -> SettingsError:
        if self._next == len(self._tokens):
            return self._wrong(len(self._text), "")
        token = self._tokens[self._next]
        return self._wrong(token.at, token.text)

    def _wrong(self, at: int, found: str) -> SettingsError:
        what = repr(found) if found else "the end"
        return SettingsError(f"where: found {what} at character {at + 1}; {ALLOWED}")
