"""A program for `test_interrupt`: holds a session on one loop until somebody presses Ctrl-C."""

from __future__ import annotations

import sys

import anyio

from enclave import EnclaveClient


async def main(base_url: str, scenario: str) -> None:
    async with EnclaveClient(base_url) as client:
        if scenario == "run":
            await client.run("pass")
        elif scenario == "session":
            async with client.session("pass") as session:
                await session.result()
                await anyio.sleep_forever()
        else:
            await client.map(["pass"] * 3)
    await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, *sys.argv[2:], backend=sys.argv[1])
