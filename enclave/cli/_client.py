"""The client of a command: from the options and the environment, or with a simulator inside this process."""

from __future__ import annotations

import os
from codecs import BOM_UTF8
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import anyio
import typer

from enclave import (
    EnclaveClient,
    EnclaveError,
    Observer,
    RequestObservation,
    Session,
    SessionHandle,
    StreamObservation,
)

from ._errors import BadUsage, CommandError, in_options
from ._output import Screen

MAX_CREDENTIAL_FILE_BYTES = 64 * 1024
COMPLETION_SECONDS = 2.0
"""How long a shell waits for the ids that complete a word."""


@dataclass(frozen=True, kw_only=True)
class GlobalOptions:
    """The options that stand before the command."""

    base_url: str | None = None
    api_key_file: str | None = None
    token_file: str | None = None
    backend: str = "asyncio"


@asynccontextmanager
async def connect(
    options: GlobalOptions, observer: Observer | None, *, local: bool = False
) -> AsyncGenerator[EnclaveClient]:
    """A client for the length of a block. With `local`, it is the client of a simulator that lives as long.

    Raises:
        BadUsage: `local`, together with options that name a server.
        CommandError: no server is named, or a credential cannot be read.
    """
    if not local:
        async with _configured_client(options, observer) as enclave:
            yield enclave
        return
    # To ignore them would run the program somewhere else than its user thinks.
    if options.base_url or options.api_key_file or options.token_file:
        raise BadUsage("--local starts a server of its own: leave out --base-url, --api-key-file and --token-file")
    from ._simulator import load_simulator  # noqa: PLC0415 - an extra, needed by few commands

    async with (
        load_simulator()().serve() as simulator,
        EnclaveClient(simulator.base_url, api_key=simulator.api_key, observer=observer) as enclave,
    ):
        yield enclave


def _configured_client(options: GlobalOptions, observer: Observer | None = None) -> EnclaveClient:
    # The SDK says this too, but knows nothing of the ways in which a command can be given a server.
    if not options.base_url and not os.environ.get("ENCLAVE_BASE_URL"):
        raise CommandError(
            "no control plane is named. Set ENCLAVE_BASE_URL or pass --base-url, as in http://127.0.0.1:8088. "
            "`enclave simulator` starts one here, and `enclave run --local` needs none"
        )
    api_key = options.api_key_file and read_secret("--api-key-file", options.api_key_file)
    token = options.token_file and not api_key and read_secret("--token-file", options.token_file)
    return EnclaveClient(options.base_url, api_key=api_key or None, token=token or None, observer=observer)


def read_secret(option: str, path: str) -> str:
    """The only line of a file. No message ever shows it.

    Raises:
        CommandError: the file is empty, too large or holds more than one line.
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        content = file.read(MAX_CREDENTIAL_FILE_BYTES + 1)
    # Editors on Windows put a byte order mark in front, and nearly all editors a line end behind.
    lines = content.removeprefix(BOM_UTF8).strip().splitlines()
    if len(lines) != 1 or len(content) > MAX_CREDENTIAL_FILE_BYTES:
        raise CommandError(f"{option} {path}: expected one line with the credential, got {len(lines)} lines")
    return lines[0].decode("utf-8", "replace")


def attached(enclave: EnclaveClient, session_id: str) -> SessionHandle:
    """A handle for an existing session. Raises `BadUsage` for what cannot be the id of one."""
    try:
        return enclave.attach(session_id)
    except ValueError as error:
        raise BadUsage(in_options(str(error))) from None


async def _sessions(options: GlobalOptions) -> list[Session]:
    with anyio.move_on_after(COMPLETION_SECONDS):
        async with _configured_client(options) as enclave:
            return await enclave.list()
    return []


def complete_session(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The ids that begin like this, with their phases. A shell asks for them, so nothing may go wrong aloud."""
    given = ctx.find_root().params
    options = GlobalOptions(**{field.name: given[field.name] for field in fields(GlobalOptions) if field.name in given})
    # A message would land in the middle of the line that is being typed.
    try:
        sessions = anyio.run(_sessions, options)
    except (EnclaveError, CommandError, OSError):
        return []
    return [(s.id, s.phase or "") for s in sessions if s.id.startswith(incomplete) and s.id.isprintable()]


Id = Annotated[
    str, typer.Argument(metavar="ID", help="The session.", show_default=False, autocompletion=complete_session)
]


class Narrator(Observer):
    """Tells a person that the client waits and tries again, instead of seconds of silence.

    If nothing listens at all, a person is better served by an error than by a wait. So `give_up` is called then, and
    `refused` is why. A script waits, because the server may have been started a moment ago, and so does everybody once
    the server has answered.
    """

    def __init__(self, screen: Screen, *, silent: bool) -> None:
        self.refused: EnclaveError | None = None
        self.give_up: Callable[[], None] | None = None
        self._screen = screen
        self._silent = silent

    def request(self, method: str, route: str, *, url: str, session_id: str | None) -> RequestObservation:  # noqa: ARG002
        return _Retries(self)

    def stream(self, session_id: str) -> StreamObservation:  # noqa: ARG002
        return _Resumes(self)

    def answered(self) -> None:
        self.give_up = None

    def waiting(self, error: EnclaveError, wait_seconds: float) -> None:
        was_refused = isinstance(error.__cause__, ConnectionRefusedError)
        if was_refused and self.give_up and self._screen.err.is_terminal:
            self.refused = error
            self.give_up()
        elif not self._silent:
            self._screen.status_now(f"{error}. Trying again in {wait_seconds:.1f} s")


class _Retries(RequestObservation):
    def __init__(self, narrator: Narrator) -> None:
        self._narrator = narrator

    def answered(self, status: int) -> None:  # noqa: ARG002
        self._narrator.answered()

    def retrying(self, error: EnclaveError, *, retry: int, wait_seconds: float) -> None:  # noqa: ARG002
        self._narrator.waiting(error, wait_seconds)


class _Resumes(StreamObservation):
    def __init__(self, narrator: Narrator) -> None:
        self._narrator = narrator

    def retrying(self, error: EnclaveError, *, retry: int, wait_seconds: float) -> None:  # noqa: ARG002
        self._narrator.waiting(error, wait_seconds)

    def resuming(self, error: EnclaveError, *, attempt: int, wait_seconds: float, frames: int) -> None:  # noqa: ARG002
        if attempt > 1:  # a stream that broke once is back before anybody notices
            self._narrator.waiting(error, wait_seconds)
