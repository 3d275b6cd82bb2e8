from __future__ import annotations

import json
import re
from datetime import timedelta

import pytest

from enclave import StderrFrame, StdoutFrame
from enclave.cli import _run
from enclave.cli._options import duration

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@pytest.fixture
def session(cli, simulator):
    """An ended session with output, a result and a label. It is removed at the end."""
    simulator.script([StdoutFrame("out\n"), StderrFrame("err\n")], result={"n": 1})
    session_id = cli("run", "--detach", "-c", "pass", "--label", "test=sessions").out.strip()
    cli("result", session_id)
    yield session_id
    cli("rm", session_id)


@BACKENDS
def test_every_reading_command_gives_json_in_a_pipe(cli, session, backend) -> None:
    def ask(*arguments):
        done = cli("--backend", backend, *arguments)
        assert (done.code, done.err, done.out.count("\n")) == (0, "", 1)
        return json.loads(done.out)

    assert ask("ls", "--label", "test=sessions")[0]["id"] == session
    assert session not in str(ask("ls", "--label", "test=other"))
    shown = ask("show", session)
    assert (shown["id"], shown["phase"], shown["labels"]["test"]) == (session, "succeeded", "sessions")
    assert set(shown["limits"]) == {"cpuMillis", "memoryMb", "wallClockMs", "pids"}
    assert ask("result", session)["json"] == {"n": 1}
    assert next(entry["type"] for entry in ask("audit", session)) == "session_created"
    assert ask("health")["ok"] is True


def test_limits_the_sdk_does_not_know_are_shown_like_the_others(cli, simulator) -> None:
    body = b'{"id":"s-1","phase":"running","limits":{"pids":3,"gpus":2}}'
    simulator.faults.respond(200, method="GET", body=body)
    limits = json.loads(cli("show", "s-1").out)["limits"]
    assert {name: value for name, value in limits.items() if value is not None} == {"pids": 3, "gpus": 2}


@BACKENDS
def test_logs_of_an_ended_session_are_all_of_it(cli, session, backend) -> None:
    assert cli("--backend", backend, "logs", session) == (0, "out\n", "err\n")


@BACKENDS
def test_logs_of_a_running_session_are_what_there_is_so_far(cli, simulator, there, monkeypatch, backend) -> None:
    monkeypatch.setattr(_run, "IDLE_SECONDS", 2)
    script = simulator.script([StdoutFrame("so far\n")], hold=True)
    session = cli("run", "--detach", "-c", "pass").out.strip()
    done = cli("--backend", backend, "logs", session)
    assert done == (0, "so far\n", f"enclave: session {session} goes on. --follow shows the rest\n")
    there(script.release)
    assert cli("--backend", backend, "logs", "--follow", session) == (0, "so far\n", "")
    assert cli("rm", session).code == 0


def test_logs_of_a_session_that_never_pauses_end_all_the_same(cli, simulator, monkeypatch) -> None:
    monkeypatch.setattr(_run, "BUSY_SECONDS", 2)
    step = [StdoutFrame("tick\n"), 0.02]
    simulator.script(step * 500, hold=True)
    session = cli("run", "--detach", "-c", "pass").out.strip()
    done = cli("logs", session)
    assert done.code == 0
    assert set(done.out.splitlines()) == {"tick"}
    assert "--follow" in done.err
    assert cli("rm", session).code == 0


def test_logs_as_json_are_the_frames_of_the_wire(cli, simulator) -> None:
    novel = b'{"kind":"novel", "x": ["\\ud83d", 1e999]}'
    # Deep enough for every version of Python: 3.13 takes some thousands of levels.
    deep = b'{"kind":"novel","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    frames = [StdoutFrame("a\n\x9b"), novel, {"kind": "stdout", "data": 7}, b"{no JSON", deep, StderrFrame("b")]
    simulator.script(frames)
    session = cli("run", "--detach", "-c", "pass").out.strip()
    cli("result", session)
    done = cli("logs", "--json", session)
    lines = done.out.splitlines()
    written = [line for line in lines if '"phase"' not in line and '"audit"' not in line]
    assert written[:2] == ['{"kind":"stdout","data":"a\\n\\u009b"}', novel.decode()]
    odd_shape, no_json, too_deep = map(json.loads, written[2:5])
    assert (odd_shape["kind"], odd_shape["raw"]) == ("stdout", '{"kind":"stdout","data":7}')
    assert (no_json["kind"], no_json["raw"]) == ("", "{no JSON")
    assert "Expected `str`, got `int`" in odd_shape["problem"]
    assert too_deep["raw"] == deep.decode()
    assert written[5] == '{"kind":"stderr","data":"b"}'
    assert json.loads(written[-1])["kind"] == "end"
    assert done.err.count("cannot be read") == 4
    assert cli("rm", session).code == 0


@BACKENDS
def test_waiting_for_a_result_can_be_limited(cli, simulator, backend) -> None:
    simulator.script(hold=True)
    session = cli("run", "--detach", "-c", "pass").out.strip()
    done = cli("--backend", backend, "result", session, "--timeout", "0.2")
    assert (done.code, done.out) == (124, "")
    assert "has not ended within 0.2 s" in done.err
    assert cli("rm", session).code == 0


@BACKENDS
def test_rm_takes_ids_and_says_what_it_removed(cli, simulator, session, backend) -> None:
    done = cli("--backend", backend, "rm", session, "s-none", session)
    assert done.code == 1
    removed, failed = map(json.loads, done.out.splitlines())
    assert removed == {"id": session, "removed": True, "error": None}
    assert (failed["id"], failed["removed"]) == ("s-none", False)
    assert done.err == f"enclave: s-none: {failed['error']}\n"
    assert simulator.phases[session] == "torn_down"


def test_rm_by_filter_takes_those_that_all_of_it_holds_for(cli, simulator) -> None:
    ids = []
    for labels in (["a=1"], ["a=1", "b=2"], ["a=2", "b=2"]):
        simulator.script(hold=True)
        options = [text for label in labels for text in ("--label", label)]
        ids.append(cli("run", "--detach", "-c", "pass", *options).out.strip())
    chosen = cli("rm", "--label", "a=1", "--label", "b=2", "--dry-run")
    assert json.loads(chosen.out) == {"id": ids[1], "removed": False, "error": None}
    assert simulator.phases[ids[1]] != "torn_down"
    assert cli("rm", "--label", "a=1", "--older-than", "1h") == (0, "", "")
    assert {json.loads(line)["id"] for line in cli("rm", "--label", "b=2").out.splitlines()} == {ids[2], ids[1]}
    assert cli("rm", "--label", "a=1", "--older-than", "0s").code == 0
    assert {simulator.phases[session] for session in ids} == {"torn_down"}


def test_rm_by_label_tells_of_each_session_that_stays_and_removes_the_rest(cli, simulator) -> None:
    ids = []
    for _ in range(3):
        simulator.script(hold=True)
        ids.append(cli("run", "--detach", "-c", "pass", "--label", "a=1").out.strip())
    simulator.faults.respond(403, method="DELETE", path=f"/sessions/{ids[1]}", body=b'{"message":"not yours"}')
    done = cli("rm", "--label", "a=1")
    assert done.code == 1
    told = {line["id"]: line for line in map(json.loads, done.out.splitlines())}
    assert told.keys() == set(ids)
    assert [told[session]["removed"] for session in ids] == [True, False, True]
    assert [told[session]["error"] for session in (ids[0], ids[2])] == [None, None]
    assert "not yours" in told[ids[1]]["error"]
    assert done.err == f"enclave: {ids[1]}: {told[ids[1]]['error']}\n"
    assert [simulator.phases[session] == "torn_down" for session in ids] == [True, False, True]
    assert cli("rm", ids[1]).code == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("90", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("1h30m", timedelta(minutes=90)),
        ("2d", timedelta(days=2)),
        ("1w", timedelta(weeks=1)),
    ],
)
def test_durations(text, value) -> None:
    assert duration("--older-than", text) == value


@pytest.mark.parametrize("text", ["", "h", "1.5h", "-1h", "1h ", "1y", "\u0661h", "9999999h", "1h30"])
def test_what_is_no_duration(text) -> None:
    with pytest.raises(Exception, match=re.escape("expected a duration such as")):
        duration("--older-than", text)


def test_health_is_1_where_the_backend_is_not_well(cli, simulator) -> None:
    simulator.faults.respond(200, body=b'{"ok":true,"backend":"docker","backendHealthy":false}')
    done = cli("health")
    assert (done.code, json.loads(done.out)["backendHealthy"]) == (1, False)
