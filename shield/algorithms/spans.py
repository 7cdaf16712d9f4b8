"""Spans of a log that are redriven, past the offset up to which all is: encoded as short text."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate, chain, pairwise

Span = tuple[int, int]
"""From an offset up to another, without that."""

MOST_BYTES = 100_000
"""How large what is read may become: it may not be of our making."""


def merged(spans: Iterable[Span], beyond: int) -> tuple[Span, ...]:
    """Return spans in order, those that touch as one, and nothing before an offset."""
    result: list[Span] = []
    for start, end in sorted(spans):
        if end <= beyond:
            continue
        if result and start <= result[-1][1]:
            result[-1] = result[-1][0], max(end, result[-1][1])
        else:
            result.append((start, end))
    return tuple(result)


def covers(spans: tuple[Span, ...], offset: int) -> bool:
    """Tell whether an offset is in one of the merged spans."""
    at = bisect_right(spans, (offset, offset + 1)) - 1
    at += at + 1 < len(spans) and spans[at + 1][0] == offset
    return at >= 0 and spans[at][0] <= offset < spans[at][1]


def text_of(spans: tuple[Span, ...], at: int, most: int) -> str:
    """Return as many of the first spans as fit into so many characters, counted from an offset."""
    while spans:
        steps = [after - before for before, after in pairwise((at, *chain(*spans)))]
        packed = zlib.compress(json.dumps(steps, separators=(",", ":")).encode())
        text = base64.b64encode(packed).decode()
        if len(text) <= most:
            return text
        spans = spans[: len(spans) // 2]
    return ""


def read(text: str, at: int) -> tuple[Span, ...]:
    """Return spans from their text; none where it cannot be read."""
    try:
        packed = zlib.decompressobj().decompress(base64.b64decode(text), MOST_BYTES)
        steps = json.loads(packed)
        if not all(type(step) is int and 0 <= step < 2**63 for step in steps):
            return ()
        ends = list(accumulate(steps, initial=at))[1:]
    except (ValueError, TypeError, RecursionError, zlib.error, binascii.Error):
        return ()
    return tuple(zip(ends[::2], ends[1::2], strict=False))
