"""Offers: each is counted, decided on under the lock, and charged where it is admitted.

`admit`, `receive`, `admit_plain` and `readmit` are of one shape: find the policy set, take the
lock, settle the answers, evaluate, release. It is written out in each of them, with the lock taken
by hand, because every message goes through one: `with` costs twice as much as what stands there,
and a function that holds what they share would be two more calls for each message.

An exception from outside (Ctrl-C, a worker's time limit) that strikes on the way takes the offer
back: it is counted as failed, and nothing stays charged, held or locked.
"""

from __future__ import annotations

from shield.accounts import Account, End
from shield.delivery import Delivery
from shield.engine.core import Component, Core
from shield.engine.policy_set import PolicySet
from shield.engine.queueing.wait_queue import BEHIND
from shield.errors import Reject
from shield.events import Kind
from shield.interrupts import is_from_outside
from shield.message import Message
from shield.plugin_results import text_of
from shield.verdict import OverLimit, Verdict


def _somebody_waits(_message: Message, _now: float) -> bool:
    return True  # so that it has to ask in turn


ASK_IN_TURN = (_somebody_waits,)


class Admission(Component):
    """Where every message comes in."""

    def admit(self, message: Message, now: float | None = None) -> Verdict:
        """Offer a message: ask all policies of all rules that cover it, charge them if all admit.

        Returns a Permit, to be settled once, or an OverLimit whose chain is to be run
        (`shield.chain.runner.run_chain` does so for synchronous clients).

        Raises:
            Reject: a plugin's before-hook refused the message; it is counted as raised.
        """
        core = self._core
        if core.prepares_sent:
            _prepare(core, message)
        flow = core.sent[message.producer, message.destination]
        if now is None:
            now = core.now()
        account: Account | None = None
        verdict: Verdict | None = None
        try:
            if not core.attempt(False):
                core.insist()
            if core.answers:
                core.pick_up_answers(now)
            account = flow.account
            account.offered += 1
            account.in_flight += 1
            flow.last = message
            if flow.offers:
                core.hooks.tell(flow.offers, message, now)
            verdict = core.judge.verdict(flow, message, now)
            core.release()
            if core.watched:
                _report(core, verdict)
            if core.unlogged:
                core.hooks.log_what_waits()
        except BaseException:
            core.let_go_of_lock()
            core.undo(verdict, account, 1)
            raise
        return verdict

    def receive(self, delivery: Delivery, now: float | None = None) -> Verdict:
        """Offer one delivery, as `admit` does a message, to the rules with `direction = "consume"`.

        A Permit is to be settled when the delivery is acknowledged or committed (delivered), or
        goes back to its broker (failed). What is to be done with an OverLimit, a
        `shield.chain.deferred.DeferredDelivery` says.

        Raises:
            Reject: a plugin's before-hook refused it; it is counted as dropped.
        """
        core = self._core
        if core.prepares_received:
            _prepare(core, delivery)
        flow = core.received[delivery.producer, delivery.destination]
        if now is None:
            now = core.now()
        account: Account | None = None
        verdict: Verdict | None = None
        try:
            if not core.attempt(False):
                core.insist()
            if core.answers:
                core.pick_up_answers(now)
            account = flow.account
            account.offered += delivery.messages
            account.in_flight += delivery.messages
            flow.last = delivery
            if flow.offers:
                core.hooks.tell(flow.offers, delivery, now)
            verdict = core.judge.verdict(flow, delivery, now)
            core.release()
            if core.watched:
                _report(core, verdict)
            if core.unlogged:
                core.hooks.log_what_waits()
        except BaseException:
            core.let_go_of_lock()
            core.undo(verdict, account, delivery.messages)
            raise
        return verdict

    def plain_flow(self, destination: str, producer: str) -> PolicySet | None:
        """Return the flow of messages that are told by their size alone; None for others.

        Those are what plugins or policies must see one by one. A client that sends many offers
        them with `admit_plain`, and settles them together.
        """
        core = self._core
        if core.watched or core.prepares_sent:
            return None
        flow = core.sent[producer, destination]
        if not flow.plain:
            return None
        flow.plain_message = flow.last = Message(destination, 0, producer)
        return flow

    def admit_plain(self, flow: PolicySet, size: int) -> bool:
        """Offer a message of so many bytes: `admit` at half its cost, without a Permit.

        Admitted messages are settled, many at once, through `Permit`s of `PolicySet.run`. Where the
        answer is False nothing has happened: it is to be offered to `admit`, which says why not.
        """
        core = self._core
        message = flow.plain_message
        now = core.now()
        admitted, taken = False, 0
        try:
            if not core.attempt(False):
                core.insist()
            if core.answers:
                core.pick_up_answers(now)
            message.size = size
            checks = ASK_IN_TURN if core.lines else flow.checks
            for check in checks:  # as `Judge.verdict` and `take`, without their calls
                try:
                    if check(message, now) is not None:
                        break
                except Exception as error:
                    if is_from_outside(error):
                        raise
                    break
            else:
                for take in flow.takes:
                    try:
                        take(message, now)
                    except Exception as error:
                        if core.judge.fails_at(take, error):
                            charged, taken = taken, 0
                            core.judge.give_back(flow.takes[:charged], message)
                            break
                    taken += 1
                else:
                    account = flow.account
                    account.offered += 1
                    account.in_flight += 1
                    admitted = True
            core.release()
        except BaseException:
            core.let_go_of_lock()
            if admitted:
                flow.run(1, size).cancel()
            elif taken:
                message.size = size
                with core.lock:
                    core.judge.give_back(flow.takes[:taken], message)
            raise
        return admitted

    def readmit(self, message: Message, where: End) -> Verdict:
        """Offer a message again that is counted as kept there, and stays so where it is refused.

        An OverLimit that comes of it is to be waited for (`shield.chain.runner.wait_behind`).
        """
        core = self._core
        if core.hooks.classifiers:
            core.hooks.label(message)
        flow = core.sent[message.producer, message.destination]
        now = core.now()
        account = flow.account
        with core.lock:
            core.pick_up_answers(now)
            left = getattr(account, where) - 1
            verdict = core.judge.verdict(flow, message, now, BEHIND)
            if verdict.admits:  # no call, so that nothing can strike before it is counted
                account.in_flight += 1
                setattr(account, where, left)
            else:
                verdict.kept_as = where  # type: ignore[union-attr]
                core.claims.add(verdict)
        return verdict


def _prepare(core: Core, message: Message) -> None:
    """Let plugins label a message, and refuse it: it is offered, and that is its end."""
    try:
        core.hooks.before(message)
    except Reject as reject:
        account = core.flow_of(message).account
        with core.lock:
            account.offered += 1
            if message.direction == "publish":
                account.raised += 1
            else:
                account.dropped += 1
                account.has_dropped(("", "before-hook", text_of(reject)))
        if core.hooks.observers:
            core.hooks.rejected(message, reject)
        core.hooks.log_what_waits()
        raise


def _report(core: Core, verdict: Verdict) -> None:
    if isinstance(verdict, OverLimit):
        core.hooks.report(Kind.OVER_LIMIT, verdict.message, verdict)
    else:
        core.hooks.report(Kind.ADMITTED, verdict.message)
