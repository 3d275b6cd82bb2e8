"""The command over real stdio: the SDK's own client, the bare protocol, and every way in which a host ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import entry_points
from typing import Any

import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from enclave import StderrFrame, StdoutFrame
from enclave.simulator import Simulator

pytest.importorskip("mcp.server", reason="the extra mcp is not installed")

TIMEOUT_SECONDS = 90  # a server takes a second to start, and half a minute on a machine that is overloaded
COMMAND = [sys.executable, "-W", "error", "-m", "enclave.mcp"]
REAL_CODE = """
import socket, sys
print("to stdout")
print("to stderr", file=sys.stderr)
try:
    socket.create_connection(("169.254.169.254", 80), timeout=5)
except OSError:
    pass
enclave.result({"answer": 285})
"""


@pytest.mark.parametrize(("mode", "anyio_backend"), [("legacy", "asyncio"), ("auto", "trio")])
async def test_a_host_runs_code_and_sees_output_while_it_runs(hosting, mode) -> None:
    async with hosting(stdio=True, mode=mode) as host:
        names = [tool.name for tool in (await host.client.list_tools()).tools]
        assert names == ["run_code", "get_result", "get_audit", "list_sessions", "teardown_session"]

        script = host.simulator.script([StdoutFrame("first\n")], result={"n": 1}, hold=True)
        outcomes = []

        async def run() -> None:
            outcomes.append(await host.run("never run"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await host.until(lambda host: ("stdout", "first\n") in host.logs)
            assert outcomes == []
            script.push(StderrFrame("second\n"))
            await host.until(lambda host: ("stderr", "second\n") in host.logs)
            await host.until(lambda host: any(message == "stderr: second" for _, message in host.progress))
            assert outcomes == []
            script.release()
        assert (outcomes[0]["exitCode"], outcomes[0]["json"]) == (0, {"n": 1})
        assert (outcomes[0]["stdout"]["tail"], outcomes[0]["stderr"]["tail"]) == ("first\n", "second\n")

        outcome = await host.run(REAL_CODE)
        assert (outcome["phase"], outcome["exitCode"], outcome["json"]) == ("succeeded", 0, {"answer": 285})
        assert outcome["deniedEgress"] == [{"host": "169.254.169.254", "attempts": 1}]
        assert (outcome["stdout"]["tail"], outcome["stderr"]["tail"]) == ("to stdout\n", "to stderr\n")
        assert set(host.simulator.phases.values()) == {"torn_down"}
        assert host.simulator.unreclaimed_sessions == 0


@pytest.mark.parametrize(("mode", "anyio_backend"), [("legacy", "asyncio"), ("auto", "trio")])
async def test_a_host_that_cancels_a_call_has_the_session_torn_down_and_can_go_on(hosting, mode) -> None:
    async with hosting(stdio=True, mode=mode) as host:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(host.call, "none")  # as a neighbour that goes on
            tasks.cancel_scope.cancel()
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                await host.run("print('up', flush=True)\nimport time\ntime.sleep(600)")

            tasks.start_soon(run)
            await host.until(lambda host: "up" in host.told)
            tasks.cancel_scope.cancel()
        await host.simulator.until(lambda simulator: set(simulator.phases.values()) == {"torn_down"})
        await host.simulator.until(lambda simulator: simulator.unreclaimed_sessions == 0)
        assert (await host.run("enclave.result('still here')"))["json"] == "still here"


class Process:
    """The command, spoken to in the bare protocol."""

    def __init__(self, process: anyio.abc.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self._stdout = BufferedByteReceiveStream(process.stdout)

    async def send(self, method: str, params: dict[str, Any], id_: int | None = None) -> None:
        message = {"jsonrpc": "2.0", "method": method, "params": params} | ({} if id_ is None else {"id": id_})
        await self.process.stdin.send(json.dumps(message).encode() + b"\n")

    async def receive(self) -> dict[str, Any]:
        line = json.loads(await self._stdout.receive_until(b"\n", 1_000_000))
        assert line["jsonrpc"] == "2.0"
        self.lines.append(line)
        return line

    async def receive_until(self, method: str) -> None:
        while (await self.receive()).get("method") != method:
            pass

    async def rest(self) -> bytes:
        """What remains of standard output once the process closed it."""
        try:
            while True:
                await self.receive()
        except anyio.IncompleteRead:
            return self._stdout.buffer

    async def initialize(self) -> None:
        client = {"name": "test", "version": "1"}
        await self.send(
            "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}, id_=1
        )
        assert (await self.receive())["result"]["serverInfo"]["name"] == "enclave"
        await self.send("notifications/initialized", {})

    async def start_run(self) -> None:
        """Call run_code, and wait for the first output."""
        await self.send("tools/call", {"name": "run_code", "arguments": {"code": "x"}}, id_=2)
        await self.receive_until("notifications/message")


@asynccontextmanager
async def launched(simulator: Simulator | None, *arguments: str) -> AsyncIterator[Process]:
    environment = {**os.environ}
    if simulator is not None:
        environment |= {"ENCLAVE_BASE_URL": simulator.base_url, "ENCLAVE_API_KEY": simulator.api_key}
    with anyio.fail_after(TIMEOUT_SECONDS):
        process = await anyio.open_process([*COMMAND, *arguments], env=environment, stderr=subprocess.PIPE)
        async with process:
            yield Process(process)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("way", ["closes stdin", "sends SIGTERM", "sends SIGINT", "sends SIGHUP", "closes stdout"])
async def test_a_host_that_goes_away_leaves_no_session_behind(way) -> None:
    async with Simulator().serve() as simulator, launched(simulator) as server:
        script = simulator.script([StdoutFrame("up")], hold=True)
        await server.initialize()
        await server.start_run()
        assert list(simulator.phases.values()) == ["running"]
        if way == "closes stdin":
            await server.process.stdin.aclose()
        elif way == "closes stdout":
            # anyio's own aclose() leaves the pipe open
            server.process._process._transport.get_pipe_transport(1).close()
            script.push(StdoutFrame("nobody reads this"))
        else:
            server.process.send_signal(signal.Signals[way.removeprefix("sends ")])
        await simulator.until(lambda simulator: list(simulator.phases.values()) == ["torn_down"])
        if way == "closes stdout":
            assert await server.process.wait() == 1
            assert b"Traceback" not in (await server.process.stderr.receive())
        else:
            assert await server.rest() == b""
            assert await server.process.wait() == 0
            with pytest.raises(anyio.EndOfStream):
                await server.process.stderr.receive()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("way", ["closes stdin", "sends SIGTERM"])
async def test_a_host_that_stopped_reading_can_still_end_it_and_leaves_no_session_behind(way) -> None:
    async with Simulator().serve() as simulator, launched(simulator) as server:
        script = simulator.script([StdoutFrame("up")], hold=True)
        await server.initialize()
        await server.start_run()
        script.push(*[StdoutFrame("x" * 1000)] * 1000)
        if way == "closes stdin":
            await server.process.stdin.aclose()
        else:
            server.process.send_signal(signal.SIGTERM)
        assert await server.process.wait() == 0
        assert list(simulator.phases.values()) == ["torn_down"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_half_a_character_in_an_argument_is_replaced_and_the_call_answered() -> None:
    async with Simulator().serve() as simulator, launched(simulator) as server:
        await server.initialize()
        code = "enclave.result('caf\u00e9 \U0001f40d|\ud83d|')"
        await server.send("tools/call", {"name": "run_code", "arguments": {"code": code}}, id_=2)
        while (answer := await server.receive()).get("id") != 2:
            pass
        assert answer["result"]["structuredContent"]["json"] == "café \U0001f40d|\ufffd|"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_local_needs_no_server_and_ends_with_the_command() -> None:
    async with launched(None, "--local") as server:
        await server.initialize()
        code = "import sys; print(sys.stdin.read(), flush=True)"
        await server.send("tools/call", {"name": "run_code", "arguments": {"code": code}}, id_=2)
        while (answer := await server.receive()).get("id") != 2:
            pass
        outcome = answer["result"]["structuredContent"]
        assert (outcome["phase"], outcome["stdout"]["tail"]) == ("succeeded", "\n")
        server.process.send_signal(signal.SIGTERM)
        assert await server.process.wait() == 0
        with pytest.raises(anyio.EndOfStream):
            await server.process.stderr.receive()


def test_without_a_base_url_it_says_so_in_one_line_and_does_not_start() -> None:
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("enclave-mcp: ")
    assert "ENCLAVE_BASE_URL" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("missing", "arguments", "extra"), [("mcp", [], "mcp"), ("h11", ["--local"], "mcp,simulator")])
def test_without_the_extra_it_says_what_to_install(monkeypatch, missing, arguments, extra) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None; "
        f"from enclave.mcp.__main__ import main; sys.exit(main({arguments}))"
    )
    monkeypatch.setenv("ENCLAVE_BASE_URL", "http://127.0.0.1:1")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(f" is missing: pip install 'enclave-sdk[{extra}]'\n")
    assert done.stderr.count("\n") == 1


def test_it_is_installed_as_a_command() -> None:
    scripts = entry_points(group="console_scripts", name="enclave-mcp")
    assert [script.value for script in scripts] == ["enclave.mcp.__main__:main"]


def test_its_help_names_the_variables_it_reads() -> None:
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=True)
    assert "ENCLAVE_BASE_URL" in done.stdout
    assert "ENCLAVE_API_KEY" in done.stdout
