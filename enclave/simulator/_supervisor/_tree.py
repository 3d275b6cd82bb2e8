"""A tree of processes: what it uses, how it is killed. A tree of files: how it is removed."""

# pathlib would double the time this process takes to start.
# ruff: noqa: PTH101, PTH106, PTH108, PTH123, PTH208
from __future__ import annotations

import contextlib
import os
import resource
import signal
import stat
import sys
import time

assert sys.platform != "win32"  # noqa: S101 - so that type checkers read no further on Windows

KILL_SECONDS = 5.0


def children(pid: int) -> list[int]:
    # Each thread has children of its own, so all threads are asked.
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                found += map(int, file.read().split())
    except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
        return found
    return found


def descendants(pid: int, most: int = sys.maxsize) -> list[int]:
    """All descendants, or a few more than `most`. A look at a fork bomb must not take longer than the bomb grows."""
    found = children(pid)
    for child in found:
        if len(found) > most:
            break
        found += children(child)
    return found


class Usage:
    """What a tree of processes uses at one moment. Memory counts shared pages once for each process."""

    def __init__(self, init: int, most_pids: int) -> None:
        self.pids = 0
        self.memory_bytes = 0
        # One process more than allowed is enough to know that there are too many.
        self.counted = descendants(init, most_pids)[: most_pids + 1]
        # Init is ours and counts towards no limit, but it holds the CPU time of the orphans that it reaped.
        self.cpu_seconds = self._measure(init, counted=False)
        for pid in self.counted:
            self.cpu_seconds += self._measure(pid, counted=True)

    def exact_memory_bytes(self) -> int:
        """Memory with each shared page counted once. A forked tree shares many. This is slow, so it is asked rarely."""
        total = 0
        for pid in self.counted:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup", "rb") as file:
                total += sum(int(line.split()[1]) * 1024 for line in file if line.startswith(b"Pss:"))
        return total or self.memory_bytes

    def _measure(self, pid: int, *, counted: bool) -> float:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return 0.0
        if counted:
            self.pids += int(fields[17])
            self.memory_bytes += int(fields[21]) * resource.getpagesize()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def kill_tree(root: int, group: int) -> None:
    """Kill every descendant of `root`, this process or a child, until none is left or `KILL_SECONDS` passed.

    First they are stopped, because a tree that goes on forking can grow faster than it is killed.
    """
    deadline = time.monotonic() + KILL_SECONDS
    # The second stop reaches what was forked while the first one went round.
    for number in (signal.SIGSTOP, signal.SIGSTOP, signal.SIGKILL):
        send_signals(descendants(root), group, number)
    while time.monotonic() < deadline:
        reap()
        left = [pid for pid in descendants(root) if not is_zombie(pid)]
        if not left:
            return
        send_signals(left, group, signal.SIGKILL)
        time.sleep(0.002)


def send_signals(pids: list[int], group: int, number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
    if group > 0:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)


def is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return True


def reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def remove_tree(path: str) -> None:
    """Remove a directory, also where the workload took its permissions away. What cannot be removed stays."""
    with contextlib.suppress(OSError):
        os.chmod(path, stat.S_IRWXU, follow_symlinks=os.chmod not in os.supports_follow_symlinks)
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    remove_tree(entry.path)
                else:
                    os.unlink(entry.path)
        os.rmdir(path)
    except (OSError, RecursionError) as error:
        print(f"enclave simulator: cannot remove {path}: {error}", file=sys.stderr)  # noqa: T201
