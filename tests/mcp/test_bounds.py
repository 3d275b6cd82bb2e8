"""No answer of a tool is larger than a language model can take, and each says what it leaves out."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("mcp.server", reason="the extra mcp is not installed")

from mcp.shared.exceptions import MCPDeprecationWarning

from enclave import StderrFrame, StdoutFrame
from enclave.mcp import _bounded, _run, _tools
from enclave.mcp._bounded import MAX_LINE_CHARS, Tail, one_line

pytestmark = pytest.mark.filterwarnings(f"ignore::{MCPDeprecationWarning.__module__}.{MCPDeprecationWarning.__name__}")


async def test_long_output_is_cut_to_its_tail_and_the_outcome_says_by_how_much(hosting, monkeypatch) -> None:
    monkeypatch.setattr(_run, "MAX_TAIL_CHARS", 10)
    monkeypatch.setattr(_run, "MAX_TOLD_CHARS", 100)
    async with hosting() as host:
        host.simulator.script([StdoutFrame(f"{n:04}") for n in range(200)] + [StderrFrame("short")])
        outcome = await host.run()
        assert outcome["stdout"] == {"tail": "9701980199", "cutChars": 790}
        assert outcome["stderr"] == {"tail": "short", "cutChars": 0}
        assert len(host.told) == 100
        assert all(text for _, text in host.logs)
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
        allowed = {"kind": "audit", "event": {"type": "egress_allowed", "detail": {"host": "z"}}}
        host.simulator.script([allowed, *denied])
        outcome = await host.run()
        assert outcome["deniedEgress"] == [{"host": "a", "attempts": 2}, {"host": "b", "attempts": 1}]
        told = [message for _, message in host.progress if message and message.startswith("connection")]
        assert told == [f"connection denied: {name}" for name in ("a", "b", "a", "c")]
        assert len(outcome["warnings"]) == 1


async def test_warnings_are_bounded_and_each_is_given_once(hosting, monkeypatch) -> None:
    monkeypatch.setattr(_run, "MAX_WARNINGS", 2)
    async with hosting() as host:
        unreadable = [{"kind": "stdout"}, {"kind": "stdout"}, {"kind": "stderr", "data": 1}, {"kind": "audit"}]
        host.simulator.script(unreadable)
        first, second = (await host.run())["warnings"]
    assert first.startswith("a frame of the stream cannot be read: ")
    assert first != second


async def test_what_a_server_kept_of_an_old_session_is_bounded_like_what_was_streamed(hosting, monkeypatch) -> None:
    monkeypatch.setattr(_run, "MAX_TAIL_CHARS", 10)
    result = {"exitCode": 3, "stdout": "0123456789ab", "stderr": "short", "durationMs": 12.5}
    denied = {"type": "egress_denied", "detail": {}}
    async with hosting() as host:
        session = {"id": "s-1", "phase": "succeeded", "result": result}
        host.simulator.faults.respond(200, path="/sessions/s-1", body=json.dumps(session).encode())
        host.simulator.faults.respond(200, path="/sessions/s-1/audit", body=json.dumps([denied]).encode())
        outcome = (await host.call("get_result", sessionId="s-1")).structured_content
    assert outcome["stdout"] == {"tail": "23456789ab", "cutChars": 2}
    assert outcome["stderr"] == {"tail": "short", "cutChars": 0}
    assert (outcome["exitCode"], outcome["durationMs"]) == (3, 12.5)
    assert outcome["deniedEgress"] == [{"host": "unknown", "attempts": 1}]


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
