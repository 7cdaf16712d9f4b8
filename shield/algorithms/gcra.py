"""The Generic Cell Rate Algorithm (ITU-T I.371), keyed, with bounded memory."""

from __future__ import annotations

from collections.abc import Hashable

TOLERANCE_S = 1e-6
"""Sums of floats may be off by less; without it the last message of a burst might be refused."""
SHARED: Hashable = ("shield", "shared by keys beyond max_keys")

MAX_SHARERS = 10_000
"""Of so many keys it is known that they share it: a charge is given back soon, or never."""


class Gcra:
    """For each key a theoretical arrival time (TAT): when all that was admitted will have drained.

    With T = 1 / rate and tau = burst * T an item of cost n is admitted iff
    max(now, TAT) + n * T - now <= tau. Never more than burst + rate * window is admitted in any
    window, but for the debt of items larger than the burst.

    A key is idle, and as good as new, once tau has passed since it was last charged. So keys are
    kept in two generations: every tau the younger becomes the older, and the older is forgotten
    whole; no key is ever looked for. A key in debt beyond tau is carried over.

    Args:
        rate: units a second, above 0.
        burst: units at once, at least 1.
        max_keys: beyond so many live keys, new ones share one level.
    """

    __slots__ = (
        "_asked",
        "_burst",
        "_debtors",
        "_max_keys",
        "_old",
        "_period",
        "_sharers",
        "_tau",
        "_turn",
        "_young",
    )

    def __init__(self, rate: float, burst: float, max_keys: int = 1_000_000) -> None:
        self._period = 1.0 / rate
        self._burst = burst
        self._tau = burst / rate
        self._max_keys = max_keys
        self._young: dict[Hashable, float] = {}
        self._old: dict[Hashable, float] = {}
        self._debtors: set[Hashable] = set()
        self._sharers: dict[Hashable, None] = {}
        self._turn = float("-inf")
        self._asked: tuple[Hashable, float, float] = (None, 0.0, 0.0)

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def wait_s(self, key: Hashable, cost: float, now: float) -> float:
        """Return the seconds until `cost` would be admitted; 0 or less admits it now."""
        tat = self._young.get(key)
        if tat is None:
            key, tat = self._older(key)
        if tat < now:
            tat = now
        after = tat + cost * self._period
        self._asked = key, cost, after
        if cost > self._burst:  # larger than could ever fit: now, unless in debt
            after = tat
        return after - now - self._tau - TOLERANCE_S

    def used(self, key: Hashable, now: float) -> float:
        """Return which part of a key's burst is in use, 0 to 1; changes nothing."""
        tat = self._young.get(key)
        if tat is None:
            tat = self._older(key)[1]
        return min(1.0, max(0.0, (tat - now) / self._tau))

    def take(self, key: Hashable, cost: float, now: float) -> None:
        """Charge `cost`, admitted just now."""
        self.wait_s(key, cost, now)
        self.take_asked(now)

    def take_asked(self, now: float) -> None:
        """Charge what `wait_s` was asked about last, and admitted."""
        key, cost, after = self._asked
        if now >= self._turn:
            self._turn_over(now)
        if cost > self._burst:
            self._debtors.add(key)
        if key not in self._young and key in self._old:
            del self._old[key]  # a key is in one generation, and counts once
        self._young[key] = after

    def give_back(self, key: Hashable, cost: float) -> None:
        """Undo a charge; one of a key that is forgotten has drained by itself.

        Where the key has no level of its own, the shared one is given back to only if the key was
        among the last to share it.
        """
        owner = SHARED if key in self._sharers else key
        owner = key if key in self._young or key in self._old else owner
        for generation in (self._young, self._old):
            if owner in generation:
                generation[owner] -= cost * self._period
                return

    def _older(self, key: Hashable) -> tuple[Hashable, float]:
        """Return whose level a key that is not among the young has, and that level."""
        if key not in self._old and len(self) >= self._max_keys:
            self._share(key)
            key = SHARED
        return key, self._young.get(key, self._old.get(key, 0.0))

    def _share(self, key: Hashable) -> None:
        """Remember who may have charged the shared level, for as long as it may be given back."""
        self._sharers[key] = None
        if len(self._sharers) > MAX_SHARERS:
            del self._sharers[next(iter(self._sharers))]

    def _turn_over(self, now: float) -> None:
        """Forget the keys that nothing has charged for tau."""
        young, old = self._young, self._old
        tats = {key: young.get(key, old.get(key, 0.0)) for key in self._debtors}
        in_debt = {key: tat for key, tat in tats.items() if tat > now}
        debtors = set(in_debt)
        self._old = {} if now >= self._turn + self._tau else young
        self._young, self._debtors = in_debt, debtors
        self._turn = now + self._tau
        for key in tats:
            young.pop(key, None)
