"""`enclave simulator`: a control plane on this machine, in the foreground."""

from __future__ import annotations

import os
import shlex
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from ._client import GlobalOptions, read_secret
from ._errors import BadUsage, CommandError, in_options
from ._runtime import Context, command

if TYPE_CHECKING:
    from enclave.simulator import Simulator

commands = typer.Typer()


@command(
    commands,
    "enclave simulator",
    "enclave simulator --port 0 --log",
)
async def simulator(
    ctx: Context,
    *,
    host: Annotated[str, typer.Option(metavar="HOST", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", help="0 for any free port.", min=0, max=65535)] = 8088,
    allow_remote: Annotated[
        bool,
        typer.Option(
            "--allow-remote", help="Permit a HOST other than loopback. Whoever has the key then runs code as you."
        ),
    ] = False,
    log: Annotated[bool, typer.Option("--log", help="Write a line for each request to standard error.")] = False,
) -> int:
    """Serve a control plane on this machine until Ctrl-C.

    It prints the exports to use it with, from another terminal. The API key is a new one unless one is given. It is
    convenient, and NOT a security boundary: programs run as your user.
    """
    screen = ctx.obj.screen
    given = _given_key(ctx.obj.options)
    try:
        served = load_simulator()(api_key=given)
        if log:
            from enclave.simulator import log_requests  # noqa: PLC0415 - an extra, needed by few commands

            log_requests()
        serving = served.serve(host=host, port=port, allow_remote=allow_remote)
    except ValueError as error:
        raise BadUsage(in_options(str(error))) from None
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(serving)
        except OSError as error:
            raise CommandError(
                f"simulator: cannot listen on {host} port {port}: {error.strerror or error}. Choose another --port"
            ) from error
        exports = {"ENCLAVE_BASE_URL": served.base_url}
        if given is None:  # the user has a given key already, so there is no need to show it
            exports["ENCLAVE_API_KEY"] = served.api_key
        # Being stopped is how this command is meant to end, so the exit code is 0. Whoever has read the exports may
        # stop it at once, so they are written in here too.
        with ctx.obj.interruptible():
            await screen.out.write("".join(f"export {name}={shlex.quote(value)}\n" for name, value in exports.items()))
            await screen.warn("to use it, run these exports in another terminal")
            if given is not None:
                # The simulator has seen that it is ek_<id>_<secret>.
                source = "--api-key-file" if ctx.obj.options.api_key_file else "ENCLAVE_API_KEY"
                await screen.warn(f"the API key is that of {source}, with the id {given.split('_')[1]}")
            await screen.warn(f"console: {served.console_url if given is None else served.base_url}")
            await screen.warn("convenient, NOT a security boundary: programs run as your user. Ctrl-C ends it")
            await anyio.sleep_forever()
    return 0


def load_simulator() -> type[Simulator]:
    """The simulator's class. It is imported only now because it is an extra.

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


def _given_key(options: GlobalOptions) -> str | None:
    if options.api_key_file:
        return read_secret("--api-key-file", options.api_key_file)
    return os.environ.get("ENCLAVE_API_KEY") or None
