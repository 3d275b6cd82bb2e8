"""`python -m enclave.simulator`: serve until interrupted."""

from __future__ import annotations

import argparse
import os
import signal
import sys

import anyio

from ._simulator import Simulator

DESCRIPTION = """\
Serve an Enclave control plane that runs Python and Node code on this machine.
Convenient, NOT a security boundary: workloads run as your user. Loopback only by default."""


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m enclave.simulator",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8088, help="port, 0 for any free one (default: %(default)s)")
    parser.add_argument(
        "--api-key",
        default=os.environ.get("ENCLAVE_API_KEY"),
        help="the key to accept, ek_<id>_<secret> (default: $ENCLAVE_API_KEY, else a new one, printed at the start)",
    )
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio", help="event loop")
    parser.add_argument("--allow-remote", action="store_true", help="permit a host that is not loopback: see above")
    return parser.parse_args(arguments)


async def _serve(options: argparse.Namespace) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        simulator = Simulator(api_key=options.api_key)
        async with simulator.serve(host=options.host, port=options.port, allow_remote=options.allow_remote) as sim:
            print("Enclave simulator: convenient, NOT a security boundary. Workloads run as your user.")  # noqa: T201
            print(f"ENCLAVE_BASE_URL={sim.base_url}")  # noqa: T201
            if options.api_key is None:
                print(f"ENCLAVE_API_KEY={sim.api_key}")  # noqa: T201
            sys.stdout.flush()
            async for _ in signals:
                return


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM."""
    options = _parse(arguments)
    try:
        anyio.run(_serve, options, backend=options.backend)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"enclave.simulator: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
