"""An object that belongs to the event loop of another thread, used from this one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any


class Remote:
    """Reads an object's attributes, and calls its methods, on its event loop, and waits for the result.

    That loop never waits for this thread, so it is safe to wait for it here, in a coroutine too. It takes microseconds.

    Args:
        call: calls a function there.
        target: the object.
    """

    def __init__(self, call: Callable[[Callable[[], Any]], Any], target: object) -> None:
        self._call_there = call
        self._target = target

    def __getattr__(self, name: str) -> Any:
        value = self._call_there(partial(getattr, self._target, name))
        return partial(self._call, value) if callable(value) else value

    # Positional only, because faults have an argument `method` too.
    def _call(self, method: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return self._call_there(partial(method, *args, **kwargs))

    def __repr__(self) -> str:
        return repr(self._target)
