"""The process between the simulator and one workload: limits, isolation, and leaving nothing behind.

It runs in an interpreter of its own, one for each workload, which is started without site-packages. So it uses the
standard library only, and nothing of the package around it.

_supervisor.py  relays output, compares use with budget, reclaims everything
_init.py        the workload's parent, and the workload up to its exec
_tree.py        a tree of processes: what it uses, how it is killed. A tree of files: how it is removed
_linux.py       namespaces and prctl, which the standard library of Python 3.11 lacks

simulator ──stdin──> supervisor ──> init (first process of the PID namespace, else a subreaper) ──> workload
simulator <─stdout── supervisor <── pipes ──────────────────────────────────────────────────────── workload

stdin   Four bytes of length and the specification as JSON. Nothing follows. The end of stdin means "kill and leave", so
        the death of the simulator, however sudden, ends the workload too.
stdout  Records: one byte of kind, four bytes of length, the payload.
        S started (JSON) · O stdout bytes · E stderr bytes · X exited (JSON), after which everything is reclaimed

When the supervisor dies, init dies with it (PDEATHSIG), and the kernel kills the whole PID namespace. Where there is no
such namespace, orphans become children of init or of the supervisor, and their tree is killed until it is empty.
Without /proc, as on macOS, only the process group is killed, and memory and process counts are not enforced.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys

assert sys.platform != "win32"  # noqa: S101 - so that type checkers read no further on Windows

from ._linux import LINUX, PR_SET_CHILD_SUBREAPER, prctl, probe
from ._supervisor import Supervisor


def read_exactly(fd: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = os.read(fd, min(size - len(data), 1 << 20))
        if not part:
            # The simulator went away before it said what to run.
            raise SystemExit(0)
        data += part
    return bytes(data)


def main() -> None:
    if "--probe" in sys.argv:
        sys.stdout.write(json.dumps(probe() if LINUX else dict.fromkeys(("user", "pid", "net", "proc"), False)))
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        # Only the end of stdin may end a supervisor, because it must outlive its workload.
        signal.signal(number, signal.SIG_IGN)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    (size,) = struct.unpack("!I", read_exactly(0, 4))
    Supervisor(json.loads(read_exactly(0, size))).run()
