"""What a simulator is made with. A user gives `Bounds`, and every part of the simulator reads `Settings`."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from enclave.types import SessionLimits

from ._framing import Framing


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much a simulator keeps, how much it runs at once, and how long it waits.

    Raises:
        TypeError: a bound is not a number.
        ValueError: a bound is negative, or `max_running` is 0.
    """

    max_running: int = 4 * (os.cpu_count() or 1)
    """How many workloads run at once. Further sessions stay pending and start in the order of their creation."""
    max_pending: int = 10_000
    """How many sessions may be pending. A create beyond that is answered with status 429."""
    max_retained_sessions: int = 10_000
    """How many sessions are kept. Beyond that the oldest finished session is forgotten, those torn down first."""
    max_retained_bytes: int = 512 * 1024 * 1024
    """How many bytes of recorded frames are kept for all finished sessions together."""
    max_body_bytes: int = 8 * 1024 * 1024
    """The largest request body in bytes. A larger one is answered with status 413."""
    max_log_bytes: int = 16 * 1024 * 1024
    """How many bytes of output are recorded for one session. What it prints beyond that is dropped."""
    max_capture_bytes: int = 65_536
    """How many bytes of standard output, and of standard error, a session's result holds."""
    max_disk_bytes: int = 1024 * 1024 * 1024
    """How many bytes the files of a workload may take, of which each counts 4 KiB more than it holds. A workload that
    exceeds this is killed with ``"disk_exceeded"``."""
    heartbeat_seconds: float = 15.0
    """The longest silence on a stream, in seconds. Then a comment is sent."""
    keep_alive_seconds: float = 75.0
    """How long an idle connection stays open, in seconds."""
    write_timeout_seconds: float = 300.0
    """How long a client may read nothing of what it was sent, in seconds. Then its connection is closed."""
    shutdown_seconds: float = 10.0
    """How long leaving ``serve()`` may take, in seconds."""

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(type(self)):
            value = getattr(self, field.name)
            wanted = (int, float) if field.name.endswith("_seconds") else (int,)
            if not isinstance(value, wanted) or isinstance(value, bool):
                raise TypeError(f"{field.name}: expected a number, got {value!r}")
            if not value >= 0:  # written so that it catches NaN too
                raise ValueError(f"{field.name}: must not be negative, got {value}")
        if self.max_running == 0:
            raise ValueError("max_running: must be at least 1, got 0, with which nothing would ever run")


class Settings(msgspec.Struct, kw_only=True):
    """How one simulator behaves. Only `framing` changes while it serves."""

    bounds: Bounds
    framing: Framing
    default_limits: SessionLimits
    max_limits: SessionLimits
    service_bindings: Mapping[str, str]
    """The base URL of each service, by its name."""
    auto_teardown: bool
    namespaces: bool
