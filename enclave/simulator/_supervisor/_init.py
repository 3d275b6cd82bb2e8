"""The workload's parent, and the workload up to its exec."""

from __future__ import annotations

import os
import resource
import signal
import struct
import sys

assert sys.platform != "win32"  # noqa: S101 - so that type checkers read no further on Windows

from ._linux import (
    LINUX,
    PR_SET_CHILD_SUBREAPER,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    SHARED_MEMORY,
    drop_privileges,
    mount_empty,
    mount_proc,
    prctl,
)

TYPE_CHECKING = False  # as in `typing`, whose import would cost every workload 5 ms
if TYPE_CHECKING:
    from typing import Any, NoReturn

MAX_FILE_BYTES = 1 << 30
MAX_OPEN_FILES = 1024
MAX_SHARED_EXTRA_BYTES = 1 << 20
"""Room beyond the limit of memory, so that a program that fills it is found to be over its limit."""
EXIT_STATUS = struct.Struct("!iQ")


def run_init(spec: dict[str, Any], fds: dict[str, int]) -> NoReturn:
    """The workload's parent. It starts the workload, reaps every orphan, and reports how the workload ended."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    if os.read(fds["go"], 1) != b"g":
        # The supervisor died before PDEATHSIG was set, so its death went unnoticed.
        os._exit(1)
    if spec["isolation"]["proc"]:
        mount_proc()
        mount_empty(SHARED_MEMORY, spec["memory_bytes"] + MAX_SHARED_EXTRA_BYTES)
        # The sockets of the machine's services are there, that of Docker among them.
        if spec["own_network"] and not spec["argv"][0].startswith("/run/"):
            mount_empty("/run", MAX_SHARED_EXTRA_BYTES)
    workload = os.fork()
    if workload == 0:
        exec_workload(spec, fds)
    for name in ("go", "out", "err"):
        os.close(fds[name])
    os.write(fds["status"], EXIT_STATUS.pack(workload, 0))
    while True:
        pid, status, usage = os.wait4(-1, 0)
        if pid == workload:
            os.write(fds["status"], EXIT_STATUS.pack(os.waitstatus_to_exitcode(status), usage.ru_maxrss))
            # As the first process of a PID namespace it takes all others along.
            os._exit(0)


def exec_workload(spec: dict[str, Any], fds: dict[str, int]) -> NoReturn:
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        # A session of its own, so that no signal from a terminal reaches it, and its group can be killed.
        os.setsid()
        os.dup2(fds["out"], 1)
        os.dup2(fds["err"], 2)
        os.closerange(3, MAX_OPEN_FILES)
        os.chdir(spec["directory"])
        os.umask(0o077)
        if LINUX:
            drop_privileges(spec["uid"], spec["needed"])
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user clears it
        # A program that is setuid gets no more rights than the workload has.
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        set_rlimits(spec)
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.execve(spec["argv"][0], spec["argv"], spec["env"])  # noqa: S606
    except OSError as error:
        os.write(2, f"cannot start the workload: {error}\n".encode())
    finally:
        os._exit(127)


def set_rlimits(spec: dict[str, Any]) -> None:
    """Set limits for what grows faster than the supervisor looks. That a budget is spent, the supervisor finds out."""
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: MAX_FILE_BYTES,
        resource.RLIMIT_NOFILE: MAX_OPEN_FILES,
        resource.RLIMIT_CPU: int(spec["cpu_seconds"]) + 2,
    }
    if spec["address_space"] and LINUX:
        wanted[resource.RLIMIT_AS] = spec["memory_bytes"] * 4 + (1 << 30)
    # The kernel counts processes by user and user namespace. Without one it would count all processes of this user.
    if spec["isolation"]["user"] or os.geteuid() == spec["uid"]:
        wanted[resource.RLIMIT_NPROC] = spec["pids"] * 2 + 32
    for name, value in wanted.items():
        hard = resource.getrlimit(name)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (bound, bound))
