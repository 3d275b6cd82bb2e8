"""What a task group of anyio's leaves to do: coroutines that never began, and exceptions that come in a group."""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Iterable
from contextlib import contextmanager
from typing import Any, cast

from anyio.abc import TaskGroup


def start_coroutine(tasks: TaskGroup, coroutine: Coroutine[Any, Any, object], name: str) -> None:
    """Run a coroutine in a task of a group. For `close_unbegun`: a task group itself takes a function."""
    tasks.start_soon(lambda: coroutine, name=f"enclave: {name}")


def close_unbegun(coroutines: Iterable[Coroutine[Any, Any, object]]) -> None:
    """Call this when a task group has ended, with what it was to run and may never have begun.

    asyncio never begins a task that is cancelled before its first step, and Python warns of its coroutine.
    """
    for coroutine in coroutines:
        coroutine.close()


@contextmanager
def plain_exceptions() -> Generator[None]:
    """Let an exception that a task group wrapped out of its group."""
    try:
        yield
    except BaseExceptionGroup as group:
        inner = _only_one(group)
        if inner is None:
            raise
        raise inner from inner.__cause__


def _only_one(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    if len(group.exceptions) != 1:
        return None
    inner = group.exceptions[0]
    if not isinstance(inner, BaseExceptionGroup):
        return inner
    return _only_one(cast("BaseExceptionGroup[BaseException]", inner))
