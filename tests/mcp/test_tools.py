"""What the tools take, give, and say when something is wrong: the server inside this process, over its protocol."""

from __future__ import annotations

import json
import re

import msgspec
import pytest

pytest.importorskip("mcp.server", reason="the extra mcp is not installed")

from mcp.shared.exceptions import MCPDeprecationWarning, MCPError

from enclave import CreateSessionRequest, EnclaveClient, SessionLimits

pytestmark = pytest.mark.filterwarnings(f"ignore::{MCPDeprecationWarning.__module__}.{MCPDeprecationWarning.__name__}")


def hosting_client(host) -> EnclaveClient:
    """A client of the host's own, for what no tool does."""
    return EnclaveClient(host.simulator.base_url, api_key=host.simulator.api_key)


# What a host is told of the tools


async def test_run_code_takes_every_field_of_a_request_and_describes_it(hosting) -> None:
    async with hosting() as host:
        schema = (await host.client.list_tools()).tools[0].input_schema
    fields = {field.encode_name for field in msgspec.structs.fields(CreateSessionRequest)} - {"__extra__"}
    assert schema["properties"].keys() == fields
    assert (schema["required"], schema["additionalProperties"]) == (["code"], False)
    for described in schema["properties"].values():
        assert described["description"]
    limits = schema["properties"]["limits"]
    assert limits["properties"] == {
        name: {"type": "integer", "minimum": 1} for name in SessionLimits.wire_names().values()
    }
    assert limits["additionalProperties"] is False
    assert all(name in limits["description"] for name in limits["properties"])


def schemas_within(schema: dict):
    yield schema
    children = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
    for child in children:
        if isinstance(child, dict):
            yield from schemas_within(child)


async def test_the_list_of_tools_is_short_because_every_conversation_carries_it(hosting) -> None:
    async with hosting() as host:
        listed = await host.client.list_tools()
        assert len(listed.model_dump_json(by_alias=True, exclude_none=True)) < 8_192


async def test_every_tool_has_a_typed_input_and_output(hosting) -> None:
    async with hosting() as host:
        tools = {tool.name: tool for tool in (await host.client.list_tools()).tools}
        for tool in tools.values():
            for schema in (tool.input_schema, tool.output_schema):
                for inner in schemas_within(schema):
                    assert "type" in inner or inner == tool.output_schema["properties"]["json"]
                    assert not {"$ref", "anyOf", "title"} & inner.keys()
            assert not [inner for inner in schemas_within(tool.input_schema) if isinstance(inner["type"], list)]
        for tool in tools.values():
            assert (tool.input_schema["type"], tool.output_schema["type"]) == ("object", "object")
            assert tool.description
        assert {name for name, tool in tools.items() if tool.annotations.read_only_hint} == {
            "get_result",
            "get_audit",
            "list_sessions",
        }


# The other tools


async def test_a_session_that_has_ended_can_be_looked_at(hosting) -> None:
    async with hosting() as host:
        ran = await host.run("print('hello'); enclave.result([1])")
        answer = await host.call("get_result", sessionId=ran["sessionId"])
        outcome = answer.structured_content
        assert json.loads(answer.content[0].text) == outcome
        assert {name: outcome[name] for name in ("sessionId", "exitCode", "json", "stdout", "deniedEgress")} == {
            name: ran[name] for name in ("sessionId", "exitCode", "json", "stdout", "deniedEgress")
        }
        trail = (await host.call("get_audit", sessionId=ran["sessionId"])).structured_content
        assert [event["type"] for event in trail["events"]][:2] == ["session_created", "sandbox_started"]
        assert (trail["events"][-1]["type"], trail["cutEvents"]) == ("session_torn_down", 0)


async def test_a_session_that_runs_has_no_result_yet_and_can_be_torn_down(hosting) -> None:
    async with hosting() as host, hosting_client(host) as client:
        host.simulator.script(hold=True)
        session = await client.run("x")
        await host.simulator.until(lambda simulator: simulator.phases[session.id] == "running")
        text = await host.error("get_result", sessionId=session.id)
        assert text == f"get_result: session {session.id} is running: it has no result yet. Ask again later"
        for _ in range(2):
            answer = await host.call("teardown_session", sessionId=session.id)
            assert answer.structured_content == {"sessionId": session.id, "tornDown": True}
        assert host.simulator.phases == {session.id: "torn_down"}
        assert "was torn down before it had a result" in await host.error("get_result", sessionId=session.id)


async def test_sessions_are_listed_by_phase(hosting) -> None:
    async with hosting() as host, hosting_client(host) as client:
        host.simulator.script(hold=True)
        session = await client.run("x")
        host.simulator.script()
        ended = await host.run()
        await host.simulator.until(lambda simulator: simulator.phases[session.id] == "running")
        for phase, expected in (("running", session.id), ("torn_down", ended["sessionId"])):
            listed = (await host.call("list_sessions", phase=phase)).structured_content
            assert [found["sessionId"] for found in listed["sessions"]] == [expected]
            assert listed["cutSessions"] == 0
        await client.teardown(session.id)


async def test_the_label_that_the_sdk_made_for_itself_is_not_listed(hosting) -> None:
    async with hosting() as host, hosting_client(host) as client:
        host.simulator.script()
        session = await client.run("x", labels={"team": "data"})
        assert "enclave-sdk.create" in (await client.get(session.id)).labels
        (listed,) = (await host.call("list_sessions")).structured_content["sessions"]
        assert listed["labels"] == {"team": "data"}


# Errors


MISTAKES = [
    ("run_code", {}, "Object missing required field `code`"),
    ("run_code", {"code": 1}, "Expected `str`, got `int` - at `$.code`"),
    ("run_code", {"code": "x", "limit": {}}, "Object contains unknown field `limit`"),
    ("run_code", {"code": "x", "limits": {"memoryMb": 0}}, "run_code: limits.memoryMb: must be positive, got 0"),
    ("run_code", {"code": "x", "limits": {"memory": 1}}, "limits: unknown limit 'memory', expected one of cpuMillis"),
    (
        "run_code",
        {"code": "x", "limits": {"memoryMb": "much"}},
        "limits.memoryMb: Expected `int`, got `str`",
    ),
    (
        "run_code",
        {"code": "x", "limits": {"memoryMb": 5.5}},
        "limits.memoryMb: Expected `int`, got `float`",
    ),
    ("run_code", {"code": "x", "limits": {"__extra__": {"gpus": 1}}}, "limits: unknown limit '__extra__'"),
    (
        "run_code",
        {"code": "x", "labels": {"a": "b"}, "webhookUrl": 1},
        "Expected `str | null`, got `int` - at `$.webhookUrl`",
    ),
    ("run_code", {"code": None}, "Object missing required field `code`"),
    ("run_code", {"code": "x", "limits": "64"}, "Expected `object | null`, got `str` - at `$.limits`"),
    ("run_code", {"code": "x", "limits": "[" * 5000}, "Expected `object | null`, got `str` - at `$.limits`"),
    ("run_code", {"code": "x", "egress": "deny_all"}, "Expected `object | null`, got `str` - at `$.egress`"),
    ("run_code", {"code": "x", "limits": {"pids": True}}, "limits.pids: Expected `int`, got `bool`"),
    ("run_code", {"code": "x", "labels": {"a": None}}, "Expected `str`, got `null` - at `$.labels"),
    ("run_code", {"code": "x", "language": "cobol"}, "Invalid enum value 'cobol' - at `$.language`"),
    (
        "run_code",
        {"code": "x", "egress": {"allow": ["everywhere"]}},
        "egress.allow[0]: 'everywhere' does not appear",
    ),
    (
        "run_code",
        {"code": "x", "egress": {"mode": "deny_all", "allow": ["10.0.0.0/8"]}},
        'takes no networks. Leave the mode out, or set it to "allowlist"',
    ),
    ("run_code", {"code": "x", "limits": {"wallClockMs": "0"}}, "limits.wallClockMs: must be positive, got 0"),
    ("run_code", {"code": "x", "labels": {"memory_mb": "\0", "cpu_millis": 1}}, "Expected `str`, got `int`"),
    ("run_code", {"code": "x", "serviceBindings": ["none"]}, "400"),
    ("get_result", {"sessionId": "s-none"}, "404 session s-none not found"),
    ("get_audit", {"sessionId": "s-none"}, "404 session s-none not found"),
    ("get_audit", {"sessionId": ".."}, "get_audit: sessionId: '..' cannot be the id of a session"),
    ("teardown_session", {"sessionId": ""}, "teardown_session: sessionId: '' cannot be the id of a session"),
    ("list_sessions", {"limit": 101}, "Expected `int` <= 100 - at `$.limit`"),
    ("list_sessions", {"phase": "runing"}, "phase: unknown phase 'runing', expected one of pending, running"),
    ("list_sessions", {"org": "other"}, "Object contains unknown field `org`"),
    ("teardown_session", {}, "Object missing required field `sessionId`"),
]


async def test_an_error_is_one_line_that_names_the_tool_and_the_fault(hosting) -> None:
    async with hosting() as host:
        for tool, arguments, message in MISTAKES:
            text = await host.error(tool, **arguments)
            assert text.startswith(f"{tool}: ")
            assert message in text
            # The names of the SDK in Python are none that a model has seen.
            assert not re.search(r"session_id|memory_mb|wall_clock_ms|service_bindings|webhook_url|EgressPolicy", text)
        assert host.simulator.phases == {}


async def test_a_tool_that_does_not_exist_is_an_error_of_the_protocol(hosting) -> None:
    async with hosting() as host:
        with pytest.raises(MCPError, match=r"no tool rm\. The tools are run_code, get_result"):
            await host.client.session.call_tool("rm", {})


@pytest.mark.parametrize(
    ("client_options", "message"),
    [
        ({"api_key": "ek_wrong_hunter2"}, "401"),
        ({"base_url": "http://127.0.0.1:1"}, "127.0.0.1:1"),
    ],
)
async def test_no_credential_shows_in_an_error_or_a_log_record(hosting, caplog, client_options, message) -> None:
    caplog.set_level("DEBUG")
    options = {"api_key": "ek_test_hunter2", "retry": None} | client_options
    async with hosting(client_options=options) as host:
        text = await host.error("run_code", code="x")
        assert message in text
        assert "hunter2" not in text + caplog.text


async def test_an_unexpected_failure_is_a_tool_error_without_its_inside(hosting, monkeypatch, caplog) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError("secret inside")

    async with hosting() as host:
        monkeypatch.setattr("enclave.EnclaveClient.list", fail)
        text = await host.error("list_sessions")
        assert text == "list_sessions: internal error (ZeroDivisionError). The server's log says more"
        assert "secret inside" in caplog.text


async def test_the_client_is_closed_with_the_connection(hosting) -> None:
    async with hosting() as host:
        host.simulator.script()
        await host.run()
        simulator = host.simulator
        assert simulator.open_connections > 0
        await host.client.__aexit__(None, None, None)
        await simulator.until(lambda simulator: simulator.open_connections == 0)
