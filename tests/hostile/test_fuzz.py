"""Mutations of valid responses, and what broke in the past: a value or an error of ours, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import PATIENCE_SECONDS
from tests.support.oracles import CALLS, CannedTransport, check_decoders_agree, check_response_is_understood_or_refused

pytestmark = pytest.mark.anyio

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.bin"))

SESSION = {
    "id": "s-1",
    "orgId": "org-1",
    "phase": "killed",
    "language": "python",
    "limits": {"cpuMillis": 1000, "memoryMb": 256, "wallClockMs": 1000, "pids": 9, "gpus": 1},
    "egress": {"mode": "allowlist", "allow": ["203.0.113.0/24"]},
    "killReason": "cpu_exceeded",
    "result": {"exitCode": None, "json": {"a": [1]}, "stdout": "x", "durationMs": 1.5},
    "labels": {"a": "b"},
    "createdAt": "2026-01-01T00:00:00.000Z",
    "finishedAt": None,
}
AUDIT = [{"ts": "2026-01-01T00:00:00Z", "type": "egress_denied", "detail": {"host": "169.254.169.254"}}]
FRAMES = [
    {"kind": "phase", "phase": "running", "ts": "2026-01-01T00:00:00Z"},
    {"kind": "stdout", "data": "ab\n"},
    {"kind": "stderr", "data": "\ud83d"},
    {"kind": "audit", "event": AUDIT[0]},
    {"kind": "result", "result": SESSION["result"]},
    {"kind": "new", "x": 1},
    {"kind": "phase", "phase": "killed", "killReason": "pids_exceeded"},
    {"kind": "end"},
]
VALID: dict[str, Any] = {
    "session": SESSION,
    "sessions": [SESSION, SESSION],
    "audit": AUDIT,
    "health": {"ok": True, "backend": "simulator", "backendHealthy": True},
    "created": SESSION,
    "result": SESSION["result"],
}
STREAM = b"\xef\xbb\xbfretry: 1\n\n" + b"".join(
    b"id: %d\r\nevent: x\ndata: %b\n\n" % (index, json.dumps(frame).encode()) for index, frame in enumerate(FRAMES)
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def documents(draw: st.DrawFn, valid: Any) -> Any:
    """A valid document in which one place, at any depth, holds something else."""
    if draw(st.integers(0, 3)) == 0 or not valid or not isinstance(valid, dict | list):
        return draw(json_values)
    if isinstance(valid, list):
        index = draw(st.integers(0, len(valid) - 1))
        return [*valid[:index], draw(documents(valid[index])), *valid[index + 1 :]]
    key = draw(st.sampled_from(sorted(valid)))
    return {**valid, key: draw(documents(valid[key]))}


@st.composite
def mutations(draw: st.DrawFn, valid: bytes) -> bytes:
    """Valid bytes with pieces cut out, repeated, or replaced."""
    data = valid
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 40)))
        middle = draw(st.just(b"") | st.just(data[start:end] * 2) | st.binary(max_size=6) | FRAGMENTS)
        data = data[:start] + middle + data[end:]
    return data


FRAGMENTS = st.sampled_from(
    [
        b"\r",
        b"\n\n",
        b"\r\n\r\n",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b'\\ud83d"',
        b"data:",
        b"id\n",
        b"}{",
        b"[[[[",
        b"1e999",
    ]
)
bounded = settings(max_examples=25, database=None, suppress_health_check=list(HealthCheck))
statuses = st.sampled_from([200, 200, 200, 201, 204, 206, 302, 400, 404, 409, 429, 503, 599])


@pytest.mark.parametrize("name", list(VALID))
@given(data=st.data())
@bounded
async def test_any_field_may_hold_anything(name: str, data: st.DataObject) -> None:
    body = json.dumps(data.draw(documents(VALID[name]))).encode()
    transport = CannedTransport(data.draw(statuses), {"content-type": "application/json"}, body)
    with anyio.fail_after(PATIENCE_SECONDS):
        await check_response_is_understood_or_refused(name, transport)


@pytest.mark.parametrize("name", list(CALLS))
@given(data=st.data())
@bounded
async def test_any_bytes_may_be_answered_in_any_pieces(name: str, data: st.DataObject) -> None:
    valid = STREAM if name in ("stream", "result") else json.dumps(VALID[name]).encode()
    body = data.draw(mutations(valid))
    content_type = "text/event-stream" if name in ("stream", "result") else "application/json"
    encoding = data.draw(st.sampled_from(["", "", "identity", "gzip", "deflate", "br", "\xff"]))
    retry_after = data.draw(st.sampled_from(["1", "-1", "9" * 400, "Wed, 21 Oct 2015 07:28:00 GMT", "\u00b2", ""]))
    headers = {"content-type": content_type, "content-encoding": encoding, "retry-after": retry_after}
    transport = CannedTransport(data.draw(statuses), headers, body, data.draw(st.integers(1, 99)))
    with anyio.fail_after(PATIENCE_SECONDS):
        await check_response_is_understood_or_refused(name, transport)


@given(data=mutations(STREAM))
@settings(bounded, max_examples=300)
def test_both_decoders_agree_on_every_mutation_of_a_stream(data: bytes) -> None:
    check_decoders_agree(data)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
async def test_what_broke_before_does_not_break_again(path: Path) -> None:
    data = path.read_bytes()  # noqa: ASYNC240 - a small file, and nothing else runs
    check_decoders_agree(data)
    kinds = {"stream": "text/event-stream", "result": "text/event-stream"}
    with anyio.fail_after(PATIENCE_SECONDS):
        for name in CALLS:
            for status in (200, 400):
                transport = CannedTransport(status, {"content-type": kinds.get(name, "application/json")}, data, 4096)
                await check_response_is_understood_or_refused(name, transport)


def test_the_corpus_is_there() -> None:
    assert CORPUS
