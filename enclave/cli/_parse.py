"""Values of options: KEY=VALUE pairs, durations, limits, networks. No I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from enclave import EgressPolicy, SessionLimits

from ._errors import BadUsage

_LIMITS = tuple(SessionLimits.wire_names())
_UNITS = {"": "seconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"[0-9]{1,6}|([0-9]{1,6}[smhdw])+")
_PART = re.compile(r"([0-9]+)([smhdw]?)")


def pairs(option: str, values: Sequence[str] | None) -> dict[str, str]:
    """``KEY=VALUE`` strings as a mapping.

    Raises:
        BadUsage: one is no pair, or a key comes twice.
    """
    result: dict[str, str] = {}
    for text in values or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise BadUsage(f"{option}: expected KEY=VALUE, got {text!r}")
        if key in result:
            raise BadUsage(f"{option}: {key!r} is given twice")
        result[key] = value
    return result


def limits(values: Sequence[str] | None) -> SessionLimits | None:
    """``memory-mb=256`` and the like; None where there are none. Raises `BadUsage`."""
    known = {_squeezed(name): name for name in _LIMITS}
    found: dict[str, Any] = {}
    for key, value in pairs("--limit", values).items():
        name = known.get(_squeezed(key))
        if name is None:
            shown = ", ".join(name.replace("_", "-") for name in _LIMITS)
            raise BadUsage(f"--limit: unknown limit {key!r}; expected one of {shown}")
        if not re.fullmatch(r"[0-9]{1,15}", value) or int(value) == 0:
            raise BadUsage(f"--limit {key}: expected a whole number from 1, got {value!r}")
        found[name] = int(value)
    return SessionLimits(**found) if found else None


def _squeezed(name: str) -> str:
    """cpu-millis, cpu_millis and cpuMillis are the same."""
    return re.sub(r"[-_]", "", name).lower()


def egress(networks: Sequence[str] | None) -> EgressPolicy | None:
    """The policy for ``--allow``; None, which is the server's default of none, where there are none."""
    if not networks:
        return None
    try:
        return EgressPolicy.allowlist(*networks)
    except ValueError as error:
        raise BadUsage(f"--allow: {error}") from None


def duration(option: str, text: str) -> timedelta:
    """``90``, ``15m``, ``1h30m``, ``2d``. Raises `BadUsage`."""
    if not _DURATION.fullmatch(text):
        raise BadUsage(f"{option}: expected a duration such as 30s, 15m, 1h30m or 2d, got {text!r}")
    return sum((timedelta(**{_UNITS[unit]: int(number)}) for number, unit in _PART.findall(text)), timedelta())


def seconds(option: str, value: float | None) -> float:
    """A number of seconds to wait, for ever where there is none. Raises `BadUsage`."""
    if value is None:
        return float("inf")
    if not value > 0:
        raise BadUsage(f"{option}: expected a positive number of seconds, got {value:g}")
    return value
