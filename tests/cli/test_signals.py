"""However a command is stopped, it tears down what it made and tells by its exit code how it was stopped."""

from __future__ import annotations

import json
import re
import signal
import time

import httpx
import pytest

from enclave import StdoutFrame
from tests.support import PATIENCE_SECONDS
from tests.support.releases import anyio_closes_its_sockets

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def running(simulator) -> list[str]:
    return [session for session, phase in simulator.phases.items() if phase != "torn_down"]


@pytest.mark.parametrize(
    ("backend", "number", "code"),
    [
        ("asyncio", signal.SIGINT, 130),
        ("trio", signal.SIGINT, 130),
        ("asyncio", signal.SIGTERM, 143),
        ("trio", signal.SIGHUP, 129),
    ],
)
def test_a_signal_tears_the_session_down(command, simulator, backend, number, code) -> None:
    simulator.script([StdoutFrame("started\n")], hold=True)
    enclave = command.start("--backend", backend, "run", "-c", "pass")
    enclave.until("started")
    enclave.signal(number)
    assert (enclave.wait().code, enclave.out, enclave.err) == (code, "started\n", "")
    assert running(simulator) == []


@BACKENDS
def test_a_local_workload_ends_with_the_command(command, backend) -> None:
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    enclave = command.start("--backend", backend, "run", "--local", "-c", code)
    enclave.until("\n")
    enclave.signal(signal.SIGINT)
    assert (enclave.wait().code, enclave.err) == (130, "")


def test_a_reader_that_stalls_does_not_hold_up_a_signal(command, simulator) -> None:
    simulator.script([StdoutFrame("x" * 65_536 + "\n")] * 4, hold=True)
    enclave = command.start("run", "-c", "pass")
    enclave.until("xxx")  # and no further: the pipe is full, and the command stuck in a write
    deadline = time.monotonic() + PATIENCE_SECONDS
    enclave.signal(signal.SIGINT)
    while enclave.process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)  # a process that is not read from can only be asked
    assert enclave.code == 130
    assert running(simulator) == []


@BACKENDS
def test_a_reader_that_goes_away_ends_the_command_quietly(command, simulator, there, backend) -> None:
    script = simulator.script([StdoutFrame("first\n")], hold=True)
    enclave = command.start("--backend", backend, "run", "-c", "pass")
    enclave.until("first")
    enclave.stop_reading("out")
    there(script.push, StdoutFrame("second\n"))
    assert (enclave.wait().code, enclave.err) == (141, "")
    assert running(simulator) == []


@BACKENDS
@pytest.mark.parametrize("local", [[], ["--local"]])
def test_a_reader_that_goes_away_ends_a_silent_program_too(command, simulator, backend, local) -> None:
    code = "import time; print('first', flush=True); time.sleep(600)"
    enclave = command.start("--backend", backend, "run", *local, "-c", code)
    enclave.until("first")
    enclave.stop_reading("out")
    assert (enclave.wait().code, enclave.err) == (141, "")
    assert running(simulator) == []


@BACKENDS
def test_a_terminal_that_is_closed_tears_the_session_down(command, simulator, backend) -> None:
    simulator.script([StdoutFrame("started\n")], hold=True)
    enclave = command.start("--backend", backend, "run", "-c", "pass", terminal="out err")
    enclave.until("started")
    enclave.stop_reading("screen")
    enclave.signal(signal.SIGHUP)
    assert enclave.wait().code == 129
    assert running(simulator) == []


def test_a_signal_that_was_to_be_ignored_is_ignored(command, simulator, there) -> None:
    script = simulator.script([StdoutFrame("started\n")], hold=True)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does, and the command inherits it
    try:
        enclave = command.start("run", "-c", "pass")
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    enclave.until("started")
    enclave.signal(signal.SIGHUP)
    there(script.push, StdoutFrame("survived\n"))
    enclave.until("survived")
    there(script.release)
    assert enclave.wait().code == 0


def test_a_second_signal_leaves_a_teardown_that_hangs(command, simulator, cli) -> None:
    simulator.script([StdoutFrame("started\n")], hold=True)
    simulator.faults.delay(60, method="DELETE")
    enclave = command.start("run", "-c", "pass", terminal="err")
    enclave.until("started")
    enclave.signal(signal.SIGINT)
    enclave.until("Repeat it to leave at once")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while enclave.process.poll() is None:  # one in the same second counts as the same
        assert time.monotonic() < deadline
        enclave.signal(signal.SIGINT)
        time.sleep(0.1)
    assert enclave.wait().code == 130
    assert "`enclave ls` lists what is still there" in enclave.screen
    assert cli("rm", *running(simulator)).code == 0


def test_a_session_removed_by_somebody_else_is_an_error(command, simulator, cli) -> None:
    simulator.script([StdoutFrame("started\n")], hold=True)
    enclave = command.start("run", "-c", "pass")
    enclave.until("started")
    assert cli("rm", *running(simulator)).code == 0
    enclave.wait()
    assert (enclave.code, enclave.out, enclave.err.count("\n")) == (1, "started\n", 1)
    assert "torn down" in enclave.err


def test_a_map_that_was_stopped_goes_on_where_it_was(command, simulator) -> None:
    (command.directory / "in.jsonl").write_text("".join(f'"{n}"\n' for n in range(6)))
    for n in range(3):
        simulator.script(result=n)
    simulator.script([StdoutFrame("!")], hold=True)
    enclave = command.start("map", "in.jsonl", "--max-concurrency", "1", "-o", "out.jsonl")
    output = command.directory / "out.jsonl"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not output.exists() or output.read_bytes().count(b"\n") < 3 or not running(simulator):
        assert time.monotonic() < deadline
        time.sleep(0.02)  # nothing tells of a file that grows
    enclave.signal(signal.SIGINT)
    assert (enclave.wait().code, enclave.err) == (130, "")
    for n in range(3, 6):
        simulator.script(result=n)
    assert command.run("map", "in.jsonl", "--max-concurrency", "1", "-o", "out.jsonl").code == 0
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(line["index"], line["result"]["json"]) for line in lines] == [(n, n) for n in range(6)]


@BACKENDS
def test_the_simulator_serves_until_it_is_stopped(command, cli, monkeypatch, backend) -> None:
    serving = command.start("--backend", backend, "simulator", "--port", "0", ENCLAVE_API_KEY="")
    serving.until("NOT a security boundary")
    for line in serving.out.splitlines():
        name, _, value = line.removeprefix("export ").partition("=")
        monkeypatch.setenv(name, value)
    url, key = (line.partition("=")[2] for line in serving.out.splitlines())
    assert "run these exports in another terminal" in serving.err
    assert f"console: {url}/#key={key}\n" in serving.err
    assert json.loads(cli("health").out) == {"ok": True, "backend": "simulator", "backendHealthy": True}
    assert cli("run", "-c", "print(1)") == (0, "1\n", "")
    serving.signal(signal.SIGINT)
    assert serving.wait().code == 0


def test_the_simulator_logs_requests_if_asked(command, cli, monkeypatch) -> None:
    serving = command.start("simulator", "--port", "0", "--log", ENCLAVE_API_KEY="")
    serving.until("NOT a security boundary")
    monkeypatch.setenv("ENCLAVE_BASE_URL", serving.out.splitlines()[0].partition("=")[2])
    assert cli("health").code == 0
    serving.until("GET /healthz 200 ")
    [link] = re.findall(r"console: (\S+)", serving.err)
    assert httpx.get(link, timeout=PATIENCE_SECONDS).status_code == 200
    serving.until("GET / 200 ")
    key = link.partition("=")[2]
    assert serving.err.count(key) == 1
    serving.signal(signal.SIGINT)
    assert serving.wait().code == 0


@pytest.mark.parametrize("source", ["ENCLAVE_API_KEY", "--api-key-file"])
def test_the_simulator_says_which_key_it_was_given_and_does_not_show_it(command, tmp_path, source) -> None:
    options, key = [], "ek_mine_secret"
    if source == "--api-key-file":
        (tmp_path / "key").write_text(key)
        options, key = [source, str(tmp_path / "key")], "ek_other_hunter2"
    serving = command.start(*options, "simulator", "--port", "0", ENCLAVE_API_KEY=key)
    serving.until("NOT a security boundary")
    serving.signal(signal.SIGTERM)
    assert serving.wait().code == 0
    assert "ENCLAVE_BASE_URL" in serving.out
    assert f"the API key is that of {source}, with the id mine\n" in serving.err
    assert "secret" not in serving.out + serving.err


@anyio_closes_its_sockets
def test_an_address_in_use_is_one_line(command, simulator) -> None:
    port = simulator.base_url.rpartition(":")[2]
    done = command.run("simulator", "--port", port)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert port in done.err
