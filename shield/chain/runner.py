"""Runs a chain for clients whose callers may be blocked: the thin synchronous shell."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from typing import TypeVar

from shield.accounts import End
from shield.action import Action, Decline, Divert, Drop, Keep, Raise, Retry, Step, Wait
from shield.algorithms.backoff import Backoff
from shield.chain.blocking import pause
from shield.chain.retained import Retained
from shield.clients.diversion import send_through
from shield.clients.pending import MessagePort
from shield.envelope import Envelope
from shield.errors import DeliveryUnknownError
from shield.headers import BROKER, diverted
from shield.plugin_results import step_in
from shield.transport import Transport, once
from shield.verdict import OverLimit, Permit, Verdict

LONGEST_WHY = 200
"""Of what an error says of each action that has done nothing, in characters."""
Result = TypeVar("Result")
Steps = Generator[Wait | Retry, Permit | None, Result | Permit]
RETRY_FIRST_S, RETRY_LONGEST_S = 0.05, 5.0
ROUNDING_S = 1e-4
"""Slept beyond `retry_after`, so that no try is lost to the rounding of floats."""


# --- a chain ------------------------------------------------------------------------------------


def run_chain(over: OverLimit, port: MessagePort[Result], start: int = 0) -> Result:
    """Run the chain of the rule that refused, from one position on, to the message's end.

    Raises:
        OverLimitError: the chain says so, or has run out.
    """
    try:
        steps = walk(over, port, lambda: may_block() and port.may_wait(), start)
        try:
            step = next(steps)
            while True:
                step = steps.send(_wait(over, step))
        except StopIteration as end:
            result: Result | Permit = end.value
        return port.send(result) if isinstance(result, Permit) else result
    except BaseException as error:
        over.end(End.FAILED)  # nothing where its end is known already
        over.engine.interrupted(error)
        raise


def walk(
    over: OverLimit, port: MessagePort[Result], may_wait: Callable[[], bool], start: int = 0
) -> Steps[Result]:
    """Go along a chain, without waiting: who walks it waits, and sends, as its client does.

    It yields what is to be waited for, is sent the permit that this has brought, and returns the
    caller's result, or a permit where the message is to be sent.

    Raises:
        OverLimitError: the chain says so, or has run out.
    """
    for position in range(start, len(over.chain)):
        step = next_step(over.chain[position], over)
        if isinstance(step, Drop):
            over.end(End.DROPPED)
            return port.drop(over)
        if isinstance(step, Raise):
            break
        if isinstance(step, Wait | Retry) and may_wait():
            permit = yield step
            if permit is not None:
                return permit
        if isinstance(step, Divert | Keep):
            result = _set_aside(over, port, step, position)
            if result is not None:
                return result
        _note_declined(over, position, step, port)
    over.end(End.RAISED)
    raise port.error(over)


def next_step(action: Action, over: OverLimit) -> Step | None:
    """Ask an action; one that raises, or says what it must not, has declined, and is counted.

    Also where plugins must not fail: who declines admits nothing.
    """
    try:
        step = step_in(action.step(over), over.message.direction)
    except Exception as error:
        over.engine.plugin_failed(action, error)
        return None
    if isinstance(step, Decline):
        over.note_declined(action, step.why[:LONGEST_WHY])
        return None
    return _called_once(action, over, step) if isinstance(step, Divert) else step


def _note_declined(
    over: OverLimit, position: int, step: Step | None, port: MessagePort[Result]
) -> None:
    """Note why nothing came of a step that was tried; the action itself has told all else."""
    action = over.chain[position]
    if isinstance(step, Wait):
        over.note_declined(action, f"not admitted within {step.limit_s:g} s, or may not wait here")
    elif isinstance(step, Retry):
        over.note_declined(action, "refused each time, or the retry budget is spent")
    elif step is not None:
        kept_back = not port.may_leave()
        why = "it may not leave its connection or transaction" if kept_back else "not there now"
        over.note_declined(action, why)


def _called_once(action: Action, over: OverLimit, step: Divert) -> Divert:
    """Return a step whose `done` can be called by anyone, at any time: once, and it never raises.

    It is the action's own code, and runs where a client's answers come in.
    """
    undone = [step.done]

    def done() -> None:
        if not undone:
            return
        try:
            undone.pop()()
        except Exception as error:
            over.engine.plugin_failed(action, error)

    return replace(step, done=done)


def resume_chain(
    over: OverLimit, port: MessagePort[Result], position: int, cause: Exception | None = None
) -> None:
    """Run the rest of a chain for a message whose caller has its future: what ends it ends that.

    It is not set aside any more, until another action does so.
    """
    over.engine.unhold(over)
    if cause is not None and position:
        over.note_declined(over.chain[position - 1], f"failed: {cause!r}"[:LONGEST_WHY])
    try:
        result = run_chain(over, port, position)
    except Exception as raised:
        raised.__cause__ = raised.__cause__ or cause
        port.pending("raised")
        port.fail(raised)
    else:
        port.follow(result)


# --- threads that answer ------------------------------------------------------------------------


class _Answering(threading.local):
    now = False


_answering = _Answering()


def may_block() -> bool:
    """Tell whether this thread may be kept waiting: not one on which a transport answers.

    It would wait for its own answers.
    """
    return not _answering.now


@contextmanager
def answering() -> Iterator[None]:
    """Mark this thread as one that answers, while a message's chain and its future go on."""
    before, _answering.now = _answering.now, True
    try:
        yield
    finally:
        _answering.now = before


# --- set aside ----------------------------------------------------------------------------------


def _set_aside(
    over: OverLimit, port: MessagePort[Result], step: Divert | Keep, position: int
) -> Result | None:
    """Keep it, or send it elsewhere; None where that cannot begin."""
    held = over.engine.hold(over)
    result = _begin(over, port, step, position)
    if result is None and held:
        over.engine.unhold(over)
    return result


def _begin(
    over: OverLimit, port: MessagePort[Result], step: Divert | Keep, position: int
) -> Result | None:
    if isinstance(step, Keep):
        return _keep(over, port, step, position)
    if step.transport is None:
        return _divert(over, port, step, position)
    return _carry(over, port, step, step.transport, position)


def _keep(over: OverLimit, port: MessagePort[Result], step: Keep, position: int) -> Result | None:
    if not port.may_leave():
        return None
    result = port.pending(step.fate)
    kept = Retained(over, port, position)
    if not kept.action.overrides("closing"):
        kept.expect_an_end()
    try:
        step.keeper(kept)
    except Exception as error:
        over.engine.plugin_failed(kept.action, error)
        return None if kept.take_back() else result
    return result


def _divert(
    over: OverLimit, port: MessagePort[Result], step: Divert, position: int
) -> Result | None:
    """Send to another destination of the client's own broker."""

    def end(error: Exception | None) -> None:
        step.done()
        diverted_ended(over, port, position, error)

    result = None
    try:
        result = port.divert(over, step, once(end))
    finally:
        if result is None:
            step.done()
    return result


def _carry(
    over: OverLimit, port: MessagePort[Result], step: Divert, transport: Transport, position: int
) -> Result | None:
    """Send to another broker, or a file: what follows is as with the client's own overflow."""
    if not port.may_leave():
        step.done()
        return None
    result = port.pending("overflowed")
    caller = threading.current_thread()

    def envelope() -> Envelope:
        marks = {**diverted(over), **_broker(port.client)}
        return port.envelope().diverted(marks, over.engine.signer)

    def end(error: Exception | None) -> None:
        if error is not None:
            over.engine.transport_failed(transport, error)
        try:
            with nullcontext() if threading.current_thread() is caller else answering():
                diverted_ended(over, port, position, error)
        finally:
            step.done()  # only now: who waits for it may close the client the chain goes on through

    send_through(transport, port.client, over, envelope, end)
    return result


def _broker(client: Transport) -> dict[str, str]:
    """Return the header that says which broker a message was going to."""
    return {BROKER: client.origin} if client.origin else {}


def diverted_ended(
    over: OverLimit, port: MessagePort[Result], position: int, error: Exception | None
) -> None:
    """Take the answer to an overflow send; where it failed, go on with the chain.

    Not where its fate is unknown: what the chain did then might be done twice. Nor in a
    transaction: a send that fails there ends all of its messages.
    """
    if error is None:
        port.overflowed(over)
        port.succeed()
    elif isinstance(error, DeliveryUnknownError) or not port.may_leave():
        over.end(End.FAILED)
        port.fail(error)
    else:
        resume_chain(over, port, position + 1, error)


@contextmanager
def taken_back(verdict: Verdict) -> Iterator[None]:
    """Undo a verdict where what is done next fails: the message never left."""
    try:
        yield
    except BaseException:
        if isinstance(verdict, Permit):
            verdict.cancel()
        else:
            verdict.end(End.FAILED)
        raise


def send_kept(permit: Permit, port: MessagePort[Result]) -> None:
    """Send a message that was kept in memory and is admitted now."""
    try:
        port.follow(port.send(permit))
    except Exception as error:
        permit.cancel()  # nothing where the port has done it
        port.fail(error)


# --- waiting ------------------------------------------------------------------------------------


def hold_back(permit: Permit, may_wait: Callable[[], bool]) -> None:
    """Wait as long as policies ask an admitted message to, before it is sent.

    Every adapter calls it between the permit and its client's send; it costs next to nothing
    where no policy has such a wish. A thread that may not wait sends at once. A wait that is
    interrupted cancels the permit.
    """
    if not permit.flow.delays or permit.delay_s <= 0.0 or not may_wait():
        return
    try:
        pause(permit.flow.engine.clock, threading.Event(), permit.delay_s)
    except BaseException:
        permit.cancel()
        raise


def _wait(over: OverLimit, step: Wait | Retry) -> Permit | None:
    if isinstance(step, Wait):
        return wait_in_line(over, step.limit_s)
    return retry(over, step.times)


def retry(over: OverLimit, times: int) -> Permit | None:
    """Ask again after each of so many pauses; None where all are refused, or the budget is spent.

    A pause is full-jitter exponential backoff, and never ends before the policy's own
    `retry_after_s`. Who retries stands in no line: those who stand in one come first.
    """
    return _driven(over, pauses(over, times), threading.Event())


def pauses(over: OverLimit, times: int) -> Generator[float, None, Permit | None]:
    """Yield how long to wait before each try of `retry`; return what came of it."""
    engine, clock = over.engine, over.engine.clock
    backoff = Backoff(RETRY_FIRST_S, RETRY_LONGEST_S)
    for _ in range(times):
        pause_s = max(backoff.next_s(), (over.retry_after_s or 0.0) + ROUNDING_S)
        if pause_s == float("inf") or not engine.retries.left(clock.now()):
            return None
        yield pause_s
        if not engine.retries.spend(clock.now()):
            return None
        permit = engine.ask_once(over)
        if permit is not None:
            return permit
    return None


def wait_in_line(over: OverLimit, limit_s: float) -> Permit | None:
    """Wait for admission, first come, first served; None where it cannot come within `limit_s`."""
    woken = threading.Event()
    return _driven(over, in_line(over, limit_s, woken.set), woken)


def in_line(
    over: OverLimit, limit_s: float, wake: Callable[[], None]
) -> Generator[float, None, Permit | None]:
    """Yield how long to wait, or until woken, at each place of the line; return what came of it.

    Closing the generator leaves the queue.
    """
    if over.retry_after_s is not None and over.retry_after_s > limit_s:
        return None
    engine, clock = over.engine, over.engine.clock
    deadline = clock.now() + limit_s
    waiter, answer = engine.line_up(over, wake), None
    try:
        try:
            while True:
                now = clock.now()
                answer = engine.ask_again(waiter, now)
                if isinstance(answer, Permit):
                    return answer
                if over.retry_after_s == float("inf"):
                    return None
                left_s = deadline - now
                if left_s <= 0 or left_s < answer < float("inf"):
                    return None
                yield min(answer, left_s)
        finally:
            engine.leave(waiter)
    except BaseException as error:  # it may have struck in `finally`, before anything was done
        engine.interrupted(error)
        engine.leave(waiter)
        if isinstance(answer, Permit):
            answer.cancel()
        raise


def _driven(
    over: OverLimit, asking: Generator[float, None, Permit | None], woken: threading.Event
) -> Permit | None:
    """Wait on this thread wherever it is said to."""
    with closing(asking):
        try:
            while True:
                woken.clear()
                pause(over.engine.clock, woken, next(asking))
        except StopIteration as end:
            permit: Permit | None = end.value
            return permit


def wait_behind(
    over: OverLimit,
    woken: threading.Event,
    stopped: Callable[[], bool],
    look_every_s: float = float("inf"),
) -> Permit | None:
    """Wait for what all others leave, as what was set aside does; None once it is `stopped`.

    Whoever stops it sets `woken` afterwards; what is not told is seen by looking every so often.
    """
    engine = over.engine
    waiter, answer = engine.line_up_behind(over, woken.set), None
    try:
        try:
            while not stopped():
                woken.clear()
                answer = engine.ask_again(waiter)
                if isinstance(answer, Permit):
                    return answer
                if not stopped():
                    engine.clock.wait(woken, min(answer, look_every_s))
            return None
        finally:
            engine.leave(waiter)
    except BaseException as error:
        engine.interrupted(error)
        engine.leave(waiter)
        if isinstance(answer, Permit):
            answer.cancel()
        raise
