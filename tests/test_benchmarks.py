"""The benchmarks' harness: that it measures right answers only. Says nothing about time."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from httpx_sse import connect_sse

ROOT = Path(__file__).parent.parent
READ_SECONDS = 60.0
RUN_SECONDS = 120.0


@pytest.fixture
def source() -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.source"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.communicate(timeout=READ_SECONDS)
    assert process.returncode == 0


@pytest.fixture
def http(source: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=source, timeout=READ_SECONDS, trust_env=False) as client:
        yield client


def events(http: httpx.Client, session_id: str) -> list[tuple[str, str, dict[str, str]]]:
    with connect_sse(http, "GET", f"/sessions/{session_id}/stream") as stream:
        return [(event.id, event.event, event.json()) for event in stream.iter_sse()]


@pytest.mark.parametrize(
    "session_id", ["burst-25-1", "burst-25-10", "backlog-25-1", "paced-1-26-100000", "closing-1-26-100000"]
)
def test_source_serves_every_frame_in_order_and_then_a_phase_and_the_end(http, session_id):
    found = events(http, session_id)

    assert [event_id for event_id, _, _ in found] == [str(number) for number in range(1, 28)]
    assert all(name == frame["kind"] for _, name, frame in found)
    assert [frame["kind"] for _, _, frame in found] == ["stdout"] * 25 + ["phase", "end"]
    assert len({frame["data"] for _, _, frame in found[:25]}) == 25


def test_source_puts_one_write_into_one_chunk(source, http):
    with http.stream("GET", "/sessions/burst-25-10/stream") as response:
        assert response.headers["transfer-encoding"] == "chunked"
        body = response.read()

    chunks = [chunk for chunk in raw_chunks(source, "burst-25-10") if chunk]
    assert [chunk.count(b"\n\n") for chunk in chunks] == [10, 10, 5, 2]
    assert b"".join(chunks) == body


def raw_chunks(source: str, session_id: str) -> list[bytes]:
    url = httpx.URL(source)
    with socket.create_connection((url.host, url.port), timeout=READ_SECONDS) as sock:
        sock.sendall(f"GET /sessions/{session_id}/stream HTTP/1.1\r\nhost: source\r\n\r\n".encode())
        received = b""
        while not received.endswith(b"\r\n0\r\n\r\n"):
            received += sock.recv(65536)
    rest = received.partition(b"\r\n\r\n")[2]
    chunks = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        chunks.append(rest[:length])
        assert rest[length : length + 2] == b"\r\n"
        rest = rest[length + 2 :]
    return chunks


def test_source_counts_the_sockets_of_its_clients_and_sees_them_close(source, http):
    with http.stream("GET", "/sessions/idle/stream") as response:
        body = response.iter_raw()
        assert b'"running"' in next(body)
        assert httpx.get(f"{source}/control/sockets", trust_env=False, timeout=READ_SECONDS).json() == {"open": 1}
    http.close()
    assert httpx.get(f"{source}/control/sockets", trust_env=False, timeout=READ_SECONDS).json() == {"open": 0}


def test_source_answers_requests_on_one_connection(http):
    for _ in range(3):
        assert http.get("/sessions/s-1").json()["id"] == "s-1"
    assert http.get("/nothing/here").status_code == 404


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)


def test_quick_run_writes_every_row_and_every_target(tmp_path):
    results = ROOT / "benchmarks" / "results.json"
    before = results.read_bytes() if results.exists() else None
    file = tmp_path / "results.json"

    done = run("--quick", "--only", "decode", "--only", "import", "--json", str(file))

    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert found["environment"]["httpx"] == httpx.__version__
    assert list(found["benchmarks"]) == ["decode", "import"]
    decode = found["benchmarks"]["decode"]
    assert decode["crashed"] == []
    rows = decode["tables"][0]["rows"]
    assert {"enclave-decoder", "enclave-exact", "sse-json", "sse-msgspec"} <= set(rows)
    assert all(value > 0 for cells in rows.values() for value in cells.values())
    assert decode["targets"][0]["verdict"] in {"reached", "missed"}
    assert "Decoding in memory" in done.stdout
    assert (results.read_bytes() if results.exists() else None) == before


def test_importing_the_client_brings_in_nothing_of_the_simulator_or_an_extra(tmp_path):
    file = tmp_path / "results.json"

    done = run("--quick", "--only", "import", "--json", str(file))

    assert done.returncode == 0, done.stderr
    measured = {cell["row"]: cell for cell in json.loads(file.read_text())["benchmarks"]["import"]["measured"]}
    assert measured["import enclave"]["foreign"] == []


def test_contender_that_delivers_the_wrong_frames_has_crashed(source):
    job = {
        "contender": "httpx-json",
        "base_url": source,
        "job": "decode",
        "parameters": {"session_id": "backlog-25-1", "frames": 26},
    }
    command = [sys.executable, "-m", "benchmarks.contenders", json.dumps(job)]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)

    assert done.returncode != 0
    assert "frames: expected 28, got 27" in done.stderr


def test_unknown_benchmark_is_refused():
    done = run("--only", "nothing")

    assert done.returncode == 2
    assert "nothing" in done.stderr
