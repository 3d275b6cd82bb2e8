"""What is compared, each in a process of its own.

_base.py     what an adapter must offer
_blocking.py ours without an event loop, beside ours with one
_enclave.py  ours, by its public names; _enclave_decoder.py its decoders alone
_httpx.py, _aiohttp.py  the neighbours
_socket.py   no client at all: bytes taken and thrown away; _bare.py: streams held by tasks, and nothing more
_jobs.py     what is timed, the same code for every Python contender
__main__.py  `python -m benchmarks.contenders <job as JSON>`: one measurement, printed as one line of JSON

../node/bench.mjs does the same jobs for Node. The registry below imports no contender: it only says where each is.
"""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path

NODE_DIR = Path(__file__).parent.parent / "node"


@dataclass(frozen=True)
class Contender:
    """One row of a table."""

    label: str
    adapter: str
    """The module in this package, or "node"."""
    loop: str = "asyncio"
    variant: str = ""
    """Which of an adapter's ways to read."""
    needs: tuple[str, ...] = ()
    """Modules without which the row is skipped."""

    def missing(self) -> str | None:
        """Why it cannot run here, or None."""
        if self.adapter == "node":
            return _node_missing()
        absent = [name for name in self.needs if importlib.util.find_spec(name) is None]
        return f"not installed: {', '.join(absent)}" if absent else None


def _node_missing() -> str | None:
    if shutil.which("node") is None:
        return "there is no `node` on the PATH"
    if not (NODE_DIR / "node_modules" / "eventsource-parser").is_dir():
        return "run `npm ci` in benchmarks/node first"
    return None


CONTENDERS = {
    "enclave": Contender("enclave (asyncio)", "_enclave", variant="frames"),
    "enclave-batches": Contender("enclave (asyncio), batches", "_enclave", variant="batches"),
    "enclave-trio": Contender("enclave (trio)", "_enclave", "trio", "frames", ("trio",)),
    "enclave-trio-batches": Contender("enclave (trio), batches", "_enclave", "trio", "batches", ("trio",)),
    "enclave-uvloop": Contender("enclave (uvloop)", "_enclave", "uvloop", "frames", ("uvloop",)),
    "enclave-uvloop-batches": Contender("enclave (uvloop), batches", "_enclave", "uvloop", "batches", ("uvloop",)),
    "enclave-blocking": Contender("enclave, blocking", "_blocking"),
    "enclave-decoder": Contender("enclave, its frame path", "_enclave_decoder", variant="frames"),
    "enclave-exact": Contender("enclave, SSEDecoder + msgspec", "_enclave_decoder", variant="exact"),
    "sse-json": Contender("httpx-sse + json", "_httpx", variant="json", needs=("httpx_sse",)),
    "sse-msgspec": Contender("httpx-sse + msgspec", "_httpx", variant="msgspec", needs=("httpx_sse",)),
    "httpx-json": Contender("httpx + httpx-sse + json", "_httpx", variant="json", needs=("httpx_sse",)),
    "httpx-closing": Contender(
        "httpx + httpx-sse + json, server closes", "_httpx", variant="json", needs=("httpx_sse",)
    ),
    "httpx-msgspec": Contender("httpx + httpx-sse + msgspec", "_httpx", variant="msgspec", needs=("httpx_sse",)),
    "aiohttp-lines": Contender("aiohttp + json, by line", "_aiohttp", variant="lines", needs=("aiohttp",)),
    "aiohttp-reads": Contender("aiohttp + json, by read", "_aiohttp", variant="reads", needs=("aiohttp",)),
    "node": Contender("Node fetch + eventsource-parser", "node"),
    "socket": Contender("no client: bytes read and dropped", "_socket"),
    "bare": Contender("no client (asyncio): a task and a socket", "_bare"),
    "bare-trio": Contender("no client (trio): a task and a socket", "_bare", "trio", "trio", ("trio",)),
}
