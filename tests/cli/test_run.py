from __future__ import annotations

import json
import subprocess
import sys

import pytest

from enclave import AuditEvent, AuditFrame, AuditType, StderrFrame, StdoutFrame
from tests.support.cli_process import Environment

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@BACKENDS
def test_output_goes_where_the_workload_sent_it_and_nothing_else_does(cli, simulator, program, backend) -> None:
    path = program("import sys\nprint('out \x1b[31m ü 👍', end='\\r')\nprint('err', file=sys.stderr)\nsys.exit(7)")
    assert cli("--backend", backend, "run", path) == (7, "out \x1b[31m ü 👍\r", "err\n")


@BACKENDS
def test_a_killed_workload_is_137_and_says_why(cli, simulator, backend) -> None:
    simulator.script([StdoutFrame("before")], kill_reason="memory_exceeded")
    done = cli("--backend", backend, "run", "-c", "pass")
    assert done == (137, "before", "enclave: killed by the platform: memory_exceeded\n")


@pytest.mark.parametrize(("code", "ours"), [(0, 0), (1, 1), (255, 255), (256, 1), (300, 44), (-9, 137), (-15, 143)])
def test_every_exit_code_fits_into_a_byte_and_no_failure_becomes_a_success(cli, simulator, code, ours) -> None:
    simulator.script(exit_code=code)
    assert cli("run", "-c", "pass").code == ours


def test_a_kill_is_137_also_where_the_server_gives_an_exit_code(cli, simulator) -> None:
    frames = [
        {"kind": "phase", "phase": "killed", "killReason": "pids_exceeded"},
        {"kind": "result", "result": {"exitCode": 0}},
    ]
    simulator.script(frames, kill_reason="pids_exceeded")
    done = cli("run", "-c", "pass")
    assert (done.code, done.err) == (137, "enclave: killed by the platform: pids_exceeded\n")


def test_json_is_one_line_with_the_outcome_and_the_output_goes_to_standard_error(cli, simulator) -> None:
    denied = AuditFrame(AuditEvent(type=AuditType.EGRESS_DENIED, detail={"host": "192.0.2.1"}))
    simulator.script([StdoutFrame("hi\n"), StderrFrame("oh\n"), denied, denied], result={"a": [1]}, exit_code=3)
    done = cli("run", "--json", "-c", "pass")
    assert (done.code, done.err, done.out.count("\n")) == (3, "hi\noh\n", 1)
    outcome = json.loads(done.out)
    assert outcome.pop("sessionId") in simulator.phases
    assert outcome.pop("durationMs") >= 0
    assert outcome == {
        "phase": "failed",
        "exitCode": 3,
        "json": {"a": [1]},
        "stdout": "hi\n",
        "stderr": "oh\n",
        "killReason": None,
        "truncated": False,
        "deniedEgress": ["192.0.2.1"],
    }


def test_a_structured_result_alone_prints_nothing_into_a_pipe(cli, simulator) -> None:
    simulator.script(result={"answer": 42})
    assert cli("run", "-c", "pass") == (0, "", "")


@pytest.mark.parametrize(
    ("name", "language"), [("a.py", "python"), ("a.js", "node"), ("a.mjs", "node"), ("a.CJS", "node"), ("a", "python")]
)
def test_the_language_comes_from_the_suffix(cli, simulator, program, name, language) -> None:
    simulator.script()
    cli("run", program("pass", name))
    newest = json.loads(cli("ls").out)[0]
    assert newest["language"] == language


def test_an_unknown_suffix_asks_for_the_language(cli, simulator, program) -> None:
    path = program("echo", "job.sh")
    done = cli("run", path)
    assert (done.code, done.out) == (2, "")
    assert "Pass --language" in done.err
    simulator.script()
    assert cli("run", path, "--language", "node").code == 0


def test_options_reach_the_session(cli, simulator) -> None:
    simulator.script()
    options = "--limit memory-mb=64 --limit wallClockMs=5000 --limit pids=9 --label team=data --label empty= "
    options += "--allow 203.0.113.0/24 --allow 2001:db8::/32"
    assert cli("run", "-c", "pass", *options.split()).code == 0
    session = json.loads(cli("ls").out)[0]
    assert session["limits"] == {"cpuMillis": 1000, "memoryMb": 64, "wallClockMs": 5000, "pids": 9}
    assert session["labels"].items() >= {"team": "data", "empty": ""}.items()
    assert session["egress"] == {"mode": "allowlist", "allow": ["203.0.113.0/24", "2001:db8::/32"]}


def test_a_service_binding_reaches_the_server(cli, simulator) -> None:
    done = cli("run", "-c", "pass", "--service-binding", "db")
    assert done.code == 1
    assert "unknown service 'db'" in done.err


def test_the_program_can_come_from_standard_input(cli, simulator) -> None:
    assert cli("run", "-", stdin="\ufeffprint('ünï')".encode()) == (0, "ünï\n", "")


def test_a_program_that_is_no_text_is_one_line(cli, simulator, tmp_path) -> None:
    path = tmp_path / "job.py"
    path.write_bytes(b"print('\xff')")
    assert cli("run", str(path)) == (
        1,
        "",
        f"enclave: {path}: not UTF-8 at byte 7. Convert it, or pass another file\n",
    )


def test_detach_prints_the_id_and_leaves_the_session_running(cli, simulator, there) -> None:
    script = simulator.script([StdoutFrame("later\n")], hold=True)
    done = cli("run", "--detach", "-c", "pass")
    session_id = done.out.strip()
    assert (done.code, done.out, done.err) == (0, f"{session_id}\n", "")
    assert simulator.phases[session_id] in ("pending", "running")
    there(script.release)
    assert cli("logs", "--follow", session_id) == (0, "later\n", "")
    assert cli("rm", session_id).code == 0


def test_detach_with_json_is_the_session(cli, simulator) -> None:
    simulator.script()
    session = json.loads(cli("run", "--detach", "--json", "-c", "pass", "--label", "a=b").out)
    assert session["labels"]["a"] == "b"
    assert cli("rm", session["id"]).code == 0


@BACKENDS
def test_a_timeout_tears_down_and_exits_with_124(cli, simulator, backend) -> None:
    simulator.script([StdoutFrame("first\n")], hold=True)
    done = cli("--backend", backend, "run", "--timeout", "3", "-c", "pass")
    assert done == (124, "first\n", "enclave: not done within 3 s, so it was torn down. Allow more with --timeout\n")


def test_a_malformed_frame_is_reported_and_the_rest_is_shown(cli, simulator) -> None:
    simulator.script([StdoutFrame("one\n"), b'{"kind":"stdout","data":7}', StdoutFrame("two\n")])
    done = cli("run", "-c", "pass")
    assert (done.code, done.out) == (0, "one\ntwo\n")
    assert done.err.startswith("enclave: warning: stream of session ")
    assert "cannot be read: Expected `str`, got `int`" in done.err


def test_a_dropped_stream_is_resumed_without_repeating_output(cli, simulator) -> None:
    simulator.faults.drop_stream(after_frames=4)
    simulator.script([StdoutFrame(f"{n}\n") for n in range(5)])
    assert cli("run", "-c", "pass") == (0, "0\n1\n2\n3\n4\n", "")


def test_a_teardown_that_fails_is_an_error_after_all_output(cli, simulator) -> None:
    fault = simulator.faults.respond(403, method="DELETE", times=1)
    simulator.script([StdoutFrame("done\n")])
    done = cli("run", "-c", "pass")
    assert (done.code, done.out, fault.hits) == (1, "done\n", 1)
    assert done.err.startswith("enclave: DELETE /sessions/")
    assert cli("rm", *(session for session, phase in simulator.phases.items() if phase != "torn_down")).code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run"], "give a FILE"),
        (["run", "x.py", "-c", "1"], "give a FILE"),
        (["run", "-c", "1", "--limit", "memory=1"], "unknown limit 'memory'"),
        (["run", "-c", "1", "--limit", "pids=many"], "expected a whole number"),
        (["run", "-c", "1", "--limit", "pids"], "expected KEY=VALUE"),
        (["run", "-c", "1", "--label", "a=1", "--label", "a=2"], "given twice"),
        (["run", "-c", "1", "--allow", "example.com"], "example.com"),
        (["run", "-c", "1", "--timeout", "0"], "positive number"),
        (["run", "-c", "1", "--detach", "--local"], "does not go with --local"),
        (["run", "-c", "1", "--detach", "--timeout", "3"], "does not go with --timeout"),
        (["run", "-c", "1", "--nope"], "enclave run --help"),
        (["--base-url", "http://127.0.0.1:1", "run", "--local", "-c", "1"], "leave out --base-url"),
        (["rm"], "at least one ID"),
        (["rm", "s-1", "--older-than", "1h"], "not both"),
        (["ls", "--older-than", "soon"], "such as 30s"),
        (["show"], "Missing argument"),
        (["nope"], "No such command"),
        (["map", "x", "--max-concurrency", "0"], "--max-concurrency"),
        (["map", "x", "--creates-per-second", "0"], "--creates-per-second"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(cli, arguments, says) -> None:
    done = cli(*arguments)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("enclave: ")
    assert says in done.err


@BACKENDS
def test_local_needs_no_server(tmp_path, backend) -> None:
    environment = Environment(tmp_path)
    done = environment.run("--backend", backend, "run", "--local", "-c", "print(6 * 7); raise SystemExit(3)")
    environment.close()
    assert (done.code, done.out, done.err) == (3, "42\n", "")


@pytest.mark.parametrize(
    ("missing", "arguments", "says"),
    [
        ("h11", ["run", "--local", "-c", "1"], "pip install 'enclave-sdk[cli,simulator]'"),
        ("h11", ["simulator"], "pip install 'enclave-sdk[cli,simulator]'"),
        ("typer", ["ls"], "pip install 'enclave-sdk[cli]'"),
    ],
)
def test_a_missing_extra_is_one_line_that_names_it(tmp_path, missing, arguments, says) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from enclave.cli import main; sys.exit(main({arguments!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert says in done.stderr


def test_captured_output_is_bounded_and_says_so(cli, simulator, monkeypatch) -> None:
    monkeypatch.setattr("enclave.cli._frames.MAX_CAPTURED_CHARS", 10)
    simulator.script([StdoutFrame("12345678"), StdoutFrame("90ABC")])
    done = cli("run", "--json", "-c", "pass")
    outcome = json.loads(done.out)
    assert (outcome["stdout"], outcome["truncated"], done.err) == ("1234567890", True, "1234567890ABC")
