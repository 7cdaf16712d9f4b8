"""Calls plugins' per-message hooks, each isolated from the others and from the message."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import ParamSpec, TypeVar

from shield.action import Action
from shield.config.registry import Registry
from shield.errors import Reject
from shield.events import Event, Kind
from shield.interrupts import is_from_outside
from shield.message import Message
from shield.plugin_results import labels_of, nothing_of, shown, text_of
from shield.policy import Policy
from shield.transport import Transport
from shield.verdict import Outcome, OverLimit

log = logging.getLogger("shield")
LOG_EVERY_S = 60.0
DIRECTIONS = ("publish", "consume")

Params = ParamSpec("Params")
Answer = TypeVar("Answer")


class Hooks:
    """A Shield's hooks as frozen tuples. Fail-open or fail-closed, as the settings say."""

    def __init__(self, registry: Registry, now: Callable[[], float], *, fail_open: bool) -> None:
        self.fail_open = fail_open
        self._now = now
        self._origin_of = registry.origin_of
        self.classifiers = registry.implementations("shield_classify")
        self._before = {way: registry.implementations(f"shield_before_{way}") for way in DIRECTIONS}
        self._after = {
            way: registry.implementations(f"shield_after_{way}")[::-1] for way in DIRECTIONS
        }
        self.listens = any(self._after.values())
        """Whether an after-hook wants to hear how messages end."""
        self.observers = registry.implementations("shield_on_event")
        self.watch = bool(self.observers or self.listens)
        """Whether plugins want to hear of each message; then each is settled at once."""
        self.errors: Counter[str] = Counter()
        self._logged: dict[str, float] = {}
        self._failed_sends: Counter[str] = Counter()
        self._unreported: deque[Event] = deque(maxlen=100)
        self.unlogged: deque[Callable[[], None]] = deque(maxlen=100)
        """What writes into the log, for `log_what_waits`, without the Shield's lock."""

    def prepares(self, direction: str) -> bool:
        """Tell whether plugins want to see messages of that direction before the verdict."""
        return bool(self.classifiers or self._before[direction])

    def sees(self, direction: str) -> bool:
        """Tell whether plugins look at messages of that direction, also where no rule covers them.

        Classifiers and observers alone do not: they serve rules, and tell of them.
        """
        return bool(self._before[direction] or self._after[direction])

    def before(self, message: Message) -> None:
        """Classify a message, then let before-hooks see it; `Reject` is theirs to raise."""
        self.label(message)
        for hook in self._before[message.direction]:
            try:
                nothing_of(f"shield_before_{message.direction}", hook(message=message))
            except Reject:
                raise
            except Exception as error:
                self._failed_before(hook, error)

    def label(self, message: Message) -> None:
        """Let classifiers say what a message is, also of one that comes back."""
        message.protect_headers()
        for field, value in self._labels(message).items():
            setattr(message, field, value)

    def _labels(self, message: Message) -> dict[str, object]:
        """Merge what classifiers say; the first to say something of a label wins."""
        found: dict[str, object] = {}
        for classify in self.classifiers:
            try:
                said = labels_of(classify(message=message))
            except Exception as error:
                self._failed_before(classify, error)
                continue
            for label, value in said.items():
                found.setdefault(label, value)
        return found

    def _failed_before(self, hook: object, error: Exception) -> None:
        """Count an error that came before the verdict; refuse the message if that is the setting.

        Raises:
            Reject: `on_plugin_error` is "closed".
        """
        self.failed(hook, error)
        if not self.fail_open:
            raise Reject(f"plugin {self.name_of(hook)} failed: {shown(error)}") from error

    def after(self, message: Message, outcome: Outcome) -> None:
        """Tell after-hooks how an admitted message ended."""
        for hook in self._after[message.direction]:
            try:
                hook(message=message, outcome=outcome)
            except Exception as error:
                self.failed(hook, error)

    def report(
        self,
        kind: Kind,
        message: Message | None,
        over: OverLimit | None = None,
        detail: str | None = None,
    ) -> None:
        """Tell observers of an event, and of plugins' failures since the last one."""
        while self._unreported:
            self._tell(self._unreported.popleft())
        if over is None:
            self._tell(Event(kind, message, detail=detail))
        else:
            self._tell(Event(kind, message, over.rule.name, over.policy, over.reason, detail))

    def rejected(self, message: Message, reject: Reject) -> None:
        """Tell observers of a message that was refused before any rule was asked."""
        kind = Kind.RAISED if message.direction == "publish" else Kind.DROPPED
        self._tell(Event(kind, message, reason=text_of(reject)))

    def tell(
        self,
        listeners: Iterable[Callable[Params, object]],
        *args: Params.args,
        **named: Params.kwargs,
    ) -> None:
        """Call each listener, a policy's method, whatever others raise; under the Shield's lock."""
        for listener in listeners:
            try:
                listener(*args, **named)
            except Exception as error:
                self.failed(listener, error)

    def ask(
        self,
        question: Callable[Params, object],
        read: Callable[[object], Answer],
        otherwise: Answer,
        *args: Params.args,
        **named: Params.kwargs,
    ) -> Answer:
        """Return what a policy's method says, as `read` understands it.

        `otherwise` where it raises, or says what it must not.
        """
        try:
            return read(question(*args, **named))
        except Exception as error:
            self.failed(question, error)
            return otherwise

    def failed(self, who: object, error: BaseException) -> None:
        """Count a plugin's error; keep it for the log, once a minute for each plugin, and `report`.

        May be called under the Shield's lock, so that log and observers are told of it later.
        An exception that only passed through the plugin is raised again: it is not the plugin's.
        """
        if is_from_outside(error):
            raise error
        name = self._count(who, error)
        self._unreported.append(Event(Kind.PLUGIN_FAILED, reason=name, detail=shown(error)))

    def name_of(self, who: object) -> str:
        """Return a plugin's name: of a third party's with entry point, distribution and version."""
        name, origin = _name(who), self._origin_of(who)
        return f"{name} ({origin})" if origin else name

    def _count(self, who: object, error: BaseException) -> str:
        name = self.name_of(who)
        self.errors[name] += 1
        now = self._now()
        if now - self._logged.get(name, float("-inf")) >= LOG_EVERY_S:
            self._logged[name] = now
            told = "plugin %s raised (%d so far)", name, self.errors[name]
            self.unlogged.append(partial(log.error, *told, exc_info=error))
        return name

    def note_failed_send(self, transport: Transport, error: Exception) -> None:
        """Log what a transport has answered: it is no plugin's fault, and nobody else tells it."""
        name = f"{self.name_of(transport)} {text_of(transport.origin)}".rstrip()
        now = self._now()
        self._failed_sends[name] += 1
        if now - self._logged.get(name, float("-inf")) >= LOG_EVERY_S:
            self._logged[name] = now
            times, why = self._failed_sends[name], text_of(error)
            with suppress(Exception):  # a handler of somebody's
                log.warning("what overflows through %s fails (%d so far): %s", name, times, why)

    def log_what_waits(self) -> None:
        """Log what failed, and who refuses; without the lock, because a log handler may publish.

        What is put down again meanwhile is left for the next time.
        """
        for _ in range(len(self.unlogged)):
            try:
                self.unlogged.popleft()()
            except Exception:  # another thread was faster, or a handler of somebody's fails
                continue

    def _tell(self, event: Event) -> None:
        for observer in self.observers:
            try:
                observer(event=event)
            except Exception as error:
                self._count(observer, error)  # told to nobody: that would fail again, for ever


def _name(who: object) -> str:
    owner = getattr(who, "__self__", who)
    if isinstance(owner, Policy | Action):
        return f"{owner.rule.name}.{owner.name}"
    module = getattr(owner, "__module__", "")
    return f"{module}.{getattr(owner, '__qualname__', type(owner).__qualname__)}"
