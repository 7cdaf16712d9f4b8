"""The Shield: asks the policies, keeps the books, lets messages wait in line."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

from shield.action import Action
from shield.auto import AutoRedrive
from shield.backlog import Place
from shield.brief_lock import BriefLock
from shield.clock import SYSTEM_CLOCK, Clock
from shield.compile import compile_rules
from shield.delivery import Delivery
from shield.errors import Reject
from shield.events import Kind
from shield.flow import Flow
from shield.hooks import Hooks
from shield.ledger import Account, Books, End, Ledger, copy_of, ledger_of
from shield.lines import BEHIND, LAST, Lines, Waiter
from shield.message import Message
from shield.policy import Policy
from shield.readiness import Measure, highest, rules_named, until_below, wait_until_below
from shield.retry_budget import RetryBudget
from shield.rule import Rule
from shield.settings import ShieldSettings, load_settings, read_settings
from shield.standing import Standing, Waiting
from shield.transport import Transport
from shield.verdict import DELIVERED, Outcome, OverLimit, Permit, Refusal, Verdict

MAX_FLOWS = 10_000

Number = TypeVar("Number", int, float)

_flow_of = attrgetter("flow")


class Shield:
    """Rules over messages, one account of each message's end. Thread-safe.

    Args:
        settings: what a `shield.toml` holds, as a dict: `{"shield": {...}, "rules": [...]}`;
            environment variables stand in for what it leaves out. Or settings already read.
        plugins: plugin objects or modules to register beside those that entry points name.
        clock: tells the time; tests pass a `shield.testing.ManualClock`. Shields of one clock, as
            all of a program are, share one retry budget.

    After `os.fork` the child has fresh locks, an empty ledger and nothing in flight: what was
    under way belongs to the parent, which settles it. Quota levels are carried over as they
    stood. With `spawn` every process loads its own.

    Raises:
        SettingsError: where anything in the settings is wrong; nothing is half-loaded.
    """

    def __init__(
        self,
        settings: Mapping[str, Any] | ShieldSettings | None = None,
        *,
        plugins: Iterable[object] = (),
        clock: Clock | None = None,
    ) -> None:
        self.clock = clock or SYSTEM_CLOCK
        self._now = self.clock.now
        if not isinstance(settings, ShieldSettings):
            settings = read_settings(settings or {}, plugins)
        self.settings = settings
        self.registry = settings.registry
        self.rules: tuple[Rule, ...] = compile_rules(self.settings, self.registry)
        self._hooks = Hooks(
            self.registry, self._now, fail_open=self.settings.on_plugin_error == "open"
        )
        self._prepares, self._unlogged = self._hooks.prepares("publish"), self._hooks.unlogged
        self.watched = bool(self._hooks.observers or self._hooks.listens)
        """Whether plugins want to hear of each message; then each is settled at once."""
        self._prepares_received = self._hooks.prepares("consume")
        self._start_empty()
        _shields.add(self)

    @classmethod
    def load(cls, path: str | Path | None = None, *, plugins: Iterable[object] = ()) -> Shield:
        """Return a Shield from a file, else `$SHIELD_CONFIG`, `./shield.toml`, or defaults.

        Raises:
            SettingsError: where the file is missing, unreadable or wrong.
        """
        return cls(load_settings(path, plugins))

    def _start_empty(self) -> None:
        self._lock = BriefLock()
        self._attempt, self._release = self._lock.attempt, self._lock.release
        self._auto: AutoRedrive | None = None
        """Made for the first client, where a rule says `redrive = "auto"`."""
        self._flows: dict[tuple[str, str], Flow] = {}
        self._received: dict[tuple[str, str], Flow] = {}
        """The same for deliveries, which other rules are about."""
        self._books = Books()
        self.retries = _retry_budget(self.clock)
        """How many messages may be retried now, in all Shields together."""
        self.lines = Lines(self._hooks.failed)
        self.answers: deque[Permit] = deque()
        """Permits that clients have answered as delivered, not yet picked up."""

    def __del__(self) -> None:
        """Leave the books to the process's ledger, with the answers that nobody has picked up."""
        if hasattr(self, "_books") and not sys.is_finalizing():
            self._pick_up_answers()
            _retired.extend(self._books)

    # --- deciding -----------------------------------------------------------------------------

    def admit(self, message: Message, now: float | None = None) -> Verdict:
        """Offer a message: ask all policies of all rules that cover it, charge them if all admit.

        Returns a Permit, to be settled once, or an OverLimit whose chain is to be run
        (`shield.sync.react` does so for synchronous clients).

        Raises:
            Reject: a plugin's before-hook refused the message; it is counted as raised.
        """
        if self._prepares:
            self._prepare(message)
        flow = self._flows.get((message.producer, message.destination)) or self._flow(message)
        if now is None:
            now = self._now()
        if not self._attempt(False):  # a third of the cost of `with`, for every message
            self._lock.insist()
        try:
            if self.answers:
                self._pick_up_answers(now)
            account = flow.account
            account.offered += 1
            account.in_flight += 1
            flow.last = message
            if flow.offers:
                self._tell_offered(flow, message, now)
            verdict = self._judge(flow, message, now)
        finally:
            self._release()
        if self.watched:
            self._report_verdict(verdict)
        if self._unlogged:
            self._hooks.log_failures()
        return verdict

    def _tell_offered(self, flow: Flow, message: Message, now: float) -> None:
        for offered in flow.offers:
            try:
                offered(message, now)
            except Exception as error:
                self._hooks.failed(offered, error)

    def _judge(self, flow: Flow, message: Message, now: float) -> Verdict:
        """Ask every policy where nobody waits: the short way, and that of most messages."""
        if not self.lines:
            try:
                for check in flow.checks:
                    if check(message, now) is not None:
                        break
                else:
                    return self._take(flow, message, now)
            except Exception:
                pass  # the long way asks again and finds out who it was
        verdict = self._judge_in_turn(flow, message, now, LAST)
        if isinstance(verdict, OverLimit):
            key = verdict.rule.name, verdict.policy, verdict.reason
            flow.account.over_limit[key] += 1
            if verdict.refusal.policy.tells_of_load and not message.aside:
                verdict.rule.refused_s = now
        return verdict

    def _judge_in_turn(self, flow: Flow, message: Message, now: float, number: float) -> Verdict:
        """Ask every policy in turn, behind those who wait with a lower number."""
        passed_unasked: set[Policy] = set()
        for policy in flow.policies:
            if policy in passed_unasked:
                continue
            try:
                refusal = self._ask(policy, message, now, number)
            except Exception as error:
                self._hooks.failed(policy, error)
                passed_unasked.add(policy)
                refusal = None if self._hooks.fail_open else policy.refuse("the policy failed")
            if refusal is None:
                continue
            if not policy.rule.shadow:
                return OverLimit(flow, message, refusal)
            passed_unasked.update(policy.rule.policies)
            if number == LAST:
                flow.account.over_limit[policy.rule.name, policy.name, refusal.reason] += 1
        return self._take(flow.without(passed_unasked) if passed_unasked else flow, message, now)

    def _ask(self, policy: Policy, message: Message, now: float, number: float) -> Refusal | None:
        refusal = policy.check(message, now)
        if self.lines:
            return self.lines.refusal(policy, message, number, refusal)
        return refusal

    def _take(self, flow: Flow, message: Message, now: float) -> Permit:
        for take in flow.takes:
            try:
                take(message, now)
            except Exception as error:
                self._hooks.failed(take, error)
        permit = Permit(flow, message)
        if flow.delays:
            permit.hold_s = self._delay_s(flow, message, now)
        return permit

    def _delay_s(self, flow: Flow, message: Message, now: float) -> float:
        """Return the longest time that a policy wants an admitted message to be held back."""
        longest_s = 0.0
        for delay_s in flow.delays:
            try:
                longest_s = max(longest_s, delay_s(message, now))
            except Exception as error:
                self._hooks.failed(delay_s, error)
        return longest_s

    def _flow(self, message: Message) -> Flow:
        """Compile what applies to messages of this producer to this destination, and keep it."""
        destination, producer, direction = message.destination, message.producer, message.direction
        covering = [r for r in self.rules if r.covers(destination, producer, direction)]
        flows = self._flows if direction == "publish" else self._received
        with self._lock:
            rules = tuple(rule.name for rule in covering)
            account = self._books.account(rules, producer, direction)
            flow = Flow(self, (p for rule in covering for p in rule.policies), account)
            if len(flows) >= MAX_FLOWS:
                flows.clear()
            flows[producer, destination] = flow
        return flow

    # --- deliveries ---------------------------------------------------------------------------

    def receive(self, delivery: Delivery, now: float | None = None) -> Verdict:
        """Offer one delivery, as `admit` does a message, to the rules with `direction = "consume"`.

        A Permit is to be settled when the delivery is acknowledged or committed (delivered), or
        goes back to its broker (failed). What is to be done with an OverLimit, a
        `shield.receiving.Held` says.

        Raises:
            Reject: a plugin's before-hook refused it; it is counted as dropped.
        """
        if self._prepares_received:
            self._prepare(delivery)
        flow = self._received.get((delivery.producer, delivery.destination)) or self._flow(delivery)
        if now is None:
            now = self._now()
        if not self._attempt(False):  # as in `admit`
            self._lock.insist()
        try:
            if self.answers:
                self._pick_up_answers(now)
            account = flow.account
            account.offered += delivery.messages
            account.in_flight += delivery.messages
            flow.last = delivery
            if flow.offers:
                self._tell_offered(flow, delivery, now)
            verdict = self._judge(flow, delivery, now)
        finally:
            self._release()
        if self.watched:
            self._report_verdict(verdict)
        if self._unlogged:
            self._hooks.log_failures()
        return verdict

    def receive_run(self, run: Delivery, now: float | None = None) -> Permit | None:
        """Offer deliveries together: they are admitted as one, or None and nothing has happened.

        Then offer less of them. One alone, or those of which plugins and policies must see each
        (`takes_runs`), are for `receive`.
        """
        flow = self._flow_in(run)
        now = self._now() if now is None else now
        with self._lock:
            if self.answers:
                self._pick_up_answers(now)
            if self.lines or not flow.admits(run, now):
                return None
            self._count_received(flow, run)
            return self._take(flow, run, now)

    def would_receive(self, delivery: Delivery, now: float | None = None) -> bool:
        """Tell whether a delivery like this one would be admitted now. Counts and charges nothing.

        For who has to ask its broker for a message, and rather leaves it there. Somebody else may
        be faster, and what is known of a message only once it is there may still refuse it.
        """
        flow = self._flow_in(delivery)
        now = self._now() if now is None else now
        asked = [policy for policy in flow.policies if not policy.rule.shadow]
        with self._lock:
            self._pick_up_answers()
            return all(self._would_admit(policy, delivery, now) for policy in asked)

    def _would_admit(self, policy: Policy, message: Message, now: float) -> bool:
        try:
            return self._ask(policy, message, now, LAST) is None
        except Exception as error:
            self._hooks.failed(policy, error)
            return self._hooks.fail_open

    def receives(self, destination: str | None, consumer: str) -> bool:
        """Tell whether anything here has a say in what that consumer receives from there.

        A rule that covers it, or a plugin's hook; without a destination, from anywhere. Who is
        told no need not offer its deliveries.
        """
        rules = [rule for rule in self.rules if rule.direction == "consume"]
        if destination is None:
            return bool(rules) or self._hooks.sees("consume")
        covered = any(rule.covers(destination, consumer, "consume") for rule in rules)
        return covered or self._hooks.sees("consume")

    def most_unanswered(self, destination: str, consumer: str) -> int | None:
        """Return how many deliveries from there its rules let be unanswered; None for any."""
        bounds = self._answers_of(destination, consumer, lambda policy: policy.most_unanswered())
        return min(bounds, default=None)

    def pace_s(self, destination: str, consumer: str, size: int) -> float:
        """Return how many seconds its rules take to admit one delivery of so many bytes; or 0."""
        times = self._answers_of(destination, consumer, lambda policy: policy.wait_s(1, size))
        return max(times, default=0.0)

    def _answers_of(
        self, destination: str, consumer: str, question: Callable[[Policy], Number | None]
    ) -> list[Number]:
        """Ask each policy that may refuse what a consumer receives from there; not None is said."""
        answers: list[Number] = []
        for rule in self.rules:
            if rule.shadow or not rule.covers(destination, consumer, "consume"):
                continue
            for policy in rule.policies:
                try:
                    answer = question(policy)
                except Exception as error:
                    self._hooks.failed(policy, error)
                    continue
                if answer is not None:
                    answers.append(answer)
        return answers

    def takes_runs(self, delivery: Delivery) -> bool:
        """Tell whether deliveries like this one can be decided on together."""
        per_message = self.watched or self._hooks.prepares("consume")
        flow = self._flow_in(delivery)
        return not per_message and flow.runs and not flow.waits

    def standing(self, destination: str, consumer: str) -> Standing | None:
        """Return what asks how long deliveries from there may wait; None where no rule bounds it.

        For one queue, in which they wait to be handed over.
        """
        flow = self._flow_in(Delivery(destination, 0, consumer))
        return Standing(flow) if flow.waits else None

    def _flow_in(self, delivery: Delivery) -> Flow:
        key = delivery.producer, delivery.destination
        return self._received.get(key) or self._flow(delivery)

    @staticmethod
    def _count_received(flow: Flow, delivery: Delivery) -> None:
        flow.account.offered += delivery.messages
        flow.account.in_flight += delivery.messages
        flow.last = delivery

    def split(self, permit: Permit, messages: int, size: int) -> Permit:
        """Return a permit of its own for the first of a run: they are acknowledged, others not.

        Both together hold what the one held before.
        """
        run = permit.message
        assert isinstance(run, Delivery)
        part = Delivery(
            run.destination, size, run.producer, written_s=run.written_s, messages=messages
        )
        with self._lock:
            run.messages -= messages
            run.size -= size
        return Permit(permit.flow, part)

    def join(self, permit: Permit, other: Permit) -> None:
        """Let one permit of a run hold what another of the same flow holds too: undoes `split`."""
        run, more = permit.message, other.message
        with self._lock:
            other.held = other.open = False
            run.messages += more.messages
            run.size += more.size

    def eased(self, over: OverLimit, mark: float) -> bool:
        """Tell whether the pressure of the policy that refuses it has come down to that mark."""
        with self._lock:
            self._pick_up_answers()
            now = self._now()
            return self._measure(now)(over.refusal.policy, over.message) <= mark

    def part_delivered(self, run: Permit, part: Permit | None, size: int) -> Permit:
        """Settle one message of a run as delivered, as `Permit.delivered` does: an answer put down.

        Returns the answer. Handed in again as `part`, it takes the next one too, while nobody has
        picked it up: so messages cost little, and who looks sees each at once.
        """
        if not run.flow.patient:
            part = self.split(run, 1, size)
            self.settle(part, DELIVERED, End.DELIVERED)
            return part
        with self._lock:
            run.message.messages -= 1
            run.message.size -= size
            added = part is not None and part.open
            if part is not None and added:
                part.message.messages += 1
                part.message.size += size
        if part is None or not added:
            whole = run.message
            part = Permit(run.flow, Delivery(whole.destination, size, whole.producer))
            part.held = False
            self.answers.append(part)
        if self.lines:
            self.catch_up()
        return part

    def withdraw(self, run: Permit) -> None:
        """Undo that a run was offered: what of it is left was not handed over after all."""
        with self._lock:
            if not run.open:
                return
            run.held = run.open = False
            for policy in run.flow.policies:
                try:
                    policy.give_back(run.message)
                except Exception as error:
                    self._hooks.failed(policy, error)
            run.flow.account.offered -= run.message.messages
            run.flow.account.in_flight -= run.message.messages
            woken = self.lines.first()
        for waiter in woken:
            waiter.wake()

    # --- messages that need no view of their own ----------------------------------------------

    def plain_flow(self, destination: str, producer: str) -> Flow | None:
        """Return the flow of messages that are told by their size alone; None for others.

        Those are what plugins or policies must see one by one. A client that sends many offers
        them with `admit_plain`, and settles them together.
        """
        if self.watched or self._prepares:
            return None
        message = Message(destination, 0, producer)
        flow = self._flow(message)
        if not flow.plain:
            return None
        flow.plain_message = flow.last = message
        return flow

    def admit_plain(self, flow: Flow, size: int) -> bool:
        """Offer a message of so many bytes: `admit` at half its cost, without a Permit.

        Admitted messages are settled, many at once, through `Permit`s of `Flow.run`. Where the
        answer is False nothing has happened: it is to be offered to `admit`, which says why not.
        """
        message = flow.plain_message
        now = self._now()
        if not self._attempt(False):  # as in `admit`
            self._lock.insist()
        try:
            if self.answers:
                self._pick_up_answers(now)
            if self.lines:
                return False
            message.size = size
            try:
                for check in flow.checks:
                    if check(message, now) is not None:
                        return False
            except Exception:
                return False
            for take in flow.takes:
                try:
                    take(message, now)
                except Exception as error:
                    self._hooks.failed(take, error)
            account = flow.account
            account.offered += 1
            account.in_flight += 1
            return True
        finally:
            self._release()

    # --- a message's end ----------------------------------------------------------------------

    def settle(self, permit: Permit, outcome: Outcome, end: End | None) -> bool:
        """Release what a permit holds and count its end, once; without an end that stays open."""
        flow = permit.flow
        with self._lock:
            self._pick_up_answers()
            if not permit.open:
                return False
            permit.held = permit.open = False
            came_back = permit.message.aside and end is End.DELIVERED
            if flow.settles:
                self._settle_policies(flow, permit.message, outcome)
            if end is not None:
                _count(flow.account, end, permit.message.messages)
                self._let_go(flow, permit.message, end)
            woken = self.lines.first_released()
        self._settled(permit, outcome, woken)
        if came_back:
            self.report(Kind.REDRIVEN, permit.message)
        return True

    def _settled(self, permit: Permit, outcome: Outcome, woken: list[Waiter]) -> None:
        """Tell all who want to hear of it, without the lock."""
        for waiter in woken:
            waiter.wake()
        if self._hooks.listens:
            self._hooks.after(permit.message, outcome)
        if self._hooks.observers:
            self._hooks.report(Kind.SETTLED, permit.message, detail=str(outcome))
        if self._hooks.unlogged:
            self._hooks.log_failures()

    def delivered(self, permits: Sequence[Permit]) -> None:
        """Settle many as delivered, as `Permit.delivered` does one; who calls has them alone."""
        if all(flow.patient for flow in set(map(_flow_of, permits))):
            self.answers.extend(permits)
            if self.lines:
                self.catch_up()
        else:
            for permit in permits:
                permit.delivered()

    def catch_up(self) -> None:
        """Pick up the answers that wait, and let those who stand first in line ask again."""
        with self._lock:
            self._pick_up_answers()
            woken = self.lines.first_released()
        for waiter in woken:
            waiter.wake()

    def signals_changed(self) -> None:
        """Let those who wait for a signal ask again; costs next to nothing while nobody waits."""
        if self.lines:
            self.catch_up()

    def _pick_up_answers(self, now: float | None = None) -> None:
        """Settle what clients have answered as delivered."""
        answers = self.answers
        if now is None:
            now = self._now()
        while answers:
            permit = answers.popleft()
            if not permit.open:
                continue
            permit.open = False
            flow, message = permit.flow, permit.message
            for settle in flow.settles:
                try:
                    settle(message, DELIVERED, now)
                except Exception as error:
                    self._hooks.failed(settle, error)
            account = flow.account
            messages = message.messages
            account.in_flight -= messages
            account.delivered += messages
            if flow.holders:
                self._let_go(flow, message, End.DELIVERED)

    def _settle_policies(self, flow: Flow, message: Message, outcome: Outcome) -> None:
        now = self._now()
        for settle in flow.settles:
            try:
                settle(message, outcome, now)
            except Exception as error:
                self._hooks.failed(settle, error)

    def cancel(self, permit: Permit) -> bool:
        """Undo what a permit was charged and count it as failed: its send never began."""
        with self._lock:
            self._pick_up_answers()
            if not permit.open:
                return False
            permit.held = permit.open = False
            self._give_back(permit)
            _count(permit.flow.account, End.FAILED, permit.message.messages)
            self._let_go(permit.flow, permit.message, End.FAILED)
            woken = self.lines.first()
        self._settled(permit, Outcome.FAILED, woken)
        return True

    # --- in a queue of Shield's own -----------------------------------------------------------

    def waited(self, permit: Waiting, waited_s: float, now: float) -> Refusal | None:
        """Return the first refusal of a message that waits, and stands first; None for none."""
        with self._lock:
            return next(self._refusals(permit, waited_s, now, shadow=False), None)

    def leaves(self, permit: Permit, waited_s: float, now: float) -> None:
        """Hear that a message leaves its queue; count what rules in shadow have against it."""
        with self._lock:
            for refusal in self._refusals(permit, waited_s, now, shadow=True):
                rule = refusal.policy.rule.name
                permit.flow.account.over_limit[rule, refusal.policy.name, refusal.reason] += 1

    def _refusals(
        self, permit: Waiting, waited_s: float, now: float, *, shadow: bool
    ) -> Iterator[Refusal]:
        for policy in permit.waits:
            if policy.rule.shadow is not shadow:
                continue
            try:
                refusal = policy.waited(permit.message, waited_s, now)
            except Exception as error:
                self._hooks.failed(policy, error)
                continue  # it was admitted, and that it waits is no reason to lose it
            if refusal is not None:
                yield refusal

    def newest_first(self, permit: Waiting, now: float) -> bool:
        """Tell whether a policy wants those to leave first that came last."""
        with self._lock:
            return any(self._wants_newest(policy, permit.message, now) for policy in permit.waits)

    def _wants_newest(self, policy: Policy, message: Message, now: float) -> bool:
        try:
            return not policy.rule.shadow and policy.newest_first(message, now)
        except Exception as error:
            self._hooks.failed(policy, error)
            return False

    def refuse(self, permit: Permit, refusal: Refusal) -> OverLimit | None:
        """Turn a permit whose send never began into a verdict over the limit, whose chain acts.

        It stays in flight until that has come to its end. None where the permit is settled.
        """
        flow = permit.flow
        with self._lock:
            self._pick_up_answers()
            if not permit.open:
                return None
            permit.held = permit.open = False
            self._give_back(permit)
            over = OverLimit(flow, permit.message, refusal)
            flow.account.over_limit[over.rule.name, over.policy, over.reason] += 1
            if refusal.policy.tells_of_load:
                over.rule.refused_s = self._now()
            woken = self.lines.first()
        for waiter in woken:
            waiter.wake()
        if self._hooks.observers:
            self._hooks.report(Kind.OVER_LIMIT, over.message, over)
        if self._hooks.unlogged:
            self._hooks.log_failures()
        return over

    def _give_back(self, permit: Permit) -> None:
        for policy in permit.flow.policies:
            try:
                policy.give_back(permit.message)
            except Exception as error:
                self._hooks.failed(policy, error)

    # --- an end -------------------------------------------------------------------------------

    def end(self, over: OverLimit, end: End | None) -> bool:
        """Close an over-limit message and count its end, once; without an end that stays open."""
        with self._lock:
            if not over.open:
                return False
            over.open = False
            if end is not None:
                _count(over.flow.account, end, source=over.kept_as)
                self._let_go(over.flow, over.message, end)
            if end is End.DROPPED:
                over.flow.account.drops[over.rule.name, over.policy, over.reason] += 1
            woken = self.lines.first_released() if over.flow.holders else []
        for waiter in woken:
            waiter.wake()
        if end in _REPORTED and self._hooks.observers:
            self._hooks.report(_REPORTED[end], over.message, over)
        return True

    def count(self, account: Account, end: End, messages: int) -> None:
        """Count the end of messages whose claims were closed with their ends left open."""
        with self._lock:
            _count(account, end, messages)

    # --- set aside ----------------------------------------------------------------------------

    def hold(self, over: OverLimit) -> bool:
        """Tell policies that a message is being set aside, before it is; False where it was."""
        message = over.message
        if message.aside:
            return False
        message.aside = True
        if not over.flow.holders:
            return True
        with self._lock:
            for policy in over.flow.holders:
                try:
                    policy.hold(message)
                except Exception as error:
                    self._hooks.failed(policy, error)
        return True

    def unhold(self, over: OverLimit) -> None:
        """Tell policies that a message is not set aside after all: that could not begin."""
        with self._lock:
            self._let_go(over.flow, over.message, End.FAILED)
            woken = self.lines.first_released() if over.flow.holders else []
        for waiter in woken:
            waiter.wake()

    def _let_go(self, flow: Flow, message: Message, end: End) -> None:
        """Tell policies that a message is aside no more; where it has only moved, it still is."""
        if not message.aside or end in _ASIDE:
            return
        message.aside = False
        for policy in flow.holders:
            try:
                policy.let_go(message)
            except Exception as error:
                self._hooks.failed(policy, error)

    def keep(self, overs: Sequence[OverLimit], where: End) -> list[bool]:
        """Count over-limit messages as kept there; False for each that has had its end."""
        with self._lock:
            open_ones = [over.open for over in overs]
            for over in overs:
                if over.open:
                    _count(over.flow.account, where, source=over.kept_as)
                    over.kept_as = where
        if self._hooks.observers:
            for over, was_open in zip(overs, open_ones, strict=True):
                if was_open:
                    self._hooks.report(_REPORTED[where], over.message, over)
        return open_ones

    def readmit(self, message: Message, where: End) -> Verdict:
        """Offer a message again that is counted as kept there, and stays so where it is refused.

        An OverLimit that comes of it is to be waited for (`shield.sync.wait_behind`).
        """
        flow = self._flows.get((message.producer, message.destination)) or self._flow(message)
        now = self._now()
        if not self._attempt(False):  # as in `admit`
            self._lock.insist()
        try:
            if self.answers:
                self._pick_up_answers(now)
            if self.lines or not flow.admits(message, now):
                verdict = self._judge_in_turn(flow, message, now, BEHIND)
            else:
                verdict = self._take(flow, message, now)
            if isinstance(verdict, Permit):
                _move(flow.account, where, "in_flight")
            else:
                verdict.kept_as = where
        finally:
            self._release()
        return verdict

    def found(self, message: Message, where: End, messages: int = 1) -> None:
        """Count messages like this one that an earlier process left there, as offered and kept."""
        flow = self._flow(message)
        with self._lock:
            flow.account.offered += messages
            flow.account.in_flight += messages
            _count(flow.account, where, messages)
            message.aside = True
            for policy in flow.holders:
                for _ in range(messages):
                    policy.hold(message)

    # --- waiting ------------------------------------------------------------------------------

    def line_up(self, over: OverLimit, wake: Callable[[], None]) -> Waiter:
        """Give an over-limit message its number and its place in the refusing policy's line."""
        with self._lock:
            waiter = Waiter(over, self.lines.draw(), wake)
            self.lines.stand(waiter, over.refusal.policy)
        return waiter

    def line_up_behind(self, over: OverLimit, wake: Callable[[], None]) -> Waiter:
        """Let a message wait for what all others leave, also those who come later."""
        with self._lock:
            waiter = Waiter(over, BEHIND, wake)
            self.lines.stand(waiter, over.refusal.policy)
        return waiter

    def ask_again(self, waiter: Waiter, now: float | None = None) -> Permit | float:
        """Return a Permit if the waiter's turn has come, else the seconds after which to ask again.

        `inf` means: when woken. A waiter that has its permit is out of the line.
        """
        answer = self.ask_and_stay(waiter, now)
        if isinstance(answer, Permit):
            self.leave(waiter)
        return answer

    def ask_and_stay(self, waiter: Waiter, now: float | None = None) -> Permit | float:
        """Do the same, but who has its permit stays in line until it leaves, or moves on.

        So nobody overtakes a message on its way from here to its client.
        """
        over = waiter.over
        with self._lock:
            verdict = self._judge_again(over, waiter.number, now)
            if isinstance(verdict, Permit):
                woken: Iterable[Waiter] = ()
                answer: Permit | float = verdict
            else:
                woken = self.lines.stand(waiter, verdict.refusal.policy)
                answer = self._next_try_s(waiter, verdict.refusal)
        for other in woken:
            other.wake()
        self._report_admitted(over, answer)
        return answer

    def ask_once(self, over: OverLimit) -> Permit | None:
        """Return a Permit if the policies admit a message that stands in no line, else None.

        It comes behind all who stand in one.
        """
        with self._lock:
            verdict = self._judge_again(over, BEHIND)
        answer = verdict if isinstance(verdict, Permit) else None
        self._report_admitted(over, answer)
        return answer

    def _judge_again(self, over: OverLimit, number: float, now: float | None = None) -> Verdict:
        """Decide once more; where it is admitted, it is kept nowhere any more."""
        self._pick_up_answers()
        now = self._now() if now is None else now
        verdict = self._judge_in_turn(over.flow, over.message, now, number)
        if isinstance(verdict, Permit):
            over.open = False
            if over.kept_as is not None:
                _move(over.flow.account, over.kept_as, "in_flight")
        else:
            over.refusal = verdict.refusal
        return verdict

    def _report_admitted(self, over: OverLimit, answer: object) -> None:
        if self._hooks.observers and isinstance(answer, Permit):
            self._hooks.report(Kind.WAITED, over.message, over)

    def _next_try_s(self, waiter: Waiter, refusal: Refusal) -> float:
        if refusal.retry_after_s is None or not self.lines.is_first(waiter):
            return float("inf")
        return refusal.retry_after_s

    def leave(self, waiter: Waiter) -> None:
        """Take a waiter out of its line."""
        with self._lock:
            woken = self.lines.leave(waiter)
        for other in woken:
            other.wake()

    # A queue of messages that compete for the same has one waiter, which stands for its first.

    def draw(self) -> int:
        """Return the number of a message that joins a queue: its place among all who wait."""
        with self._lock:
            return self.lines.draw()

    def move_on(self, waiter: Waiter, over: OverLimit, number: float) -> None:
        """Let a queue's waiter stand for the next of its messages, in the line where it stands."""
        with self._lock:
            policy = over.refusal.policy if waiter.line is None else waiter.line[0]
            woken = self.lines.leave(waiter)
            waiter.over, waiter.number = over, number
            self.lines.stand(waiter, policy)
        for other in woken:
            other.wake()

    def competes_for(self, over: OverLimit) -> Hashable:
        """Return what a message waits for: those that agree in it can wait one behind another."""
        return self._lines_of(over.flow.lined, over.message)

    def bond(self, over: OverLimit) -> Hashable:
        """Return what binds a message to others, which it must not overtake; None for nothing."""
        if not over.flow.holders:
            return None
        lines = self._lines_of(over.flow.holders, over.message)
        return lines if any(line is not None for line in lines) else None

    def _lines_of(self, policies: Iterable[Policy], message: Message) -> tuple[Hashable, ...]:
        with self._lock:
            return tuple(self.lines.of(policy, message)[1] for policy in policies)

    # --- clients ------------------------------------------------------------------------------

    def opened(self, client: Transport) -> None:
        """Let actions know of a new client, through which what they have kept may go out."""
        for action in self._actions("opened"):
            action.opened(client, self)
        if any(rule.redrive == "auto" for rule in self.rules):
            with self._lock:
                self._auto = self._auto or AutoRedrive(self)
            self._auto.opened(client)

    def flush(self, client: Transport, timeout_s: float | None) -> None:
        """Return when no action keeps a message of that client in memory, or the time is over."""
        self._within([action.flush for action in self._actions("flush")], client, timeout_s)

    def closing(self, client: Transport, timeout_s: float | None) -> None:
        """Bring nothing more back, and let actions end what they keep of a client that closes."""
        ends = [action.closing for action in self._actions("closing")]
        if self._auto is not None:
            ends.insert(0, self._auto.closing)
        self._within(ends, client, timeout_s)

    def _within(
        self,
        calls: Iterable[Callable[[Transport, float | None], None]],
        client: Transport,
        timeout_s: float | None,
    ) -> None:
        """Call all, one after another, within one limit of time."""
        deadline = None if timeout_s is None else self._now() + timeout_s
        for call in calls:
            call(client, None if deadline is None else max(0.0, deadline - self._now()))

    def _actions(self, method: str) -> list[Action]:
        """Return the actions of all chains that do something of their own there."""
        return [a for rule in self.rules for a in rule.chain if a.overrides(method)]

    # --- looking at it ------------------------------------------------------------------------

    def accounts(self) -> list[Account]:
        """Return copies of all accounts, all of the same moment."""
        with self._lock:
            self._pick_up_answers()
            copies = [copy_of(account) for account in self._books]
        self._hooks.log_failures()
        return copies

    def ledger(self) -> Ledger:
        """Return what became of every message offered so far."""
        return ledger_of(self.accounts())

    def pressure(self, rule: str | None = None) -> float:
        """Return how near messages are to being refused: 0 is far, 1 is over the limit now.

        The highest of the rule's policies, on messages like those offered last; without a name,
        of all rules but those in shadow. Where somebody waits in line it is 1: who comes next
        would wait behind. It costs a call to each policy for each pair of producer and
        destination, so that it is for a web handler or a reader to ask, not for every message.

        Raises:
            ShieldError: no rule has that name.
        """
        rules = rules_named(self.rules, rule)
        with self._lock:
            self._pick_up_answers()
            if any(policy.rule in rules for policy, _ in self.lines):
                return 1.0
            return highest(rules, self._all_flows(), self._measure(self._now()))

    def status(self) -> dict[str, dict[str, dict[str, float | str | None]]]:
        """Return what each rule's policies show of their state, with their pressure.

        By the rule's name, then the policy's; the second of one kind is `quota[1]`.
        """
        with self._lock:
            self._pick_up_answers()
            return {rule.name: self._status_of(rule) for rule in self.rules}

    def _status_of(self, rule: Rule) -> dict[str, dict[str, float | str | None]]:
        now = self._now()
        measure = self._measure(now)
        shown: dict[str, dict[str, float | str | None]] = {}
        for policy in rule.policies:
            number = sum(name.partition("[")[0] == policy.name for name in shown)
            name = f"{policy.name}[{number}]" if number else policy.name
            lasts = [f.last for f in self._all_flows() if f.last and policy in f.policies]
            pressure = max((measure(policy, last) for last in lasts), default=0.0)
            shown[name] = {"pressure": pressure, **policy.status(now)}
        return shown

    def _all_flows(self) -> list[Flow]:
        return [*self._flows.values(), *self._received.values()]

    def _measure(self, now: float) -> Measure:
        """Return how to ask a policy for its pressure; one that raises is isolated."""

        def measure(policy: Policy, message: Message) -> float:
            try:
                return policy.pressure(message, now)
            except Exception as error:
                self._hooks.failed(policy, error)
                return 0.0 if self._hooks.fail_open else 1.0

        return measure

    def wait_ready(
        self, timeout_s: float | None = None, rule: str | None = None, below: float = 1.0
    ) -> bool:
        """Block until the pressure is below that; False where the time was over first.

        Looks twenty times a second. Who publishes then may still be refused: others were faster.
        """
        return wait_until_below(lambda: self.pressure(rule), below, timeout_s, self.clock)

    async def ready(
        self, rule: str | None = None, timeout_s: float | None = None, below: float = 1.0
    ) -> bool:
        """Wait as `wait_ready`, without blocking the loop."""
        return await until_below(lambda: self.pressure(rule), below, timeout_s, self.clock)

    @property
    def plugin_errors(self) -> dict[str, int]:
        """How often each plugin raised, by its name."""
        return self._hooks.errors

    def plugin_failed(self, who: object, error: Exception) -> None:
        """Count and log what a plugin raised; the message goes on without it."""
        self._hooks.failed(who, error)
        self._hooks.log_failures()

    # --- hooks --------------------------------------------------------------------------------

    def report(self, kind: Kind, message: Message, detail: str | None = None) -> None:
        """Tell observers of what an action has done with a message that was set aside."""
        if self._hooks.observers:
            self._hooks.report(kind, message, detail=detail)

    def backlog_changed(self, place: Place, error: str | None) -> None:
        """Tell observers that how much waits there is unknown, and why, or known again (None)."""
        if self._hooks.observers:
            kind = Kind.BACKLOG_KNOWN if error is None else Kind.BACKLOG_UNKNOWN
            detail = str(place) if error is None else f"{place}: {error}"
            self._hooks.report(kind, None, detail=detail)

    def _prepare(self, message: Message) -> None:
        try:
            self._hooks.before(message)
        except Reject as reject:
            flow = self._flow(message)
            with self._lock:
                flow.account.offered += 1
                if message.direction == "publish":
                    flow.account.raised += 1
                else:
                    flow.account.dropped += 1
                    flow.account.drops["", "before-hook", str(reject)] += 1
            if self._hooks.observers:
                self._hooks.rejected(message, reject)
            self._hooks.log_failures()
            raise

    def _report_verdict(self, verdict: Verdict) -> None:
        if isinstance(verdict, OverLimit):
            self._hooks.report(Kind.OVER_LIMIT, verdict.message, verdict)
        else:
            self._hooks.report(Kind.ADMITTED, verdict.message)

    def _after_fork(self) -> None:
        """In a child: fresh locks, policies with nothing in flight, an empty ledger."""
        old = [policy for rule in self.rules for policy in rule.policies]
        self.rules = compile_rules(self.settings, self.registry)
        for policy, before in zip(
            (p for rule in self.rules for p in rule.policies), old, strict=True
        ):
            policy.inherit(before)
        if self._auto is not None:
            self._auto.leave_to_the_parent()
        self._start_empty()


_REPORTED = {
    End.DROPPED: Kind.DROPPED,
    End.RAISED: Kind.RAISED,
    End.OVERFLOWED: Kind.OVERFLOWED,
    End.BUFFERED: Kind.BUFFERED,
    End.SPOOLED: Kind.SPOOLED,
}
_ASIDE = {End.BUFFERED, End.SPOOLED, End.OVERFLOWED}


def _count(account: Account, end: End, messages: int = 1, *, source: End | None = None) -> None:
    _move(account, source or "in_flight", end, messages)


def _move(account: Account, source: str, target: str, messages: int = 1) -> None:
    setattr(account, source, getattr(account, source) - messages)
    setattr(account, target, getattr(account, target) + messages)


# --- the process ------------------------------------------------------------------------------

_shields: weakref.WeakSet[Shield] = weakref.WeakSet()
_retired: list[Account] = []
_default: Shield | None = None
_default_lock = threading.Lock()
_retry_budgets: weakref.WeakKeyDictionary[Clock, RetryBudget] = weakref.WeakKeyDictionary()


def _retry_budget(clock: Clock) -> RetryBudget:
    """Return the budget of all Shields with this clock."""
    budget = _retry_budgets.get(clock)
    if budget is None:
        budget = RetryBudget(partial(_offered, weakref.ref(clock)))
        budget = _retry_budgets.setdefault(clock, budget)
    return budget


def _offered(clock: weakref.ref[Clock]) -> int:
    """Return how many messages Shields with this clock have offered; read without their locks."""
    shields = [shield for shield in list(_shields) if shield.clock is clock()]
    return sum(
        account.offered
        for shield in shields
        for account in shield._books
        if account.direction == "publish"
    )


def default() -> Shield:
    """Return the Shield that everything in this process shares unless told otherwise."""
    global _default
    with _default_lock:
        if _default is None:
            _default = Shield.load()
        return _default


def shield_of(choice: Shield | str | Path | Mapping[str, Any] | None) -> Shield:
    """Return what a `shield=` argument means: a Shield, a file, settings, the shared one."""
    if choice is None:
        return default()
    if isinstance(choice, Shield):
        return choice
    if isinstance(choice, str | Path):
        return Shield.load(choice)
    return Shield(choice)


def ledger() -> Ledger:
    """Return the ledger of this process: of all its Shields together, also of those gone."""
    accounts = list(_retired)
    for shield in list(_shields):
        accounts += shield.accounts()
    return ledger_of(accounts)


def pressure(rule: str | None = None) -> float:
    """Return how near this process's messages are to being refused: of its Shields the highest.

    Raises:
        ShieldError: none of them has a rule of that name.
    """
    every = list(_shields)
    asked = [one for one in every if rule is None or rule in {r.name for r in one.rules}]
    if rule is not None and not asked:
        rules_named([known for one in every for known in one.rules], rule)
    return max((one.pressure(rule) for one in asked), default=0.0)


def wait_ready(timeout_s: float | None = None, rule: str | None = None, below: float = 1.0) -> bool:
    """Block until the pressure of this process is below that; False where time was over first."""
    return wait_until_below(lambda: pressure(rule), below, timeout_s, SYSTEM_CLOCK)


async def ready(
    rule: str | None = None, timeout_s: float | None = None, below: float = 1.0
) -> bool:
    """Wait as `wait_ready`, without blocking the loop."""
    return await until_below(lambda: pressure(rule), below, timeout_s, SYSTEM_CLOCK)


def _after_fork_in_child() -> None:
    global _default_lock
    _default_lock = threading.Lock()
    _retired.clear()
    _retry_budgets.clear()
    for shield in list(_shields):
        shield._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
