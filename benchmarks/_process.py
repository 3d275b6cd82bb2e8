"""Starting the source and one contender, each in a fresh process, and taking the contender's one line of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ._model import Case, Measured
from .contenders import CONTENDERS, NODE_DIR

ROOT = Path(__file__).parent.parent
STOP_SECONDS = 10.0


class CrashError(Exception):
    """A contender ended without a measurement."""


class Certificates(NamedTuple):
    """Files of a throwaway authority."""

    folder: tempfile.TemporaryDirectory[str]
    server: str
    """The key of the source, its certificate, and that of the authority between."""
    environment: Mapping[str, str]
    """What makes OpenSSL, and so every Python contender, and Node trust it."""


@cache
def certificates() -> Certificates:
    """A chain as public ones are: a root that clients know, and one authority between it and the server."""
    import trustme  # noqa: PLC0415 - only the rows over TLS need it

    folder = tempfile.TemporaryDirectory()
    root, server = Path(folder.name) / "root.pem", Path(folder.name) / "server.pem"
    authority = trustme.CA()
    authority.cert_pem.write_to_path(root)
    authority.create_child_ca().issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        server
    )
    return Certificates(folder, str(server), {"SSL_CERT_FILE": str(root), "NODE_EXTRA_CA_CERTS": str(root)})


@contextmanager
def source(prepare: Sequence[str] = (), *, tls: bool = False) -> Iterator[str]:
    """The base URL of a source process that has built the bytes of these sessions; it ends with the block."""
    certificate = ["--certificate", certificates().server] if tls else []
    command = [sys.executable, "-m", "benchmarks.source", *certificate, *prepare]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        if not port:
            raise CrashError("the source did not start")
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    finally:
        process.communicate(timeout=STOP_SECONDS)  # closes its standard input, at which it ends


def output_of(command: Sequence[str], timeout: float, environment: Mapping[str, str] | None = None) -> str:
    """Run a command to its end, with these variables besides our own.

    Raises:
        CrashError: it failed or took longer than `timeout` seconds.
    """
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | dict(environment or {}),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CrashError(f"took longer than {timeout:.0f} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        errors = [line for line in lines if "Error" in line and not line.startswith(" ")]
        raise CrashError((errors or lines)[-1].strip(" |+-").replace(f"{ROOT}/", ""))
    return done.stdout


def measure(
    contender: str,
    job: str,
    parameters: dict[str, Any],
    prepare: Sequence[str],
    timeout: float,
    *,
    tls: bool,
    by_name: bool,
) -> Measured:
    """One measurement of one contender, with a source of its own."""
    runs_in_node = CONTENDERS[contender].adapter == "node"
    command = ["node", str(NODE_DIR / "bench.mjs")] if runs_in_node else [sys.executable, "-m", "benchmarks.contenders"]
    environment = certificates().environment if tls else None
    with source(prepare, tls=tls) as base_url:
        url = base_url.replace("127.0.0.1", "localhost") if by_name else base_url
        request = {"contender": contender, "base_url": url, "job": job, "parameters": parameters}
        measured: Measured = json.loads(output_of([*command, json.dumps(request)], timeout, environment))
    return measured


def case(
    contender: str,
    point: str,
    job: str,
    parameters: dict[str, Any],
    *,
    prepare: Sequence[str] = (),
    repeats: int = 3,
    timeout: float = 120.0,
    tls: bool = False,
    by_name: bool = False,
) -> Case:
    """A cell that is measured by one contender process for each repeat."""

    def run() -> Measured:
        return measure(contender, job, parameters, prepare, timeout, tls=tls, by_name=by_name)

    return Case(contender, point, run, repeats)
