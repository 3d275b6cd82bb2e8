"""`Simulator`: what users hold. Puts the parts together and serves them inside the caller's event loop."""

from __future__ import annotations

import ipaddress
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio

from enclave.types import SessionLimits

from ._app import ControlPlane, RecordedRequest, Settings
from ._auth import Authority, make_principal
from ._faults import Faults
from ._fleet import Fleet
from ._limits import DEFAULT_LIMITS, MAX_LIMITS, effective
from ._script import NO_RESULT, Script, ScriptStep
from ._server import HTTPServer
from ._serving import Serving
from ._sse import Framing

MAX_RECORDED_REQUESTS = 4096


class Simulator:
    """A control plane on loopback that runs code for real. Convenient, NOT a security boundary.

        async with Simulator().serve() as sim:
            client = EnclaveClient(sim.base_url, api_key=sim.api_key)

    Raises:
        ValueError: an argument is out of range; the message names it.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        jwt_secret: str | None = None,
        org_ids: Iterable[str] = ("org-main", "org-other"),
        service_bindings: Mapping[str, str] | None = None,
        default_limits: SessionLimits = DEFAULT_LIMITS,
        max_limits: SessionLimits = MAX_LIMITS,
        max_running: int | None = None,
        max_pending: int = 10_000,
        max_retained_sessions: int = 10_000,
        max_retained_bytes: int = 512 * 1024 * 1024,
        max_body_bytes: int = 8 * 1024 * 1024,
        max_log_bytes: int = 16 * 1024 * 1024,
        max_capture_bytes: int = 65_536,
        heartbeat_seconds: float = 15.0,
        keep_alive_seconds: float = 75.0,
        write_timeout_seconds: float = 300.0,
        shutdown_seconds: float = 10.0,
        auto_teardown: bool = False,
        namespaces: bool = True,
        framing: Framing | None = None,
    ) -> None:
        self.faults = Faults()
        """Arms faults for the requests and streams to come."""
        self.requests: deque[RecordedRequest] = deque(maxlen=MAX_RECORDED_REQUESTS)
        """The latest requests, without credentials."""
        self._changed: anyio.Event | None = None
        self._authority = Authority(org_ids, jwt_secret)
        self._api_key = self._authority.add_key(make_principal(self.org_id, "user-main", "owner", None), key=api_key)
        self._shutdown_seconds = shutdown_seconds
        self._base_url: str | None = None
        services = dict(service_bindings or {})
        self._settings = Settings(
            framing=framing or Framing(),
            heartbeat_seconds=heartbeat_seconds,
            max_body_bytes=max_body_bytes,
            default_limits=effective(default_limits, DEFAULT_LIMITS, max_limits),
            max_limits=effective(max_limits, MAX_LIMITS, max_limits),
            services=services,
        )
        self._fleet = Fleet(
            max_running=max_running or 4 * (os.cpu_count() or 1),
            max_pending=max_pending,
            max_retained=max_retained_sessions,
            max_retained_bytes=max_retained_bytes,
            max_log_bytes=max_log_bytes,
            max_capture_bytes=max_capture_bytes,
            auto_teardown=auto_teardown,
            namespaces=namespaces,
            services=services,
            on_change=self._touch,
        )
        self._plane = ControlPlane(
            fleet=self._fleet,
            authority=self._authority,
            faults=self.faults,
            settings=self._settings,
            requests=self.requests,
            on_change=self._touch,
        )
        self._http = HTTPServer(
            self._plane,
            keep_alive_seconds=keep_alive_seconds,
            write_timeout_seconds=write_timeout_seconds,
            on_change=self._touch,
        )

    # Serving

    def serve(
        self, *, host: str = "127.0.0.1", port: int = 0, allow_remote: bool = False
    ) -> AbstractAsyncContextManager[Simulator]:
        """An async context manager that serves on loopback, on a free port unless given, and yields the simulator.

        Leaving it, by cancellation too, tears every session down. `allow_remote` permits a host other than loopback:
        whoever reaches it with a key runs code as this user on this machine.

        Raises:
            ValueError: `host` is not loopback and `allow_remote` is not set.
        """
        if not allow_remote and not _is_loopback(host):
            raise ValueError(
                f"host: {host!r} is not loopback; the simulator is no security boundary (allow_remote=True)"
            )
        return Serving(self, self._fleet, self._http, host=host, port=port, grace_seconds=self._shutdown_seconds)

    @property
    def base_url(self) -> str:
        """Where it is served, as in ``"http://127.0.0.1:40123"``.

        Raises:
            RuntimeError: it is not being served.
        """
        if self._base_url is None:
            raise RuntimeError("base_url: the simulator is not being served; use async with Simulator().serve() as sim")
        return self._base_url

    def bind(self, base_url: str | None) -> None:
        """Note where it is served, for `Serving`.

        Raises:
            RuntimeError: it is being served already.
        """
        if base_url is not None and self._base_url is not None:
            raise RuntimeError("this simulator is being served already")
        self._base_url = base_url

    # Credentials

    @property
    def org_id(self) -> str:
        """The first org, that of `api_key`."""
        return self._authority.org_ids[0]

    @property
    def org_ids(self) -> list[str]:
        """All orgs."""
        return list(self._authority.org_ids)

    @property
    def api_key(self) -> str:
        """A key of an owner in the first org."""
        return self._api_key

    def add_api_key(
        self,
        *,
        org_id: str | None = None,
        user_id: str = "user-main",
        role: str = "developer",
        scopes: Iterable[str] | None = None,
    ) -> str:
        """A new API key, ``ek_<id>_<secret>``; scopes are those of the role unless given.

        Raises:
            ValueError: the org, the role or a scope is unknown.
        """
        return self._authority.add_key(make_principal(self._known_org(org_id), user_id, role, scopes))

    def issue_token(
        self,
        *,
        org_id: str | None = None,
        user_id: str = "user-main",
        role: str = "developer",
        scopes: Iterable[str] | None = None,
        lifetime_seconds: float = 3600.0,
    ) -> str:
        """A user JWT (HS256); a lifetime below zero gives one that has expired. Raises as `add_api_key`."""
        principal = make_principal(self._known_org(org_id), user_id, role, scopes)
        return self._authority.issue_token(principal, lifetime_seconds=lifetime_seconds)

    # Behaviour

    @property
    def framing(self) -> Framing:
        """How streams that open from now on are written."""
        return self._settings.framing

    @framing.setter
    def framing(self, framing: Framing) -> None:
        self._settings.framing = framing

    def script(
        self,
        frames: Iterable[ScriptStep] = (),
        *,
        result: Any = NO_RESULT,
        exit_code: int = 0,
        kill_reason: str | None = None,
        delay_seconds: float = 0.0,
        raw: bool = False,
        hold: bool = False,
    ) -> Script:
        """The next session that is created plays these frames instead of running its code.

        They come between phase running and the result, which holds what they print. With `raw` they are the whole
        stream: nothing is added to them, and a result frame among them may give the result's `stdout` and `stderr`.
        With `hold` the run goes on until the script's `release`, and takes more frames by `push`.
        """
        script = Script(
            frames,
            result=result,
            exit_code=exit_code,
            kill_reason=kill_reason,
            delay_seconds=delay_seconds,
            raw=raw,
            hold=hold,
        )
        self._fleet.scripts.append(script)
        return script

    # Observation

    @property
    def open_connections(self) -> int:
        """Connections open now."""
        return self._http.open_connections

    @property
    def open_streams(self) -> int:
        """Streams open now."""
        return self._plane.open_streams

    @property
    def phases(self) -> dict[str, str]:
        """The phase of every session it knows, of all orgs, by id, oldest first."""
        return {session.id: session.phase.value for session in self._fleet.sessions.values()}

    @property
    def unreclaimed_sessions(self) -> int:
        """Sessions whose workload runs, waits to run, or is being reclaimed."""
        return self._fleet.unreclaimed

    async def until(self, condition: Callable[[Simulator], bool]) -> None:
        """Wait until a condition on the observable state holds; looks again at every change."""
        while not condition(self):
            if self._changed is None:
                self._changed = anyio.Event()
            await self._changed.wait()

    async def streams_closed(self) -> None:
        """Wait until no stream is open."""
        await self.until(lambda simulator: simulator.open_streams == 0)

    def __repr__(self) -> str:
        return f"<Simulator {self._base_url or 'not served'} sessions={len(self._fleet.sessions)}>"

    def _touch(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def _known_org(self, org_id: str | None) -> str:
        if org_id is not None and org_id not in self._authority.org_ids:
            raise ValueError(f"org_id: expected one of {', '.join(self._authority.org_ids)}, got {org_id!r}")
        return org_id or self.org_id


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
