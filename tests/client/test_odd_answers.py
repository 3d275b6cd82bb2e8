"""A server that differs: what can be read is given out, the rest stands in `extra`, one odd entry harms no other."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave import (
    AuditEvent,
    AuditFrame,
    AuditType,
    EgressPolicy,
    EnclaveClient,
    EndFrame,
    Health,
    MalformedResponseError,
    ResultFrame,
    ResultTypeError,
    Session,
    SessionHandle,
    SessionLimits,
    SessionPhase,
    SessionResult,
    WorkloadKilled,
)
from enclave.types import _split
from enclave.types._answers import decode_session
from tests.support.messages import response, session
from tests.support.plane import ControlPlane

EPOCH_MS = 1735689600000
TIME = "2025-01-01T00:00:00Z"

# What the server sends in a session: what the field is then, and what stands in `extra`.
ODD_FIELDS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "epoch times": (
        {"createdAt": EPOCH_MS, "startedAt": 1.5, "finishedAt": TIME},
        {"created_at": None, "started_at": None, "finished_at": datetime(2025, 1, 1, tzinfo=UTC)},
        {"createdAt": EPOCH_MS, "startedAt": 1.5},
    ),
    "a time of another form": ({"createdAt": "yesterday"}, {"created_at": None}, {"createdAt": "yesterday"}),
    "a phase that is a number": ({"phase": 5}, {"phase": None}, {"phase": 5}),
    "a phase that is null": ({"phase": None}, {"phase": None}, {}),
    "a phase that is new": ({"phase": "frozen"}, {"phase": SessionPhase("frozen")}, {}),
    "a number for a label": (
        {"labels": {"n": 1, "team": "a"}},
        {"labels": {"team": "a"}},
        {"labels": {"n": 1, "team": "a"}},
    ),
    "labels that are a list": ({"labels": ["a"]}, {"labels": {}}, {"labels": ["a"]}),
    "an egress policy that is text": ({"egress": "deny_all"}, {"egress": None}, {"egress": "deny_all"}),
    "an egress policy without networks": (
        {"egress": {"mode": "deny_all", "allow": None}},
        {"egress": EgressPolicy.deny_all()},
        {},
    ),
    "limits that are text": ({"limits": "small"}, {"limits": SessionLimits()}, {"limits": "small"}),
    "units in limits": (
        {"limits": {"memoryMb": "256Mi", "cpuMillis": 500.5, "pids": 64, "cpu": "500m"}},
        {"limits": SessionLimits(pids=64, extra={"memoryMb": "256Mi", "cpuMillis": 500.5, "cpu": "500m"})},
        {},
    ),
    "a result without exit code": (
        {"result": {"json": 5}, "phase": "succeeded"},
        {"result": SessionResult(value=5, phase=SessionPhase.SUCCEEDED)},
        {},
    ),
    "a result that is text": ({"result": "ok"}, {"result": None}, {"result": "ok"}),
    "a kill reason that is an object": (
        {"killReason": {"cpu": 1}},
        {"kill_reason": None},
        {"killReason": {"cpu": 1}},
    ),
    "unknown fields": (
        {"region": "eu", "cost": {"cents": 5}, "extra": 1, "created_at": "x"},
        {"created_at": None},
        {"region": "eu", "cost": {"cents": 5}, "extra": 1, "created_at": "x"},
    ),
    "a null of an unknown field": ({"region": None}, {}, {"region": None}),
    "half an emoji": ({"region": "x\ud83d", "createdAt": 1}, {}, {"region": "x\ufffd", "createdAt": 1}),
}


@pytest.mark.parametrize("case", ODD_FIELDS)
async def test_a_field_that_cannot_be_read_stands_in_extra(server: ControlPlane, client: EnclaveClient, case):
    sent, fields, extra = ODD_FIELDS[case]
    odd = session("s-odd", **{"createdBy": "u-1", "phase": "running"} | sent)
    server.answers(*map(response, [odd, odd, [session("s-1"), odd, session("s-2", orgId="o")]]))
    got = await client.get("s-odd")
    assert {name: getattr(got, name) for name in fields} == fields
    assert got.extra == extra
    assert (got.id, got.created_by) == ("s-odd", "u-1")
    assert json.loads(got.to_json()) == json.loads(got.to_json()) | extra
    handle = await client.run("x")
    assert (handle.id, handle.last_seen) == ("s-odd", got)
    assert await client.list() == [
        Session(id="s-1", phase=SessionPhase.RUNNING),
        got,
        Session(id="s-2", phase=SessionPhase.RUNNING, org_id="o"),
    ]


async def test_an_id_is_all_that_a_session_needs(server: ControlPlane, client: EnclaveClient):
    server.answers(response({"id": "s-1"}), response(status=204))
    async with client.session("x") as handle:
        assert handle.id == "s-1"
    assert [request.method for request in server.requests] == ["POST", "DELETE"]


async def test_a_number_that_no_python_number_can_be_is_kept_as_its_text(server: ControlPlane, client: EnclaveClient):
    server.answers(response(b'{"id":"s-1","cost":1e999,"more":{"n":[1e999]},"created":' + b"9" * 5000 + b"}"))
    assert (await client.get("s-1")).extra == {"cost": "1e999", "more": '{"n":[1e999]}', "created": "9" * 5000}


async def test_a_huge_integer_survives(server: ControlPlane, client: EnclaveClient):
    server.answers(response({"id": "s-1", "cost": 2**200, "result": {"exitCode": 2**70, "json": 2**99}}))
    got = await client.get("s-1")
    assert got.extra == {"cost": 2**200}
    assert got.result == SessionResult(exit_code=2**70, value=2**99)


async def test_an_audit_event_without_detail_keeps_its_fields(server: ControlPlane, client: EnclaveClient):
    server.answers(
        response(
            [
                {"ts": TIME, "type": "egress_denied", "host": "169.254.169.254", "ok": False},
                {"ts": EPOCH_MS, "type": "egress_denied", "detail": {"host": "h"}},
                {"ts": TIME, "type": "egress_denied", "detail": "169.254.169.254"},
                {"event": "egress_denied"},
                {"type": 5, "sessionId": "s-1"},
            ]
        )
    )
    ts = datetime(2025, 1, 1, tzinfo=UTC)
    trail = await client.audit("s-1")
    assert trail == [
        AuditEvent(type=AuditType.EGRESS_DENIED, ts=ts, extra={"host": "169.254.169.254", "ok": False}),
        AuditEvent(type=AuditType.EGRESS_DENIED, detail={"host": "h"}, extra={"ts": EPOCH_MS}),
        AuditEvent(type=AuditType.EGRESS_DENIED, ts=ts, extra={"detail": "169.254.169.254"}),
        AuditEvent(extra={"event": "egress_denied"}),
        AuditEvent(session_id="s-1", extra={"type": 5}),
    ]
    assert [event.particulars.get("host") for event in trail[:2]] == ["169.254.169.254", "h"]


async def test_a_trail_that_holds_what_is_no_event_says_where(server: ControlPlane, client: EnclaveClient):
    server.answers(response([{"type": "session_created"}, 5]))
    with pytest.raises(MalformedResponseError, match=r"Expected `object`, got `int` - at `\$\[1\]`"):
        await client.audit("s-1")


async def test_a_stream_gives_out_odd_events_and_results_as_well(server: ControlPlane, client: EnclaveClient):
    server.streams(
        b'data: {"kind":"audit","event":{"ts":5,"type":"egress_denied","host":"h\\ud83d"},"seq":1}\n\n',
        b'data: {"kind":"result","result":{"exitCode":"0","json":[1],"cost":1e999},"seq":2}\n\n',
        b'data: {"kind":"end"}\n\n',
    )
    async with client.stream("s-1") as frames:
        got = [frame async for frame in frames]
    assert got == [
        AuditFrame(AuditEvent(type=AuditType.EGRESS_DENIED, extra={"ts": 5, "host": "h\ufffd"})),
        ResultFrame(SessionResult(value=[1], extra={"exitCode": "0", "cost": "1e999"})),
        EndFrame(),
    ]


async def test_a_result_keeps_what_cannot_be_read_and_its_value_has_the_callers_type(
    server: ControlPlane, client: EnclaveClient
):
    body = {"exitCode": "0", "json": [1], "stdout": 5, "durationMs": "2 s", "truncated": True}
    server.answers(response(body), response(session(phase="succeeded")), response(body))
    got = await client.result("s-1", list[int])
    assert (got.value, got.exit_code, got.stdout, got.duration_ms) == ([1], None, None, None)
    assert got.extra == {"exitCode": "0", "stdout": 5, "durationMs": "2 s", "truncated": True}
    assert got.raise_for_exit() is got
    with pytest.raises(ResultTypeError, match=r"Expected `str`, got `int` - at `value\[0\]`") as caught:
        await client.result("s-1", list[str])
    assert caught.value.result is not None
    assert caught.value.result.extra == got.extra


@pytest.mark.parametrize("exit_code", [0, 1, 137, None])
async def test_a_killed_session_is_killed_with_any_exit_code(
    server: ControlPlane, client: EnclaveClient, handle: SessionHandle, exit_code: int | None
):
    result = {"exitCode": exit_code}
    server.streams(b'data: {"kind":"phase","phase":"killed","killReason":"memory_exceeded"}\n\n')
    server.answers(response(result))
    with pytest.raises(WorkloadKilled, match="memory_exceeded"):
        (await handle.result()).raise_for_exit()
    killed = response(session(phase="killed", killReason="cpu_exceeded", result=result))
    server.answers(response(result), killed)
    with pytest.raises(WorkloadKilled, match="cpu_exceeded"):
        (await client.result("s-1")).raise_for_exit()
    server.answers(killed)
    with pytest.raises(WorkloadKilled, match="cpu_exceeded"):
        (await client.get("s-1")).result.raise_for_exit()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
WIRE_NAMES = [field.encode_name for field in msgspec.structs.fields(Session) if field.name not in ("id", "extra")]


@given(st.dictionaries(st.sampled_from(WIRE_NAMES) | st.text(), JSON))
def test_no_session_with_an_id_is_refused_and_nothing_of_it_is_lost(fields):
    sent = fields | {"id": "s-1"}
    got = decode_session(json.dumps(sent).encode())
    assert got.id == "s-1"
    again = json.loads(got.to_json())
    lost = {name: value for name, value in sent.items() if value is not None and again[name] != value}
    # A part that was read may be written in another way: a time, a number, a nested null that is left out.
    assert all(name in WIRE_NAMES and name not in got.extra for name in lost)


DEEP = {
    "arrays": b"[" * 100_000 + b"]" * 100_000,
    "objects": b'{"a":[' * 20_000 + b'"]}\\"{"' + b"]}" * 20_000,
}


@pytest.mark.parametrize("deep", DEEP.values(), ids=DEEP)
async def test_a_value_nested_deeper_than_any_stack_hides_neither_its_session_nor_another(
    server: ControlPlane, client: EnclaveClient, deep
):
    odd = b' {"id":"s-2", "result":{"exitCode":0,"json":' + deep + b'} ,"labels":{"a":"b,:]}\\""},"phase":"running" } '
    server.answers(response(odd), response(b'[{"id":"s-1"},' + odd + b',{"id":"s-3"}]'))
    got = await client.get("s-2")
    assert (got.id, got.phase, got.labels) == ("s-2", SessionPhase.RUNNING, {"a": 'b,:]}"'})
    assert got.result is None
    assert got.extra["result"] == '{"exitCode":0,"json":' + deep.decode() + "}"
    assert await client.list() == [Session(id="s-1"), got, Session(id="s-3")]


@pytest.mark.parametrize(
    "body",
    [b'{"id":' + DEEP["arrays"] + b"}", b'{"id":"s-1","x":' + b"[" * 100_000, DEEP["arrays"], b'{"id":"s-1"}' * 2],
)
async def test_what_is_nested_deeply_and_no_session_is_refused(server: ControlPlane, client: EnclaveClient, body):
    server.answers(response(body))
    with pytest.raises(MalformedResponseError, match="GET /sessions/s-1"):
        await client.get("s-1")


@given(JSON)
def test_a_document_is_cut_into_the_members_it_has(value):
    items, members = json.dumps([value, value]).encode(), json.dumps({"a,:": value, "": value}, indent=1).encode()
    assert [json.loads(piece) for piece in _split._pieces(items, b"[]")] == [value, value]
    names_and_values = [json.loads(piece) for piece in _split._pieces(members, b"{}")]
    assert names_and_values == ["a,:", value, "", value]


@pytest.mark.parametrize("ok", [False, True])
async def test_a_503_that_says_how_the_server_is_is_an_answer_and_not_tried_again(
    server: ControlPlane, client: EnclaveClient, ok
):
    server.answers(response({"ok": ok, "backend": "kubernetes", "backendHealthy": False}, 503))
    assert await client.health() == Health(ok=False, backend="kubernetes", backend_healthy=False)
    assert len(server.requests) == 1


async def test_a_503_of_another_shape_is_tried_again(server: ControlPlane, client: EnclaveClient):
    server.answers(response(b"<html>", 503), response({"message": "busy"}, 503), response({"ok": True}))
    assert await client.health() == Health(ok=True)
