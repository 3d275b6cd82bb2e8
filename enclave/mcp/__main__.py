"""The command `enclave-mcp`: serve over stdio until the host closes standard input, or a signal comes."""

from __future__ import annotations

import argparse
import signal
import sys
import warnings
from typing import TYPE_CHECKING, cast

import anyio

from enclave import ConfigurationError, EnclaveClient, __version__

from ._stdin import StdinLines

if TYPE_CHECKING:
    from mcp.server import Server

    from ._server import Connection

DESCRIPTION = """\
An MCP server over stdio: five tools that run code in Enclave sessions.
Configured by ENCLAVE_BASE_URL and ENCLAVE_API_KEY (or ENCLAVE_TOKEN) in the environment."""


def main(arguments: list[str] | None = None) -> int:
    """Serve; the exit status is 1 when that cannot start."""
    parser = argparse.ArgumentParser(
        prog="enclave-mcp", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"enclave-mcp {__version__}")
    parser.parse_args(arguments)
    try:
        client = EnclaveClient()
        server = _make_server(client)
    except (ConfigurationError, ModuleNotFoundError) as error:
        hint = "; pip install 'enclave-sdk[mcp]'" if isinstance(error, ModuleNotFoundError) else ""
        print(f"enclave-mcp: {error}{hint}", file=sys.stderr)  # noqa: T201
        return 1
    return anyio.run(_serve, server)


def _make_server(client: EnclaveClient) -> Server[Connection]:
    from mcp.shared.exceptions import MCPDeprecationWarning  # noqa: PLC0415 - the extra may be missing

    # Log notifications are deprecated in the protocol's latest version, and all that hosts of the earlier ones show.
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    from ._server import make_server  # noqa: PLC0415 - the extra may be missing

    return make_server(lambda: client)


async def _serve(server: Server[Connection]) -> int:
    status = 0
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_stop_on_signal, tasks.cancel_scope)
            await _talk(server)
            tasks.cancel_scope.cancel()
    except* OSError as group:  # the host is gone: nobody reads standard output
        print(f"enclave-mcp: {_first(group)}", file=sys.stderr)  # noqa: T201
        status = 1
    return status


def _first(error: BaseException) -> BaseException:
    if isinstance(error, BaseExceptionGroup):
        return _first(cast("BaseExceptionGroup[BaseException]", error).exceptions[0])
    return error


async def _talk(server: Server[Connection]) -> None:
    from mcp.server.stdio import stdio_server  # noqa: PLC0415 - the extra may be missing

    stdin = None if sys.platform == "win32" else cast("anyio.AsyncFile[str]", StdinLines(sys.stdin.fileno()))
    async with stdio_server(stdin=stdin) as (read, write):
        await server.run(read, write, server.create_initialization_options())


async def _stop_on_signal(serving: anyio.CancelScope) -> None:
    """The first signal ends the calls, which tear their sessions down; the next one has its usual effect."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            serving.cancel()
            return


if __name__ == "__main__":
    sys.exit(main())
