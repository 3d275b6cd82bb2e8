"""Where workloads have their directories, and the clean-up after a simulator that was killed. Blocking, and no tasks.

A simulator that ends leaves nothing. One that is killed, and whose supervisors are killed too, leaves directories, and
without a PID namespace perhaps a daemon. So each one holds a lock for as long as it lives, and the next one to start
clears away what belongs to a lock that nobody holds.
"""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

NAME = "enclave-simulator-"
_LOCK = ".lock"
WORKLOAD_UIDS = range(61_184, 65_520)
"""User ids that systemd keeps for users that exist only while something runs."""


class Workplace:
    """A directory of its own, until `close`. Session ids begin with its `prefix`."""

    def __init__(self) -> None:
        self.prefix = f"s-{secrets.token_hex(3)}"
        self.path = Path(tempfile.gettempdir()) / (NAME + self.prefix)
        self._lock = _own_lock(self.path.with_suffix(_LOCK))
        # A workload may have another user id than this process, and must reach its own directory inside.
        self.path.mkdir(mode=0o711)
        self._uids = itertools.count(secrets.randbelow(len(WORKLOAD_UIDS)))

    def next_uid(self) -> int | None:
        """A user id that hardly any other workload has at the time. None if this process may not give one away."""
        if sys.platform != "linux" or os.geteuid() != 0:
            return None
        return WORKLOAD_UIDS[next(self._uids) % len(WORKLOAD_UIDS)]

    def close(self) -> None:
        """Remove the directory, and give the lock back."""
        _clear(self.path)
        self.unlock()

    def unlock(self) -> None:
        """Give the lock back, as the kernel does for a process that was killed."""
        if self._lock is not None:
            os.close(self._lock)


def clear_abandoned() -> None:
    """End and remove what simulators of this user left that are no longer alive."""
    if sys.platform == "win32":
        return
    for lock_path in Path(tempfile.gettempdir()).glob(f"{NAME}*{_LOCK}"):
        with suppress(OSError):
            if lock_path.lstat().st_uid != os.geteuid() or (lock := _lock_of_the_dead(lock_path)) is None:
                continue
            directory = lock_path.with_suffix("")
            kill_carriers(directory.name.removeprefix(NAME) + "-")
            _clear(directory)
            os.close(lock)


def kill_carriers(session_id: str, uid: int | None = None) -> bool:
    """Kill every process whose session's id begins like this, or that has this user id. Says whether there were any."""
    if sys.platform == "win32":
        return False  # there is no simulator, but type checkers read this file there too
    pids = carriers(session_id, uid)
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return bool(pids)


def carriers(session_id: str, uid: int | None = None) -> list[int]:
    """The processes that belong to a session by their environment or their user id, as far as this user may see."""
    wanted = f"\0ENCLAVE_SESSION_ID={session_id}".encode()
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if entry.stat().st_uid == uid or wanted in b"\0" + (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def _own_lock(path: Path) -> int | None:
    """A file that this process alone has locked. None on Windows."""
    if sys.platform == "win32":
        return None
    import fcntl  # noqa: PLC0415 - there is none on Windows

    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        # Between these two lines another simulator may start, take this for a lock of the dead, and clear it away.
        fcntl.flock(file, fcntl.LOCK_EX)
        if _is_at(path, file):
            return file
        os.close(file)


def _lock_of_the_dead(path: Path) -> int | None:
    """The lock of a simulator that has died, locked by this process. None if it lives, or was cleared away already."""
    if sys.platform == "win32":
        return None
    import fcntl  # noqa: PLC0415 - there is none on Windows

    file = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    if _is_at(path, file):
        return file
    os.close(file)
    return None


def _is_at(path: Path, file: int) -> bool:
    """Whether a file is still there, and no other one in its place."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(file))
    except FileNotFoundError:
        return False


def _clear(directory: Path) -> None:
    # The lock goes last, so that whoever is killed in between leaves the rest to the next one.
    shutil.rmtree(directory, ignore_errors=True)
    directory.with_suffix(_LOCK).unlink(missing_ok=True)
