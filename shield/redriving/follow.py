"""A redrive that goes on until it is stopped waits for a broker that is away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from shield.errors import UnavailableError
from shield.redriving.filter import FilteredSource
from shield.transport import Taken

log = logging.getLogger("shield")


class FollowedSource(FilteredSource):
    """Gives nothing while its source cannot be reached, where one that does not follow ends."""

    _away = False

    def take(self, most: int, timeout_s: float) -> Sequence[Taken]:
        """Return up to so many that are meant."""
        try:
            taken = super().take(most, timeout_s)
        except UnavailableError as error:
            self._wait(error, timeout_s)
            return ()
        if self._away:
            log.info("redrive goes on")
        self._away = False
        return taken

    def _wait(self, error: UnavailableError, timeout_s: float) -> None:
        """Say so once, and leave it a moment."""
        if not self._away:
            log.warning("redrive waits for its source: %s", error)
        self._away = True
        self._clock.wait(threading.Event(), timeout_s)
