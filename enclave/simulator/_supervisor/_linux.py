"""Namespaces and prctl, by ctypes. Elsewhere than on Linux there are none."""

# pathlib would double the time this process takes to start.
# ruff: noqa: PTH123
from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial

assert sys.platform != "win32"  # noqa: S101 - so that type checkers read no further on Windows

LINUX = sys.platform == "linux"
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x00020000, 0x10000000, 0x20000000, 0x40000000
CLONE_NEWIPC = 0x08000000
MS_REC_PRIVATE, MS_NOSUID_NODEV, MS_NOEXEC = 0x4000 | 0x40000, 2 | 4, 8
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 24, 36, 38
CAPABILITIES = 64
FILE_BYTES = 4096
"""What a file costs besides its content, so that their number is bounded too: all have to be removed in the end."""
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - its name on every Linux


def prctl(option: int, value: int) -> None:
    if LINUX:
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def unshare(flags: int) -> bool:
    # Asking for nothing always succeeds, on macOS too.
    return not flags or (LINUX and bool(ctypes.CDLL(None).unshare(flags) == 0))


def isolate(isolation: Mapping[str, bool]) -> bool:
    """Enter these namespaces, and say whether that succeeded. A PID namespace takes the children from now on."""
    uid, gid = os.geteuid(), os.getegid()
    flags = {"user": CLONE_NEWUSER, "pid": CLONE_NEWPID | CLONE_NEWIPC, "net": CLONE_NEWNET}
    if not unshare(sum(flag for name, flag in flags.items() if isolation.get(name))):
        return False
    if isolation.get("user"):
        try:
            # The kernel wants setgroups denied before an unprivileged process may map its group.
            for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
                with open(f"/proc/self/{name}", "w") as file:
                    file.write(text)
        except OSError:
            return False
    return True


def mount_proc() -> bool:
    """Show only the PID namespace's own processes in /proc."""
    if not unshare(CLONE_NEWNS):
        return False
    mount = ctypes.CDLL(None).mount
    # A mount is shared with the rest of the machine until the tree is made private.
    private = mount(b"none", b"/", None, MS_REC_PRIVATE, None) == 0
    return private and bool(mount(b"proc", b"/proc", b"proc", MS_NOSUID_NODEV | MS_NOEXEC, None) == 0)


def mount_empty(path: str, max_bytes: int) -> None:
    """Cover a directory with one in memory, which the mount namespace takes along when it ends."""
    options = f"mode=1777,size={max_bytes},nr_inodes={max_bytes // FILE_BYTES}".encode()
    # Where there is no such directory, there is nothing to cover.
    ctypes.CDLL(None).mount(b"tmpfs", path.encode(), b"tmpfs", MS_NOSUID_NODEV, options)


def drop_privileges(uid: int | None, needed: Sequence[str]) -> None:
    """Keep no capability from the next exec on, and become another user if that one can read what is needed."""
    for capability in range(CAPABILITIES):
        prctl(PR_CAPBSET_DROP, capability)
    if uid is None or sys.platform != "linux":
        return
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, 0)
    # A Python below /root, for example, is there for root alone.
    usable = all(os.access(path, os.R_OK) for path in needed)
    os.setresuid(0, 0, 0)
    if not usable:
        os.setresgid(0, 0, 0)
        return
    for fd in (1, 2):
        os.fchown(fd, uid, uid)  # a program may open them again by their name
    with os.scandir() as entries:
        for path in (".", *(entry.path for entry in entries)):
            os.chown(path, uid, uid)
    os.setresuid(uid, uid, uid)


def probe() -> dict[str, bool]:
    """Which namespaces this machine permits, by trying them in a child."""
    for user in (False, True):
        for net in (True, False):
            isolation = {"user": user, "pid": True, "net": net}
            code = _run_in_child(partial(_try_isolation, isolation))
            if code in (0, 1):
                return {**isolation, "proc": code == 0}
    return {"user": False, "pid": False, "net": False, "proc": False}


def _try_isolation(isolation: Mapping[str, bool]) -> int:
    return _run_in_child(lambda: 0 if mount_proc() else 1) if isolate(isolation) else 2


def _run_in_child(function: Callable[[], int]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 3
        try:
            code = function()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
