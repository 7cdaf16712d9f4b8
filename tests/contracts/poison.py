"""One bad message among many: the good ones arrive once each, the bad one fails alone, by name.

For each reason for which a client or its broker refuses one; every client, by each of its ways.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from concurrent.futures import Future
from typing import Any

import pytest

import shield

GOOD = 300
BODIES = [b"good %d" % number for number in range(GOOD)]


class PoisonContract(ABC):
    """Inherit it, and say how a client sends and what its broker has got.

    `reasons` are the names of what may be wrong with a message.
    """

    reasons: tuple[str, ...] = ()
    in_doubt: tuple[str, ...] = ()
    """Those that only the broker finds, and for which it ends a channel: what had no answer there
    arrives, and nobody can tell."""
    ends_at_once = True
    """Whether the bad one's own caller gets the error, in the call or by its future."""

    @abstractmethod
    def send(self, body: bytes, reason: str | None) -> Future[Any] | None:
        """Send a message that is good, or bad for that reason."""

    @abstractmethod
    def settle(self) -> None:
        """Return when all that was sent has its end."""

    @abstractmethod
    def arrived(self) -> Counter[bytes]:
        """Return what is in the queue or topic."""

    @property
    @abstractmethod
    def shield(self) -> shield.Shield:
        """Whose ledger counts them."""

    @property
    @abstractmethod
    def destination(self) -> str:
        """What a log line and an error name, of a bad message."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "reason" in metafunc.fixturenames:
            metafunc.parametrize("reason", self.reasons)

    def test_it_fails_alone(self, reason: str, caplog: pytest.LogCaptureFixture) -> None:
        """Its neighbours arrive once each, and nothing else fails."""
        caplog.set_level(logging.WARNING)
        futures = [self.send(body, None) for body in BODIES[: GOOD // 2]]
        error = self._bad(reason)
        futures += [self.send(body, None) for body in BODIES[GOOD // 2 :]]
        self.settle()
        failed = [f.exception(30) for f in futures if f is not None and f.exception(30)]
        unknown = [error for error in failed if isinstance(error, shield.DeliveryUnknownError)]
        assert failed == (unknown if reason in self.in_doubt else [])
        if self.ends_at_once:
            bad = error.exception(30) if isinstance(error, Future) else error
            assert bad is not None
            assert self.destination in f"{bad} {caplog.text}"
        assert self.arrived() == Counter(BODIES)
        ledger = self.shield.ledger()
        assert ledger.balanced
        assert (ledger.delivered, ledger.in_flight) == (GOOD - len(unknown), 0)

    def _bad(self, reason: str) -> Any:
        try:
            return self.send(b"bad", reason)
        except Exception as error:
            return error
