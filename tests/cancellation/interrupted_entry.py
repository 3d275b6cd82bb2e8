"""A program for `test_interrupt`: Ctrl-C is pressed the moment a background task is begun, before that is noted."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any, Self

import anyio

import enclave._tasks
from enclave import EnclaveClient


class Key:
    """Ctrl-C, pressed once."""

    pressed = False

    @classmethod
    def press(cls) -> None:
        if not cls.pressed:
            cls.pressed = True
            signal.raise_signal(signal.SIGINT)


class InterruptedGroup:
    """On trio a background task is in a task group."""

    def __init__(self) -> None:
        self._group = anyio.create_task_group()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        Key.press()
        return self

    async def __aexit__(self, *exc_info: object) -> bool | None:
        return await self._group.__aexit__(*exc_info)

    def start_soon(self, *arguments: Any, **options: Any) -> None:
        self._group.start_soon(*arguments, **options)


class InterruptedAnyio:
    """What one module sees as `anyio`."""

    create_task_group = InterruptedGroup

    def __getattr__(self, name: str) -> Any:
        return getattr(anyio, name)


def interrupt_asyncio() -> None:
    """On asyncio a background task is a task of the loop's."""
    loop = asyncio.get_running_loop()
    create_task = loop.create_task

    def interrupted(*arguments: Any, **options: Any) -> Any:
        task = create_task(*arguments, **options)
        Key.press()
        return task

    loop.create_task = interrupted


async def main(backend: str, base_url: str) -> None:
    async with EnclaveClient(base_url) as client, client.session("pass") as session:
        if backend == "asyncio":
            interrupt_asyncio()
        else:
            enclave._tasks.anyio = InterruptedAnyio()
        await session.result()
    await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:], backend=sys.argv[1])
