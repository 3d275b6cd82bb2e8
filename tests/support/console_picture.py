"""The picture of the simulator's console that the README shows: `python -m tests.support.console_picture FILE`.

It runs real sessions, and takes the picture in a real browser. With `--scheme dark` or another `--width` it shows the
same on another screen.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from enclave import EgressPolicy, SessionLimits, SyncEnclaveClient
from enclave.simulator import SyncSimulator
from tests.support.browser import browser_page

SHOWN = """import socket
import sys

for step in range(1, 4):
    print(f"step {step} of 3")
try:
    socket.create_connection(("203.0.113.9", 443))
except OSError as error:
    print("no way out:", error, file=sys.stderr)
enclave.result({"accuracy": 0.97, "passed": 41})
"""
LONG = "import time\nfor n in range(600):\n    print('epoch', n, flush=True)\n    time.sleep(0.5)"


def main() -> None:
    arguments = argparse.ArgumentParser("python -m tests.support.console_picture", description=__doc__)
    arguments.add_argument("file", type=Path)
    arguments.add_argument("--scheme", choices=["light", "dark"], default="light")
    arguments.add_argument("--width", type=int, default=1280)
    arguments.add_argument("--height", type=int, default=965)
    given = arguments.parse_args()
    with (
        TemporaryDirectory() as profile,
        SyncSimulator() as simulator,
        SyncEnclaveClient(simulator.base_url, api_key=simulator.api_key) as client,
        browser_page(Path(profile)) as page,
    ):
        client.run(LONG)
        for request in (
            {"code": "console.log([1, 2, 3].map((n) => n * n))", "language": "node"},
            {"code": "raise SystemExit(3)"},
            {"code": "while True: pass", "limits": SessionLimits(wall_clock_ms=1500)},
            {"code": "print('hello')", "egress": EgressPolicy.allowlist("203.0.113.0/24")},
            {"code": "x = bytearray(10**9)", "limits": SessionLimits(memory_mb=64)},
        ):
            client.run(**request).result()
        client.run(LONG)
        page.show_as(width=given.width, height=given.height, scheme=given.scheme)
        page.open(simulator.simulator.console_url)
        page.until("!document.getElementById('console').hidden")
        page.evaluate(
            f"document.getElementById('code').value = {json.dumps(SHOWN)}; document.getElementById('run').click()"
        )
        page.until("document.getElementById('facts').textContent.includes('succeeded')")
        page.until("document.getElementById('trail').textContent.includes('result_collected')")
        page.until("document.querySelectorAll('#rows tr').length === 8")
        page.evaluate("document.activeElement.blur()")
        page.screenshot(given.file, whole=given.width < 600)


if __name__ == "__main__":
    main()
