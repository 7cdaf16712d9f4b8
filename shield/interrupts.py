"""Exceptions that a signal's handler raises: nobody who is interrupted by one has failed.

Celery's time limit, rq's and others are an `Exception`, so that code which isolates a plugin's
errors would take them for one, and a task would go on beyond its limit.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import CodeType, TracebackType
from typing import Any


def is_from_outside(error: BaseException) -> bool:
    """Tell whether a signal's handler raised it."""
    handlers = {code for number in signal.valid_signals() for code in _code_of(number)}
    return any(code in handlers for code in _codes(error.__traceback__))


def _code_of(number: signal.Signals | int) -> Iterator[CodeType]:
    handler: Any = signal.getsignal(number)
    while hasattr(handler, "func"):  # a partial
        handler = handler.func
    function = getattr(handler, "__func__", handler)
    code = getattr(function, "__code__", None) or _code_of_call(function)
    if isinstance(code, CodeType):
        yield code


def _code_of_call(handler: object) -> object:
    return getattr(getattr(type(handler), "__call__", None), "__code__", None)  # noqa: B004


def _codes(traceback: TracebackType | None) -> Iterator[CodeType]:
    while traceback is not None:
        yield traceback.tb_frame.f_code
        traceback = traceback.tb_next
