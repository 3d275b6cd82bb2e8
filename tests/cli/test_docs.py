"""Help, its examples and docs/cli.md say what is so. Starting up loads no more than is needed."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import enclave
from enclave import StdoutFrame
from tests.support.cli_help import DOCUMENT, MARK, commands, examples, help_of, is_plain, normal, sections

EXAMPLES = list(
    dict.fromkeys(example for command in ([], *([name] for name in commands())) for example in examples(*command))
)
LOADED = "import json, sys; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"


def test_the_document_has_the_help_of_every_command() -> None:
    written = DOCUMENT.read_text().partition(MARK)[2]
    assert normal(written) == normal(sections()), "python -m tests.support.cli_help brings docs/cli.md up to date"


@pytest.mark.parametrize("name", commands())
def test_every_command_has_examples_and_a_short_line_for_its_help(name) -> None:
    assert examples(name)
    assert len(help_of(name).splitlines()[2].strip()) > 10


@pytest.fixture
def prepared(tmp_path, monkeypatch, cli, simulator):
    """The files and the session that examples speak of, and `enclave` and `jq` as commands. Gives the session's id."""
    monkeypatch.chdir(tmp_path)
    Path("job.py").write_text("enclave.result({'ok': True})")
    Path("requests.jsonl").write_text('"enclave.result(1)"\n"enclave.result(2)"\n')
    reads_json = "import json, sys; print([json.loads(line) for line in sys.stdin])"
    for name, arguments in {"enclave": ["-m", "enclave"], "jq": ["-c", reads_json]}.items():
        Path(name).write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *arguments])} "$@"\n')
        Path(name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    simulator.script([StdoutFrame("hello\n")])
    yield cli("run", "--detach", "-c", "pass", "--label", "team=data").out.strip()
    cli("rm", "--older-than", "0s")


@pytest.mark.guides
@pytest.mark.parametrize("example", [e for e in EXAMPLES if is_plain(e) and "simulator" not in e])
def test_an_example_works_as_it_stands(cli, prepared, example) -> None:
    name, *arguments = shlex.split(example.replace("s-6b44fc-2", prepared))
    assert name == "enclave"
    done = cli(*arguments)
    assert (done.code, "Traceback" in done.err) == (0, False), done


@pytest.mark.guides
@pytest.mark.parametrize("example", [example for example in EXAMPLES if not is_plain(example)])
def test_an_example_works_in_a_shell(prepared, example) -> None:
    line = example.replace("s-6b44fc-2", prepared)
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout


@pytest.mark.guides
@pytest.mark.parametrize("example", [example for example in EXAMPLES if "simulator" in example])
def test_an_example_serves(command, example) -> None:
    _, *arguments = shlex.split(example)
    serving = command.start(*arguments, "--port", "0")  # the default one may be taken
    serving.until("NOT a security boundary")
    serving.signal(signal.SIGTERM)
    assert serving.wait().code == 0


def test_no_arguments_show_the_help(cli) -> None:
    assert cli() == (0, help_of(), "")


def test_the_version_is_the_packages(cli) -> None:
    assert cli("--version") == (0, f"enclave {enclave.__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("enclave ru", "run"),
        ("enclave run --detac", "--detach"),
        ("enclave run --language n", "node"),
        ("enclave run --limit wall", "wall-clock-ms="),
        ("enclave ls --phase torn", "torn_down"),
    ],
)
def test_a_shell_completes_commands_options_and_values(cli, capfd, monkeypatch, words, completed) -> None:
    monkeypatch.setenv("_ENCLAVE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    with pytest.raises(SystemExit) as exit_:
        cli()
    assert exit_.value.code == 0
    assert capfd.readouterr().out.split() == [completed]


@pytest.mark.parametrize("command", ["show", "logs", "rm", "--base-url=URL audit"])
def test_a_shell_completes_the_ids_of_sessions(cli, simulator, capfd, monkeypatch, command) -> None:
    simulator.script()
    session = cli("run", "--detach", "-c", "1").out.strip()
    words = f"enclave {command} {session[:-1]}".replace("URL", simulator.base_url)
    monkeypatch.setenv("_ENCLAVE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    with pytest.raises(SystemExit):
        cli()
    assert session in capfd.readouterr().out.split()
    monkeypatch.setenv("ENCLAVE_BASE_URL", "http://127.0.0.1:1")
    if "URL" not in command:
        with pytest.raises(SystemExit):
            cli()
        assert capfd.readouterr() == ("\n", "")
    monkeypatch.undo()
    monkeypatch.setenv("ENCLAVE_BASE_URL", simulator.base_url)
    monkeypatch.setenv("ENCLAVE_API_KEY", simulator.api_key)
    assert cli("rm", session).code == 0


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import enclave", ["enclave.cli", "typer", "rich", "click", "httpx", "enclave.simulator"]),
        (
            "from enclave.cli import main; main(['run', '--help'])",
            ["httpx", "enclave.simulator", "enclave.cli._tables"],
        ),
        ("from enclave.cli import main; main(['health'])", ["enclave.simulator", "enclave.cli._tables", "h11"]),
    ],
)
def test_starting_up_loads_no_more_than_is_needed(simulator, code, absent) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; {LOADED}"], capture_output=True, text=True, timeout=60, check=True
    )
    assert set(json.loads(done.stderr)) & set(absent) == set()
