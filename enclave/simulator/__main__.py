"""`python -m enclave.simulator`: serve until interrupted."""

from __future__ import annotations

import argparse
import getpass
import os
import signal
import sys
from pathlib import Path

import anyio

from ._auth import key_id
from ._server import log_requests
from ._simulator import Simulator

DESCRIPTION = """\
Serve an Enclave control plane that runs Python and Node code on this machine.
Convenient, NOT a security boundary: workloads run as your user. Loopback only by default."""
ENVIRONMENT = "ENCLAVE_API_KEY"


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m enclave.simulator",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # it would take --api-key for --api-key-file, and say the key in its error
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8088, help="port, 0 for any free one (default: %(default)s)")
    parser.add_argument(
        "--api-key-file",
        metavar="FILE",
        help="a file with the key to accept, ek_<id>_<secret>, or - to be asked for it "
        f"(default: ${ENVIRONMENT}, else a new one, printed at the start)",
    )
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio", help="event loop")
    parser.add_argument("--log", action="store_true", help="write a line for each request to standard error")
    parser.add_argument("--allow-remote", action="store_true", help="permit a host that is not loopback: see above")
    return parser.parse_args(arguments)


def _given_key(file: str | None) -> str | None:
    """The key to accept. No option takes the key itself, because the list of processes would show it."""
    if file is None:
        return os.environ.get(ENVIRONMENT) or None
    if file == "-":
        return getpass.getpass("API key: ") if sys.stdin.isatty() else sys.stdin.readline().strip()
    return Path(file).read_text(encoding="utf-8-sig").strip()


async def _serve(options: argparse.Namespace, key: str | None) -> None:
    source = ENVIRONMENT if options.api_key_file is None else "--api-key-file"
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        serving = Simulator(api_key=key).serve(host=options.host, port=options.port, allow_remote=options.allow_remote)
        async with serving as simulator:
            print("Enclave simulator: convenient, NOT a security boundary. Workloads run as your user.")  # noqa: T201
            print(f"ENCLAVE_BASE_URL={simulator.base_url}")  # noqa: T201
            if key is None:
                print(f"ENCLAVE_API_KEY={simulator.api_key}")  # noqa: T201
            else:
                print(f"The API key is that of {source}, with the id {key_id(key)}.")  # noqa: T201
            # A key that was given is a secret of the user's, so the page asks for it.
            print(f"Console: {simulator.console_url if key is None else simulator.base_url}")  # noqa: T201
            # Whoever started this may read a pipe, and waits for the address.
            sys.stdout.flush()
            async for _ in signals:
                return


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM."""
    options = _parse(arguments)
    if options.log:
        log_requests()
    try:
        anyio.run(_serve, options, _given_key(options.api_key_file), backend=options.backend)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"enclave.simulator: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
