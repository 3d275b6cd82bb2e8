"""Every way in which the operation of a test may be cancelled from outside, for each event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import sniffio
import trio
from anyio.lowlevel import checkpoint

from tests.support.plane import Gate

Operation = Callable[[], Awaitable[Any]]
ROUNDS_BEFORE_RELEASE = 5


class Moment:
    """The time to cancel: the gate is reached. The server goes on once the cancellation has done its worst."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._come = anyio.Event()

    async def __call__(self) -> None:
        await self._gate.wait()
        self._come.set()

    async def release_after(self) -> None:
        await self._come.wait()
        for _ in range(ROUNDS_BEFORE_RELEASE):
            await checkpoint()
        self._gate.opened.set()


Due = Callable[[], Awaitable[None]]
"""Returns when it is time to cancel."""


class SiblingError(Exception):
    """What a sibling task fails with."""


async def _anyio_cancel(operation: Operation, moment: Due) -> bool:
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(_then, moment, scope.cancel)
            await operation()
    return scope.cancelled_caught


async def _anyio_deadline(operation: Operation, moment: Due) -> bool:
    with anyio.move_on_after(60) as scope:
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(_then, moment, lambda: setattr(scope, "deadline", anyio.current_time()))
            await operation()
    return scope.cancelled_caught


async def _anyio_sibling(operation: Operation, moment: Due) -> bool:
    failures = 0
    try:
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(_then, moment, _fail)
            await operation()
    except* SiblingError as group:
        failures = len(group.exceptions)
    return failures == 1


def _task_cancel(times: int) -> Callable[[Operation, Due], Awaitable[bool]]:
    async def cancel(operation: Operation, moment: Due) -> bool:
        task = asyncio.ensure_future(operation())
        await moment()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([task])
        return task.cancelled()

    return cancel


async def _asyncio_timeout(operation: Operation, moment: Due) -> bool:
    try:
        async with asyncio.timeout(None) as timeout:
            now = asyncio.get_running_loop().time
            trigger = asyncio.create_task(_then(moment, lambda: timeout.reschedule(now())))
            await operation()
    except TimeoutError:
        return trigger.done()
    return False


async def _asyncio_sibling(operation: Operation, moment: Due) -> bool:
    failures = 0
    try:
        async with asyncio.TaskGroup() as task_group:
            task_group.create_task(_then(moment, _fail))
            task_group.create_task(operation())
    except* SiblingError as group:
        failures = len(group.exceptions)
    return failures == 1


async def _trio_deadline(operation: Operation, moment: Due) -> bool:
    with trio.move_on_after(60) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_then, moment, lambda: setattr(scope, "deadline", trio.current_time()))
            await operation()
    return scope.cancelled_caught


async def _trio_nursery(operation: Operation, moment: Due) -> bool:
    ended = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_then, moment, nursery.cancel_scope.cancel)
        await operation()
        ended = True
    return not ended


async def _trio_sibling(operation: Operation, moment: Due) -> bool:
    failures = 0
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_then, moment, _fail)
            await operation()
    except* SiblingError as group:
        failures = len(group.exceptions)
    return failures == 1


async def _then(moment: Due, act: Callable[[], object]) -> None:
    await moment()
    act()


def _fail() -> None:
    raise SiblingError


_ANYIO = {
    "anyio scope": _anyio_cancel,
    "anyio deadline": _anyio_deadline,
    "anyio sibling": _anyio_sibling,
}
_ASYNCIO = {
    "task once": _task_cancel(1),
    "task twice": _task_cancel(2),
    "task thrice": _task_cancel(3),
    "asyncio.timeout": _asyncio_timeout,
    "asyncio sibling": _asyncio_sibling,
}
_TRIO = {"trio deadline": _trio_deadline, "trio nursery": _trio_nursery, "trio sibling": _trio_sibling}

WAYS_BY_LOOP = {"asyncio": _ANYIO | _ASYNCIO, "trio": _ANYIO | _TRIO}
"""For each loop and way: a function that runs an operation, cancels it at a moment, and tells whether it was."""


def running_ways() -> dict[str, Callable[[Operation, Due], Awaitable[bool]]]:
    """Those of the running event loop."""
    return WAYS_BY_LOOP[sniffio.current_async_library()]
