"""Serve on an ephemeral loopback port, print it, and end when standard input ends."""

from __future__ import annotations

import argparse
import sys

from benchmarks._limits import raise_open_files

from . import _quota
from ._plan import plan
from ._server import Server


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.source", description=__doc__)
    parser.add_argument("session_ids", nargs="*", help="whose bytes to build before the port is announced")
    parser.add_argument("--certificate", metavar="FILE", help="serve TLS with this key and chain")
    parser.add_argument(
        "--quota", nargs=3, type=float, metavar=("ROOM", "SECONDS", "RETRY_AFTER"), help="serve the other server"
    )
    arguments = parser.parse_args()
    raise_open_files()
    if arguments.quota:
        room, seconds, retry_after = arguments.quota
        _quota.serve(int(room), seconds, retry_after)
        return
    for session_id in arguments.session_ids:
        plan(session_id)
    server = Server(stop_on=sys.stdin.fileno(), certificate=arguments.certificate)
    print(server.port, flush=True)
    server.serve()


if __name__ == "__main__":
    main()
