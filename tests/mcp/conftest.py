"""A real simulator, and the SDK's own client of our server: over stdio to a process, or inside this one."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

pytest.importorskip("mcp.server", reason="the extra mcp is not installed")

import mcp_types as types
from mcp import Client, StdioServerParameters, stdio_client

from enclave import EnclaveClient
from enclave.mcp._server import make_server
from enclave.simulator import Simulator

TIMEOUT_SECONDS = 90  # a server takes a second to start, and half a minute on a machine that is overloaded
COMMAND = [sys.executable, "-W", "error", "-m", "enclave.mcp"]


class Host:
    """What a host sees of one connection."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.client: Client
        self.logs: list[tuple[str | None, str]] = []
        self.progress: list[tuple[float, str | None]] = []
        self._changed = anyio.Event()

    async def log(self, params: types.LoggingMessageNotificationParams) -> None:
        self.logs.append((params.logger, params.data))
        self._wake()

    async def call(self, name: str, **arguments: Any) -> types.CallToolResult:
        return await self.client.call_tool(name, arguments, progress_callback=self._note_progress)

    async def run(self, code: str = "x", **arguments: Any) -> dict[str, Any]:
        """The outcome of a run that is no tool error."""
        answer = await self.call("run_code", code=code, **arguments)
        assert not answer.is_error, answer.content
        return answer.structured_content

    async def error(self, name: str, **arguments: Any) -> str:
        """The text of a tool error."""
        answer = await self.call(name, **arguments)
        assert answer.is_error
        (content,) = answer.content
        assert "\n" not in content.text
        return content.text

    async def until(self, condition: Callable[[Host], bool]) -> None:
        while not condition(self):
            await self._changed.wait()

    @property
    def told(self) -> str:
        return "".join(text for _, text in self.logs)

    async def _note_progress(self, done: float, total: float | None, message: str | None) -> None:
        self.progress.append((done, message))
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


def environment(simulator: Simulator) -> dict[str, str]:
    return {"ENCLAVE_BASE_URL": simulator.base_url, "ENCLAVE_API_KEY": simulator.api_key}


@asynccontextmanager
async def _hosting(
    *, stdio: bool = False, mode: str = "legacy", client_options: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Host]:
    async with Simulator(**options).serve() as simulator:
        host = Host(simulator)
        server: Any
        if stdio:
            command = StdioServerParameters(command=COMMAND[0], args=COMMAND[1:], env=environment(simulator))
            server = stdio_client(command)
        else:
            client_options = {"base_url": simulator.base_url, "api_key": simulator.api_key} | (client_options or {})
            server = make_server(lambda: EnclaveClient(**client_options))
        with anyio.fail_after(TIMEOUT_SECONDS):
            async with Client(server, mode=mode, logging_callback=host.log, log_level="info") as host.client:
                yield host


@pytest.fixture
def hosting():
    """`async with hosting(stdio=False, mode="legacy", client_options={}, **options_of_Simulator) as host:`."""
    return _hosting
