"""The client, from global options and the environment, or with a simulator inside this process."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from enclave import EnclaveClient, SessionHandle

from ._errors import BadUsage, CommandError

if TYPE_CHECKING:
    from enclave.simulator import Simulator

MAX_CREDENTIAL_FILE_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class GlobalOptions:
    """The options that stand before the command."""

    base_url: str | None = None
    api_key_file: str | None = None
    token_file: str | None = None
    backend: str = "asyncio"


@asynccontextmanager
async def connect(options: GlobalOptions, *, local: bool = False) -> AsyncGenerator[EnclaveClient]:
    """A client for the length of a block; with `local`, one of a simulator that lives as long."""
    if not local:
        async with _client(options) as enclave:
            yield enclave
        return
    if options.base_url or options.api_key_file or options.token_file:
        raise BadUsage("--local: takes no --base-url, --api-key-file or --token-file; it starts a server of its own")
    simulator_class = load_simulator()
    async with (
        simulator_class().serve() as simulator,
        EnclaveClient(simulator.base_url, api_key=simulator.api_key) as enclave,
    ):
        yield enclave


def attached(enclave: EnclaveClient, session_id: str) -> SessionHandle:
    """A handle for an id from the command line.

    Raises:
        BadUsage: it cannot be the id of a session.
    """
    try:
        return enclave.attach(session_id)
    except ValueError as error:
        raise BadUsage(str(error)) from None


def load_simulator() -> type[Simulator]:
    """The class, imported only now: it is an extra.

    Raises:
        CommandError: the extra is not installed.
    """
    try:
        from enclave.simulator import Simulator  # noqa: PLC0415 - an extra, needed by few commands
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "enclave":
            raise
        raise CommandError(
            f"the simulator needs an extra ({error.name} is missing): pip install 'enclave-sdk[cli,simulator]'"
        ) from None
    return Simulator


def _client(options: GlobalOptions) -> EnclaveClient:
    if not options.base_url and not os.environ.get("ENCLAVE_BASE_URL"):
        raise CommandError(
            "no control plane: set ENCLAVE_BASE_URL or pass --base-url, as in http://127.0.0.1:8088; "
            "`enclave simulator` starts one here, and `enclave run --local` needs none"
        )
    if options.api_key_file:
        return EnclaveClient(options.base_url, api_key=read_secret("--api-key-file", options.api_key_file))
    if options.token_file:
        return EnclaveClient(options.base_url, token=read_secret("--token-file", options.token_file))
    return EnclaveClient(options.base_url)


def read_secret(option: str, path: str) -> str:
    """The one line of a file, which no message ever shows.

    Raises:
        CommandError: the file is empty, too large or holds more than one line. OSError: it cannot be read.
    """
    with Path(path).open("rb") as file:
        content = file.read(MAX_CREDENTIAL_FILE_BYTES + 1)
    lines = content.strip().splitlines()
    if len(lines) != 1 or len(content) > MAX_CREDENTIAL_FILE_BYTES:
        raise CommandError(f"{option} {path}: expected one line, the credential; got {len(lines)}")
    return lines[0].decode("utf-8", "replace")
