"""A program for `test_interrupt`: Ctrl-C is pressed the moment a background task's group is entered, or in its work."""

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


async def result(client: EnclaveClient) -> None:
    async with client.session("pass") as session:
        enclave._tasks.anyio = InterruptedAnyio()
        await session.result()


async def session(client: EnclaveClient) -> None:
    enclave._tasks.anyio = InterruptedAnyio()
    async with client.session("pass") as session:
        await session.result()


async def stream(client: EnclaveClient) -> None:
    enclave._tasks.anyio = InterruptedAnyio()
    async with client.stream("s-1") as frames:
        async for _ in frames:
            pass


async def fan_out(client: EnclaveClient) -> None:
    enclave._tasks.anyio = InterruptedAnyio()
    async with client.fan_out(["pass"]) as outcomes:
        async for _ in outcomes:
            pass


async def teardown(client: EnclaveClient) -> None:
    async with client.session("pass"):
        Token.is_pressing = True


class Token:
    """A token callable. Ctrl-C is pressed in the task that asks for it, once that is asked for."""

    is_pressing = False

    async def __call__(self) -> str:
        if Token.is_pressing:
            Token.is_pressing = False
            signal.raise_signal(signal.SIGINT)
        return "a-token"


ACTIONS = {action.__name__: action for action in (result, session, stream, fan_out, teardown)}


async def main(base_url: str, action: str) -> None:
    async with EnclaveClient(base_url, token=Token()) as client:
        await ACTIONS[action](client)
    await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, *sys.argv[2:], backend=sys.argv[1])
