"""The MCP Inspector, a host that others wrote, talks to the command. `make test-inspector` gets it from npm."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp.server", reason="the extra mcp is not installed")

from enclave.mcp._tools import TOOLS

INSPECTOR = Path(__file__).parents[2] / "build/inspector/node_modules/.bin/mcp-inspector"
pytestmark = pytest.mark.skipif(not INSPECTOR.exists(), reason="needs the MCP Inspector")


def inspect(method: str, *arguments: str) -> dict[str, Any]:
    """What the Inspector prints of an answer of `enclave-mcp --local`."""
    command = [INSPECTOR, "--cli", sys.executable, "-m", "enclave.mcp", "--local", "--method", method, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def call(tool: str, **arguments: str) -> dict[str, Any]:
    given = [part for name, value in arguments.items() for part in ("--tool-arg", f"{name}={value}")]
    return inspect("tools/call", "--tool-name", tool, *given)


def test_it_lists_every_tool_with_both_of_its_schemas() -> None:
    listed = inspect("tools/list")["tools"]
    assert [tool["name"] for tool in listed] == [tool.name for tool in TOOLS]
    assert {tool[schema]["type"] for tool in listed for schema in ("inputSchema", "outputSchema")} == {"object"}


def test_it_runs_code_and_shows_the_outcome() -> None:
    limits = json.dumps({"wallClockMs": "20000", "memoryMb": 256.0})
    answer = call("run_code", code="print(6 * 7)\nenclave.result({'answer': 42})", limits=limits)
    assert not answer.get("isError")
    outcome = answer["structuredContent"]
    assert (outcome["phase"], outcome["stdout"]["tail"], outcome["json"]) == ("succeeded", "42\n", {"answer": 42})
    assert json.loads(answer["content"][0]["text"]) == outcome


def test_it_shows_sessions_and_what_is_wrong_with_a_call() -> None:
    assert call("list_sessions", limit="5")["structuredContent"]["sessions"] == []
    refused = call("get_result", sessionId="s-nobody")
    assert refused["isError"]
    assert "404" in refused["content"][0]["text"]
