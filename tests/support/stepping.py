"""Cancels an operation after its n-th scheduling step, by every way there is, and says what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import anyio
import sniffio
import trio
from anyio.lowlevel import checkpoint

from tests.support import PATIENCE_SECONDS

WAYS = ("scope", "native", "native twice", "native thrice")
MAX_STEPS = 2_000

Operation = Callable[[], Awaitable[Any]]


@dataclass
class Attempt:
    """How an operation ended: with a value, with an exception, or cancelled."""

    value: Any = None
    completed: bool = False
    cancelled: bool = False
    error: BaseException | None = None
    was_due: bool = False
    """Whether the cancellation was asked for before the operation had ended."""


def ways() -> Iterator[str]:
    """The ways that the running event loop has. Trio knows only scopes."""
    yield from WAYS if sniffio.current_async_library() == "asyncio" else WAYS[:1]


async def cancel_at(step: int, operation: Operation, way: str) -> Attempt:
    """Run `operation`, cancel it after `step` scheduling steps, and wait for its end."""
    with anyio.fail_after(PATIENCE_SECONDS):
        if way == "scope":
            return await _cancel_scope_at(step, operation)
        return await _cancel_task_at(step, operation, times=WAYS.index(way))


async def _cancel_scope_at(step: int, operation: Operation) -> Attempt:
    attempt = Attempt()
    scope = anyio.CancelScope()
    ended = anyio.Event()

    async def run() -> None:
        try:
            with scope:
                attempt.value = await operation()
                attempt.completed = True
        except Exception as error:  # noqa: BLE001 - the tests look at it
            attempt.error = error
        attempt.cancelled = scope.cancelled_caught
        ended.set()

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(run)
        for _ in range(step):
            if ended.is_set():
                break
            await checkpoint()
        attempt.was_due = not ended.is_set()
        scope.cancel()
        await ended.wait()
    return attempt


async def _cancel_task_at(step: int, operation: Operation, *, times: int) -> Attempt:
    attempt = Attempt()
    task = asyncio.ensure_future(operation())
    for _ in range(step):
        if task.done():
            break
        await asyncio.sleep(0)
    attempt.was_due = not task.done()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([task])
    attempt.cancelled = task.cancelled()
    if not attempt.cancelled:
        attempt.error = task.exception()
        attempt.completed = attempt.error is None
        attempt.value = task.result() if attempt.completed else None
    return attempt


def pending_tasks() -> set[Any]:
    """Every task of the running event loop."""
    if sniffio.current_async_library() == "asyncio":
        return set(asyncio.all_tasks())
    root = trio.lowlevel.current_root_task()
    found, queue = set(), [root]
    while queue:
        task = queue.pop()
        found.add(task)
        queue.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
    return found
