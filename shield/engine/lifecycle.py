"""Clients that open, flush and close: what actions keep of them goes out, or comes to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shield.action import Action
from shield.engine.core import Component, Core
from shield.errors import ShieldError
from shield.transport import Transport


class Lifecycle(Component):
    """Tells the actions of all chains, and what brings messages back by itself."""

    @property
    def begins_with_a_client(self) -> bool:
        """Whether something comes back, or can be kept, once there is a client: it wants one early.

        For adapters whose users' own clients cannot carry what comes back: they open another one.
        """
        core = self._core
        brings_back = (
            action.overrides("way_back")
            for rule in core.rules
            if rule.redrive == "auto"
            for action in rule.chain
        )
        return bool(_actions(core, "opened")) or any(brings_back)

    def opened(self, client: Transport) -> None:
        """Let actions know of a new client, through which what they have kept may go out."""
        for action in _actions(self._core, "opened"):
            _isolated(self._core, action, action.opened, client, self._core.engine)
        self._core.auto.opened(client)

    def flush(self, client: Transport, timeout_s: float | None) -> None:
        """Return when no action keeps a message of that client in memory, or the time is over."""
        flushes = [action.flush for action in _actions(self._core, "flush")]
        _within(self._core, flushes, client, timeout_s)

    def closing(self, client: Transport, timeout_s: float | None) -> None:
        """Bring nothing more back, and let actions end what they keep of a client that closes."""
        ends = [action.closing for action in _actions(self._core, "closing")]
        _within(self._core, [self._core.auto.closing, *ends], client, timeout_s)
        self._core.unanswered.close(client)
        self._core.refusals.end()
        self._core.hooks.log_what_waits()


def _actions(core: Core, method: str) -> list[Action]:
    """Return the actions of all chains that do something of their own there."""
    return [action for rule in core.rules for action in rule.chain if action.overrides(method)]


def _isolated(core: Core, action: Action, call: Callable[..., None], *arguments: object) -> None:
    """Let an action do its part; the others have theirs, whatever becomes of it."""
    try:
        call(*arguments)
    except ShieldError:
        raise  # a client that cannot be served is told so
    except Exception as error:
        core.hooks.failed(action, error)
        core.hooks.log_what_waits()


def _within(
    core: Core,
    calls: Iterable[Callable[[Transport, float | None], None]],
    client: Transport,
    timeout_s: float | None,
) -> None:
    """Call all, one after another, within one limit of time; one that fails stops no other."""
    deadline = None if timeout_s is None else core.now() + timeout_s
    for call in calls:
        try:
            call(client, None if deadline is None else max(0.0, deadline - core.now()))
        except Exception as error:
            core.hooks.failed(call, error)
            core.hooks.log_what_waits()
