"""What the tools take, give, and say when something is wrong: the server inside this process, over its protocol."""

from __future__ import annotations

import json

import anyio
import msgspec
import pytest

pytest.importorskip("mcp.server", reason="the extra mcp is not installed")

from mcp.shared.exceptions import MCPDeprecationWarning, MCPError

from enclave import CreateSessionRequest, EnclaveClient, SessionLimits, StderrFrame, StdoutFrame
from enclave.mcp import _bounded, _run, _tools
from enclave.mcp._bounded import MAX_LINE_CHARS, Tail, one_line

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


# run_code


async def test_every_argument_reaches_the_control_plane(hosting) -> None:
    async with hosting(service_bindings={"db": "http://127.0.0.1:1"}) as host:
        host.simulator.script()
        outcome = await host.run(
            "x",
            language="python",
            limits={"cpuMillis": 500, "memoryMb": 64, "wallClockMs": 1000, "pids": 8},
            egress={"allow": ["203.0.113.0/24"]},
            serviceBindings=["db"],
            labels={"for": "test"},
        )
        async with hosting_client(host) as client:
            session = await client.get(outcome["sessionId"])
        assert session.limits == SessionLimits(cpu_millis=500, memory_mb=64, wall_clock_ms=1000, pids=8)
        assert (session.egress.mode, list(session.egress.allow)) == ("allowlist", ["203.0.113.0/24"])
        assert (session.language, session.labels["for"]) == ("python", "test")


@pytest.mark.parametrize("number", ["5000", 5000.0, "5000.0"])
async def test_numbers_are_taken_however_a_host_writes_them(hosting, number) -> None:
    async with hosting() as host, hosting_client(host) as client:
        host.simulator.script()
        outcome = await host.run(limits={"wallClockMs": number})
        assert (await client.get(outcome["sessionId"])).limits.wall_clock_ms == 5000
        await host.call("list_sessions", limit=str(number))


async def test_code_that_fails_or_is_killed_is_an_outcome_and_no_tool_error(hosting) -> None:
    async with hosting() as host:
        host.simulator.script([StderrFrame("oh no\n")], exit_code=3)
        failed = await host.run()
        assert (failed["phase"], failed["exitCode"], failed["stderr"]["tail"]) == ("failed", 3, "oh no\n")
        host.simulator.script(kill_reason="memory_exceeded")
        killed = await host.run()
        assert (killed["phase"], killed["exitCode"], killed["killReason"]) == ("killed", None, "memory_exceeded")
        assert host.progress[-1][1] == "killed: memory_exceeded"


async def test_the_reason_of_a_kill_is_asked_for_where_the_stream_does_not_give_it(hosting) -> None:
    async with hosting() as host:
        killed = {"kind": "phase", "phase": "killed"}
        host.simulator.script([{"kind": "result", "result": {"exitCode": None}}, killed], kill_reason="pids_exceeded")
        outcome = await host.run()
        assert (outcome["exitCode"], outcome["killReason"]) == (None, "pids_exceeded")


async def test_an_event_beyond_all_bounds_costs_the_output_after_it_not_the_outcome(hosting) -> None:
    async with hosting(client_options={"max_event_bytes": 1000}) as host:
        host.simulator.script([StdoutFrame("a"), StdoutFrame("x" * 2000), StdoutFrame("b")], result=1)
        outcome = await host.run()
        assert (outcome["stdout"]["tail"], outcome["json"]) == ("a", 1)
        assert "exceeds max_event_bytes=1000" in outcome["warnings"][0]


async def test_progress_only_grows(hosting) -> None:
    async with hosting() as host:
        host.simulator.script([StdoutFrame(f"{n}\n") for n in range(20)], delay_seconds=0.001)
        await host.run()
        done = [done for done, _ in host.progress]
        assert done == sorted(set(done))
        assert host.progress[0] == (0, f"session {next(iter(host.simulator.phases))}")


async def test_long_output_is_cut_to_its_tail_and_the_outcome_says_by_how_much(hosting, monkeypatch) -> None:
    monkeypatch.setattr(_run, "MAX_TAIL_CHARS", 10)
    monkeypatch.setattr(_run, "MAX_TOLD_CHARS", 100)
    async with hosting() as host:
        host.simulator.script([StdoutFrame(f"{n:04}") for n in range(200)] + [StderrFrame("short")])
        outcome = await host.run()
        assert outcome["stdout"] == {"tail": "9701980199", "cutChars": 790}
        assert outcome["stderr"] == {"tail": "short", "cutChars": 0}
        assert len(host.told) == 100
        assert "output beyond 100 characters was not sent while the run went on" in outcome["warnings"]


async def test_a_value_too_large_for_a_model_is_left_out_and_the_outcome_says_so(hosting, monkeypatch) -> None:
    monkeypatch.setattr(_bounded, "MAX_VALUE_BYTES", 100)
    async with hosting() as host:
        host.simulator.script(result="x" * 99)
        outcome = await host.run()
        assert outcome["json"] is None
        assert outcome["warnings"] == ["json was left out: it has 101 bytes, and at most 100 are shown"]


@pytest.mark.parametrize("depth", [51, 300, 900])
async def test_a_value_nested_too_deep_costs_itself_and_not_the_outcome(hosting, depth) -> None:
    async with hosting() as host:
        result = '{"exitCode":0,"json":' + "[" * depth + "]" * depth + "}"
        body = f'{{"id":"s-1","phase":"succeeded","result":{result}}}'.encode()
        host.simulator.faults.respond(200, path="/sessions/s-1", body=body)
        host.simulator.faults.respond(200, path="/sessions/s-1/audit", body=b"[]")
        outcome = (await host.call("get_result", sessionId="s-1")).structured_content
        assert (outcome["phase"], outcome["json"]) == ("succeeded", None)
        assert outcome["warnings"] == ["json was left out: it is nested deeper than 50 levels"]
        assert (await host.run(f"enclave.result({'[' * 50 + ']' * 50})"))["warnings"] == []


async def test_denied_hosts_are_counted_and_bounded(hosting, monkeypatch) -> None:
    monkeypatch.setattr(_run, "MAX_DENIED_HOSTS", 2)
    async with hosting() as host:
        denied = [
            {"kind": "audit", "event": {"type": "egress_denied", "detail": {"host": name}}}
            for name in ("a", "b", "a", "c")
        ]
        host.simulator.script(denied)
        outcome = await host.run()
        assert outcome["deniedEgress"] == [{"host": "a", "attempts": 2}, {"host": "b", "attempts": 1}]
        assert len(outcome["warnings"]) == 1


async def test_a_connection_that_drops_is_resumed_and_nothing_is_told_twice(hosting) -> None:
    async with hosting() as host:
        host.simulator.faults.drop_stream(after_frames=5)
        host.simulator.script([StdoutFrame(f"{n}\n") for n in range(5)], result=1)
        outcome = await host.run()
        assert outcome["stdout"]["tail"] == host.told == "0\n1\n2\n3\n4\n"
        assert (outcome["json"], outcome["warnings"]) == (1, [])


async def test_a_stream_that_cannot_be_resumed_costs_its_output_not_the_outcome(hosting) -> None:
    async with hosting(client_options={"retry": None}) as host:
        host.simulator.faults.drop_stream(after_frames=5)
        host.simulator.script([StdoutFrame("a"), StdoutFrame("b")], result=1)
        outcome = await host.run()
        assert (outcome["phase"], outcome["exitCode"], outcome["json"]) == ("succeeded", 0, 1)
        assert outcome["stdout"]["tail"] == "a"
        (warning,) = outcome["warnings"]
        assert "interrupted after 5 frames" in warning


async def test_a_frame_that_is_none_costs_itself_and_a_warning(hosting) -> None:
    async with hosting() as host:
        host.simulator.script([StdoutFrame("a"), b"{", StdoutFrame("b")], result=1)
        outcome = await host.run()
        assert (outcome["stdout"]["tail"], outcome["json"]) == ("ab", 1)
        assert "cannot be read" in outcome["warnings"][0]


async def test_a_session_that_cannot_be_torn_down_is_reported_with_the_outcome(hosting) -> None:
    async with hosting(client_options={"retry": None}) as host:
        host.simulator.faults.respond(500, method="DELETE")
        host.simulator.script(result=1)
        outcome = await host.run()
        assert outcome["json"] == 1
        (warning,) = outcome["warnings"]
        assert warning.startswith("the session could not be torn down, call teardown_session: DELETE /sessions/")
        await host.call("teardown_session", sessionId=outcome["sessionId"])
        assert list(host.simulator.phases.values()) == ["torn_down"]


async def test_runs_at_the_same_time_do_not_mix(hosting) -> None:
    async with hosting() as host:
        outcomes = {}

        async def run(number: int) -> None:
            outcomes[number] = await host.run(f"print({number}); enclave.result({number})")

        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(run, number)
        for number, outcome in outcomes.items():
            assert (outcome["json"], outcome["stdout"]["tail"]) == (number, f"{number}\n")


async def test_a_host_can_ask_for_no_output_while_it_runs(hosting) -> None:
    async with hosting() as host:
        await host.client.session.set_logging_level("warning")
        host.simulator.script([StdoutFrame("text")])
        outcome = await host.run()
        assert (host.logs, outcome["stdout"]["tail"]) == ([], "text")


async def test_control_sequences_in_output_do_not_reach_messages_for_people(hosting) -> None:
    async with hosting() as host:
        host.simulator.script([StdoutFrame("\x1b]0;title\x07\x1b[2Jcafé\n")])
        await host.run()
        messages = [message for _, message in host.progress]
        assert "stdout: \ufffd]0;title\ufffd\ufffd[2Jcafé" in messages


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


async def test_lists_are_bounded_newest_first_and_say_what_was_cut(hosting, monkeypatch) -> None:
    monkeypatch.setattr(_tools, "MAX_AUDIT_EVENTS", 1)
    async with hosting() as host:
        for number in range(3):
            host.simulator.script(exit_code=number)
            await host.run(labels={"number": str(number)})
        listed = (await host.call("list_sessions", limit=2)).structured_content
        assert [session["labels"]["number"] for session in listed["sessions"]] == ["2", "1"]
        assert [session["exitCode"] for session in listed["sessions"]] == [2, 1]
        assert listed["cutSessions"] == 1
        trail = (await host.call("get_audit", sessionId=listed["sessions"][0]["sessionId"])).structured_content
        assert [event["type"] for event in trail["events"]] == ["session_torn_down"]
        assert trail["cutEvents"] > 0


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


BIG = "x" * 2_000_000


async def test_no_answer_is_larger_than_its_bound_whatever_a_server_sends(hosting) -> None:
    session = {"phase": "running" + BIG, "killReason": BIG, "language": BIG, "createdAt": "2026-01-02T03:04:05Z"}
    session["labels"] = {"a": "b", "big": BIG} | {f"more{n}{BIG[:1000]}": "x" for n in range(100)}
    sessions = [{"id": f"s-{n}{'-' * 1000}"} | session for n in range(100)] + [{"id": BIG} | session]
    event = {"ts": "2026-01-02T03:04:05Z", "type": "novel" + BIG}
    event["detail"] = {"host": "h", "big": BIG, "deep": 0} | {f"more{n}": "x" for n in range(100)}
    for _ in range(300):
        event["detail"]["deep"] = [event["detail"]["deep"]]
    async with hosting(client_options={"max_response_bytes": 1 << 30}) as host:
        host.simulator.faults.respond(200, method="GET", body=json.dumps(sessions[-5:]).encode())
        answer = await host.call("list_sessions", limit=100)
        listed = answer.structured_content
        assert len(answer.content[0].text.encode()) < 66_000
        assert len(listed["sessions"]) + listed["cutSessions"] == 5
        labels = listed["sessions"][0]["labels"]
        assert (labels["a"], labels["big"], len(labels)) == ("b", "… 2000002 bytes left out", 21)
        assert labels["…"] == "82 more left out"
        host.simulator.faults.respond(200, method="GET", body=json.dumps([event] * 5).encode())
        answer = await host.call("get_audit", sessionId="s-1")
        trail = answer.structured_content
        assert len(answer.content[0].text.encode()) < 66_000
        assert len(trail["events"]) + trail["cutEvents"] == 5
        assert trail["events"][0]["detail"]["host"] == "h"
        assert trail["events"][0]["detail"]["deep"] == "… 601 bytes left out"


# Errors


MISTAKES = [
    ("run_code", {}, "Object missing required field `code`"),
    ("run_code", {"code": 1}, "Expected `str`, got `int` - at `$.code`"),
    ("run_code", {"code": "x", "limit": {}}, "Object contains unknown field `limit`"),
    ("run_code", {"code": "x", "limits": {"memoryMb": 0}}, "limits.memory_mb: must be positive, got 0"),
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
    ("run_code", {"code": "x", "language": "cobol"}, "Invalid enum value 'cobol' - at `$.language`"),
    (
        "run_code",
        {"code": "x", "egress": {"allow": ["everywhere"]}},
        "egress.allow[0]: 'everywhere' does not appear",
    ),
    ("run_code", {"code": "x", "egress": {"mode": "deny_all", "allow": ["10.0.0.0/8"]}}, "takes no networks"),
    ("run_code", {"code": "x", "serviceBindings": ["none"]}, "400"),
    ("get_result", {"sessionId": "s-none"}, "404 session s-none not found"),
    ("get_audit", {"sessionId": "s-none"}, "404 session s-none not found"),
    ("get_audit", {"sessionId": ".."}, "id"),
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


# Texts


def test_a_tail_keeps_the_end_however_the_text_was_cut() -> None:
    text = "".join(chr(97 + n % 26) for n in range(1000))
    for size in (1, 3, 7, 500, 1000):
        tail = Tail(10)
        for start in range(0, len(text), size):
            tail.add(text[start : start + size])
        assert (tail.text(), tail.cut_chars) == (text[-10:], 990)


def test_a_line_is_short_and_printable() -> None:
    assert one_line("a\nb\t\x00c\u202e") == "a b \ufffdc\ufffd"
    assert len(one_line("word " * 1000)) == MAX_LINE_CHARS
