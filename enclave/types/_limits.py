"""What a session may use, and which addresses it may connect to: `SessionLimits` and `EgressPolicy`."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any, Self

import msgspec
from msgspec.structs import force_setattr

from ._absent import OrAbsent
from ._encode import EXTRA, WireStruct, wire_names
from ._shown import Shown


class SessionLimits(
    WireStruct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", forbid_unknown_fields=True
):
    """Resource limits of a session.

    In a request every field is optional. A `Session` shows the limits in force. See [The limits][the-limits].
    """

    cpu_millis: int | None = None
    """CPU share in thousandths of a core."""
    memory_mb: int | None = None
    """Memory in mebibytes."""
    wall_clock_ms: int | None = None
    """Wall-clock time of the workload in milliseconds."""
    pids: int | None = None
    """Number of processes and threads alive at once."""
    extra: dict[str, Any] = msgspec.field(default={}, name=EXTRA)
    """Limits that this version has no name for, under their wire names. They are sent, and shown, as they are."""

    @classmethod
    def wire_names(cls) -> dict[str, str]:
        """The limits that have a name here: what each is called in Python, and on the wire."""
        return wire_names(cls)


class EgressPolicy(Shown, frozen=True, rename="camel"):
    """Which addresses a session may connect to. See [The egress policy][the-egress-policy].

    Both fields are always sent. The metadata address 169.254.169.254 stays blocked, whatever the policy allows.
    """

    mode: str = "deny_all"
    """``"deny_all"`` or ``"allowlist"``."""
    allow: OrAbsent[Sequence[str]] = ()
    """CIDR strings, as in ``"203.0.113.0/24"``. Only an ``"allowlist"`` has any."""

    def __post_init__(self) -> None:
        if self.allow is None:  # pyright: ignore[reportUnnecessaryComparison] - see OrAbsent
            force_setattr(self, "allow", ())

    @classmethod
    def deny_all(cls) -> Self:
        """No connection leaves the session. This is the server's default."""
        return cls("deny_all", ())

    @classmethod
    def allowlist(cls, *cidrs: str) -> Self:
        """Connections only to these networks, each a CIDR string such as ``"203.0.113.0/24"``.

        Raises:
            ValueError: a string is not a network in CIDR form.
        """
        policy = cls("allowlist", cidrs)
        check_egress(policy)
        return policy


def check_limits(limits: SessionLimits) -> None:
    """Raise TypeError or ValueError, naming the field, for limits that no server can mean."""
    if not isinstance(limits, SessionLimits):
        raise TypeError(f"limits: expected SessionLimits(memory_mb=...), got {type(limits).__name__}")
    for name in SessionLimits.wire_names():
        value = getattr(limits, name)
        if value is None:
            continue
        # True is an int to Python, and would be sent as true.
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"limits.{name}: expected a whole number, got {value!r}")
        if value <= 0:
            raise ValueError(f"limits.{name}: must be positive, got {value}. Leave it out for the server's default")


def check_egress(egress: EgressPolicy) -> None:
    """Raise TypeError or ValueError, naming the field, for a policy that would be refused or misread."""
    if not isinstance(egress, EgressPolicy):
        raise TypeError(
            f"egress: expected EgressPolicy.deny_all() or EgressPolicy.allowlist(...), got {type(egress).__name__}"
        )
    if not isinstance(egress.mode, str):
        raise TypeError(f'egress.mode: expected "deny_all" or "allowlist", got {egress.mode!r}')
    if isinstance(egress.allow, str) or not isinstance(egress.allow, Sequence):
        raise TypeError(f"egress.allow: expected a list of CIDR strings, got {egress.allow!r}")
    if egress.mode == "deny_all" and egress.allow:
        raise ValueError('egress.allow: mode "deny_all" takes no networks. Use EgressPolicy.allowlist(...)')
    for index, cidr in enumerate(egress.allow):
        if not isinstance(cidr, str):
            raise TypeError(f"egress.allow[{index}]: expected a CIDR string, got {cidr!r}")
        try:
            ipaddress.ip_network(cidr)
        except ValueError as error:
            raise ValueError(f'egress.allow[{index}]: {error}. Write a network such as "203.0.113.0/24"') from None
