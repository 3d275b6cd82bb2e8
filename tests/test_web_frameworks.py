"""What docs/web-frameworks.md says of servers and workers that fork, tried with real ones."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from enclave.simulator import Simulator, SyncSimulator
from tests.support.programs import programs

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks and signals of POSIX")

PATIENCE_SECONDS = 120
SLEEPING = "import time; time.sleep(600)"


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncSimulator]:
    with SyncSimulator() as simulator:
        monkeypatch.setenv("ENCLAVE_BASE_URL", simulator.base_url)
        monkeypatch.setenv("ENCLAVE_API_KEY", simulator.api_key)
        yield simulator


@contextmanager
def running(folder: Path, module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python module as a program, stopped with SIGTERM at the end unless it has ended by itself."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            sys.stdout.write(process.communicate()[0])


@contextmanager
def program_of_the_guide(framework: str) -> Iterator[dict[str, Any]]:
    """What the page's program for this framework has defined once it has run. Its client repeats nothing by itself."""
    pages = [program for program, _ in programs("docs/web-frameworks.md")]
    (program,) = [program for program in pages if f"from {framework} import " in program]
    guide: dict[str, Any] = {"__name__": "guide"}
    exec(program, guide)
    with guide["enclave"] as enclave:
        guide["enclave"] = enclave.with_options(retry=None)
        yield guide
    guide["simulator"].stop()


@pytest.mark.parametrize(("refusal", "answer"), [(429, 503), (503, 503), (401, 500)])
def test_a_view_of_flask_tells_an_outage_from_a_mistake_of_the_service(refusal: int, answer: int) -> None:
    pytest.importorskip("flask")
    with program_of_the_guide("flask") as guide:
        guide["simulator"].faults.respond(refusal, method="POST")
        assert guide["app"].test_client().post("/run", data="any").status_code == answer


def test_a_task_of_celery_is_tried_again_when_the_server_is_full() -> None:
    pytest.importorskip("celery")
    with program_of_the_guide("celery") as guide:
        guide["simulator"].faults.respond(429, method="POST")
        guide["simulator"].script(result=42)
        assert guide["grade"].delay("any").get() == 42


def last_is_running(simulator: Simulator) -> bool:
    return [*simulator.phases.values()][-1:] == ["running"] and simulator.open_streams > 0


TASKS = """
    import os
    from pathlib import Path

    from celery import Celery
    from enclave import SyncEnclaveClient

    folder = Path(__file__).parent
    for name in ("queue", "results", "control"):
        (folder / name).mkdir(exist_ok=True)
    queue = str(folder / "queue")
    app = Celery("tasks", broker="filesystem://", backend=(folder / "results").as_uri())
    app.conf.broker_transport_options = {
        "data_folder_in": queue, "data_folder_out": queue, "control_folder": str(folder / "control")
    }
    enclave = SyncEnclaveClient()
    enclave.health()  # so the parent has connections and a thread before it forks

    @app.task
    def grade(code):
        with enclave.session(code) as session:
            return session.result(int).raise_for_exit().value, os.getpid()

"""


def test_a_soft_time_limit_of_celery_tears_the_session_down(simulator, tmp_path, monkeypatch) -> None:
    exceptions = pytest.importorskip("celery.exceptions")
    (tmp_path / "grading_tasks.py").write_text(dedent(TASKS))
    monkeypatch.syspath_prepend(tmp_path)
    import grading_tasks  # noqa: PLC0415  # type: ignore[import-not-found] - made above

    options = ("--pool=prefork", "--concurrency=1", "--without-gossip", "--without-mingle", "--without-heartbeat")
    with grading_tasks.enclave, running(tmp_path, "celery", "--app=grading_tasks", "worker", *options) as worker:
        value, child = grading_tasks.grade.delay("enclave.result(42)").get(timeout=PATIENCE_SECONDS)
        assert value == 42
        assert child != worker.pid
        endless = grading_tasks.grade.delay(SLEEPING)
        simulator.wait_until(last_is_running, seconds=PATIENCE_SECONDS)
        os.kill(child, signal.SIGUSR1)  # what Celery sends when the time is over
        with pytest.raises(exceptions.SoftTimeLimitExceeded):
            endless.get(timeout=PATIENCE_SECONDS)
        assert list(simulator.phases.values()) == ["torn_down"] * 2
        assert grading_tasks.grade.delay("enclave.result(43)").get(timeout=PATIENCE_SECONDS)[0] == 43


APPLICATION = """
    import os

    from flask import Flask, request
    from enclave import SyncEnclaveClient

    enclave = SyncEnclaveClient()
    enclave.health()
    app = Flask(__name__)

    @app.post("/run")
    def run():
        with enclave.session(request.get_data(as_text=True)) as session:
            return {"value": session.result().value, "worker": os.getpid()}
"""


def post(path: Path, code: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(PATIENCE_SECONDS)
    connection.connect(str(path))
    head = f"POST /run HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(code)}\r\n\r\n"
    connection.sendall((head + code).encode())
    return connection


def answer(path: Path, code: str) -> Any:
    with post(path, code) as connection, connection.makefile("rb") as file:
        return json.loads(file.read().partition(b"\r\n\r\n")[2])


def test_each_worker_of_gunicorn_makes_its_connections_and_one_that_must_go_tears_its_session_down(
    simulator, monkeypatch
) -> None:
    pytest.importorskip("gunicorn")
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # not `tmp_path`: the path of a socket must be short
        folder, path = Path(name), Path(name) / "socket"
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)  # where newer ones put a socket of their own
        (folder / "application.py").write_text(dedent(APPLICATION))
        options = ("--preload", "--workers=2", f"--bind=unix:{path}", "application:app")
        with running(folder, "gunicorn", *options) as server:
            assert server.stdout is not None
            assert any("Booting worker" in line for line in server.stdout)
            answers = [answer(path, f"enclave.result({number})") for number in range(4)]
            assert [each["value"] for each in answers] == [0, 1, 2, 3]
            assert server.pid not in {each["worker"] for each in answers}
            with post(path, SLEEPING):
                simulator.wait_until(last_is_running, seconds=PATIENCE_SECONDS)
                server.send_signal(signal.SIGINT)  # does not wait for requests
                server.communicate(timeout=PATIENCE_SECONDS)
    assert list(simulator.phases.values()) == ["torn_down"] * 5
