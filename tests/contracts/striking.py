"""Exceptions from outside, at each moment at which Python lets one in.

CPython runs signals' handlers, and raises what one thread has set upon another, where a function
begins, after a call of C code, and where a loop begins again; nowhere else. `strikes` has one
raised at the first such moment of an action, then at the second, and so on to the last.
"""

from __future__ import annotations

import dis
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import CodeType, FrameType
from typing import Any

CALLS = {dis.opmap[name] for name in ("CALL", "CALL_FUNCTION_EX") if name in dis.opmap}
LOOPS = {dis.opmap[name] for name in ("JUMP_BACKWARD", "POP_JUMP_BACKWARD_IF_TRUE",
         "POP_JUMP_BACKWARD_IF_FALSE", "POP_JUMP_BACKWARD_IF_NONE",
         "POP_JUMP_BACKWARD_IF_NOT_NONE") if name in dis.opmap}  # fmt: skip

NO_MOMENT = ("<genexpr>",)
"""What Python also calls to end it: then it says what is raised there, and goes on."""


class Struck(BaseException):
    """What a handler raises."""


class _Tracer:
    """Raises at the k-th moment, counted in the code of the Shield and of its adapters."""

    def __init__(self, moment: int, error: BaseException) -> None:
        self.left = moment
        self.error = error
        self.place = ""
        self._last: tuple[FrameType | None, int] = (None, 0)
        self._at = 0

    def __call__(self, frame: FrameType, event: str, _arg: Any) -> Any:
        if event == "call":
            if not _is_ours(frame) or frame.f_code.co_name in NO_MOMENT:
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            self._last = (None, 0)
            self._moment(frame)
        elif event == "return":
            self._last = (None, 0)
        elif event == "opcode":
            last_frame, last = self._last
            code = frame.f_code.co_code[frame.f_lasti]
            self._last = (frame, code)
            before, self._at = self._at, frame.f_lasti
            lets_in = last_frame is frame and (last in CALLS or last in LOOPS)
            if lets_in and _handler(frame.f_code, before) == _handler(frame.f_code, self._at):
                self._moment(frame)
        return self

    def forget(self) -> None:
        """Hold no frame any more."""
        self._last = (None, 0)

    def _moment(self, frame: FrameType) -> None:
        self.left -= 1
        if self.left == 0:
            code = frame.f_code
            self.place = f"{code.co_filename.rpartition('/')[2]}:{frame.f_lineno} {code.co_name}"
            raise self.error


@cache
def _handler(code: CodeType, at: int) -> object:
    """Return where an exception goes that is raised by an instruction.

    A call lets it in, but a tracer comes after that: it cannot raise in its place where a `try` or
    a `with` has ended in between.
    """
    entries = dis._parse_exception_table(code)  # type: ignore[attr-defined]
    return next((e.target for e in reversed(entries) if e.start <= at < e.end), None)


def _is_ours(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__", "")
    return name.partition(".")[0] in ("shield", "shield_kafka", "shield_rabbitmq") and (
        not name.startswith("shield.testing")
    )


@contextmanager
def _traced(tracer: _Tracer) -> Iterator[None]:
    before = sys.gettrace()
    gc.disable()  # what it collects may have a `__del__`: what is raised there Python only says
    sys.settrace(tracer)
    try:
        yield
    finally:
        sys.settrace(before)
        tracer.forget()
        gc.enable()


def strikes(
    make: Callable[[], Callable[[], object]],
    check: Callable[[str], None],
    error: Callable[[], BaseException] = Struck,
) -> int:
    """Strike an action at each of its moments in turn; return how many there are.

    Args:
        make: returns the action anew; what it needs is made here, where nothing strikes.
        check: looks at what is left afterwards; it is told where the exception has struck.
        error: what is raised.
    """
    moment, made = 0, []
    while True:
        moment += 1
        action, raised = make(), error()
        made.append(action)  # what it needs does not go away while others are struck
        tracer = _Tracer(moment, raised)
        try:
            with _traced(tracer):
                action()
        except BaseException as arrived:
            if arrived is not raised:
                raise AssertionError(
                    f"struck at {tracer.place}, what came is {arrived!r}"
                ) from None
        else:
            assert not tracer.place, f"struck at {tracer.place}, it was swallowed"
        raised.__traceback__ = raised.__context__ = None  # they hold what its frames held
        del raised, action
        tracer.error = Struck()
        if not tracer.place:
            return moment - 1
        check(tracer.place)
        assert moment < 20_000
