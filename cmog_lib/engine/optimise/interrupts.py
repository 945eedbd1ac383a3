"""Ctrl-C waits for the end of a step: JAX that is interrupted while it traces may be of no more use to its process."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
_pressed = False


def interruptible(function: Callable[P, R]) -> Callable[P, R]:
    """While `function` runs, Ctrl-C waits until it calls `look`; a second Ctrl-C does not wait.

    Outside the main thread, and where somebody else listens for Ctrl-C, nothing is changed.
    """

    def hear(*_: Any) -> None:
        global _pressed
        if _pressed:
            raise KeyboardInterrupt
        _pressed = True

    @functools.wraps(function)
    def wrapped(*args: P.args, **options: P.kwargs) -> R:
        global _pressed
        main = threading.current_thread() is threading.main_thread()
        if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            return function(*args, **options)
        _pressed = False
        signal.signal(signal.SIGINT, hear)
        try:
            return function(*args, **options)
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    return wrapped


def look() -> None:
    """Raises the KeyboardInterrupt that has been waiting, if there is one."""
    global _pressed
    if _pressed:
        _pressed = False
        raise KeyboardInterrupt
