"""`enclave simulator`: a control plane on this machine, in the foreground."""

from __future__ import annotations

import os
import shlex
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import NoReturn

import anyio

from ._connect import GlobalOptions, load_simulator, read_secret
from ._errors import BadUsage, CommandError
from ._output import Screen

NOTE = "convenient, NOT a security boundary: workloads run as your user; Ctrl-C ends it"


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where to listen."""

    host: str
    port: int
    allow_remote: bool


async def serve(address: Address, *, options: GlobalOptions, screen: Screen) -> NoReturn:
    """Serve until cancelled."""
    given = _given_key(options)
    try:
        simulator = load_simulator()(api_key=given)
        serving = simulator.serve(host=address.host, port=address.port, allow_remote=address.allow_remote)
    except ValueError as error:
        raise BadUsage(f"simulator: {error}") from None
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(serving)
        except OSError as error:
            raise CommandError(
                f"simulator: cannot listen on {address.host} port {address.port}: {error.strerror or error}; "
                "choose another --port"
            ) from error
        exports = {"ENCLAVE_BASE_URL": simulator.base_url}
        if given is None:  # a key that the user has already needs not be shown
            exports["ENCLAVE_API_KEY"] = simulator.api_key
        await screen.out.write("".join(f"export {name}={shlex.quote(value)}\n" for name, value in exports.items()))
        await screen.warn(NOTE)
        await anyio.sleep_forever()
    raise AssertionError("unreachable")


def _given_key(options: GlobalOptions) -> str | None:
    if options.api_key_file:
        return read_secret("--api-key-file", options.api_key_file)
    return os.environ.get("ENCLAVE_API_KEY") or None
