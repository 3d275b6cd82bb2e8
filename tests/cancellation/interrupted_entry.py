"""A program for `test_interrupt`: Ctrl-C is pressed the moment a background task's group is entered."""

from __future__ import annotations

import signal
import sys
from typing import Any, Self

import anyio

import enclave._tasks
from enclave import EnclaveClient


class InterruptedGroup:
    """A task group, but for the signal, which comes with the first group alone."""

    pressed = False

    def __init__(self) -> None:
        self._group = anyio.create_task_group()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        if not InterruptedGroup.pressed:
            InterruptedGroup.pressed = True
            signal.raise_signal(signal.SIGINT)
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


async def main(base_url: str) -> None:
    async with EnclaveClient(base_url) as client, client.session("pass") as session:
        enclave._tasks.anyio = InterruptedAnyio()
        await session.result()
    await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, *sys.argv[2:], backend=sys.argv[1])
