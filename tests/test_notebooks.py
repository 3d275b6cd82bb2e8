"""docs/notebooks.md as a notebook, and cells that are interrupted, in a real kernel."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ipykernel", reason="no kernel is installed")

from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

from enclave.simulator import Bounds, Simulator, SyncSimulator
from tests.support.programs import PAGES, programs

PATIENCE_SECONDS = 120
CELLS = programs("docs/notebooks.md")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What to make a kernel manager with. The kernel reads no settings of whoever runs the tests, and uses no port."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # not `tmp_path`: the path of a socket must be short
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(folder / name.lower()))
    yield {"kernel_name": "python3", "transport": "ipc", "ip": str(folder / "socket")}
    shutil.rmtree(folder)


# In a process of its own, because it leaves sockets unclosed.
EXECUTE = """
import json, sys
import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

path, kernel = sys.argv[1], json.loads(sys.argv[2])
notebook = nbformat.read(path, 4)
NotebookClient(notebook, kernel_name=kernel.pop("kernel_name"), config=Config(KernelManager=kernel)).execute()
nbformat.write(notebook, path)
"""


def executed(sources: list[str], kernel: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """A notebook's cells after nbclient has run them."""
    empty: dict[str, Any] = {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": []}
    cells = [{**empty, "id": f"cell-{number}", "source": source} for number, source in enumerate(sources)]
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, str(path), json.dumps(kernel)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text())["cells"]


def test_the_cells_of_the_page_run_one_after_the_other_and_show_what_the_page_says(kernel, tmp_path) -> None:
    cells = executed([source for source, _ in CELLS], kernel, tmp_path / "page.ipynb")
    tables, errors = [], ""
    for cell, (source, output) in zip(cells, CELLS, strict=True):
        text = ""
        for shown in cell["outputs"]:
            if shown["output_type"] == "stream":
                content = "".join(shown["text"])
                text, errors = (text + content, errors) if shown["name"] == "stdout" else (text, errors + content)
            elif "text/html" in shown["data"]:
                tables.append("".join(shown["data"]["text/html"]))
            else:
                text += "".join(shown["data"]["text/plain"]) + "\n"
        assert text == (output or ""), source
    assert [re.findall(r"<p>(.*?)</p>", table) for table in tables] == [
        ["3 in all, 2 succeeded, 1 failed"],
        ["1 in all, 1 failed"],
        ["6 in all, 6 succeeded"],
    ]
    (shown_columns,) = re.findall(r"^\| (index .*) \|$", PAGES["docs/notebooks.md"], re.MULTILINE)
    assert re.findall(r"<th[^>]*>(.*?)</th>", tables[0]) == shown_columns.split(" | ")
    assert "6/6" in errors
    assert re.sub(r"\r.*", "", errors).strip() == ""  # the progress bar and nothing else


AWAITING = """
from enclave import EnclaveClient

async with EnclaveClient() as enclave:
    CELL
"""
BLOCKING = """
from enclave import SyncEnclaveClient

with SyncEnclaveClient() as enclave:
    CELL
"""
INTERRUPTED = [
    (AWAITING, "async with enclave.session(code) as session: await session.result()", "CancelledError"),
    (AWAITING, "await enclave.map([code, code])", "CancelledError"),
    (BLOCKING, "with enclave.session(code) as session: session.result()", "KeyboardInterrupt"),
    (BLOCKING, "enclave.map([code, code])", "KeyboardInterrupt"),
]


def run(client: BlockingKernelClient, code: str) -> str:
    """Begin a cell, and give its id."""
    return client.execute(code, allow_stdin=False)


def ended(client: BlockingKernelClient, cell: str) -> dict[str, Any]:
    """Wait for the end of a cell."""
    while True:
        message = client.get_shell_msg(timeout=PATIENCE_SECONDS)
        if message["parent_header"]["msg_id"] == cell:
            return message["content"]


def test_an_interrupted_cell_leaves_no_session_and_the_next_one_runs(kernel, monkeypatch) -> None:
    with SyncSimulator(bounds=Bounds(heartbeat_seconds=0.2)) as simulator:
        monkeypatch.setenv("ENCLAVE_BASE_URL", simulator.base_url)
        monkeypatch.setenv("ENCLAVE_API_KEY", simulator.api_key)
        manager = KernelManager(**kernel)
        manager.start_kernel(env=dict(os.environ))
        client = manager.client()
        try:
            client.start_channels()
            client.wait_for_ready(timeout=PATIENCE_SECONDS)
            assert ended(client, run(client, "code = 'import time; time.sleep(600)'"))["status"] == "ok"
            total = 0
            for program, cell, error in INTERRUPTED:
                sessions = 2 if "map" in cell else 1
                total += sessions
                begun = run(client, program.replace("CELL", cell))
                simulator.wait_until(running_last(sessions, total), seconds=PATIENCE_SECONDS)
                manager.interrupt_kernel()
                assert ended(client, begun)["ename"] == error, cell
                assert list(simulator.phases.values()) == ["torn_down"] * total, cell
            starting = ended(client, run(client, "import anyio\nanyio.run(anyio.sleep, 0)"))
            assert starting["evalue"] == "Already running asyncio in this thread"
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
            manager.cleanup_resources()


def running_last(begun: int, total: int) -> Any:
    def running(simulator: Simulator) -> bool:
        phases = list(simulator.phases.values())
        return (
            len(phases) == total and phases[-1] == "running" and "pending" not in phases and simulator.open_streams > 0
        )

    return running
