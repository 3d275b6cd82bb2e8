"""What a task group of anyio's leaves to do: coroutines that never began, and exceptions that come in a group."""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Iterable
from contextlib import contextmanager
from typing import Any

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
    """Let what ended a task group out of the exception group that it comes in."""
    try:
        yield
    except BaseExceptionGroup as group:
        # The first one cancelled the other tasks, and what these raised on their way out says less.
        first: BaseException = group.exceptions[0]
        raise first from first.__cause__
