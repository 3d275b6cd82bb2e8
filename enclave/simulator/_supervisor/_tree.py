"""A tree of processes: what it uses, how it is killed. A tree of files: how it is removed."""

# pathlib would double the time this process takes to start.
# ruff: noqa: PTH101, PTH106, PTH108, PTH115, PTH116, PTH123, PTH208
from __future__ import annotations

import contextlib
import os
import resource
import signal
import stat
import sys
import time
from collections.abc import Iterator

assert sys.platform != "win32"  # noqa: S101 - so that type checkers read no further on Windows

from ._linux import FILE_BYTES, SHARED_MEMORY

KILL_SECONDS = 5.0
BLOCK_BYTES = 512
FILES_A_STEP = 2000
_PSS = (b"Pss", b"Pss_Shmem")


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
    """What a tree of processes uses at one moment. Memory counts shared pages once for each process, and once more."""

    def __init__(self, init: int, most_pids: int, *, uid: int | None, own_mounts: bool) -> None:
        self.pids = 0
        self.memory_bytes = 0
        # One process more than allowed is enough to know that there are too many.
        self.counted = descendants(init, most_pids)[: most_pids + 1]
        # Init is ours and counts towards no limit, but it holds the CPU time of the orphans that it reaped.
        self.cpu_seconds = self._measure(init, counted=False)
        for pid in self.counted:
            self.cpu_seconds += self._measure(pid, counted=True)
        # Memory that lives as a file need not be mapped by any process.
        shared_memory = f"/proc/{init}/root{SHARED_MEMORY}"
        self.removed_bytes = 0
        """Files on disk that were removed while a process has them open. They are there until it closes them."""
        self._file_bytes = self._measure_removed(shared_memory, own_mounts=own_mounts)
        self._file_bytes += _used_bytes(shared_memory) if own_mounts else _owned_bytes(uid)
        if own_mounts:
            self._file_bytes += _segment_bytes()
        self.memory_bytes += self._file_bytes

    def exact_memory_bytes(self) -> int:
        """Memory with each shared page counted once. A forked tree shares many. This is slow, so it is asked rarely."""
        total = mapped_file_bytes = 0
        for pid in self.counted:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup", "rb") as file:
                sizes = {name: int(rest.split()[0]) * 1024 for name, rest in map(_field, file) if name in _PSS}
                total += sizes.get(b"Pss", 0)
                mapped_file_bytes += sizes.get(b"Pss_Shmem", 0)
        if not total:
            return self.memory_bytes
        return total - mapped_file_bytes + max(mapped_file_bytes, self._file_bytes)

    def _measure_removed(self, shared_memory: str, *, own_mounts: bool) -> int:
        """Look for open files that no directory has. Returns how many bytes of them are memory."""
        in_memory: dict[tuple[int, int], int] = {}
        on_disk: dict[tuple[int, int], int] = {}
        memory_device = None
        with contextlib.suppress(OSError):
            memory_device = os.stat(shared_memory).st_dev
        for link, found in _removed_files(self.counted):
            if link.startswith("/memfd:"):
                kind = in_memory
            elif found.st_dev != memory_device:
                kind = on_disk
            elif own_mounts:
                continue  # the file system itself tells what it holds
            else:
                kind = in_memory
            kind[found.st_dev, found.st_ino] = found.st_blocks * BLOCK_BYTES
        self.removed_bytes = sum(on_disk.values())
        return sum(in_memory.values())

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


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, rest = line.partition(b":")
    return name, rest


def _used_bytes(mount: str) -> int:
    try:
        found = os.statvfs(mount)
    except OSError:
        return 0
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def _segment_bytes() -> int:
    """Shared memory of System V in our own IPC namespace."""
    with contextlib.suppress(OSError), open("/proc/sysvipc/shm", "rb") as file:
        names = file.readline().split()
        return sum(int(line.split()[names.index(b"rss")]) for line in file)
    return 0


def _removed_files(pids: list[int]) -> Iterator[tuple[str, os.stat_result]]:
    """Open files that no directory has, by what the kernel calls them."""
    for pid in pids:
        with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                # A file that is closed meanwhile must not hide the others.
                with contextlib.suppress(OSError):
                    link = os.readlink(entry.path)
                    if link.endswith(" (deleted)") and (found := os.stat(entry.path)).st_nlink == 0:
                        yield link, found


def _owned_bytes(uid: int | None) -> int:
    total = 0
    waiting = [SHARED_MEMORY] if uid is not None else []
    while waiting:
        for entry, found in _entries(waiting.pop()):
            if found.st_uid == uid:
                total += found.st_blocks * BLOCK_BYTES + FILE_BYTES
                if stat.S_ISDIR(found.st_mode):
                    waiting.append(entry)
    return total


def _entries(directory: str) -> Iterator[tuple[str, os.stat_result]]:
    """What a directory has, without what is removed meanwhile."""
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                yield entry.path, entry.stat(follow_symlinks=False)


def remove_shared_files(uid: int | None) -> None:
    """Remove what a workload with a user id of its own left in shared memory."""
    # Such a user runs nothing but one workload. Without one nobody knows whose a file is.
    for path, found in list(_entries(SHARED_MEMORY)) if uid is not None else ():
        if found.st_uid == uid:
            if stat.S_ISDIR(found.st_mode):
                remove_tree(path)
            else:
                with contextlib.suppress(OSError):
                    os.unlink(path)


class DiskUse:
    """How much a directory holds. A tree may be large, so it is measured in steps, again and again."""

    def __init__(self, directory: str) -> None:
        self.most_bytes = 0
        self._directory = directory
        self._steps = self._walk()

    def advance(self) -> None:
        """Measure a part of the tree. `most_bytes` is the largest sum that was found so far."""
        if next(self._steps, None) is None:
            self._steps = self._walk()

    def _walk(self) -> Iterator[bool]:
        total = count = 0
        directories = [self._directory]
        while directories:
            for path, found in _entries(directories.pop()):
                count += 1
                if count % FILES_A_STEP == 0:
                    yield True
                if stat.S_ISDIR(found.st_mode):
                    directories.append(path)
                total += found.st_blocks * BLOCK_BYTES + FILE_BYTES
                self.most_bytes = max(self.most_bytes, total)


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
