"""What plugins return, read once at the boundary: what is wrong there counts as if they had raised.

Each function takes what a plugin's method has returned and gives back a plain value that the rest
can rely on, whatever was handed in: no subclass with methods of its own, no NaN, nothing endless.
"""

from __future__ import annotations

import reprlib
from collections.abc import Hashable, Iterable, Mapping
from math import inf, isfinite
from numbers import Real
from typing import TYPE_CHECKING, Any

from shield.action import Decline, Divert, Drop, Keep, Raise, Retry, Step, Wait
from shield.errors import PluginResultError
from shield.hookspecs import Labels
from shield.interrupts import is_from_outside
from shield.policy import Policy
from shield.verdict import Outcome, Refusal

if TYPE_CHECKING:
    from shield.transport import Taken

LONGEST_TEXT = 200
"""Characters of a reason, or of a producer's name, that are kept."""
LONGEST_S = 1e9
"""A time that is longer is as good as this one; no lock of the system can wait for it."""
LONGEST_DELAY_S = 3600.0
"""Nobody holds a message back for longer than this before it is sent."""
ASK_SOON_S = 0.001
"""What "at once" comes to, so that nobody asks without a pause."""
FAILED_RETRY_S = 1.0
"""When to ask a policy again that has failed, where that refuses."""
FATES = ("buffered", "spooled")


class _Shown(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 80


_shown = _Shown()


def shown(value: object) -> str:
    """Return a short text of anything at all; it may raise where others would show it."""
    try:
        return _shown.repr(value)
    except Exception as error:
        if is_from_outside(error):
            raise
        return f"<{type(value).__name__} that cannot be shown>"


def text_of(value: object) -> str:
    """Return `str(value)` as it can be counted by and put into a header: short, and UTF-8."""
    try:
        text = str.__str__(value) if isinstance(value, str) else str(value)
    except Exception as error:
        if is_from_outside(error):
            raise
        text = shown(value)
    return _bounded(text)


def _bounded(text: str) -> str:
    if len(text) > LONGEST_TEXT:
        text = text[: LONGEST_TEXT - 3] + "..."
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def wrong(what: str, value: object, allowed: str) -> PluginResultError:
    """Return the error for a value; an async method's coroutine is closed."""
    found = shown(value)
    close = getattr(type(value), "close", None)
    if type(value).__name__ in ("coroutine", "generator") and close is not None:
        close(value)
    return PluginResultError(
        f"{what}: found {found} of type {type(value).__name__}; allowed is {allowed}"
    )


# --- policies -------------------------------------------------------------------------------------


def refusal_of(policy: Policy, answer: object) -> Refusal | None:
    """Read what `check` or `check_waiting` has said: None, or a refusal to be relied on."""
    if answer is None:
        return None
    if type(answer) is Refusal and _is_sound(answer, policy):
        return answer
    if not isinstance(answer, Refusal):
        raise wrong("its verdict", answer, "None, or what self.refuse(...) returns")
    reason = answer.reason
    if not isinstance(reason, str):
        raise wrong("the reason of its refusal", reason, "a text")
    return Refusal(policy, text_of(reason) or "refused", retry_after(answer.retry_after_s))


def _is_sound(refusal: Refusal, policy: Policy) -> bool:
    """Tell whether it can be taken as it stands: nearly all can."""
    reason, after_s = refusal.reason, refusal.retry_after_s
    return (
        refusal.policy is policy
        and type(reason) is str
        and 0 < len(reason) <= LONGEST_TEXT
        and reason.isascii()
        and (after_s is None or (type(after_s) is float and (0 < after_s < LONGEST_S)))
    )


def retry_after(value: object) -> float | None:
    """Read `retry_after_s`: None, or seconds; `inf` for never."""
    if value is None:
        return None
    seconds = number(value, "retry_after_s", "None, or seconds of 0 or more")
    return seconds if seconds == inf else min(max(seconds, ASK_SOON_S), LONGEST_S)


def number(value: object, what: str, allowed: str) -> float:
    """Read a number that is not below zero; infinity is one, truth and text are none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise wrong(what, value, allowed)
    try:
        result = float(value)
    except Exception:
        raise wrong(what, value, allowed) from None
    if not result >= 0.0:  # nor is it NaN
        raise wrong(what, value, allowed)
    return result


def seconds_of(value: object) -> float | None:
    """Read what `drain_time_s` has said."""
    if value is None:
        return None
    allowed = "None, or a finite number of seconds of 0 or more"
    seconds = number(value, "drain_time_s", allowed)
    if not isfinite(seconds):
        raise wrong("drain_time_s", value, allowed)
    return min(seconds, LONGEST_S)


def delay_of(value: object) -> float:
    """Read what `delay_s` has said."""
    allowed = f"a number of seconds from 0 to {LONGEST_DELAY_S:.0f}"
    seconds = number(value, "delay_s", allowed)
    if seconds > LONGEST_DELAY_S:
        raise wrong("delay_s", value, allowed)
    return seconds


def part_of(value: object) -> float:
    """Read a pressure, or a rejection share."""
    part = number(value, "pressure", "a number from 0 to 1")
    if part > 1.0 + 1e-6:
        raise wrong("pressure", value, "a number from 0 to 1")
    return min(1.0, part)


def bound_of(value: object) -> int | None:
    """Read what `max_in_flight` has said."""
    if value is None or (type(value) is int and value >= 1):
        return value
    raise wrong("max_in_flight", value, "None, or an int of 1 or more")


def flag_of(value: object) -> bool:
    """Read a yes or no."""
    if isinstance(value, bool):
        return value
    raise wrong("its answer", value, "True or False")


def line_of(value: object) -> Hashable:
    """Read what a message competes for, as a key that compares without anybody's code failing."""
    if _is_plain(value):
        return value
    try:
        return Key(value)
    except Exception:
        raise wrong("queue_key", value, "what can be hashed") from None


PLAIN: frozenset[type] = frozenset((type(None), bool, int, str, bytes))


def _is_plain(value: object) -> bool:
    if type(value) is tuple:
        return all(map(_is_plain, value))
    return type(value) in PLAIN


class Key:
    """Stands for an object that may not compare: then it is equal to itself alone."""

    __slots__ = ("_hash", "_value")

    def __init__(self, value: object) -> None:
        self._value = value
        self._hash = hash(value)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Key):
            return NotImplemented
        try:
            return self._value is other._value or bool(self._value == other._value)
        except Exception:
            return False


def status_of(value: object) -> dict[str, float | str | None]:
    """Read what `status` shows."""
    allowed = "a mapping of texts to finite numbers, texts or None"
    if not isinstance(value, Mapping):
        raise wrong("status", value, allowed)
    result: dict[str, float | str | None] = {}
    for name, item in value.items():
        if not isinstance(name, str):
            raise wrong("a name in status", name, allowed)
        result[text_of(name)] = _shown_item(item, allowed)
    return result


def _shown_item(item: object, allowed: str) -> float | str | None:
    if item is None:
        return None
    if isinstance(item, str):
        return text_of(item)
    if isinstance(item, int) and not isinstance(item, bool) and abs(item) < 2**63:
        return int(item)
    if isinstance(item, float) and isfinite(item):
        return float(item)
    if isinstance(item, bool):
        return item
    raise wrong("a value in status", item, allowed)


# --- hooks ----------------------------------------------------------------------------------------


def labels_of(answer: object) -> dict[str, object]:
    """Read what a classifier has said: the labels that it has set."""
    if answer is None:
        return {}
    if not isinstance(answer, Labels):
        raise wrong("shield_classify", answer, "None or shield.Labels(...)")
    said: dict[str, object] = {}
    for name, value in (("producer", answer.producer), ("priority", answer.priority)):
        if value is not None:
            if not isinstance(value, str) or not value:
                raise wrong(f"Labels.{name}", value, "None, or a text that is not empty")
            said[name] = text_of(value)
    if answer.tenant is not None:
        said["tenant"] = _tenant(answer.tenant)
    if answer.deadline is not None:
        said["deadline"] = _deadline(answer.deadline)
    return said


def _tenant(value: object) -> Hashable:
    if isinstance(value, str):
        return text_of(value)
    if _is_plain(value):
        return value
    try:
        hash(value)
    except Exception:
        raise wrong("Labels.tenant", value, "what can be hashed") from None
    return value


def _deadline(value: object) -> float:
    if isinstance(value, Real) and not isinstance(value, bool):
        deadline = float(value)
        if deadline == deadline:
            return deadline
    raise wrong("Labels.deadline", value, "None, or a moment of time.monotonic()")


def nothing_of(hook: str, answer: object) -> None:
    """Refuse what a before-hook returns: what it has to say goes into the message."""
    if answer is not None:
        raise wrong(hook, answer, "None; headers are added with message.add_header(name, value)")


# --- actions --------------------------------------------------------------------------------------


def step_in(answer: object, direction: str) -> Step | None:
    """Read what an action's `step` has said."""
    if answer is None or isinstance(answer, Drop | Raise):
        return answer
    if isinstance(answer, Wait):
        return Wait(_limit(answer.limit_s, direction))
    if isinstance(answer, Retry):
        if type(answer.times) is not int or answer.times < 0:
            raise wrong("Retry.times", answer.times, "an int of 0 or more")
        return answer
    if isinstance(answer, Divert):
        return _divert(answer)
    if isinstance(answer, Keep):
        return _keep(answer)
    if isinstance(answer, Decline):
        if not isinstance(answer.why, str):
            raise wrong("Decline.why", answer.why, "a text")
        return answer
    raise wrong("step", answer, "None or one of the steps of shield.action")


def _limit(value: object, direction: str) -> float:
    allowed = "seconds of 0 or more, and not endless in a rule that publishes"
    limit_s = number(value, "Wait.limit_s", allowed)
    if limit_s == inf and direction == "publish":
        raise wrong("Wait.limit_s", value, allowed)
    return limit_s if limit_s == inf else min(limit_s, LONGEST_S)


def _divert(step: Divert) -> Divert:
    from shield.transport import Transport

    if not isinstance(step.destination, str) or not step.destination:
        raise wrong("Divert.destination", step.destination, "a text that is not empty")
    if not callable(step.done):
        raise wrong("Divert.done", step.done, "what can be called")
    if step.transport is not None and not isinstance(step.transport, Transport):
        raise wrong("Divert.transport", step.transport, "None or a shield.Transport")
    return step


def _keep(step: Keep) -> Keep:
    if step.fate not in FATES:
        raise wrong("Keep.fate", step.fate, " or ".join(map(repr, FATES)))
    if not callable(step.keeper):
        raise wrong("Keep.keeper", step.keeper, "what can be called")
    return step


# --- transports and sources -----------------------------------------------------------------------


def outcome_in(answer: object) -> Outcome:
    """Read what `outcome_of` of a transport has said."""
    if isinstance(answer, Outcome):
        return answer
    raise wrong("outcome_of", answer, "a shield.Outcome")


def error_in(answer: object) -> Exception | None:
    """Read what a transport has answered a send with; what is no error is a failure."""
    if answer is None or isinstance(answer, Exception):
        return answer
    return wrong("done(...)", answer, "None or an Exception")


def taken_in(answer: object, most: int) -> list[Taken]:
    """Read what `take` of a source has returned."""
    from shield.transport import Taken

    allowed = f"a sequence of up to {most} shield.Taken"
    if not isinstance(answer, Iterable) or isinstance(answer, str | bytes | Mapping):
        raise wrong("take", answer, allowed)
    batch: list[Any] = []
    for one in answer:
        if not isinstance(one, Taken) or len(batch) >= most:
            raise wrong("take", answer, allowed)
        batch.append(one)
    return batch


def left_in(answer: object) -> int | None:
    """Read what `left` of a source has said."""
    if answer is None or (type(answer) is int and answer >= 0):
        return answer
    raise wrong("left", answer, "None, or an int of 0 or more")
