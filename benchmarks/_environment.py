"""On what the figures were taken: versions, kernel, processor. Names no machine and no path."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from ._limits import most_streams
from .contenders import NODE_DIR

PACKAGES = (
    "enclave-sdk",
    "anyio",
    "trio",
    "uvloop",
    "httpx",
    "httpx-sse",
    "httptools",
    "msgspec",
    "aiohttp",
)


def environment() -> dict[str, str]:
    """What to print above the results; a package that is absent says so."""
    found = {"python": platform.python_version()}
    found |= {name: _version(name) for name in PACKAGES}
    found |= {"node": _node(), "eventsource-parser": _eventsource_parser()}
    found |= {"kernel": f"{platform.system()} {platform.release()}", "cpu": f"{os.cpu_count()} x {_cpu()}"}
    return found | {"open-file limit": f"{most_streams():,} streams a process"}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _node() -> str:
    if shutil.which("node") is None:
        return "not installed"
    done = subprocess.run(["node", "--version"], capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.strip()


def _eventsource_parser() -> str:
    package = NODE_DIR / "node_modules" / "eventsource-parser" / "package.json"
    return str(json.loads(package.read_text())["version"]) if package.exists() else "not installed"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
