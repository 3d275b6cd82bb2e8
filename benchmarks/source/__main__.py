"""Serve on an ephemeral loopback port, print it, and end when standard input ends."""

from __future__ import annotations

import sys

from benchmarks._limits import raise_open_files

from . import _quota
from ._plan import plan
from ._server import Server


def main() -> None:
    """Arguments are the session ids whose bytes to build before the port is announced, or ``quota`` and its numbers."""
    raise_open_files()
    if sys.argv[1:2] == ["quota"]:
        room, seconds, retry_after = map(float, sys.argv[2:])
        _quota.serve(int(room), seconds, retry_after)
        return
    for session_id in sys.argv[1:]:
        plan(session_id)
    server = Server(stop_on=sys.stdin.fileno())
    print(server.port, flush=True)
    server.serve()


if __name__ == "__main__":
    main()
