"""`@publisher`: the function makes the message, Shield and one write thread do the rest."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, ParamSpec, Self

from pika import BasicProperties

from shield import SettingsError, Shield, ShieldError
from shield_rabbitmq.client.frames import check_properties
from shield_rabbitmq.connection.pending_publish import Confirm
from shield_rabbitmq.publishing.event_loop import publish
from shield_rabbitmq.publishing.pool import publisher_for, shield_for
from shield_rabbitmq.publishing.properties import Publishing
from shield_rabbitmq.publishing.publisher import Publisher, parameters_of
from shield_rabbitmq.publishing.routing_key import RoutingKey, routing_key_of

P = ParamSpec("P")
Call = tuple[str, str, bytes | str, BasicProperties | None, bool]
"""What `Publisher.publish` takes."""
PERSISTENT = 2


class Route:
    """Where a decorated function's messages go, and through which publisher."""

    def __init__(
        self,
        publisher: Callable[[], Publisher],
        exchange: str,
        routing_key: Callable[..., Any],
        properties: BasicProperties | None,
        mandatory: bool,
    ) -> None:
        self.publisher = publisher
        self._exchange = exchange
        self._routing_key = routing_key
        self._properties = _persistent(properties)
        self._mandatory = mandatory
        self._made = False

    async def publisher_on_loop(self) -> Publisher:
        """Return the publisher; the first time, when files may be read, by another thread."""
        if not self._made:
            await asyncio.to_thread(self.publisher)
            self._made = True
        return self.publisher()

    def message(self, made: object, who: str, args: Any, kwargs: Any) -> Call:
        """Return how to publish what the function returned for these arguments."""
        if isinstance(made, bytes | str):
            made = Publishing(made)
        if not isinstance(made, Publishing):
            raise TypeError(
                f"{who}, decorated with @publisher, returned {made!r:.80}; "
                "allowed are bytes, str and Publishing"
            )
        key = made.routing_key
        if key is None:
            key = self._routing_key(*args, **kwargs)
        if not (key or self._exchange):
            raise ValueError(f"{who}: the default exchange needs a queue's name as routing_key")
        properties = self._properties_of(made, who)
        return self._exchange, key, made.body, properties, self._mandatory

    def _properties_of(self, made: Publishing, who: str) -> BasicProperties:
        properties = self._properties
        if made.properties is not None:
            check_properties(made.properties)
            properties = _persistent(made.properties)
        if made.headers is None:
            return properties
        if not isinstance(made.headers, Mapping):
            raise TypeError(f"{who}: headers: found {made.headers!r:.80}; allowed is a mapping")
        properties = copy.copy(properties)
        properties.headers = {**(properties.headers or {}), **made.headers}
        return properties


def _persistent(properties: BasicProperties | None) -> BasicProperties:
    """Return properties that are persistent where they do not say otherwise; a copy then."""
    if properties is not None and properties.delivery_mode is not None:
        return properties
    result = BasicProperties() if properties is None else copy.copy(properties)
    result.delivery_mode = PERSISTENT
    return result


class Published(Generic[P]):
    """A decorated function. Calling it publishes what it makes, and returns once that is confirmed.

    Raises what `Publisher.publish` raises, and what its future fails with. As a method it binds
    as functions do; the function itself is `__wrapped__`.
    """

    def __init__(self, function: Callable[P, Any], route: Route, bound: tuple[Any, ...]) -> None:
        self.__qualname__ = repr(function)  # where it has no name of its own
        functools.update_wrapper(self, function)
        self._function = function
        self._route = route
        self._bound = bound

    def __get__(self, instance: object, owner: type | None = None) -> Self:
        if instance is None:
            return self
        return type(self)(self._function, self._route, (instance, *self._bound))

    @property
    def publisher(self) -> Publisher:
        """The publisher that it shares with others of the same broker and Shield."""
        return self._route.publisher()

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> Confirm:
        """Publish what the function makes; return its future at once."""
        arguments = (*self._bound, *args)
        made = self._function(*arguments, **kwargs)
        message = self._route.message(made, self.__qualname__, arguments, kwargs)
        return self.publisher.publish(*message)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Publish what the function makes; return when the broker has it, or Shield has acted."""
        if self.publisher.on_write_thread:
            raise ShieldError(
                f"{self.__qualname__} was called from a future's callback, where waiting "
                "for a confirm would wait for ever; use .submit(...)"
            )
        self.submit(*args, **kwargs).result()


class AsyncPublished(Published[P]):
    """A decorated coroutine function: awaiting it publishes what it makes; the loop never waits."""

    async def submit(self, *args: P.args, **kwargs: P.kwargs) -> Confirm:  # type: ignore[override]
        """Publish what the function makes; return its future once the message is admitted.

        Cancelled before that, nothing is sent. The future's own `cancel` takes back what is not
        written yet.
        """
        arguments = (*self._bound, *args)
        made = await self._function(*arguments, **kwargs)
        message = self._route.message(made, self.__qualname__, arguments, kwargs)
        return await publish(await self._route.publisher_on_loop(), *message)

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:  # type: ignore[override]
        """Publish what the function makes; return when the broker has it, or Shield has acted.

        Cancelled before it is written, nothing is sent.
        """
        await asyncio.wrap_future(await self.submit(*args, **kwargs))


def publisher(
    url: str,
    *,
    exchange: str = "",
    routing_key: RoutingKey = "",
    properties: BasicProperties | None = None,
    mandatory: bool = True,
    shield: Shield | str | Path | Mapping[str, Any] | None = None,
    shield_producer: str | None = None,
    window: int = 1000,
    resend_unconfirmed: bool = False,
) -> Callable[[Callable[P, Any]], Published[P]]:
    """Decorate a function that makes a message: calling it publishes the message.

    The function returns bytes, text (sent as UTF-8) or a `Publishing`. Calling it returns when
    the broker has confirmed the message or Shield has acted; `.submit(...)` returns a future at
    once, so that many are under way. A coroutine function is awaited instead.

    Args:
        url: where the broker is: `amqp://user:password@host:port/vhost`.
        exchange: the exchange; "" is RabbitMQ's default one.
        routing_key: a text, a template over the function's arguments, as
            `"orders.{order.country}"`, or a callable that is given them.
        properties: for messages that bring none of their own. Persistent, as all properties
            are here that name no delivery mode.
        mandatory: whether a message that no queue takes is an error.
        shield: as `Publisher` takes it. Functions of one broker and Shield share a publisher.
        shield_producer: as `Publisher` takes it.
        window: as `Publisher` takes it.
        resend_unconfirmed: as `Publisher` takes it.

    Raises:
        SettingsError: a setting that cannot be used; it says which and what is allowed.
    """
    parameters_of(url)
    if not isinstance(exchange, str):
        raise SettingsError(f"exchange: found {exchange!r}; allowed is a text")
    try:
        check_properties(properties)
    except TypeError as error:
        raise SettingsError(str(error)) from None
    chosen = None if shield is None else shield_for(shield)

    def shared() -> Publisher:
        used = shield_for(None) if chosen is None else chosen
        return publisher_for(url, used, shield_producer, window, resend_unconfirmed)

    def decorate(function: Callable[P, Any]) -> Published[P]:
        _check_function(function)
        key = routing_key_of(routing_key, function)
        route = Route(shared, exchange, key, properties, mandatory)
        kind = AsyncPublished if inspect.iscoroutinefunction(function) else Published
        return kind(function, route, ())

    return decorate


def _check_function(function: Any) -> None:
    """Refuse what makes no message when called."""
    generates = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    if not callable(function) or isinstance(function, type | staticmethod | classmethod):
        raise SettingsError(
            f"@publisher: found {function!r}; allowed is a function, below @staticmethod and "
            "@classmethod where these are used"
        )
    if generates:
        raise SettingsError(
            f"@publisher: {function!r} is a generator; allowed is a function that returns one "
            "message"
        )
