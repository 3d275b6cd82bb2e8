"""`Simulator`: what users hold. It puts the parts together and serves them inside the caller's event loop."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec

from enclave.types import SessionLimits, SessionPhase

from . import _checks
from ._auth import Authority
from ._control_plane import ControlPlane, RecordedRequest
from ._doorkeeper import is_loopback
from ._faults import Faults
from ._fleet import Fleet
from ._framing import Framing
from ._limits import DEFAULT_LIMITS, MAX_LIMITS, effective
from ._script import Script, ScriptStep
from ._server import HTTPServer
from ._serving import Serving
from ._settings import Bounds, Settings
from ._wakeup import Wakeup

MAX_RECORDED_REQUESTS = 4096
PORTS = range(65_536)
_DEFAULT_BOUNDS = Bounds()
_DEFAULT_FRAMING = Framing()


class Simulator:
    """A control plane on loopback that runs code for real. Convenient, NOT a security boundary.

    ::

        async with Simulator().serve() as sim:
            client = EnclaveClient(sim.base_url, api_key=sim.api_key)

    Args:
        api_key: the key to accept, ``ek_<id>_<secret>``. By default a new one.
        jwt_secret: the secret that user tokens are signed with. By default a new one.
        org_ids: the organisations. The first one is that of `api_key`.
        service_bindings: the base URL of each service that a request may bind, by the service's name.
        default_limits: what a request gets that asks for no limit of its own.
        max_limits: the greatest limits. A request that asks for more is refused.
        bounds: how much the simulator keeps, runs at once and waits.
        framing: how streams are written.
        auto_teardown: whether a session is torn down as soon as it has finished.
        namespaces: whether workloads get Linux namespaces of their own, where the machine permits it.

    Raises:
        TypeError, ValueError: an argument cannot be used. The message names it.
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
        bounds: Bounds = _DEFAULT_BOUNDS,
        framing: Framing = _DEFAULT_FRAMING,
        auto_teardown: bool = False,
        namespaces: bool = True,
    ) -> None:
        _checks.instance("bounds", bounds, Bounds)
        _checks.instance("framing", framing, Framing)
        _checks.instance("default_limits", default_limits, SessionLimits)
        _checks.instance("max_limits", max_limits, SessionLimits)
        self.faults = Faults()
        """Arms faults for the requests and streams to come."""
        self.requests: deque[RecordedRequest] = deque(maxlen=MAX_RECORDED_REQUESTS)
        """The latest 4,096 requests, without credentials. The oldest one comes first."""
        self._changed = Wakeup()
        self._base_url: str | None = None
        self._authority = Authority(org_ids, jwt_secret)
        self._api_key = self._authority.add_key(org_id=None, role="owner", key=api_key)
        self._settings = Settings(
            bounds=bounds,
            framing=framing,
            default_limits=effective(default_limits, DEFAULT_LIMITS, max_limits),
            max_limits=effective(max_limits, MAX_LIMITS, max_limits),
            service_bindings=_checks.texts_by_name("service_bindings", service_bindings or {}),
            auto_teardown=_checks.flag("auto_teardown", auto_teardown),
            namespaces=_checks.flag("namespaces", namespaces),
        )
        self._fleet = Fleet(self._settings, on_change=self._changed.wake)
        self._plane = ControlPlane(
            self._fleet,
            self._authority,
            self.faults,
            self._settings,
            requests=self.requests,
            on_change=self._changed.wake,
        )
        self._http = HTTPServer(self._plane.handle, bounds, on_change=self._changed.wake)

    # Serving

    def serve(
        self, *, host: str = "127.0.0.1", port: int = 0, allow_remote: bool = False
    ) -> AbstractAsyncContextManager[Simulator]:
        """Serve for the length of an ``async with`` block, which gives the simulator.

        Leaving the block, by cancellation too, tears every session down.

        Args:
            host: the address to listen on.
            port: the port to listen on. 0 takes any free one.
            allow_remote: permits a host that is not loopback. Whoever reaches it with a key runs code as this user on
                this machine.

        Raises:
            TypeError, ValueError: an argument cannot be used, or `host` is not loopback and `allow_remote` is not set.
            RuntimeError: this is Windows.
        """
        if _checks.whole("port", port) not in PORTS:
            raise ValueError(f"port: expected a number from 0 to {PORTS[-1]}, got {port}")
        _checks.text("host", host)
        _checks.flag("allow_remote", allow_remote)
        if sys.platform == "win32":
            raise RuntimeError(
                "the simulator does not run on Windows, where it could not hold a workload to its limits. "
                "Use it inside WSL, or use a control plane on another machine"
            )
        if not allow_remote and not is_loopback(host):
            raise ValueError(
                f"host: {host!r} is not loopback, and the simulator is no security boundary (allow_remote=True)"
            )
        return Serving(
            self,
            self._fleet,
            self._http,
            host=host,
            port=port,
            grace_seconds=self._settings.bounds.shutdown_seconds,
        )

    @property
    def base_url(self) -> str:
        """Where it is served, as in ``"http://127.0.0.1:40123"``.

        Raises:
            RuntimeError: it is not being served.
        """
        if self._base_url is None:
            raise RuntimeError("base_url: the simulator is not being served, use async with Simulator().serve() as sim")
        return self._base_url

    def bind(self, base_url: str | None) -> None:
        """Note where it is served, for `Serving`.

        Raises:
            RuntimeError: it is being served already.
        """
        if base_url is not None and self._base_url is not None:
            raise RuntimeError("this simulator is being served already")
        self._base_url = base_url
        self._plane.doorkeeper.served_at(base_url)

    @property
    def console_url(self) -> str:
        """The link to the console, with `api_key` in its fragment, which a browser does not send.

        Raises:
            RuntimeError: it is not being served.
        """
        return f"{self.base_url}/#key={self.api_key}"

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
        self, *, org_id: str | None = None, role: str = "developer", scopes: Iterable[str] | None = None
    ) -> str:
        """A new API key, ``ek_<id>_<secret>``, for the first org unless given.

        Args:
            org_id: its org.
            role: owner, admin, developer or viewer.
            scopes: ``sessions:read``, ``sessions:write`` or both. By default those of the role.

        Raises:
            TypeError, ValueError: the org, the role or a scope is unknown, or is no text.
        """
        return self._authority.add_key(org_id=org_id, role=role, scopes=scopes)

    def issue_token(
        self,
        *,
        org_id: str | None = None,
        user_id: str = "user-main",
        role: str = "developer",
        lifetime_seconds: float = 3600.0,
    ) -> str:
        """A user JWT (HS256), for the first org unless given.

        Args:
            org_id: its org.
            user_id: the user, which is the token's ``sub``. It is the `created_by` of the user's sessions.
            role: owner, admin, developer or viewer.
            lifetime_seconds: after how long it expires. One below zero gives a token that has expired.

        Raises:
            TypeError, ValueError: the org or the role is unknown, or an argument is of another type.
        """
        return self._authority.issue_token(org_id=org_id, user_id=user_id, role=role, lifetime_seconds=lifetime_seconds)

    # Behaviour

    @property
    def framing(self) -> Framing:
        """How streams that open from now on are written."""
        return self._settings.framing

    @framing.setter
    def framing(self, framing: Framing) -> None:
        self._settings.framing = _checks.instance("framing", framing, Framing)

    def script(
        self,
        frames: Iterable[ScriptStep] = (),
        *,
        result: Any = msgspec.UNSET,
        exit_code: int | None = None,
        kill_reason: str | None = None,
        delay_seconds: float = 0.0,
        raw: bool = False,
        hold: bool = False,
    ) -> Script:
        """Have the next session that is created play these frames instead of running its code.

        They come between phase running and the result, which holds what they print.

        Args:
            frames: what it prints and reports: frames of `enclave.types`, as dicts or as JSON text too, or pauses in
                seconds. Bytes are sent as they are, also where they are no frame.
            result: the value that it gives to ``enclave.result``. By default that of a result frame among them, if
                there is one.
            exit_code: its exit code, unless there is a `kill_reason`. By default that of a result frame, else 0.
            kill_reason: why the platform kills it, as in ``"memory_exceeded"``. By default that of a phase frame among
                them, if there is one and no `exit_code`.
            delay_seconds: a pause after each frame.
            raw: whether `frames` are the whole stream, as they are in a recording. Then no phases, trail and result are
                added to it.
            hold: whether it keeps running after its frames, until ``release()``. Meanwhile ``push(...)`` adds frames.

        Raises:
            TypeError: something among them is neither a frame nor a pause, or JSON cannot express it.
            ValueError: a text is no frame's JSON, a pause is negative, or the `kill_reason` is unknown.
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
        """How many connections are open."""
        return self._http.open_connections

    @property
    def open_streams(self) -> int:
        """How many streams are open."""
        return self._plane.open_streams

    @property
    def phases(self) -> dict[str, str]:
        """The phase of every session of all orgs, by its id. The oldest session comes first."""
        return {session.id: session.phase.value for session in self._fleet.sessions.values()}

    @property
    def running_sessions(self) -> list[str]:
        """The ids of the sessions that have not ended. A service that cleans up after itself leaves none."""
        return [id_ for id_, phase in self.phases.items() if not SessionPhase(phase).is_terminal]

    @property
    def unreclaimed_sessions(self) -> int:
        """How many sessions have a workload that runs, waits to run, or is being reclaimed."""
        return self._fleet.unreclaimed

    async def until(self, condition: Callable[[Simulator], bool]) -> None:
        """Wait until a condition on the simulator's state holds.

        Args:
            condition: takes this simulator. It is called again at every change.
        """
        while not condition(self):
            await self._changed.wait()

    def __repr__(self) -> str:
        return f"<Simulator {self._base_url or 'not served'} sessions={len(self._fleet.sessions)}>"
