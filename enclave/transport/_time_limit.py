"""How long a request may take, and each step of it. One cancel scope keeps all of that."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import TracebackType
from typing import Self, cast

import anyio

from enclave._loop import clock
from enclave.errors import APITimeoutError, EnclaveError

Late = Callable[[float], EnclaveError]
"""Makes the error for a step that took longer than these seconds."""

_TOLERANCE = 0.01
"""What part of its time a step may lose. Moving a deadline costs half as much as entering a scope. So the deadline of
the step before stays where it is as good as right, and a write and a read that follow each other have the same one."""


class TimeLimit:
    """A ``with`` block that is cancelled, and then raises an `EnclaveError`, once it takes too long.

    It limits the whole and, where `step` is called, each step within. Entering a cancel scope costs more than most of
    the steps of a request do. So the block has one scope for all of them, and a new step only moves its deadline.

    Args:
        seconds: the time for the whole, from now on. None for no limit.
        what: what has not happened by then, to begin the message with.
    """

    __slots__ = ("_clock", "_deadline", "_ends_at", "_late", "_scope", "_seconds", "_step_seconds", "_what")

    def __init__(self, seconds: float | None, what: str) -> None:
        self._clock = clock()
        self._what = what
        self._seconds = self._step_seconds = seconds or 0.0
        self._ends_at = self._deadline = math.inf if seconds is None else self._clock() + seconds
        self._late: Late | None = None  # of the step, where that is what ends first
        self._scope: anyio.CancelScope | None = None

    def step(self, seconds: float | None, late: Late) -> None:
        """Begin a step, which ends the one before. It may be called before the block is entered.

        Args:
            seconds: the time for this step, from now on. None for no limit but that for the whole.
            late: makes the error that the block raises if the step takes longer.
        """
        scope = self._scope
        if scope is not None and scope.cancel_called:
            return  # the step before took too long, and the block is about to end for it
        ends_at = math.inf if seconds is None else self._clock() + seconds
        if seconds is not None and ends_at < self._ends_at:
            self._late, self._step_seconds = late, seconds
        else:
            ends_at, self._late, self._step_seconds = self._ends_at, None, self._seconds
        if not 0 <= ends_at - self._deadline <= self._step_seconds * _TOLERANCE:
            self._deadline = ends_at
            if scope is not None:
                scope.deadline = ends_at

    def rest(self) -> TimeLimit:
        """Another block, for what is left to do in what is left of the time for the whole."""
        other = TimeLimit(None, self._what)
        other._seconds = other._step_seconds = self._seconds
        other._ends_at = other._deadline = self._ends_at
        return other

    def __enter__(self) -> Self:
        self._scope = anyio.CancelScope(deadline=self._deadline)
        self._scope.__enter__()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        scope = cast("anyio.CancelScope", self._scope)
        is_swallowed = scope.__exit__(exc_type, exc, traceback)
        if not scope.cancelled_caught:
            return is_swallowed
        seconds = self._step_seconds
        late = self._late(seconds) if self._late else APITimeoutError(f"{self._what} within {seconds:g} s")
        try:
            raise late
        finally:
            late.__context__ = None  # the cancellation, whose frames hold headers
