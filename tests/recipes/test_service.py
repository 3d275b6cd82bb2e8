"""The service of recipes/fastapi.md behind a real uvicorn: clients that leave or do not read, and how it stops."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx
import pytest

from enclave import AuthenticationError, EnclaveClient, StdoutFrame
from enclave.simulator import Simulator
from tests.support.programs import is_installed

PAGE = "docs/recipes/fastapi.md"
LIMIT_SECONDS = 60

if not is_installed(PAGE):
    pytest.skip("the group recipes is not installed", allow_module_level=True)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def post(path: str, code: str) -> bytes:
    body = json.dumps({"code": code}).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return f"{head}connection: close\r\n\r\n".encode() + body


class Service:
    def __init__(self, port: int, process: asyncio.subprocess.Process) -> None:
        self.port = port
        self.process = process

    async def ask(self, path: str, code: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(post(path, code))
        return reader, writer


@asynccontextmanager
async def served(folder, sim: Simulator, *options: str) -> AsyncGenerator[Service]:
    environment = os.environ | {"ENCLAVE_BASE_URL": sim.base_url, "ENCLAVE_API_KEY": sim.api_key}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "uvicorn", "service:app", "--fd", str(listener.fileno()), *options),
            cwd=folder,
            env=environment,
            pass_fds=[listener.fileno()],
            stderr=asyncio.subprocess.PIPE,
        )
    try:
        yield Service(port, process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("path", ["/run", "/follow"])
async def test_a_client_that_leaves_takes_its_session_along(folder_of, path):
    async with asyncio.timeout(LIMIT_SECONDS), Simulator().serve() as sim:
        sim.script(hold=True)
        sim.script(result="the next one")
        async with served(folder_of(PAGE), sim) as service:
            _, writer = await service.ask(path, "held")
            await sim.until(lambda sim: sim.open_streams == 1)
            writer.close()
            await sim.until(lambda sim: sim.unreclaimed_sessions == 0)
            assert list(sim.phases.values()) == ["torn_down"]
            reader, writer = await service.ask(path, "another client is served")
            assert b'"value":"the next one"' in await reader.read()
            writer.close()


@pytest.mark.parametrize("path", ["/run", "/follow"])
async def test_a_service_that_stops_tears_its_sessions_down_before_it_ends(folder_of, path):
    async with asyncio.timeout(LIMIT_SECONDS), Simulator().serve() as sim:
        sim.script(hold=True)
        async with served(folder_of(PAGE), sim, "--timeout-graceful-shutdown", "1") as service:
            _, writer = await service.ask(path, "held")
            await sim.until(lambda sim: sim.open_streams == 1)
            service.process.send_signal(signal.SIGTERM)
            await service.process.communicate()
            assert list(sim.phases.values()) == ["torn_down"]
            writer.close()


async def test_output_arrives_while_the_program_runs_and_its_end_in_the_last_line(folder_of):
    async with asyncio.timeout(LIMIT_SECONDS), Simulator().serve() as sim:
        script = sim.script([StdoutFrame("so far\n")], result=42, hold=True)
        async with served(folder_of(PAGE), sim) as service:
            reader, writer = await service.ask("/follow", "held")
            assert b'"so far\\n"' in await reader.readuntil(b"}\n")
            assert list(sim.phases.values()) == ["running"]
            script.release()
            assert b'{"verdict":"succeeded","exit_code":0,"kill_reason":null,"value":42}\n' in await reader.read()
            assert list(sim.phases.values()) == ["torn_down"]
            writer.close()


async def test_a_client_that_does_not_read_holds_no_session_beyond_the_time(folder_of):
    folder = folder_of(PAGE)
    source = (folder / "service.py").read_text()
    assert "\nANSWER_SECONDS = 20.0\n" in source
    (folder / "service.py").write_text(source.replace("\nANSWER_SECONDS = 20.0\n", "\nANSWER_SECONDS = 2.0\n"))
    async with asyncio.timeout(LIMIT_SECONDS), Simulator().serve() as sim:
        sim.script([StdoutFrame("x" * 2**16)] * 400, result="more than the sockets hold")
        async with served(folder, sim) as service:
            reader, writer = await service.ask("/follow", "talks")
            await sim.until(lambda sim: [*sim.phases.values()] == ["torn_down"])
            answer = await reader.read()
            assert b'{"error": "no result within 2 seconds"}\n' in answer
            assert b"verdict" not in answer
            writer.close()


async def test_an_outage_is_the_last_line_of_what_is_followed(module_of, caplog):
    service = module_of(PAGE)
    async with asyncio.timeout(LIMIT_SECONDS), Simulator().serve() as sim:
        sim.faults.respond(503, method="POST")
        async with (
            EnclaveClient(sim.base_url, api_key=sim.api_key, retry=None) as enclave,
            httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url="http://service") as browser,
        ):
            service.app.state.sandboxes = service.Sandboxes(enclave)
            answer = await browser.post("/follow", json={"code": "any"})
            assert (answer.status_code, answer.json()) == (200, {"error": "no sandbox at the moment"})
            assert "503" in caplog.text


async def test_a_mistake_of_the_service_is_no_outage(module_of):
    service = module_of(PAGE)
    async with asyncio.timeout(LIMIT_SECONDS), Simulator().serve() as sim:
        sim.faults.respond(401, method="POST")
        async with (
            EnclaveClient(sim.base_url, api_key=sim.api_key) as enclave,
            httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url="http://service") as browser,
        ):
            service.app.state.sandboxes = service.Sandboxes(enclave)
            with pytest.raises(AuthenticationError):  # which a server logs, and answers with 500
                await browser.post("/run", json={"code": "any"})
            assert (await browser.post("/run", json={"code": ""})).status_code == 422
