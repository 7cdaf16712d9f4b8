"""How much a message matters, as one number: its criticality, and within that whose it is."""

from __future__ import annotations

import zlib
from collections.abc import Hashable
from typing import Literal

Criticality = Literal["critical-plus", "critical", "sheddable-plus", "sheddable"]

NAMES = ("sheddable", "sheddable-plus", "critical", "critical-plus")
RANKS = {name: rank for rank, name in enumerate(NAMES)}
BUCKETS = 128
"""Into so many groups the keys of one criticality are divided."""
_GOLDEN = 0x9E3779B1


def level_of(rank: int, key: Hashable, draw: float) -> float:
    """Return the level: the rank, and behind its point the key's group, then chance.

    The group of a key is the same in every process and at every time. Chance decides only within
    a group, so that one key alone can be shed in part; a message without a key is nobody's, and
    chance decides for it alone.
    """
    within = draw if key is None else (_group(key) + draw) / BUCKETS
    return rank + within


def _group(key: Hashable) -> int:
    """Return one of the groups: CRC-32, multiplied (Fibonacci hashing) as it is weak for that."""
    data = key if isinstance(key, bytes) else repr(key).encode()
    return (zlib.crc32(data) * _GOLDEN & 0xFFFFFFFF) * BUCKETS >> 32
