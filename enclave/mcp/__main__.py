"""The command `enclave-mcp`: serve over stdio until the host closes standard input, or a signal arrives."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, cast

import anyio

from enclave import ConfigurationError, EnclaveClient, __version__

from ._stdio import StdinLines, StdoutText

if TYPE_CHECKING:
    from mcp.server import Server

    from ._server import Connection

DESCRIPTION = """\
An MCP server over stdio, with five tools that run code in Enclave sessions.
Configured by ENCLAVE_BASE_URL and ENCLAVE_API_KEY (or ENCLAVE_TOKEN) in the environment."""

FLUSH_SECONDS = 2.0
"""How long the last answers may wait for a host that has closed standard input and does not read."""


def main(arguments: list[str] | None = None) -> int:
    """Serve. The exit status is 1 if that cannot start."""
    parser = argparse.ArgumentParser(
        prog="enclave-mcp", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--local", action="store_true", help="run code on a simulator in this process, which is NOT a security boundary"
    )
    parser.add_argument("--version", action="version", version=f"enclave-mcp {__version__}")
    local = parser.parse_args(arguments).local
    try:
        return anyio.run(_run, local)
    except ConfigurationError as error:
        problem = str(error)
    except ModuleNotFoundError as error:
        extra = "mcp,simulator" if local else "mcp"
        problem = f"{error.name} is missing: pip install 'enclave-sdk[{extra}]'"
    _say(problem)
    return 1


async def _run(local: bool) -> int:
    from mcp.shared.exceptions import MCPDeprecationWarning  # noqa: PLC0415 - the extra may be missing

    # The protocol's latest version deprecates log notifications. Hosts of the earlier versions show nothing else.
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    from ._server import make_server  # noqa: PLC0415 - the extra may be missing

    async with AsyncExitStack() as stack:
        if local:
            from enclave.simulator import Simulator  # noqa: PLC0415 - the extra may be missing

            # Not within what a signal cancels: the calls tear their sessions down on it.
            simulator = await stack.enter_async_context(Simulator().serve())
            client = EnclaveClient(simulator.base_url, api_key=simulator.api_key)
        else:
            client = EnclaveClient()
        return await _serve(make_server(lambda: client))


async def _serve(server: Server[Connection]) -> int:
    status = 0
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_stop_on_signal, tasks.cancel_scope)
            await _talk(server)
            tasks.cancel_scope.cancel()
    # The MCP SDK raises from inside its task group.
    except* OSError as group:  # the host has gone, and nobody reads standard output
        _say(str(_first(group)))
        status = 1
    return status


def _first(error: BaseException) -> BaseException:
    if isinstance(error, BaseExceptionGroup):
        return _first(cast("BaseExceptionGroup[BaseException]", error).exceptions[0])
    return error


async def _talk(server: Server[Connection]) -> None:
    from mcp.server.stdio import stdio_server  # noqa: PLC0415 - the extra may be missing

    stdin, stdout = (None, None) if sys.platform == "win32" else _claimed_streams()
    with anyio.CancelScope() as talking:
        async with stdio_server(stdin, stdout) as (read, write):
            await server.run(read, write, server.create_initialization_options())
            # Standard input has ended. An answer may be on its way, and a host that stalls would hold it up for ever.
            talking.deadline = anyio.current_time() + FLUSH_SECONDS


def _claimed_streams() -> tuple[anyio.AsyncFile[str], anyio.AsyncFile[str]]:
    """The host's end of both streams. What else reads standard input or prints then cannot disturb the protocol."""
    stdin, stdout = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return cast("anyio.AsyncFile[str]", StdinLines(stdin)), cast("anyio.AsyncFile[str]", StdoutText(stdout))


async def _stop_on_signal(serving: anyio.CancelScope) -> None:
    """The first signal ends the calls, which tear their sessions down. The next one has its usual effect."""
    names = ("SIGINT", "SIGTERM") if sys.platform == "win32" else ("SIGINT", "SIGTERM", "SIGHUP")
    with anyio.open_signal_receiver(*(signal.Signals[name] for name in names)) as signals:
        async for _ in signals:
            serving.cancel()
            return


def _say(message: str) -> None:
    print(f"enclave-mcp: {message}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
