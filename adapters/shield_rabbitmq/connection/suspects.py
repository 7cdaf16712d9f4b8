"""What one connection has found out about messages that its broker may refuse.

Of what has closed a channel all the same, the broker's text mostly names which one it was
(`blamed`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Hashable, Sequence

from shield_rabbitmq.client.errors import RefusedError
from shield_rabbitmq.client.frames import Frames

REFUSED_FOR_S = 5.0
"""How long a refusal is remembered: permissions change."""
REMEMBERED = 10_000
_SIZE = re.compile(r"message size ([0-9]+) is larger")


class RefusalSuspects:
    """What one connection has found out of doubtful messages: what passes, and what does not.

    Args:
        user: who is connected, whose own `user_id` passes.
    """

    def __init__(self, user: str | None) -> None:
        self._always: frozenset[Hashable] = frozenset({("user_id", user)})
        self._passed = set(self._always)
        self._refused: dict[Hashable, tuple[float, RefusedError]] = {}
        self.picky: set[str] = set()
        """Exchanges that do not take every routing key from this user."""

    def forget(self) -> None:
        """Begin anew, with a new connection."""
        self._passed = set(self._always)
        self._refused.clear()
        self.picky.clear()

    def about(self, frames: Frames) -> list[Hashable]:
        """Return what is not known yet of a message: it is to be written alone."""
        return [doubt for doubt in self._all(frames) if doubt not in self._passed]

    def check(self, frames: Frames) -> None:
        """Refuse a message whose like the broker has refused within the last five seconds.

        Raises:
            RefusedError: as that one.
        """
        now = time.monotonic()
        for doubt in self._all(frames):
            until, error = self._refused.get(doubt, (0.0, None))
            if error is not None and now < until:
                raise RefusedError(frames.destination, error.reply_code, error.reply_text)

    def passed(self, frames: Frames) -> None:
        """Note that the broker took it."""
        if len(self._passed) > REMEMBERED:
            self._passed = set(self._always)
        self._passed.update(self._all(frames))

    def refused(self, frames: Frames, error: RefusedError) -> None:
        """Note that the broker did not take it, where that was for one reason."""
        if f"topic '{frames.routing_key}' in " in error.reply_text:
            self.picky.add(frames.exchange)
        doubts = self.about(frames)
        if len(doubts) == 1 and len(self._refused) < REMEMBERED:
            self._refused[doubts[0]] = time.monotonic() + REFUSED_FOR_S, error
        elif len(self._refused) >= REMEMBERED:
            self._refused.clear()

    def _all(self, frames: Frames) -> tuple[Hashable, ...]:
        if frames.exchange in self.picky:
            return (*frames.doubts, ("topic", frames.exchange, frames.routing_key))
        return frames.doubts


def blamed(text: str, all_frames: Sequence[Frames]) -> int | None:
    """Return which of the messages that were written the broker's text is about."""
    size = _SIZE.search(text)
    for at, frames in enumerate(all_frames):
        exchange = f"exchange '{frames.exchange or 'amq.default'}' in vhost"
        if f"topic '{frames.routing_key}' in {exchange}" in text:
            return at
        if exchange in text and " topic '" not in text:
            return at
        if size is not None and len(frames.body) == int(size[1]):
            return at
    return None


def is_about_exchange(text: str, exchange: str) -> bool:
    """Tell whether the broker refuses all that is sent to an exchange."""
    return f"exchange '{exchange or 'amq.default'}' in vhost" in text and " topic '" not in text
