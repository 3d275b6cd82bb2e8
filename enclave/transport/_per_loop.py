"""Things that belong to one event loop, for a client that may be used in several."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from enclave._tasks import loop_is_over, running_loop

T = TypeVar("T")


class PerLoop(Generic[T]):
    """One thing for each event loop, made when it is first asked for.

    The loops may run one after the other, or at once in several threads.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[Any, T] = {}
        self._making = threading.Lock()

    def current(self) -> T:
        """The one of the running loop."""
        loop = running_loop()
        if loop not in self._made:
            with self._making:  # other threads may be here for their own event loops
                self._forget_loops_that_are_over()
                self._made[loop] = self._make()
        return self._made[loop]

    def pop(self) -> T | None:
        """The one of the running loop, which is then forgotten. None if it was never asked for."""
        with self._making:
            self._forget_loops_that_are_over()
            return self._made.pop(running_loop(), None)

    def _forget_loops_that_are_over(self) -> None:
        self._made = {loop: made for loop, made in self._made.items() if not loop_is_over(loop)}
