"""A program for `test_interrupt`: Ctrl-C is pressed the moment a background task is begun, before that is noted."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any, Self

import anyio

import enclave._owned_task
from enclave import EnclaveClient
from enclave._loop import open_nursery


class Key:
    """Ctrl-C, pressed once."""

    pressed = False

    @classmethod
    def press(cls) -> None:
        if not cls.pressed:
            cls.pressed = True
            signal.raise_signal(signal.SIGINT)


class InterruptedNursery:
    """On trio a background task is in a nursery."""

    def __init__(self) -> None:
        self._nursery = open_nursery()

    async def __aenter__(self) -> Self:
        self._entered = await self._nursery.__aenter__()
        Key.press()
        return self

    async def __aexit__(self, *exc_info: object) -> bool | None:
        return await self._nursery.__aexit__(*exc_info)

    def start_soon(self, *arguments: Any, **options: Any) -> None:
        self._entered.start_soon(*arguments, **options)


def interrupt_asyncio() -> None:
    """On asyncio a background task is a task of the loop's."""
    loop = asyncio.get_running_loop()
    create_task = loop.create_task

    def interrupted(*arguments: Any, **options: Any) -> Any:
        task = create_task(*arguments, **options)
        Key.press()
        return task

    loop.create_task = interrupted


def interrupt_the_next_task(backend: str) -> None:
    if backend == "asyncio":
        interrupt_asyncio()
    else:
        enclave._owned_task.open_nursery = InterruptedNursery


async def result(client: EnclaveClient, backend: str) -> None:
    async with client.session("pass") as session:
        interrupt_the_next_task(backend)
        await session.result()


async def session(client: EnclaveClient, backend: str) -> None:
    interrupt_the_next_task(backend)
    async with client.session("pass") as session:
        await session.result()


async def stream(client: EnclaveClient, backend: str) -> None:
    interrupt_the_next_task(backend)
    async with client.stream("s-1") as frames:
        async for _ in frames:
            pass


async def fan_out(client: EnclaveClient, backend: str) -> None:
    interrupt_the_next_task(backend)
    async with client.fan_out(["pass"]) as outcomes:
        async for _ in outcomes:
            pass


async def teardown(client: EnclaveClient, _: str) -> None:
    async with client.session("pass"):
        Token.is_pressing = True


class Token:
    """A token callable. Ctrl-C is pressed in the task that asks for it, once that is asked for."""

    is_pressing = False

    async def __call__(self) -> str:
        if Token.is_pressing:
            Token.is_pressing = False
            Key.press()
        return "a-token"


ACTIONS = {action.__name__: action for action in (result, session, stream, fan_out, teardown)}


async def main(backend: str, base_url: str, action: str) -> None:
    async with EnclaveClient(base_url, token=Token()) as client:
        await ACTIONS[action](client, backend)
    await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:], backend=sys.argv[1])
