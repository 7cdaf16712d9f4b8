"""`shielded`: around a channel, or on a function that is handed one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, overload

from shield import SettingsError, Shield
from shield_rabbitmq.channels.channel import is_channel, is_shielded, state_of
from shield_rabbitmq.publishing.pool import ShieldChoice, shield_for

Target = TypeVar("Target")
NOTHING: Any = object()


@overload
def shielded(
    target: Target,
    *,
    shield: ShieldChoice = None,
    shield_producer: str | None = None,
    shield_consumer: str | None = None,
) -> Target: ...
@overload
def shielded(
    *,
    shield: ShieldChoice = None,
    shield_producer: str | None = None,
    shield_consumer: str | None = None,
) -> Callable[[Target], Target]: ...
def shielded(
    target: Any = NOTHING,
    *,
    shield: ShieldChoice = None,
    shield_producer: str | None = None,
    shield_consumer: str | None = None,
) -> Any:
    """Shield a pika channel, or decorate a function that is handed one.

    `shielded(channel)` returns the channel itself, a `BlockingChannel` or a `Channel`: from now on
    what it publishes, and what it begins to consume, is within the rules. Again on the same channel
    it changes the Shield and the names, where they are given, and nothing else. `@shielded` on a
    function, a method or a coroutine function shields the channels among its arguments while it
    runs; those that are shielded already stay as they are. A consumer that it begins stays within
    the rules.

    Args:
        target: a channel or a function.
        shield: a `shield.Shield`, the path of a settings file, a dict of settings, or None for
            the one that this process shares (`shield.default()`).
        shield_producer: who publishes, to quotas and ledger; the settings' `producer` if not given.
        shield_consumer: who receives; the same as who publishes if not given.

    Raises:
        SettingsError: settings that cannot be used, or a target that is no channel or function.
    """
    if is_channel(target):
        if is_shielded(target) and shield is None:
            state = state_of(target)
            consumer = shield_consumer or state.consumer
            state.act(state.shield, shield_producer or state.producer, consumer)
        else:
            chosen = shield_for(shield)
            state_of(target).act(chosen, shield_producer, shield_consumer)
        return target
    named = None if shield is None else shield_for(shield)
    if target is NOTHING:
        return lambda function: _decorate(function, named, shield_producer, shield_consumer)
    return _decorate(target, named, shield_producer, shield_consumer)


def _decorate(
    function: Any, chosen: Shield | None, producer: str | None, consumer: str | None
) -> Any:
    _check_function(function)

    @contextmanager
    def shielding(values: tuple[Any, ...]) -> Iterator[None]:
        channels = [value for value in values if is_channel(value)]
        if not channels:
            yield
            return
        used = shield_for(None) if chosen is None else chosen
        guards = [state_of(channel) for channel in channels]
        for state in guards:
            state.begin(used, producer, consumer)
        try:
            yield
        finally:
            for state in guards:
                state.end()

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with shielding((*args, *kwargs.values())):
            return function(*args, **kwargs)

    @functools.wraps(function)
    async def await_call(*args: Any, **kwargs: Any) -> Any:
        with shielding((*args, *kwargs.values())):
            return await function(*args, **kwargs)

    return await_call if inspect.iscoroutinefunction(function) else call


def _check_function(function: Any) -> None:
    if not callable(function) or isinstance(function, type | staticmethod | classmethod):
        raise SettingsError(
            f"shielded: found {function!r:.200}; allowed is a BlockingChannel or a Channel of "
            "pika's, or a function, below @staticmethod and @classmethod where these are used"
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise SettingsError(
            f"shielded: {function!r} is a generator, which runs after its call has returned; "
            "shield its channel with shielded(channel)"
        )
