"""The program in docs/mcp.md prints what the page says, and the page's numbers are the code's."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("mcp.server", reason="the extra mcp is not installed")

from enclave import SessionLimits
from enclave.mcp import _bounded, _run, _schema, _tools
from tests.support.programs import PAGES, programs

PAGE = PAGES["docs/mcp.md"]


@pytest.mark.guides
def test_the_program_of_the_page_prints_what_the_page_says() -> None:
    ((program, output),) = programs("docs/mcp.md")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, output, "")


SERVERS = [
    block.get("servers", block.get("mcpServers"))["enclave"]
    for block in map(json.loads, re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))
]
(CLAUDE_CODE,) = re.findall(r"^claude mcp add (.*?)\n```", PAGE.replace("\\\n", ""), re.MULTILINE | re.DOTALL)
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "a host", "version": "1"}},
}


def answer_to_a_host(command: list[str], environment: dict[str, str]) -> dict:
    """What the command says to the first message of a host."""
    program, *arguments = command
    done = subprocess.run(
        [str(Path(sys.executable).parent / program), *arguments],
        env={**os.environ, **environment},
        input=json.dumps(INITIALIZE) + "\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[0])["result"]


def test_the_page_has_the_forms_of_the_hosts() -> None:
    programs = [shlex.join([server["command"], *server.get("args", [])]) for server in SERVERS]
    assert sorted(programs) == [
        *["enclave-mcp"] * 2,
        "enclave-mcp --local",
        "uvx --from 'enclave-sdk[mcp]' enclave-mcp",
    ]
    configured = {"ENCLAVE_BASE_URL", "ENCLAVE_API_KEY"}
    assert all(server.get("env", {}).keys() in (configured, set()) for server in SERVERS)


@pytest.mark.guides
@pytest.mark.parametrize("server", SERVERS, ids=lambda server: shlex.join([server["command"], *server.get("args", [])]))
def test_a_configuration_on_the_page_starts_a_server_that_answers(server) -> None:
    command = [server["command"], *server.get("args", [])]
    if command[0] == "uvx":  # which installs the package with its extra, and runs the command that is named last
        assert command[1:3] == ["--from", "enclave-sdk[mcp]"]
        command = command[3:]
    assert answer_to_a_host(command, server.get("env", {}))["serverInfo"]["name"] == "enclave"


def test_vs_code_is_told_what_it_requires_and_asks_for_the_key() -> None:
    (block,) = [block for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL) if '"servers"' in block]
    document = json.loads(block)
    (asked,) = document["inputs"]
    assert asked.keys() == {"type", "id", "description", "password"}
    assert (asked["type"], asked["password"], document["servers"]["enclave"]["type"]) == ("promptString", True, "stdio")
    assert document["servers"]["enclave"]["env"]["ENCLAVE_API_KEY"] == f"${{input:{asked['id']}}}"


def test_the_command_line_for_claude_code_has_the_options_in_front_of_the_name() -> None:
    options, _, command = CLAUDE_CODE.partition(" -- ")
    *words, name = options.split()
    assert name == "enclave"
    # `--env` takes every word up to the next option, so the last option before the name is another one.
    assert words[-2:] == ["--transport", "stdio"]
    environment = dict(word.split("=", 1) for word in words if "=" in word)
    assert environment.keys() == {"ENCLAVE_BASE_URL", "ENCLAVE_API_KEY"}
    assert answer_to_a_host(shlex.split(command), environment)["serverInfo"]["name"] == "enclave"


def test_the_page_names_every_tool_argument_and_bound() -> None:
    arguments = {field.encode_name for tool in _tools.TOOLS for field in msgspec.structs.fields(tool.takes)}
    arguments |= set(SessionLimits.wire_names().values())
    bounds = (
        _run.MAX_TAIL_CHARS,
        _run.MAX_TOLD_CHARS,
        _bounded.MAX_VALUE_BYTES,
        _bounded.MAX_LIST_BYTES,
        _bounded.MAX_VALUE_DEPTH,
        _tools.MAX_AUDIT_EVENTS,
        _schema.MAX_SESSIONS,
    )
    expected = [*(tool.name for tool in _tools.TOOLS), *arguments, *(f"{bound:,}" for bound in bounds)]
    assert [text for text in expected if text not in PAGE] == []
