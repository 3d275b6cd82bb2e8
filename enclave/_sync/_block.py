"""`Block`: an async context manager of the async client's, as a plain one, and `IteratedBlock`: one to iterate over."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, TypeVar

from enclave.errors import UsageError

from ._driver import reworded
from ._mirror import Blocking
from ._work import Held

A = TypeVar("A", bound=AbstractAsyncContextManager[Any])
T = TypeVar("T")


class Block(Blocking[A], Generic[A]):
    """A block that a task on the loop holds open, from `_enter` to `_leave`.

    One that nothing refers to any more is left soon. In a forked child, the blocks of the parent stay as they are: they
    are the parent's to leave.
    """

    _held: Held[Any] | None = None

    def _enter(self) -> Any:
        with reworded():
            held = Held(self._driver.loop(), self._async)
            self._held, value = held, held.enter()
        return value

    def _leave(self, body_error: BaseException | None = None) -> None:
        held = self._held
        if held is None or held.is_over or not held.is_of_this_process:
            return
        with reworded():
            held.leave(body_error)

    def _check_process(self) -> None:
        if self._held is not None and not self._held.is_of_this_process:
            raise UsageError(
                f"this {type(self).__name__} was opened in the process that this one was forked from. Open another one"
            )

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave(exc)

    def __del__(self) -> None:
        if self._held is not None:
            self._held.leave_soon()


class IteratedBlock(Block[A], Generic[A]):
    """A block to iterate over, with ``with`` or without it. Without it, iterating opens the block and closes it."""

    _is_in_block = False  # of a ``with``
    _is_through = False  # without one, and iterating has closed it

    def _waited(self, wait: Callable[[], T]) -> T:
        """What a wait for the next item gives. If it gives none, iterating is over."""
        try:
            return wait()
        except StopAsyncIteration:
            self._end_alone()
            raise StopIteration from None
        except BaseException:
            self._end_alone()
            raise

    def _end_alone(self) -> None:
        if not self._is_in_block:
            self._is_through = True
            self._leave()
