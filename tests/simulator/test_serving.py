"""Serving inside the caller's event loop: entering, leaving by every way, bounds, webhooks, the command line."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import AsyncExitStack

import anyio
import anyio.abc
import httpx
import pytest

from enclave.simulator import Bounds, Framing, Simulator
from enclave.simulator.__main__ import main
from tests.support import PATIENCE_SECONDS
from tests.support.releases import anyio_closes_its_sockets

pytestmark = pytest.mark.anyio


async def test_leaving_tears_down_what_runs_and_readers_see_the_end(serving, nothing_left):
    with anyio.fail_after(PATIENCE_SECONDS):
        async with AsyncExitStack() as readers:
            async with serving() as api:
                session = await api.create("import time; print('up'); time.sleep(600)")
                stream = await readers.enter_async_context(api.open_stream(session["id"]))
                while "up" not in (await anext(stream)).get("data", ""):
                    pass
            assert api.sim.open_connections == 0
            assert api.sim.unreclaimed_sessions == 0
            nothing_left(session["id"])
            rest = [frame async for frame in stream]
    assert rest[-2]["phase"] == "torn_down"
    assert rest[-1] == {"kind": "end"}


async def test_the_bodys_own_exception_leaves_plainly(serving):
    async def fail():
        async with serving() as api:
            await api.create("import time; time.sleep(600)")
            raise ZeroDivisionError

    with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(ZeroDivisionError):
        await fail()


async def test_a_cancelled_block_cleans_up_in_bounded_time(serving, nothing_left):
    with anyio.fail_after(PATIENCE_SECONDS):
        with anyio.CancelScope() as scope:
            async with serving() as api:
                ids = [(await api.create("import time; time.sleep(600)"))["id"] for _ in range(3)]
                await api.sim.until(lambda sim: set(sim.phases.values()) == {"running"})
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert set(api.sim.phases.values()) == {"torn_down"}
        assert api.sim.open_connections == 0
        for session_id in ids:
            nothing_left(session_id)


async def test_a_cancelled_asyncio_task_cleans_up_and_stays_cancelled(serving, nothing_left, anyio_backend_name):
    if anyio_backend_name != "asyncio":
        pytest.skip("Task.cancel is asyncio's own")
    seen = []
    created = anyio.Event()

    async def serve():
        async with serving() as api:
            seen.append((api.sim, (await api.create("import time; time.sleep(600)"))["id"]))
            created.set()
            await anyio.sleep_forever()

    task = asyncio.create_task(serve())
    with anyio.fail_after(PATIENCE_SECONDS):
        await created.wait()
        ((sim, session_id),) = seen
        await sim.until(lambda sim: sim.phases[session_id] == "running")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert task.cancelled()
    assert sim.phases[session_id] == "torn_down"
    nothing_left(session_id)


@anyio_closes_its_sockets
async def test_a_port_in_use_is_a_plain_error(capsys):
    async with Simulator().serve() as sim:
        port = int(sim.base_url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            async with Simulator().serve(port=port):
                pytest.fail("served on a port in use")


async def test_a_stalled_stream_does_not_hold_up_leaving(serving):
    with anyio.fail_after(PATIENCE_SECONDS):
        async with AsyncExitStack() as readers:
            async with serving() as api:
                api.sim.faults.stall_stream()
                api.sim.script()
                session = await api.create()
                await readers.enter_async_context(api.open_stream(session["id"]))
            assert api.sim.open_streams == 0


async def test_an_idle_connection_is_closed_after_a_while(serving):
    async with serving(bounds=Bounds(keep_alive_seconds=0.05)) as api:
        url = api.http.base_url
        with anyio.fail_after(PATIENCE_SECONDS):
            async with await anyio.connect_tcp(url.host, url.port) as stream:
                await stream.send(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
                assert (await stream.receive()).startswith(b"HTTP/1.1 200")
                with pytest.raises(anyio.EndOfStream):
                    await stream.receive()


async def test_requests_may_be_pipelined_and_headers_are_bounded(serving):
    async with serving() as api:
        url = api.http.base_url
        with anyio.fail_after(PATIENCE_SECONDS):
            async with await anyio.connect_tcp(url.host, url.port) as stream:
                await stream.send(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n" * 3)
                answers = b""
                while answers.count(b"HTTP/1.1 200") < 3 or not answers.endswith(b"}"):
                    answers += await stream.receive()
                await stream.send(b"GET / HTTP/1.1\r\nhost: localhost\r\nlong: " + b"x" * 100_000)
                assert (await stream.receive()).startswith(b"HTTP/1.1 431")


async def test_a_simulator_is_served_once_at_a_time_and_again_later():
    simulator = Simulator()
    with pytest.raises(RuntimeError, match="not being served"):
        _ = simulator.base_url
    for _ in range(2):
        async with simulator.serve() as sim:
            assert sim is simulator
            with pytest.raises(RuntimeError, match="already"):
                async with simulator.serve():
                    pytest.fail("served twice")
            async with httpx.AsyncClient(base_url=sim.base_url, verify=False, timeout=PATIENCE_SECONDS) as http:
                assert (await http.get("/healthz")).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.com", "::"])
def test_another_host_than_loopback_needs_an_explicit_flag(host):
    with pytest.raises(ValueError, match="not loopback"):
        Simulator().serve(host=host)


def test_windows_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(RuntimeError, match="does not run on Windows"):
        Simulator().serve()


def test_the_command_refuses_windows_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr("enclave.simulator._simulator.sys.platform", "win32")
    assert main(["--port", "0"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("enclave.simulator: the simulator does not run on Windows")


@pytest.mark.parametrize(
    ("bounds", "error"),
    [
        ({"max_running": 0}, ValueError),
        ({"max_pending": -1}, ValueError),
        ({"heartbeat_seconds": float("nan")}, ValueError),
        ({"max_body_bytes": 1.5}, TypeError),
        ({"max_log_bytes": True}, TypeError),
        ({"keep_alive_seconds": "5"}, TypeError),
    ],
)
def test_a_bound_that_cannot_be_meant_is_refused_by_its_name(bounds, error):
    with pytest.raises(error, match=next(iter(bounds))):
        Bounds(**bounds)


def test_bounds_are_bounds_and_nothing_else():
    with pytest.raises(TypeError, match="bounds"):
        Simulator(bounds=5)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"framing": "crlf"}, TypeError),
        ({"default_limits": {"memoryMb": 64}}, TypeError),
        ({"max_limits": 64}, TypeError),
        ({"org_ids": "org-main"}, TypeError),
        ({"org_ids": []}, ValueError),
        ({"service_bindings": ["db"]}, TypeError),
        ({"service_bindings": {"db": 80}}, TypeError),
        ({"auto_teardown": "no"}, TypeError),
        ({"namespaces": None}, TypeError),
    ],
)
def test_an_argument_that_cannot_be_meant_is_refused_by_its_name(options, error):
    with pytest.raises(error, match=next(iter(options))):
        Simulator(**options)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"port": "80"}, TypeError),
        ({"port": 65_536}, ValueError),
        ({"port": -1}, ValueError),
        ({"host": 127}, TypeError),
        ({"allow_remote": "yes"}, TypeError),
    ],
)
def test_a_place_to_serve_that_cannot_be_meant_is_refused_by_its_name(options, error):
    with pytest.raises(error, match=next(iter(options))):
        Simulator().serve(**options)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"newline": "\n\n"}, ValueError),
        ({"newline": None}, ValueError),
        ({"ids": "no"}, TypeError),
        ({"data_lines": 0}, ValueError),
        ({"data_lines": "2"}, TypeError),
        ({"chunk_bytes": -1}, ValueError),
        ({"frames_per_write": 1.5}, TypeError),
        ({"retry_ms": -1}, ValueError),
    ],
)
def test_a_framing_that_cannot_be_meant_is_refused_by_its_name(options, error):
    with pytest.raises(error, match=next(iter(options))):
        Framing(**options)
    with pytest.raises(TypeError, match="framing"):
        Simulator().framing = options


async def test_it_may_be_served_elsewhere_if_asked():
    async with Simulator().serve(host="0.0.0.0", allow_remote=True) as sim:
        assert sim.base_url.startswith("http://0.0.0.0:")


@pytest.mark.parametrize("key", ["hunter2", "ek_hunter2", "xx_hunter2_hunter2"])
def test_a_malformed_key_is_refused_without_showing_it(key):
    with pytest.raises(ValueError, match="ek_<id>_<secret>") as caught:
        Simulator(api_key=key)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"lifetime_seconds": "1"}, TypeError),
        ({"lifetime_seconds": True}, TypeError),
        ({"user_id": 5}, TypeError),
        ({"role": ["owner"]}, TypeError),
    ],
)
def test_a_token_that_cannot_be_meant_is_refused_by_its_name(options, error):
    with pytest.raises(error, match=next(iter(options))):
        Simulator().issue_token(**options)


def test_credentials_are_made_only_for_known_orgs_roles_and_scopes():
    simulator = Simulator(org_ids=["a", "b"])
    with pytest.raises(ValueError, match="org_id"):
        simulator.add_api_key(org_id="c")
    with pytest.raises(ValueError, match="role"):
        simulator.issue_token(role="king")
    with pytest.raises(ValueError, match=r"scopes: expected some of .*, got \['sessions:all'\]"):
        simulator.add_api_key(scopes=["sessions:read", "sessions:all"])
    assert simulator.add_api_key(org_id="b").startswith("ek_")


async def test_only_so_many_workloads_run_at_once(serving):
    async with serving(bounds=Bounds(max_running=2)) as api:
        scripts = [api.sim.script(hold=True) for _ in range(4)]
        for _ in scripts:
            await api.create()
        await api.sim.until(lambda sim: list(sim.phases.values()) == ["running"] * 2 + ["pending"] * 2)
        scripts[1].release()
        await api.sim.until(lambda sim: list(sim.phases.values()) == ["running", "succeeded", "running", "pending"])
        pending = list(api.sim.phases)[3]
        assert (await api.http.delete(f"/sessions/{pending}")).status_code == 204
        assert (await api.frames(pending))[-2]["phase"] == "torn_down"
        for script in scripts:
            script.release()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_the_command_serves_until_it_is_interrupted(backend):
    command = [sys.executable, "-X", "dev", "-W", "error", "-m", "enclave.simulator", "--port", "0"]
    async with await anyio.open_process([*command, "--backend", backend], stderr=subprocess.STDOUT) as process:
        with anyio.fail_after(PATIENCE_SECONDS):
            text = b""
            while b"Console: " not in text or not text.endswith(b"\n"):
                text += await process.stdout.receive()
            lines = dict(line.split("=", 1) for line in text.decode().splitlines() if "=" in line)
            assert lines[f"Console: {lines['ENCLAVE_BASE_URL']}/#key"] == lines["ENCLAVE_API_KEY"]
            headers = {"authorization": f"Bearer {lines['ENCLAVE_API_KEY']}"}
            async with httpx.AsyncClient(
                base_url=lines["ENCLAVE_BASE_URL"], headers=headers, verify=False, timeout=PATIENCE_SECONDS
            ) as http:
                assert (await http.post("/sessions", json={"code": "pass"})).status_code == 201
            process.terminate()
            rest = b""
            try:
                while True:
                    rest += await process.stdout.receive()
            except anyio.EndOfStream:
                pass
            assert await process.wait() == 0
            # On a busy machine asyncio's debug mode, a part of `-X dev`, tells of steps that took long.
            assert [line for line in rest.splitlines() if not line.startswith(b"Executing <")] == []


@pytest.mark.parametrize("source", ["ENCLAVE_API_KEY", "--api-key-file", "--api-key-file -"])
async def test_the_command_logs_requests_and_says_whose_key_it_has_without_showing_it(source, tmp_path):
    (tmp_path / "key").write_text("\ufeffek_ci_hunter2\r\n", newline="")
    command = [sys.executable, "-m", "enclave.simulator", "--port", "0", "--log"]
    environment, options = {
        "ENCLAVE_API_KEY": ({"ENCLAVE_API_KEY": "ek_ci_hunter2"}, []),
        "--api-key-file": ({}, ["--api-key-file", str(tmp_path / "key")]),
        "--api-key-file -": ({}, ["--api-key-file", "-"]),
    }[source]
    async with await anyio.open_process([*command, *options], env=environment) as process:
        with anyio.fail_after(PATIENCE_SECONDS):
            await process.stdin.send(b"ek_ci_hunter2\n")
            text = b""
            while b"API key is" not in text or not text.endswith(b"\n"):
                text += await process.stdout.receive()
            assert f"The API key is that of {source.split()[0]}, with the id ci." in text.decode()
            (url,) = [line.partition("=")[2] for line in text.decode().splitlines() if line.startswith("ENCLAVE_BASE")]
            async with httpx.AsyncClient(
                base_url=url, headers={"authorization": "Bearer ek_ci_hunter2"}, timeout=PATIENCE_SECONDS
            ) as http:
                await http.get("/sessions?x=%0A1")
                await http.get("/sessions", headers={"x-enclave-poll": "1"})
                await http.get("/nowhere", headers={"x-enclave-poll": "1"})
            process.terminate()
            log = b"".join([part async for part in process.stderr])
            await process.wait()
    first, second = log.decode().splitlines()
    assert "GET /sessions?x=%0A1 200 " in first
    assert "GET /nowhere 404 " in second
    assert "hunter2" not in text.decode() + log.decode()


def test_no_option_takes_the_key_itself(capsys):
    with pytest.raises(SystemExit):
        main(["--api-key=ek_ci_hunter2"])
    assert "hunter2" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "lines"), [(["-m", "enclave.simulator"], 1), (["-c", "import enclave.simulator"], None)]
)
def test_without_the_extra_it_says_what_to_install(tmp_path, arguments, lines):
    (tmp_path / "h11.py").write_text("raise ModuleNotFoundError(\"No module named 'h11'\", name='h11')")
    environment = {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        "the simulator needs an extra (h11 is missing): pip install 'enclave-sdk[simulator]'"
    )
    assert lines is None or done.stderr.count("\n") == lines


def test_the_command_says_what_it_is_not(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "NOT a security boundary" in capsys.readouterr().out


def test_the_command_refuses_another_host_in_one_line(capsys):
    assert main(["--host", "0.0.0.0", "--port", "0"]) == 1
    assert "not loopback" in capsys.readouterr().err


async def test_what_cancels_the_block_leaves_the_simulator_serving_until_the_block_has_ended():
    status = 0
    with anyio.fail_after(PATIENCE_SECONDS), anyio.CancelScope() as scope:
        async with (
            Simulator().serve() as sim,
            httpx.AsyncClient(base_url=sim.base_url, timeout=PATIENCE_SECONDS) as client,
        ):
            scope.cancel()
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    status = (await client.get("/healthz")).status_code
    assert status == 200
    assert scope.cancelled_caught
