from __future__ import annotations

import logging
import time
from functools import partial

import pytest

import enclave
from enclave.cli import _errors
from enclave.cli import main as run
from enclave.cli._options import LIMIT_NAMES

SECRET = "ek_me_dontshowthis"


def all_errors(kind=enclave.EnclaveError):
    for child in kind.__subclasses__():
        yield child
        yield from all_errors(child)


def test_no_url_says_what_to_set(cli) -> None:
    done = cli("ls")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert "ENCLAVE_BASE_URL" in done.err
    assert "--base-url" in done.err


@pytest.mark.parametrize(
    ("status", "fix"),
    [
        (401, "Set ENCLAVE_API_KEY"),
        (403, "Use a key that has the scope"),
        (404, "`enclave ls` lists"),
        (429, "Try again later"),
        (503, "Try again later"),
        (400, ""),
        (500, ""),
    ],
)
def test_an_answer_of_the_server_is_one_line_with_the_fix(cli, simulator, status, fix) -> None:
    simulator.faults.respond(status, times=10, method="GET", retry_after=0)
    done = cli("show", "s-1")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert done.err.startswith(f"enclave: GET /sessions/s-1: {status} ")
    assert fix in done.err


def test_an_unreachable_server_is_one_line_with_the_fix(cli, monkeypatch, closed_port) -> None:
    monkeypatch.setenv("ENCLAVE_BASE_URL", f"http://127.0.0.1:{closed_port}")
    monkeypatch.setattr("enclave.cli._client.EnclaveClient", partial(enclave.EnclaveClient, retry=None))
    done = cli("health")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "`enclave simulator` starts a control plane" in done.err


@pytest.mark.parametrize("command", ["show", "logs", "result", "audit", "rm"])
def test_what_cannot_be_a_sessions_id_is_wrong_usage(cli, command) -> None:
    done = cli("--base-url", "http://127.0.0.1:1", command, "..")
    assert (done.code, done.out) == (2, "")
    assert done.err == "enclave: ID: '..' cannot be the id of a session. `enclave ls` lists the sessions\n"


def test_a_person_is_told_that_the_client_tries_again(watched, simulator, monkeypatch) -> None:
    retry = enclave.RetryPolicy(attempts=3, wait_seconds=0.01)
    monkeypatch.setattr("enclave.cli._client.EnclaveClient", partial(enclave.EnclaveClient, retry=retry))
    for command in (["show", "s-1"], ["run", "-c", "1"], ["logs", "s-1"]):
        simulator.faults.respond(503, times=3)
        done = watched(*command, terminal="err")
        assert (done.code, done.screen.count("Trying again in 0.0 s")) == (1, 2)
        assert done.screen.count("\n") == 3


@pytest.mark.parametrize(
    "command",
    [
        ["health"],
        ["ls"],
        ["run", "-c", "1"],
        ["run", "--detach", "-c", "1"],
        ["logs", "s-1"],
        ["logs", "-f", "s-1"],
        ["result", "s-1"],
        ["rm", "s-1"],
        ["map", "FILE"],
    ],
    ids=" ".join,
)
def test_a_person_need_not_wait_for_a_server_that_is_not_there(
    watched, monkeypatch, tmp_path, closed_port, command
) -> None:
    (tmp_path / "requests").write_text('"1"\n')
    command = [str(tmp_path / "requests") if part == "FILE" else part for part in command]
    monkeypatch.setenv("ENCLAVE_BASE_URL", f"http://127.0.0.1:{closed_port}")
    # Whoever goes on trying takes longer than the test has.
    retry = enclave.RetryPolicy(attempts=1000, wait_seconds=0.2, max_wait_seconds=0.2, jitter=0, total_seconds=None)
    monkeypatch.setattr("enclave.cli._client.EnclaveClient", partial(enclave.EnclaveClient, retry=retry))
    started = time.monotonic()
    done = watched(*command, terminal="err")
    assert (done.code, done.out) == (1, "")
    assert "Is it running?" in done.screen
    assert "Trying again" not in done.screen
    assert time.monotonic() - started < 60


def test_a_script_waits_for_a_server_that_has_just_been_started(cli, simulator, monkeypatch, closed_port) -> None:
    waits = []
    monkeypatch.setenv("ENCLAVE_BASE_URL", f"http://127.0.0.1:{closed_port}")
    retry = enclave.RetryPolicy(attempts=2, wait_seconds=0.01)
    monkeypatch.setattr("enclave.cli._client.EnclaveClient", partial(enclave.EnclaveClient, retry=retry))
    monkeypatch.setattr("enclave.cli._client.Narrator.waiting", lambda *_args, **kwargs: waits.append(kwargs))
    assert cli("health").code == 1
    assert len(waits) == 1


def test_a_person_is_told_once_for_each_wait_of_a_stream(watched, cli, simulator, monkeypatch) -> None:
    retry = enclave.RetryPolicy(attempts=3, wait_seconds=0.01)
    monkeypatch.setattr("enclave.cli._client.EnclaveClient", partial(enclave.EnclaveClient, retry=retry))
    simulator.script()
    session = cli("run", "--detach", "-c", "1").out.strip()
    simulator.faults.respond(503, times=2, path=f"/sessions/{session}/stream")
    done = watched("logs", "--follow", session, terminal="err")
    assert (done.code, done.screen.count("Trying again in")) == (0, 2)
    assert cli("rm", session).code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--base-url", "ftp://x", "ls"], "enclave: --base-url: expected http://host"),
        (["--base-url", "http://u:p@h", "ls"], "pass --api-key-file or --token-file"),
        (["simulator", "--host", "0.0.0.0"], "--allow-remote"),
        (["run", "-c", "1", "--allow", "10.0.0.1/8"], "enclave: --allow: 10.0.0.1/8 has host bits set"),
        (["show", ""], "enclave: ID: ''"),
    ],
)
def test_a_message_names_the_option_and_not_the_parameter_of_the_library(cli, monkeypatch, arguments, says) -> None:
    monkeypatch.setenv("ENCLAVE_BASE_URL", "http://127.0.0.1:1")
    done = cli(*arguments)
    assert says in done.err
    assert not [name for name in ("base_url", "api_key=", "allow_remote", "session_id", "egress") if name in done.err]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["lss"], "No such command 'lss'. Did you mean 'ls'? See `enclave --help`"),
        (
            ["ls", "--base-url", "x"],
            "--base-url goes before the command, as in `enclave --base-url ... ls`. See `enclave --",
        ),
        (
            ["run", "--color", "x"],
            "--color goes before the command, as in `enclave --color ... run`. See `enclave --help`",
        ),
        (
            ["--timeout", "5", "run"],
            "--timeout goes after the command, as in `enclave run --timeout`. See `enclave run --",
        ),
        (["-c", "1"], "-c goes after the command, as in `enclave run -c`. See `enclave run --help`"),
        (["run", "--wall-clock", "5"], "Did you mean --limit wall-clock-ms=...? See `enclave run --help`"),
        (["run", "--memory", "5"], "Did you mean --limit memory-mb=...? See `enclave run --help`"),
        *((["run", f"--{name}", "5"], f"Did you mean --limit {name}=...? See") for name in LIMIT_NAMES),
        (["run", "--lable", "a=b"], "--label"),
        (["run", "--frobnicate"], "enclave: No such option: --frobnicate. See `enclave run --help`"),
        (["ls", "--memory-mb", "5"], "enclave: No such option: --memory-mb. See `enclave ls --help`"),
        (["--frobnicate", "ls"], "enclave: No such option: --frobnicate. See `enclave --help`"),
        (["show"], "enclave: Missing argument 'ID'. See `enclave show --help`"),
    ],
)
def test_wrong_usage_says_what_was_meant_and_where_it_goes(cli, arguments, says) -> None:
    done = cli(*arguments)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert says in done.err


def test_every_fix_is_reachable() -> None:
    """None stands behind the fix of a class it derives from."""
    kinds = [kind for kind, _ in _errors._FIXES]
    assert [kind for n, kind in enumerate(kinds) if any(issubclass(kind, earlier) for earlier in kinds[:n])] == []
    assert set(kinds) <= set(all_errors())


def test_a_traceback_is_shown_only_when_asked_for(cli, simulator, monkeypatch) -> None:
    assert "Traceback" not in cli("show", "s-1").err
    monkeypatch.setenv("ENCLAVE_DEBUG", "1")
    done = cli("show", "s-1")
    assert "Traceback" in done.err
    assert done.err.splitlines()[-1].startswith("enclave: GET /sessions/s-1: 404")


def test_a_traceback_on_a_terminal_is_harmless(watched, simulator, monkeypatch) -> None:
    async def broken(*_args, **_kwargs):
        raise RuntimeError("\x1b]0;owned\x07 \ud83d \x9b2J")

    monkeypatch.setattr("enclave.EnclaveClient.list", broken)
    done = watched("ls", terminal="err", ENCLAVE_DEBUG="1", NO_COLOR="1")
    assert "Traceback" in done.screen
    assert "RuntimeError: \\x1b]0;owned\\x07 \\ud83d \\x9b2J" in done.screen
    assert not set(done.screen) & {"\x1b", "\x9b", "\x07"}


def test_what_nobody_expected_is_one_line_too(cli, simulator, monkeypatch) -> None:
    async def broken(*_args, **_kwargs):
        raise RuntimeError("first\nsecond\x1b[2J")

    monkeypatch.setattr("enclave.EnclaveClient.list", broken)
    done = cli("ls")
    says = "enclave: unexpected RuntimeError: first\\nsecond\\x1b[2J (ENCLAVE_DEBUG=1 shows the traceback)\n"
    assert done == (1, "", says)


def test_credentials_come_from_files_and_are_never_shown(cli, simulator, monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("ENCLAVE_API_KEY")
    monkeypatch.setenv("ENCLAVE_DEBUG", "1")
    good, bad, token = (tmp_path / name for name in ("good", "bad", "token"))
    good.write_text("\ufeff" + simulator.api_key + "\r\n")
    bad.write_text(SECRET)
    token.write_text(simulator.issue_token() + "\n")
    assert cli("--api-key-file", str(good), "ls").code == 0
    assert cli("--token-file", str(token), "ls").code == 0
    done = cli("--api-key-file", str(bad), "ls")
    assert done.code == 1
    assert SECRET not in done.err


@pytest.mark.parametrize(
    "content", [b"", b"\n", SECRET.encode() + b"\nmore\n", SECRET.encode() + b"\xff", b"k" * 70_000]
)
def test_a_file_that_holds_no_credential_is_refused_without_showing_it(cli, simulator, tmp_path, content) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    done = cli("--api-key-file", str(path), "ls")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert SECRET not in done.err


def test_no_option_takes_a_credential_itself(cli) -> None:
    for option in ("--api-key", "--token"):
        assert cli(option, SECRET, "ls").code == 2


def test_a_credential_sent_in_the_clear_is_warned_of_in_one_line(cli, monkeypatch) -> None:
    monkeypatch.setenv("ENCLAVE_BASE_URL", "http://192.0.2.1:9")
    monkeypatch.setenv("ENCLAVE_API_KEY", SECRET)
    monkeypatch.setattr("enclave.EnclaveClient.list", lambda _self: _nothing())
    done = cli("ls")
    assert (done.code, done.out) == (0, "[]\n")
    assert done.err == "enclave: warning: the credential will travel unencrypted to http://192.0.2.1:9. Use https\n"


async def _nothing():
    return []


def test_log_records_of_the_sdk_are_harmless_lines(cli, simulator, monkeypatch) -> None:
    async def warn(*_args, **_kwargs):
        logging.getLogger("enclave").warning("careful\n\x1b[2J")
        return []

    monkeypatch.setattr("enclave.EnclaveClient.list", warn)
    assert cli("ls") == (0, "[]\n", "enclave: warning: careful\\n\\x1b[2J\n")


def test_a_full_disk_is_one_line(simulator, capfd, monkeypatch) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        monkeypatch.setattr("sys.stdout", full)
        assert run(["ls"]) == 1
    assert capfd.readouterr().err == "enclave: standard output: No space left on device\n"


def test_a_closed_standard_output_is_one_line(simulator, capfd, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    assert run(["ls"]) == 1
    assert "standard output is closed" in capfd.readouterr().err


def test_trio_that_is_missing_is_wrong_usage(cli, simulator, monkeypatch) -> None:
    monkeypatch.setattr("enclave.cli._runtime.find_spec", lambda _name: None)
    done = cli("--backend", "trio", "ls")
    assert (done.code, done.err) == (2, "enclave: --backend trio needs Trio: pip install trio\n")
