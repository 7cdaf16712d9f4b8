"""What plugins return, raise and leave undone, times every method: the others go on.

An adapter's test class inherits `PluginNonsense` and overrides the fixture `adapter`, as those of
`AdapterContract` do. One Shield holds a rule for each wrong value, and one beside them that has
nothing to do with any: whatever the plugins do, its messages arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import shield
from shield import Action, Labels, Message, Outcome, Policy, Refusal, Shield, hookimpl
from shield.action import Divert, Keep, Retry, Wait
from tests.contracts.adapter import Adapter, Use, counts
from tests.making import Kinds, policy_with

NAN, INF = float("nan"), float("inf")


class Liar:
    """Raises wherever it is looked at."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("__eq__")

    def __hash__(self) -> int:
        raise RuntimeError("__hash__")

    def __repr__(self) -> str:
        raise RuntimeError("__repr__")

    def __bool__(self) -> bool:
        raise RuntimeError("__bool__")

    def __float__(self) -> float:
        raise RuntimeError("__float__")


class Unequal:
    """Can be hashed, and not compared."""

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("__eq__")


class UnspeakableError(RuntimeError):
    """Cannot even be shown."""

    def __str__(self) -> str:
        raise RuntimeError("__str__")

    __repr__ = __str__


async def _coroutine() -> None:
    """Never awaited by anybody."""


def _generator() -> Iterator[int]:
    yield 1


def _raise(error: BaseException) -> Any:
    raise error


VALUES: dict[str, Callable[[], Any]] = {
    "true": lambda: True,
    "text": lambda: "soon",
    "bytes": lambda: b"\xff",
    "five": lambda: 5,
    "below-zero": lambda: -1.0,
    "nan": lambda: NAN,
    "endless": lambda: INF,
    "huge": lambda: 1e300,
    "huge-int": lambda: 10**5000,
    "list": lambda: [1],
    "liar": Liar,
    "unequal": Unequal,
    "generator": _generator,
    "coroutine": _coroutine,
    "class": lambda: Policy,
    "raises": lambda: _raise(RuntimeError("broken")),
    "unspeakable": lambda: _raise(UnspeakableError()),
    "cancelled": lambda: _raise(asyncio.InvalidStateError("broken")),
}
"""What any method may return, or raise."""


def refusal(reason: Any, after_s: Any) -> Callable[[], Any]:
    return lambda: Refusal(None, reason, after_s)  # type: ignore[arg-type]


REFUSALS: dict[str, Callable[[], Any]] = {
    "after-text": refusal("full", "soon"),
    "after-nan": refusal("full", NAN),
    "after-below-zero": refusal("full", -1.0),
    "after-true": refusal("full", True),
    "after-liar": refusal("full", Liar()),
    "reason-none": refusal(None, 1.0),
    "reason-liar": refusal(Liar(), 1.0),
}
STEPS: dict[str, Callable[[], Any]] = {
    "wait-text": lambda: Wait("soon"),  # type: ignore[arg-type]
    "wait-nan": lambda: Wait(NAN),
    "wait-endless": lambda: Wait(INF),
    "retry-text": lambda: Retry("often"),  # type: ignore[arg-type]
    "divert-nowhere": lambda: Divert(None, print),  # type: ignore[arg-type]
    "divert-undone": lambda: Divert("x", None),  # type: ignore[arg-type]
    "divert-by-text": lambda: Divert("x", print, "kafka"),  # type: ignore[arg-type]
    "keep-fate": lambda: Keep("lost", print),
    "keep-nobody": lambda: Keep("buffered", None),  # type: ignore[arg-type]
    "keep-raises": lambda: Keep("buffered", lambda kept: _raise(RuntimeError("broken"))),
}
LABELS: dict[str, Callable[[], Any]] = {
    "producer-five": lambda: Labels(producer=5),  # type: ignore[arg-type]
    "producer-empty": lambda: Labels(producer=""),
    "priority-liar": lambda: Labels(priority=Liar()),  # type: ignore[arg-type]
    "tenant-list": lambda: Labels(tenant=[1]),  # type: ignore[arg-type]
    "deadline-text": lambda: Labels(deadline="soon"),  # type: ignore[arg-type]
    "deadline-nan": lambda: Labels(deadline=NAN),
}

POLICY_METHODS = (
    "on_offer",
    "check",
    "acquire",
    "delay_s",
    "check_waiting",
    "newest_first",
    "release",
    "cancel",
    "on_diverted",
    "on_returned",
    "queue_key",
    "drain_time_s",
    "max_in_flight",
    "pressure",
    "rejection_share",
    "status",
)
REFUSES = ("check", "acquire", "delay_s")
"""Where a failure, and `on_plugin_error = "closed"`, refuse the message at once."""
HEARS = ("on_offer", "acquire", "release", "cancel", "on_diverted", "on_returned")
"""What these return means nothing, and is not looked at."""


def _wrong(method: str) -> dict[str, Callable[[], Any]]:
    """Return the values that are wrong there."""
    values = VALUES | (REFUSALS if method in ("check", "check_waiting") else {})
    right = {
        "delay_s": ("five",),
        "drain_time_s": ("five", "huge"),
        "queue_key": ("true", "text", "bytes", "five", "below-zero", "nan", "endless", "huge"),
        "max_in_flight": ("five",),
        "newest_first": ("true",),
    }.get(method, ())
    if method == "queue_key":
        right = (*right, "huge-int", "unequal", "generator", "coroutine", "class")
    if method in HEARS:
        values = {name: value for name, value in values.items() if _raises(name)}
    return {name: value for name, value in values.items() if name not in right}


def _raises(name: str) -> bool:
    return name in ("raises", "unspeakable", "cancelled")


def _policy(method: str, answer: Callable[[], Any]) -> type[Policy]:
    """Return a policy whose one method says that; it refuses nothing by itself."""

    def says(self: Policy, *_arguments: object) -> Any:
        return answer()

    return policy_with(**{method: says})


class NastyHook:
    """A plugin whose hook says that of messages to one destination."""

    def __init__(self, hook: str, destination: str, answer: Callable[[], Any]) -> None:
        def says(message: Message) -> Any:
            return answer() if message.destination == destination else None

        def hears(message: Message, outcome: Outcome) -> Any:
            return answer() if message.destination == destination else None

        def sees(event: shield.Event) -> Any:
            there = event.message is not None and event.message.destination == destination
            return answer() if there else None

        kinds: dict[str, Any] = {"shield_on_event": sees, "shield_after_publish": hears}
        setattr(self, hook, hookimpl(kinds.get(hook, says)))


@pytest.mark.filterwarnings("ignore:coroutine")  # async methods are refused at load
class PluginNonsense:
    """The cases; a subclass overrides `adapter`."""

    @pytest.fixture
    def adapter(self) -> Adapter:
        raise NotImplementedError("return this client's Adapter")

    @pytest.mark.parametrize("mode", ["open", "closed"])
    @pytest.mark.parametrize("method", POLICY_METHODS)
    def test_what_a_policy_says_wrong_concerns_its_own_messages(
        self, adapter: Adapter, method: str, mode: str
    ) -> None:
        """They pass, or are refused, as `on_plugin_error` says; and it is named and counted."""
        wrong = _wrong(method)
        places = {name: adapter.destination() for name in wrong}
        kinds = {f"nasty_{n}": _policy(method, wrong[name]) for n, name in enumerate(wrong)}
        rules = [
            {"name": name, "match": places[name], f"nasty_{n}": {}} for n, name in enumerate(wrong)
        ]
        one = self._use(adapter, rules, [Kinds(kinds)], mode)
        refused = mode == "closed" and method in REFUSES
        for place in places.values():
            with _over_limit_if(refused, adapter):
                one.publish_now(place, b"1")
        self._others_go_on(one, adapter)
        if method in ("on_offer", *REFUSES):
            assert len(one.shield.plugin_errors) == len(wrong)
            assert all("nasty_" in name for name in one.shield.plugin_errors)
        self._looks_well(one)
        self._closes_well(one)

    @pytest.mark.parametrize("mode", ["open", "closed"])
    @pytest.mark.parametrize(
        "method",
        ["queue_key", "drain_time_s", "on_diverted", "on_returned", "check_waiting", "status"],
    )
    def test_what_waits_beside_it_comes_to_its_end(
        self, adapter: Adapter, method: str, mode: str
    ) -> None:
        """Buffered messages are sent when their time comes: the buffer's thread lives."""
        wrong = _wrong(method)
        places = {name: adapter.destination() for name in wrong}
        kinds = {f"nasty_{n}": _policy(method, wrong[name]) for n, name in enumerate(wrong)}
        refused = (method, mode) == ("queue_key", "closed")  # for as long as it fails
        rules = [
            {
                "name": name,
                "match": places[name],
                f"nasty_{n}": {},
                "quota": {"rate": "1/h" if refused else "20/s", "burst": 1},
                "over_limit": ["buffer", "drop"],
            }
            for n, name in enumerate(wrong)
        ]
        one = self._use(adapter, rules, [Kinds(kinds)], mode)
        futures = [one.publish(place, b"%d" % n) for place in places.values() for n in range(3)]
        if refused:
            self._closes_well(one)
            assert counts(one.shield)["dropped"] == 3 * len(places) - 1  # all but the very first
            return
        for future in futures:
            one.result(future)
        last = next(iter(places.values()))
        assert one.bodies(last) == [b"0", b"1", b"2"]
        self._others_go_on(one, adapter)
        self._looks_well(one)
        self._closes_well(one)

    @pytest.mark.parametrize("mode", ["open", "closed"])
    def test_what_an_action_says_wrong_is_to_decline(self, adapter: Adapter, mode: str) -> None:
        """The chain's next action acts, whatever the first one said."""
        wrong = {**VALUES, **STEPS}
        places = {name: adapter.destination() for name in wrong}
        actions = {
            f"nasty_{n}": type("Nasty", (Action,), {"step": lambda self, over, v=wrong[name]: v()})
            for n, name in enumerate(wrong)
        }
        rules = [
            {
                "name": name,
                "match": places[name],
                "quota": {"rate": "1/h", "burst": 1},
                "over_limit": [f"nasty_{n}", "drop"],
            }
            for n, name in enumerate(wrong)
        ]
        one = self._use(adapter, rules, [Kinds(actions=actions)], mode)
        for place in places.values():
            one.publish_now(place, b"1")
            future = one.publish(place, b"2")
            assert shield.fate(future) == "dropped"
        assert len(one.shield.plugin_errors) == len(wrong)
        self._others_go_on(one, adapter)
        self._closes_well(one)

    @pytest.mark.parametrize("mode", ["open", "closed"])
    @pytest.mark.parametrize("hook", ["shield_classify", "shield_before_publish"])
    def test_what_a_hook_says_wrong_before_the_verdict(
        self, adapter: Adapter, hook: str, mode: str
    ) -> None:
        """The message goes on unlabelled, or is refused, as the settings say."""
        wrong = VALUES | (LABELS if hook == "shield_classify" else {})
        places = {name: adapter.destination() for name in wrong}
        plugins = [NastyHook(hook, places[name], answer) for name, answer in wrong.items()]
        one = self._use(adapter, [], plugins, mode)
        for place in places.values():
            with _over_limit_if(mode == "closed", adapter, shield.Reject):
                one.publish_now(place, b"1")
        assert sum(one.shield.plugin_errors.values()) == len(wrong)
        self._others_go_on(one, adapter)
        self._closes_well(one)

    @pytest.mark.parametrize("hook", ["shield_after_publish", "shield_on_event"])
    def test_what_a_hook_says_wrong_after_the_verdict(self, adapter: Adapter, hook: str) -> None:
        """It changes nothing any more; what it raises is counted."""
        wrong = {name: value for name, value in VALUES.items() if name != "coroutine"}
        places = {name: adapter.destination() for name in wrong}
        plugins = [NastyHook(hook, places[name], answer) for name, answer in wrong.items()]
        one = self._use(adapter, [], plugins, "closed")
        for place in places.values():
            one.publish_now(place, b"1")
        assert sum(one.shield.plugin_errors.values()) >= 3
        self._others_go_on(one, adapter)
        self._closes_well(one)

    # --- short ways -----------------------------------------------------------------------------

    def _use(
        self, adapter: Adapter, rules: list[dict[str, Any]], plugins: list[object], mode: str
    ) -> Use:
        data = {"shield": {"on_plugin_error": mode}, "rules": rules}
        return Use(adapter, Shield(data, plugins=plugins))

    def _others_go_on(self, one: Use, adapter: Adapter) -> None:
        elsewhere = adapter.destination()
        one.publish_now(elsewhere, b"other")
        assert one.bodies(elsewhere) == [b"other"]

    def _looks_well(self, one: Use) -> None:
        assert 0.0 <= one.shield.pressure() <= 1.0
        status = one.shield.status()
        assert all(isinstance(shown, dict) for rule in status.values() for shown in rule.values())

    def _closes_well(self, one: Use) -> None:
        one.close()
        assert not counts(one.shield).keys() & {"in_flight", "buffered"}


def _over_limit_if(
    refused: bool, adapter: Adapter, error: type[Exception] | None = None
) -> contextlib.AbstractContextManager[Any]:
    if not refused:
        return contextlib.nullcontext()
    return pytest.raises(error or adapter.over_limit_error)
