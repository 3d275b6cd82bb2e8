"""The program in docs/mcp.md prints what the page says, and the page's numbers are the code's."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys

import msgspec
import pytest

pytest.importorskip("mcp.server", reason="the extra mcp is not installed")

from enclave import SessionLimits
from enclave.mcp import _bounded, _run, _schema, _tools
from tests.support.programs import PAGES, programs

PAGE = PAGES["docs/mcp.md"]


def test_the_program_of_the_page_prints_what_the_page_says() -> None:
    ((program, output),) = programs("docs/mcp.md")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, output, "")


def test_every_configuration_on_the_page_is_json_that_starts_the_command() -> None:
    blocks = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
    servers = [block.get("servers", block.get("mcpServers"))["enclave"] for block in blocks]
    programs = [shlex.join([server["command"], *server.get("args", [])]) for server in servers]
    assert sorted(programs) == [
        *["enclave-mcp"] * 2,
        "enclave-mcp --local",
        "uvx --from 'enclave-sdk[mcp]' enclave-mcp",
    ]
    configured = {"ENCLAVE_BASE_URL", "ENCLAVE_API_KEY"}
    assert all(server.get("env", {}).keys() in (configured, set()) for server in servers)


def test_the_command_line_for_claude_code_has_the_options_in_front_of_the_name() -> None:
    (line,) = re.findall(r"^claude mcp add (.*?)\n```", PAGE.replace("\\\n", ""), re.MULTILINE | re.DOTALL)
    options, _, command = line.partition(" -- ")
    assert (options.split()[-1], command.split()) == ("enclave", ["enclave-mcp"])
    assert "--env ENCLAVE_API_KEY=" in options


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
