"""Wait queues: first come, first served, woken instead of polling.

A message that waits stands in the line of the policy that refuses it. Lines never deadlock: every
waiter keeps the number it drew on arrival, a line is ordered by it, and only lower numbers hold a
message back, so that the lowest of all waits for nobody but the policies.
"""

from __future__ import annotations

import sys
from bisect import insort
from collections.abc import Callable, Hashable, Iterable
from itertools import count

from shield.algorithms.refcount import unheld
from shield.capabilities import FollowsDiversion, Queues, ReadsSignals
from shield.message import Message
from shield.plugin_results import line_of, seconds_of
from shield.policy import Policy
from shield.verdict import OverLimit, Refusal

Line = tuple[Policy, Hashable]
LAST = sys.float_info.max
"""The number of a message that has just arrived: everyone who waits is ahead of it."""
BEHIND = float("inf")
"""The number of one that holds nobody back, not even those who have yet to arrive."""


class Waiter:
    """One message in line. `wake` is called, from any thread, when it should ask again."""

    __slots__ = ("line", "messages", "number", "over", "size", "wake")

    def __init__(self, over: OverLimit, number: float, wake: Callable[[], None]) -> None:
        self.over = over
        self.number = number
        self.wake = wake
        self.line: Line | None = None
        self.messages = 1
        """How many stand here: more than one where a whole queue has sent its first."""
        self.size = over.message.size
        """Their bytes."""

    def __lt__(self, other: Waiter) -> bool:
        return self.number < other.number


class WaitQueues(dict[Line, list[Waiter]]):
    """All lines of one Shield; its lock covers every call. False while nobody waits.

    Args:
        failed: is told of a policy that raises when it is asked for a message's line; all of
            its messages wait in one line.
        fail_open: whether a message whose line cannot be told may be admitted all the same.
    """

    def __init__(
        self, failed: Callable[[Policy, Exception], None], *, fail_open: bool = True
    ) -> None:
        super().__init__()
        self._failed = failed
        self._fail_open = fail_open
        self._numbers = count(1)

    def draw(self) -> int:
        """Return the next number."""
        return next(self._numbers)

    def refusal(
        self, policy: Policy, message: Message, number: float, own: Refusal | None
    ) -> Refusal | None:
        """Return the policy's own refusal, put off by, or due to, those with lower numbers.

        Raises:
            Exception: the policy's, where what it fails at is not to be admitted.
        """
        line = self.get(self.of(policy, message) if self._fail_open else _line(policy, message))
        if line is None or line[0].number >= number:
            return own
        ahead = [waiter for waiter in line if waiter.number < number]
        ahead_s = self._wait_s(policy, ahead)
        if own is None:
            return Refusal(policy, "others wait", ahead_s)
        if own.retry_after_s is None or ahead_s is None:
            return own
        return Refusal(policy, own.reason, own.retry_after_s + ahead_s)

    def _wait_s(self, policy: Policy, ahead: list[Waiter]) -> float | None:
        if not isinstance(policy, Queues):
            return None
        try:
            size = sum(waiter.size for waiter in ahead)
            return seconds_of(policy.drain_time_s(sum(waiter.messages for waiter in ahead), size))
        except Exception as error:
            self._failed(policy, error)
            return None

    def stand(self, waiter: Waiter, policy: Policy) -> Iterable[Waiter]:
        """Put the waiter into its place in that policy's line; return whom its move lets ask."""
        line = self.of(policy, waiter.over.message)
        if waiter.line == line:
            return ()
        freed = self.leave(waiter)
        standing = list(self.get(line, ()))
        insort(standing, waiter)
        self[line] = standing  # no call from here on, so that nothing can strike in between
        waiter.line = line
        return freed

    def of(self, policy: Policy, message: Message) -> Line:
        """Return the line of that policy in which a message would stand."""
        try:
            return _line(policy, message)
        except Exception as error:
            self._failed(policy, error)
            return policy, None

    def leave(self, waiter: Waiter) -> Iterable[Waiter]:
        """Take the waiter out of its line; return whom that lets ask."""
        if waiter.line is None:
            return ()
        line = self[waiter.line]
        rest = [other for other in line if other is not waiter]
        freed = rest[:1] if line[0] is waiter else ()
        if rest:  # no call from here on
            self[waiter.line] = rest
        else:
            del self[waiter.line]
        waiter.line = None
        return freed

    def lost(self) -> list[Waiter]:
        """Return those whose owner is gone, so that they would keep all behind them out."""
        return [waiter for line in self.values() for waiter in unheld(line)]

    def is_first(self, waiter: Waiter) -> bool:
        """Tell whether nobody is ahead of the waiter in its line."""
        return waiter.line is None or self[waiter.line][0] is waiter

    def first_released(self) -> list[Waiter]:
        """Return who stands first where an answer, or a signal, can let them in.

        Time alone moves the others.
        """
        return [line[0] for (policy, _), line in self.items() if _releases(policy)]

    def first_listening(self) -> list[Waiter]:
        """Return who stands first where a signal can let them in."""
        return [line[0] for (policy, _), line in self.items() if _wakes_on_signal(policy)]

    def first(self) -> list[Waiter]:
        """Return who stands first in each line, to be woken where a charge was given back."""
        return [line[0] for line in self.values()]


def _line(policy: Policy, message: Message) -> Line:
    return policy, line_of(policy.queue_key(message)) if isinstance(policy, Queues) else None


def wake_all(waiters: Iterable[Waiter]) -> None:
    """Let them ask again; not under the Shield's lock."""
    for waiter in waiters:
        waiter.wake()


def _releases(policy: Policy) -> bool:
    return (
        _wakes_on_signal(policy)
        or type(policy).release is not Policy.release
        or isinstance(policy, FollowsDiversion)
    )


def _wakes_on_signal(policy: Policy) -> bool:
    return isinstance(policy, ReadsSignals) and policy.wakes_on_signal
