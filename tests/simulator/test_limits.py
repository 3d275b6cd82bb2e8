"""Hostile programs: each is ended for the right reason, and nothing is left of any."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import anyio
import httpx
import psutil
import pytest

from enclave.simulator import Bounds
from enclave.simulator._supervisor._init import EXIT_STATUS
from enclave.simulator._supervisor._supervisor import Supervisor
from tests.support import PATIENCE_SECONDS

pytestmark = pytest.mark.anyio

FORK_BOMB = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
DAEMON = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT): signal.signal(number, signal.SIG_IGN)
        time.sleep(600)
    os._exit(0)
os.wait()
"""
HOSTILE = {
    "wall_clock": ("import time; time.sleep(600)", "wall_clock_exceeded", {"wallClockMs": 300}),
    "ignores_signals": (
        "import signal, time\nfor n in set(range(1, 32)) - {9, 19}: signal.signal(n, signal.SIG_IGN)\ntime.sleep(600)",
        "wall_clock_exceeded",
        {"wallClockMs": 300},
    ),
    "cpu": ("while True: pass", "cpu_exceeded", {"cpuMillis": 10, "wallClockMs": 20_000}),
    "cpu_of_children": (
        "import os\nfor _ in range(3): os.fork()\nwhile True: pass",
        "cpu_exceeded",
        {"cpuMillis": 20, "wallClockMs": 20_000},
    ),
    "memory": ("x = []\nwhile True: x.append(b'x' * 10_000_000)", "memory_exceeded", {"memoryMb": 64}),
    "memory_of_children": (
        "import os, time\nfor _ in range(3): os.fork()\nx = b'x' * 30_000_000\ntime.sleep(60)",
        "memory_exceeded",
        {"memoryMb": 128},
    ),
    "memory_in_one_gulp": ("x = b'x' * 200_000_000; del x", "memory_exceeded", {"memoryMb": 64}),
    "processes": (
        "import os, time\nfor _ in range(20):\n    if os.fork() == 0: break\ntime.sleep(60)",
        "pids_exceeded",
        {"pids": 10},
    ),
    "threads": (
        "import threading, time\nfor _ in range(20): threading.Thread(target=time.sleep, args=(60,)).start()",
        "pids_exceeded",
        {"pids": 10},
    ),
    "fork_bomb": (FORK_BOMB, "pids_exceeded", {"pids": 30}),
    "flood": ("import os\nwhile True: os.write(1, b'y' * 60000 + b'\\n')", "wall_clock_exceeded", {"wallClockMs": 600}),
    "flood_of_lines": ("while True: print('y')", "wall_clock_exceeded", {"wallClockMs": 600}),
}


@pytest.mark.parametrize(
    ("name", "namespaces"),
    [*((name, True) for name in HOSTILE), *((name, False) for name in ("ignores_signals", "memory", "fork_bomb"))],
)
async def test_a_program_over_its_budget_is_killed_for_the_right_reason(serving, nothing_left, name, namespaces):
    code, reason, limits = HOSTILE[name]
    async with serving(namespaces=namespaces, bounds=Bounds(max_log_bytes=1_000_000)) as api:
        run = await api.run(code, limits=limits)
        assert (run.phase, run.session["killReason"]) == ("killed", reason)
        assert run.result["exitCode"] is None
        assert run.frames[-2] == {"kind": "phase", "phase": "killed", "killReason": reason, "ts": run.frames[-2]["ts"]}
        assert [entry["detail"] for entry in run.audit if entry["type"] == "session_killed"] == [{"reason": reason}]
        nothing_left(run.id)


@pytest.mark.parametrize("pause_seconds", [0.0, -1.0], ids=["no pause", "longer than the pause"])
def test_a_look_that_takes_long_does_not_keep_a_supervisor_from_the_pipes(monkeypatch, tmp_path, pause_seconds):
    supervisor = Supervisor({"directory": str(tmp_path)})
    monkeypatch.setattr(supervisor, "_check", lambda _now: pause_seconds)
    monkeypatch.setattr(supervisor, "workload", 7)
    supervisor.status, status = os.pipe()
    try:
        os.write(status, EXIT_STATUS.pack(0, 0))
        supervisor._watch()
    finally:
        os.close(status)
        os.close(supervisor.status)
    assert supervisor.exit == (0, 0)


async def test_memory_that_processes_share_is_counted_once(serving):
    code = "import os, time\nx = b'x' * 60_000_000\nfor _ in range(4):\n    if os.fork() == 0: break\ntime.sleep(0.3)"
    async with serving() as api:
        run = await api.run(code, limits={"memoryMb": 150})
        assert run.phase == "succeeded"
        assert run.audit[2]["type"] == "workload_exited"
        assert 60 < run.audit[2]["detail"]["peakMemoryMb"] < 150


async def test_a_node_program_over_its_memory_is_killed(serving, nothing_left):
    async with serving() as api:
        run = await api.run(
            "const x = []; for (;;) x.push(new Array(1e6).fill(1.5));", language="node", limits={"memoryMb": 160}
        )
        assert run.session["killReason"] == "memory_exceeded"
        nothing_left(run.id)


@pytest.mark.parametrize("namespaces", [True, False], ids=["namespaces", "plain"])
async def test_a_daemon_does_not_outlive_its_session(serving, nothing_left, namespaces):
    async with serving(namespaces=namespaces) as api:
        run = await api.run(DAEMON + "print('left')")
        assert (run.phase, run.output()) == ("succeeded", "left\n")
        nothing_left(run.id)


@pytest.mark.parametrize("namespaces", [True, False], ids=["namespaces", "plain"])
async def test_a_teardown_midway_leaves_nothing(serving, nothing_left, namespaces):
    code = DAEMON + "import subprocess\nsubprocess.Popen(['sleep', '600'])\nprint('ready')\ntime.sleep(600)"
    async with serving(namespaces=namespaces) as api:
        session = await api.create(code)
        with anyio.fail_after(PATIENCE_SECONDS):
            async with api.open_stream(session["id"]) as frames:
                while "ready" not in (await anext(frames)).get("data", ""):
                    pass
                await api.http.delete(f"/sessions/{session['id']}")
                nothing_left(session["id"])
                rest = [frame["kind"] async for frame in frames]
        assert rest[-1] == "end"
        assert api.sim.unreclaimed_sessions == 0


async def test_a_directory_without_permissions_is_removed_all_the_same(serving, nothing_left, tmp_path):
    async with serving() as api:
        (tmp_path / "kept").write_text("x")
        code = f"import os\nos.makedirs('a/b/c')\nos.symlink({str(tmp_path)!r}, 'a/link')\nos.chmod('a', 0)"
        run = await api.run(code)
        assert run.phase == "succeeded"
        nothing_left(run.id)
        assert (tmp_path / "kept").exists()


@pytest.mark.parametrize("namespaces", [True, False], ids=["namespaces", "plain"])
async def test_a_program_that_kills_its_guardians_ends_its_session_and_leaves_nothing(
    serving, nothing_left, namespaces
):
    code = DAEMON + "os.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(600)"
    async with serving(namespaces=namespaces) as api:
        run = await api.run(code, limits={"wallClockMs": 1500})
        assert run.phase in ("killed", "failed")
        nothing_left(run.id)


async def test_a_lost_supervisor_ends_the_session_and_leaves_nothing(serving, nothing_left):
    async with serving(namespaces=False) as api:
        session = await api.create(DAEMON + "print('ready')\ntime.sleep(600)")
        with anyio.fail_after(PATIENCE_SECONDS):
            async with api.open_stream(session["id"]) as frames:
                while "ready" not in (await anext(frames)).get("data", ""):
                    pass
                for supervisor in psutil.Process().children():
                    supervisor.kill()
                rest = [frame async for frame in frames]
        assert rest[-2]["killReason"] == "supervisor_lost"
        nothing_left(session["id"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_nothing_survives_the_simulators_own_process(leftovers, number):
    command = [sys.executable, "-m", "enclave.simulator", "--port", "0"]
    process = await anyio.open_process(command, env={"ENCLAVE_API_KEY": "ek_a_b"}, stderr=subprocess.DEVNULL)
    async with process:
        with anyio.fail_after(PATIENCE_SECONDS):
            url = await _read_url(process)
            async with httpx.AsyncClient(
                base_url=url, headers={"authorization": "Bearer ek_a_b"}, timeout=PATIENCE_SECONDS
            ) as http:
                created = await http.post("/sessions", json={"code": DAEMON + "print('ready')\ntime.sleep(600)"})
                session_id = created.json()["id"]
                async with http.stream("GET", f"/sessions/{session_id}/stream") as response:
                    body = ""
                    signalled = False  # a second SIGTERM may end it before it has cleaned up
                    try:
                        async for text in response.aiter_text():
                            body += text
                            if "ready" in body and not signalled:
                                signalled = True
                                process.send_signal(number)
                    except httpx.RemoteProtocolError:
                        assert number == signal.SIGKILL
            assert "ready" in body
            assert (number == signal.SIGTERM) == body.endswith('{"kind":"end"}\n\n')
            assert await process.wait() == (0 if number == signal.SIGTERM else -9)
            while leftovers(session_id):  # noqa: ASYNC110 - nobody is told when the orphaned supervisor is done
                await anyio.sleep(0.02)


async def _read_url(process):
    text = b""
    while b"ENCLAVE_BASE_URL=" not in text or not text.endswith(b"\n"):
        text += await process.stdout.receive()
    assert b"NOT a security boundary" in text
    return text.decode().partition("ENCLAVE_BASE_URL=")[2].split()[0]
