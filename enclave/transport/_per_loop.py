"""Things that belong to one event loop, for a client that may be used in several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from enclave._loop import loop_is_over, running_loop

T = TypeVar("T")


class PerLoop(Generic[T]):
    """One thing for each event loop, made when it is first asked for.

    The loops may run one after the other, or at once in several threads.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        # Each thread changes the entry of its own event loop, so no lock is needed. A child that is forked while a
        # thread holds one would wait for it for ever.
        self._made: dict[Any, T] = {}

    def current(self) -> T:
        """The one of the running loop."""
        loop = running_loop()
        if loop not in self._made:
            self._forget_loops_that_are_over()
            self._made[loop] = self._make()
        return self._made[loop]

    def existing(self) -> T | None:
        """The one of the running loop. None if it was never asked for."""
        return self._made.get(running_loop())

    def pop(self) -> T | None:
        """The one of the running loop, which is then forgotten. None if it was never asked for."""
        self._forget_loops_that_are_over()
        return self._made.pop(running_loop(), None)

    def _forget_loops_that_are_over(self) -> None:
        for loop in list(self._made):
            if loop_is_over(loop):
                self._made.pop(loop, None)
