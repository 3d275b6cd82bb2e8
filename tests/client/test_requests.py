"""What travels in requests, to the byte, and what becomes of the answers that are no errors."""

from __future__ import annotations

import logging
import re
import types
from collections import UserDict, UserList
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from enclave import (
    AuditEvent,
    AuditType,
    CreateSessionRequest,
    EgressPolicy,
    EnclaveClient,
    Health,
    MalformedResponseError,
    NotFoundError,
    Session,
    SessionLimits,
    SessionPhase,
    SessionResult,
)
from tests.support.messages import END, response, session
from tests.support.plane import ControlPlane

CREATED = response(session(), 201)


@pytest.fixture
async def client(server: ControlPlane) -> AsyncIterator[EnclaveClient]:
    """A client that adds nothing of its own to a request."""
    async with EnclaveClient(server.base_url, api_key="ek_test_secret", recover_creates=False) as client:
        yield client


async def sent_by_run(server: ControlPlane, client: EnclaveClient, *args: object, **fields: object) -> object:
    server.answers(CREATED)
    await client.run(*args, **fields)
    request = server.requests[-1]
    assert (request.method, request.target) == ("POST", "/sessions")
    assert request.headers["content-type"] == "application/json"
    return request.json


async def test_a_source_text_alone_is_sent_alone(server: ControlPlane, client: EnclaveClient):
    assert await sent_by_run(server, client, "print(1)") == {"code": "print(1)"}
    assert await sent_by_run(server, client, code="print(1)") == {"code": "print(1)"}
    assert server.requests[-1].body == b'{"code":"print(1)"}'


async def test_every_field_has_its_wire_name(server: ControlPlane, client: EnclaveClient):
    sent = await sent_by_run(
        server,
        client,
        "x",
        language="node",
        limits=SessionLimits(cpu_millis=500, memory_mb=128, wall_clock_ms=1000, pids=8, extra={"gpuCount": 1}),
        egress=EgressPolicy.allowlist("203.0.113.0/24", "2001:db8::/32"),
        service_bindings=("db", "cache"),
        webhook_url="https://example.org/hook",
        labels={"team": "a", "snake_case": "b"},
        extra={"interactive": True, "git": {"url": "u"}},
    )
    assert sent == {
        "code": "x",
        "language": "node",
        "limits": {"cpuMillis": 500, "memoryMb": 128, "wallClockMs": 1000, "pids": 8, "gpuCount": 1},
        "egress": {"mode": "allowlist", "allow": ["203.0.113.0/24", "2001:db8::/32"]},
        "serviceBindings": ["db", "cache"],
        "webhookUrl": "https://example.org/hook",
        "labels": {"team": "a", "snake_case": "b"},
        "interactive": True,
        "git": {"url": "u"},
    }


async def test_a_limit_that_is_unset_is_left_out_and_a_policy_is_always_whole(
    server: ControlPlane, client: EnclaveClient
):
    sent = await sent_by_run(server, client, "x", limits=SessionLimits(pids=3), egress=EgressPolicy.deny_all())
    assert sent == {"code": "x", "limits": {"pids": 3}, "egress": {"mode": "deny_all", "allow": []}}


@pytest.mark.parametrize("mapping", [dict, UserDict, types.MappingProxyType])
@pytest.mark.parametrize("sequence", [list, tuple, UserList])
async def test_any_mapping_and_any_sequence_will_do(
    server: ControlPlane, client: EnclaveClient, mapping: type, sequence: type
):
    sent = await sent_by_run(
        server,
        client,
        "x",
        labels=mapping({"a": "b"}),
        service_bindings=sequence(["db"]),
        egress=EgressPolicy("allowlist", sequence(["10.0.0.0/8"])),
    )
    assert sent == {
        "code": "x",
        "labels": {"a": "b"},
        "serviceBindings": ["db"],
        "egress": {"mode": "allowlist", "allow": ["10.0.0.0/8"]},
    }


CYCLE: list[object] = []
CYCLE.append(CYCLE)


class Text(str):
    """As template engines mark text that is safe: it gives itself back."""

    __slots__ = ()

    def __str__(self):
        return self


class Number(int):
    def __int__(self):
        return self

    def __index__(self):
        return self


class Fraction(float):
    def __float__(self):
        return self


async def test_subclasses_of_built_in_types_are_sent_as_what_they_are(server: ControlPlane, client: EnclaveClient):
    sent = await sent_by_run(
        server,
        client,
        Text("x"),
        language=Text("python"),
        webhook_url=Text("u"),
        labels={Text("a"): Text("bc")},
        service_bindings=[Text("db")],
        limits=SessionLimits(pids=Number(3)),
        egress=EgressPolicy(Text("allowlist"), [Text("10.0.0.0/8")]),
        extra={Text("a"): [Text("bc"), {Text("d"): Text("e")}], "b": range(2), "c": Fraction(1.5)},
    )
    assert sent == {
        "code": "x",
        "language": "python",
        "webhookUrl": "u",
        "labels": {"a": "bc"},
        "serviceBindings": ["db"],
        "limits": {"pids": 3},
        "egress": {"mode": "allowlist", "allow": ["10.0.0.0/8"]},
        "a": ["bc", {"d": "e"}],
        "b": [0, 1],
        "c": 1.5,
    }


async def test_fields_on_top_of_a_request_take_the_place_of_its_own(server: ControlPlane, client: EnclaveClient):
    request = CreateSessionRequest(code="x", language="python", labels={"a": "1"})
    assert await sent_by_run(server, client, request, language="node", labels=None) == {"code": "x", "language": "node"}
    assert await sent_by_run(server, client, request) == {"code": "x", "language": "python", "labels": {"a": "1"}}


async def test_text_of_any_script_arrives(server: ControlPlane, client: EnclaveClient):
    code = "print('é 😀 \u2028 \x00')"
    assert await sent_by_run(server, client, code) == {"code": code}


@pytest.mark.parametrize(
    ("fields", "error", "names"),
    [
        ({}, TypeError, "code"),
        ({"code": 5}, TypeError, "code"),
        ({"code": b"x"}, TypeError, "code"),
        ({"code": "a\ud800"}, ValueError, "code: character 1 is a lone surrogate"),
        ({"code": "x", "labels": {"a": "\udc00"}}, ValueError, r"labels\['a'\]: character 0 is a lone surrogate"),
        ({"code": "x", "language": 1}, TypeError, "language"),
        ({"code": "x", "memory": 1}, TypeError, "memory: not a field"),
        ({"code": "x", "webhook_url": 1}, TypeError, "webhook_url"),
        ({"code": "x", "limits": {"pids": 1}}, TypeError, "limits: expected SessionLimits"),
        ({"code": "x", "limits": SessionLimits(pids=0)}, ValueError, r"limits\.pids"),
        ({"code": "x", "limits": SessionLimits(pids=True)}, TypeError, r"limits\.pids"),
        ({"code": "x", "limits": SessionLimits(memory_mb=1.5)}, TypeError, r"limits\.memory_mb"),
        ({"code": "x", "limits": SessionLimits(extra={"pids": 1})}, ValueError, r"limits\.extra\['pids'\].*pids="),
        ({"code": "x", "egress": "deny_all"}, TypeError, "egress: expected"),
        ({"code": "x", "egress": EgressPolicy("allowlist", ("10.0.0.1/8",))}, ValueError, r"egress\.allow\[0\]"),
        ({"code": "x", "egress": EgressPolicy("allowlist", ("a", "b"))}, ValueError, r"egress\.allow\[0\]"),
        ({"code": "x", "egress": EgressPolicy("allowlist", "10.0.0.0/8")}, TypeError, r"egress\.allow"),
        ({"code": "x", "egress": EgressPolicy("allowlist", 5)}, TypeError, r"egress\.allow"),
        ({"code": "x", "egress": EgressPolicy(5)}, TypeError, r"egress\.mode"),
        ({"code": "x", "egress": EgressPolicy("deny_all", ("10.0.0.0/8",))}, ValueError, r"egress\.allow"),
        ({"code": "x", "service_bindings": "db"}, TypeError, "service_bindings"),
        ({"code": "x", "service_bindings": {"db": 1}}, TypeError, "service_bindings"),
        ({"code": "x", "service_bindings": ["db", 1]}, TypeError, r"service_bindings\[1\]"),
        ({"code": "x", "labels": ["a"]}, TypeError, "labels"),
        ({"code": "x", "labels": {"a": 1}}, TypeError, r"labels\['a'\]"),
        ({"code": "x", "labels": {1: "a"}}, TypeError, "labels: each key"),
        ({"code": "x", "extra": {"webhookUrl": "u"}}, ValueError, r"extra\['webhookUrl'\].*webhook_url="),
        ({"code": "x", "extra": {"a": object()}}, TypeError, "extra.*object"),
        ({"code": "x", "limits": SessionLimits(extra={"a": object()})}, TypeError, "extra.*object"),
        ({"code": "x", "extra": {"a": "\udc00"}}, ValueError, "extra"),
        ({"code": "x", "extra": []}, TypeError, "extra"),
        ({"code": "x", "extra": {"a": CYCLE}}, ValueError, "extra.*holds itself"),
    ],
)
async def test_a_request_that_no_server_can_take_is_refused_by_the_fields_name(
    server: ControlPlane, client: EnclaveClient, fields, error, names
):
    with pytest.raises(error, match=names):
        await client.run(**fields)
    with pytest.raises(error, match=names):
        async with client.session(**fields):
            pytest.fail("entered")
    if set(fields) > {"code"} and "memory" not in fields:
        others = {name: value for name, value in fields.items() if name != "code"}
        with pytest.raises(error, match=names):
            await client.run(CreateSessionRequest(code="x"), **others)
    assert server.requests == []


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        *((limit, rf"It is a limit\. Pass limits=SessionLimits\({limit}=") for limit in SessionLimits.wire_names()),
        *((wire, rf"limits=SessionLimits\({limit}=") for limit, wire in SessionLimits.wire_names().items()),
        ("wall_clock", r"Did you mean limits=SessionLimits\(wall_clock_ms=\.\.\.\)\?"),
        ("memory", r"Did you mean limits=SessionLimits\(memory_mb=\.\.\.\)\?"),
        ("cpu", r"Did you mean limits=SessionLimits\(cpu_millis=\.\.\.\)\?"),
        ("label", r"Did you mean labels\?"),
        ("lang", r"Did you mean language\?"),
        ("webhookUrl", r"Did you mean webhook_url\?"),
        ("bindings", r"Did you mean service_bindings\?"),
        ("timeout", r"limits=SessionLimits\(wall_clock_ms=.*Timeout\(total=.*anyio\.fail_after"),
        ("timeout_seconds", r"limits=SessionLimits\(wall_clock_ms="),
        ("git_source", r"Send a field that the SDK has no name for with extra="),
        ("x", r"Send a field that the SDK has no name for with extra="),
    ],
)
async def test_a_name_that_is_no_field_is_refused_with_what_was_meant(client: EnclaveClient, name: str, advice: str):
    fields: dict[str, Any] = {name: 1}
    with pytest.raises(TypeError, match=rf"^{name}: not a field of CreateSessionRequest \(code, .*\)\. .*{advice}"):
        client.session("x", **fields)


async def test_a_request_of_another_type_or_two_sources_is_refused(client: EnclaveClient):
    with pytest.raises(TypeError, match="request: expected source text or a CreateSessionRequest, got int"):
        await client.run(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="code: given twice"):
        await client.run("a", code="b")


@pytest.mark.parametrize(
    ("session_id", "quoted"),
    [
        ("s-6b44fc-2", "s-6b44fc-2"),
        ("a/b", "a%2Fb"),
        ("../s-2", "..%2Fs-2"),
        ("a?b", "a%3Fb"),
        ("a#b", "a%23b"),
        ("a%2Fb", "a%252Fb"),
        ("a b", "a%20b"),
        ("é", "%C3%A9"),
        ("a\r\nX: y", "a%0D%0AX%3A%20y"),
        ("a;b&c=d+e", "a%3Bb%26c%3Dd%2Be"),
        ("...", "..."),
        ("\\", "%5C"),
    ],
)
async def test_an_id_is_quoted_so_that_it_can_reach_no_other_route(
    server: ControlPlane, client: EnclaveClient, session_id, quoted
):
    server.answers(response(session(session_id)), response([]), response(status=204))
    server.streams(b'data: {"kind":"end"}\n\n')
    assert (await client.get(session_id)).id == session_id
    await client.audit(session_id)
    await client.teardown(session_id)
    async with client.attach(session_id).stream() as frames:
        assert [frame.kind async for frame in frames] == ["end"]
    suffixes = ["", "/audit", "", "/stream"]
    assert [request.target for request in server.requests] == [f"/sessions/{quoted}{suffix}" for suffix in suffixes]


@pytest.mark.parametrize(
    ("session_id", "error"),
    [
        *(("", ValueError), (".", ValueError), ("..", ValueError), ("a\ud800", ValueError)),
        *((5, TypeError), (None, TypeError), (b"s-1", TypeError)),
    ],
)
async def test_what_cannot_be_a_sessions_id_is_refused_before_anything_is_sent(
    server: ControlPlane, client: EnclaveClient, session_id, error
):
    for call in (client.get, client.audit, client.teardown, client.result):
        with pytest.raises(error, match="session_id: "):
            await call(session_id)
    for make in (client.attach, client.stream):
        with pytest.raises(error, match="session_id: "):
            make(session_id)
    assert server.requests == []


async def test_health_carries_no_credential_and_everything_else_does(server: ControlPlane, client: EnclaveClient):
    server.answers(response({"ok": True, "backend": "docker", "backendHealthy": False, "new": 1}), response([]))
    health = await client.health()
    await client.list()
    assert (health.ok, health.backend, health.backend_healthy) == (True, "docker", False)
    assert "authorization" not in server.requests[0].headers
    assert server.requests[1].headers["authorization"] == "Bearer ek_test_secret"


async def test_a_session_that_is_newer_than_the_sdk_stays_readable(server: ControlPlane, client: EnclaveClient):
    document = session(
        phase="hibernating",
        killReason="bored",
        backend="quantum",
        limits={"pids": 4, "cpuMillis": 1, "memoryMb": 2, "wallClockMs": 3, "gpuCount": 1, "nested": {"a": [1]}},
        egress={"mode": "maybe", "allow": ["everything"], "since": 1},
        createdAt="2024-05-01T12:00:00.123Z",
        startedAt=None,
        unknown={"a": 1},
    )
    server.answers(response(document), response([document, session("s-2")]))
    one = await client.get("s-1")
    assert one.phase == "hibernating"
    assert not one.phase.is_known
    assert not one.phase.is_terminal
    assert one.kill_reason == "bored"
    assert one.backend == "quantum"
    assert one.limits == SessionLimits(
        pids=4, cpu_millis=1, memory_mb=2, wall_clock_ms=3, extra={"gpuCount": 1, "nested": {"a": [1]}}
    )
    assert one.egress == EgressPolicy("maybe", ["everything"])
    assert one.created_at.isoformat() == "2024-05-01T12:00:00.123000+00:00"
    assert (one.started_at, one.finished_at) == (None, None)
    assert await client.list() == [one, Session(id="s-2", phase=SessionPhase.RUNNING)]


async def test_limits_that_were_received_can_be_sent_again(server: ControlPlane, client: EnclaveClient):
    server.answers(response(session(limits={"pids": 4, "gpuCount": 1})))
    limits = (await client.get("s-1")).limits
    assert await sent_by_run(server, client, "x", limits=limits) == {"code": "x", "limits": {"pids": 4, "gpuCount": 1}}


async def test_an_audit_trail_with_unknown_types_stays_readable(server: ControlPlane, client: EnclaveClient):
    trail = [
        {"ts": "2024-05-01T12:00:00Z", "type": "session_created", "sessionId": "s-1"},
        {"ts": "2024-05-01T12:00:01Z", "type": "egress_denied", "detail": {"host": "169.254.169.254"}},
        {"type": "coffee_made", "cups": 2},
    ]
    server.answers(response(trail))
    created, denied, unknown = await client.audit("s-1")
    assert created.type is AuditType.SESSION_CREATED
    assert created.session_id == "s-1"
    assert denied.detail == {"host": "169.254.169.254"}
    assert unknown.type == "coffee_made"
    assert unknown.ts is None


@pytest.mark.parametrize("answer", [response(status=204), response(), response({"ok": 1}), response(b"<html>")])
async def test_a_teardown_takes_any_success_with_any_body(server: ControlPlane, client: EnclaveClient, answer):
    server.answers(answer, response([]))
    await client.teardown("s-1")
    await client.list()
    assert (server.requests[0].method, server.requests[0].target) == ("DELETE", "/sessions/s-1")


@pytest.mark.parametrize("status", [200, 201, 202])
async def test_a_creation_takes_any_success(server: ControlPlane, client: EnclaveClient, status):
    server.answers(response(session("s-9"), status))
    handle = await client.run("x")
    assert handle.id == "s-9"
    assert handle.phase is SessionPhase.RUNNING


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (response(), "It is empty"),
        (response(b"<html>hello</html>", content_type="text/html"), "<html>hello"),
        (response({"sessions": []}), "Expected `array`, got `object`"),
        (response([session(), {"phase": "running"}]), r"missing required field `id`.*\$\[1\]"),
        (response([session(), {"id": 7}]), r"Expected `str`, got `int` - at `\$\[1\]\.id`"),
        (response([session(), session("..", createdAt=7)]), r"session_id: '\.\.' cannot be the id.*\$\[1\]"),
        (response([session(), "s-2"]), r"Expected `object`, got `str` - at `\$\[1\]`"),
        (response(b'[{"id":'), "Input data was truncated"),
        (response(b"\xff\xfe"), "not what the route promises"),
    ],
)
async def test_an_answer_that_is_no_answer_says_where_it_is_wrong(
    server: ControlPlane, client: EnclaveClient, answer, says
):
    server.answers(answer)
    with pytest.raises(MalformedResponseError, match=says) as caught:
        await client.list()
    assert "GET /sessions" in str(caught.value)
    assert len(server.requests) == 1


async def test_text_that_javascript_cut_in_two_is_repaired_in_every_body(server: ControlPlane, client: EnclaveClient):
    body = b'{"id":"s-1","phase":"running","labels":{"a":"x\\ud83d","b":"y\xff","c":"\\ud83d\\ude00","d":"\\\\ud83d"}}'
    server.answers(response(body), response(b"[" + body + b"]"))
    expected = {"a": "x\ufffd", "b": "y\ufffd", "c": "😀", "d": "\\ud83d"}
    assert (await client.get("s-1")).labels == expected
    assert [one.labels for one in await client.list()] == [expected]


def nulls(type_: type[msgspec.Struct]) -> dict[str, None]:
    """Null for each field that the type does not demand, under its wire name."""
    optional = [field.encode_name for field in msgspec.structs.fields(type_) if not field.required]
    return {name: None for name in optional if name != "__extra__"}


async def test_a_null_is_taken_for_an_optional_field_that_was_left_out(server: ControlPlane, client: EnclaveClient):
    full = session(**nulls(Session) | {"phase": "running"})
    result = nulls(SessionResult) | {"exitCode": 0}
    server.answers(*map(response, [full, [full, session(limits=nulls(SessionLimits), result=result)]]))
    seen = await client.get("s-1")
    assert seen == Session(id="s-1", phase=SessionPhase.RUNNING)
    assert (seen.limits, seen.labels) == (SessionLimits(), {})
    in_list, with_objects = await client.list()
    assert in_list == seen
    assert with_objects.limits == SessionLimits()
    assert with_objects.result == SessionResult(exit_code=0)

    server.answers(response([nulls(AuditEvent) | {"type": "session_created"}]), response({"ok": True, **nulls(Health)}))
    assert await client.audit("s-1") == [AuditEvent(type=AuditType.SESSION_CREATED)]
    assert await client.health() == Health(ok=True)


async def test_what_decodes_from_a_null_is_not_shared_between_objects(server: ControlPlane, client: EnclaveClient):
    server.answers(response([session(labels=None)] * 2), response([{"type": "new", "detail": None}] * 2))
    first, second = await client.list()
    assert first.labels is not second.labels
    one, other = await client.audit("s-1")
    assert one.detail is not other.detail


async def test_each_response_is_one_debug_record_of_a_request_and_of_a_stream_alike(
    server: ControlPlane, client: EnclaveClient, caplog
):
    caplog.set_level(logging.DEBUG, "enclave")
    server.answers(response([]), response({"message": "no"}, 404))
    server.streams(END)
    await client.list()
    with pytest.raises(NotFoundError):
        await client.get("s-1")
    async with client.stream("s-1") as frames:
        assert [frame.kind async for frame in frames] == ["end"]
    records = [record for record in caplog.records if record.name == "enclave"]
    assert [record.levelname for record in records] == ["DEBUG"] * 3
    texts = [re.sub(r"\d+\.\d{3} s", "T", record.getMessage()) for record in records]
    assert texts == [
        "GET /sessions: 200 after T",
        "GET /sessions/s-1: 404 after T",
        "GET /sessions/s-1/stream: 200 after T",
    ]


async def test_a_cookie_is_neither_kept_nor_sent(server: ControlPlane, client: EnclaveClient):
    server.answers(response([], set_cookie="a=b; Path=/"), response([]))
    await client.list()
    await client.list()
    assert [request.headers.get("cookie") for request in server.requests] == [None, None]
