"""The tool `run_code`: its outcome, and what a host is told while the code runs."""

from __future__ import annotations

import json

import anyio
import pytest

pytest.importorskip("mcp.server", reason="the extra mcp is not installed")

from mcp.shared.exceptions import MCPDeprecationWarning

from enclave import EnclaveClient, SessionLimits, StderrFrame, StdoutFrame

pytestmark = pytest.mark.filterwarnings(f"ignore::{MCPDeprecationWarning.__module__}.{MCPDeprecationWarning.__name__}")


def hosting_client(host) -> EnclaveClient:
    """A client of the host's own, for what no tool does."""
    return EnclaveClient(host.simulator.base_url, api_key=host.simulator.api_key)


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


@pytest.mark.parametrize("number", ["5000", 5000.0, "5000.0", " 5000\n"])
async def test_numbers_are_taken_however_a_host_writes_them(hosting, number) -> None:
    async with hosting() as host, hosting_client(host) as client:
        host.simulator.script()
        outcome = await host.run(limits={"wallClockMs": number})
        assert (await client.get(outcome["sessionId"])).limits.wall_clock_ms == 5000
        await host.call("list_sessions", limit=str(number))


async def test_null_stands_for_what_was_not_given(hosting) -> None:
    async with hosting() as host, hosting_client(host) as client:
        host.simulator.script()
        names = ("language", "limits", "serviceBindings", "webhookUrl", "labels")
        outcome = await host.run(egress={"mode": None, "allow": None}, **dict.fromkeys(names))
        assert (await client.get(outcome["sessionId"])).egress.mode == "deny_all"
        await host.call("list_sessions", limit=None, phase=None)
        await host.call("list_sessions", phase="RUNNING")


async def test_objects_and_lists_are_taken_however_a_host_writes_them(hosting) -> None:
    async with hosting() as host, hosting_client(host) as client:
        for allow in ('["203.0.113.0/24"]', "203.0.113.0/24"):
            host.simulator.script()
            outcome = await host.run(
                language="Python",
                limits='{"memoryMb": "64"}',
                egress=json.dumps({"allow": allow}),
                labels='{"for": "test"}',
                serviceBindings="[]",
            )
            session = await client.get(outcome["sessionId"])
            assert (session.limits.memory_mb, session.labels["for"]) == (64, "test")
            assert list(session.egress.allow) == ["203.0.113.0/24"]


async def test_code_that_looks_like_json_stays_code(hosting) -> None:
    async with hosting() as host, hosting_client(host) as client:
        outcome = await host.run('["a list"]')
        assert (await client.get(outcome["sessionId"])).phase == "torn_down"
        assert outcome["exitCode"] == 0


async def test_code_that_fails_or_is_killed_is_an_outcome_and_no_tool_error(hosting) -> None:
    async with hosting() as host:
        host.simulator.script([StderrFrame("oh no\n")], exit_code=3)
        failed = await host.run()
        assert (failed["phase"], failed["exitCode"], failed["stderr"]["tail"]) == ("failed", 3, "oh no\n")
        assert host.progress[-1][1] == "failed"
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
