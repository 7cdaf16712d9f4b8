"""What Shield raises: one base class and few leaves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


class ShieldError(Exception):
    """Base of everything Shield raises by itself."""


class SettingsError(ShieldError):
    """Settings that cannot be used; nothing of them was loaded.

    `problems` holds one line for each: where it stands, what was found, what is allowed.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class UnavailableError(ShieldError):
    """A broker, a server or a file that cannot be reached now: what was asked for may be right."""


class PluginError(ShieldError):
    """A plugin that cannot be registered: a hook that is not one, or a name taken twice."""


class PluginResultError(ShieldError):
    """A plugin's method returned what it must not: counted as if it had raised this."""


class Reject(ShieldError):  # noqa: N818 - the hook reads `raise Reject("why")`
    """Raised by a before-hook to refuse a message: its caller gets it, it counts as raised.

    The caller's client makes an error of its own of it, beside: a KafkaError, an AMQPError.
    """


@cache
def _both(kind: Any, clients: Any) -> Any:
    body = {"__str__": kind.__str__, "__repr__": kind.__repr__, "__module__": kind.__module__}
    body |= {"__eq__": object.__eq__, "__hash__": object.__hash__}
    return type(kind.__name__, (kind, clients), body)


@contextmanager
def rejecting_as(clients: type[Exception]) -> Iterator[None]:
    """Let a Reject that leaves this block be an error of a client's as well.

    It stays the very error that the plugin has raised, of the plugin's own class.
    """
    try:
        yield
    except Reject as reject:
        if not isinstance(reject, clients):
            kind: Any = type(reject)
            client: Any = clients
            reject.__class__ = _both(kind, client)
        raise


class DeliveryUnknownError(ShieldError):
    """The message was sent and never answered for: the broker may hold it, or not."""


class ExpiredError(ShieldError):
    """A message that was set aside comes back too late: the time that its sender gave it is over.

    A transport's answer to a send: the message is dropped, and counted so.
    """


class OverLimitError(ShieldError):
    """A message was over the limit and its rule's chain ended in `raise`.

    Args:
        rule: name of the rule that refused.
        policy: name of the policy in it, as settings spell it.
        reason: what was exceeded, in the policy's words.
        retry_after: seconds until the policy would admit it; None where unknown
            (it depends on others' answers), `inf` where it never will.
        tried: the actions of the chain that were asked first, each with why it did nothing.
    """

    def __init__(
        self,
        rule: str,
        policy: str,
        reason: str,
        retry_after: float | None = None,
        tried: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(rule, policy, reason, retry_after, tried)
        self.rule = rule
        self.policy = policy
        self.reason = reason
        self.retry_after = retry_after
        self.tried = tried

    def __str__(self) -> str:
        if self.retry_after is None:
            when = "retry when messages in flight are answered"
        elif self.retry_after == float("inf"):
            when = "it will never be admitted"
        else:
            when = f"retry after {self.retry_after:.3f} s"
        tried = "".join(f"; {action}: {why}" for action, why in self.tried)
        return f"rule {self.rule!r}: over the limit of {self.policy} ({self.reason}); {when}{tried}"
