"""The default limits, the greatest ones, and how the limits of a request become the limits in force. Pure: no I/O."""

from __future__ import annotations

import msgspec

from enclave.types import SessionLimits

DEFAULT_LIMITS = SessionLimits(cpu_millis=1000, memory_mb=512, wall_clock_ms=30_000, pids=64)
MAX_LIMITS = SessionLimits(cpu_millis=8000, memory_mb=8192, wall_clock_ms=3_600_000, pids=1024)


class Budget(msgspec.Struct, frozen=True):
    """What a workload may use, in the units that the supervisor measures."""

    wall_seconds: float
    cpu_seconds: float
    """CPU time. A share of half a core for 10 seconds of wall-clock time gives 5 seconds."""
    memory_bytes: int
    pids: int
    disk_bytes: int


def effective(asked: SessionLimits | None, defaults: SessionLimits, maxima: SessionLimits) -> SessionLimits:
    """The limits in force. What was not asked for is taken from `defaults`.

    Raises:
        ValueError: a limit is greater than in `maxima`. The message names it as the wire does.
    """
    values: dict[str, int] = {}
    for name, wire in SessionLimits.wire_names().items():
        # A limit of 0 was refused when the request was checked.
        value = getattr(asked, name, None) or getattr(defaults, name)
        greatest = getattr(maxima, name)
        if value > greatest:
            raise ValueError(f"limits.{wire}: must be at most {greatest}, got {value}")
        values[name] = value
    return SessionLimits(**values, extra=asked.extra if asked else {})


def budget(limits: SessionLimits, disk_bytes: int) -> Budget:
    """The budget of limits in force, each of which is set, and of what no request may ask for."""
    wall_seconds = (limits.wall_clock_ms or 0) / 1000
    return Budget(
        wall_seconds=wall_seconds,
        cpu_seconds=wall_seconds * (limits.cpu_millis or 0) / 1000,
        memory_bytes=(limits.memory_mb or 0) * 1024 * 1024,
        pids=limits.pids or 0,
        disk_bytes=disk_bytes,
    )
