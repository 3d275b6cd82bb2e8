"""All sessions, and the tasks that run them. It knows nothing of HTTP.

At most `max_running` workloads run at once, and the others stay pending in the order of their creation. Finished
sessions are kept within `max_retained_sessions` and `max_retained_bytes`. The oldest are forgotten first, those torn
down before others, and the latest one always stays.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

import anyio
import anyio.abc
import msgspec

from enclave.types import CreateSessionRequest, SessionLimits, SessionPhase

from ._auth import Principal
from ._script import Script
from ._session import Exit, SimulatedSession
from ._settings import Settings
from ._webhook import deliver
from ._workload import Isolation, Workload, node_executable, probe_isolation
from ._workplace import Workplace

RECLAIM_WAIT_SECONDS = 15.0

logger = logging.getLogger(__name__)


class TooManyPending(Exception):
    """`max_pending` sessions wait already, or the simulator is about to leave."""


class Fleet:
    """Sessions by id, in the order of their creation."""

    def __init__(self, settings: Settings, *, on_change: Callable[[], None]) -> None:
        self.scripts: deque[Script] = deque()
        self.sessions: dict[str, SimulatedSession] = {}
        self.unreclaimed = 0
        """How many sessions run, wait to run, or are being reclaimed."""
        self._settings = settings
        self._retained_bytes = 0
        self._on_change = on_change
        self._workplace: Workplace | None = None
        self._made = 0
        self._group: anyio.abc.TaskGroup | None = None
        self._running: anyio.Semaphore | None = None
        self._isolation: Isolation | None = None

    def open(self, group: anyio.abc.TaskGroup, workplace: Workplace) -> None:
        """Take sessions from now on, and run them in this task group and this workplace."""
        self._group = group
        self._workplace = workplace
        self._running = anyio.Semaphore(self._settings.bounds.max_running)

    @property
    def is_open(self) -> bool:
        """Whether sessions are taken."""
        return self._group is not None

    def create(self, principal: Principal, request: CreateSessionRequest, limits: SessionLimits) -> SimulatedSession:
        """Make a session and start its task.

        Raises:
            TooManyPending: the queue is full.
            ValueError: the machine lacks the runtime of the language.
        """
        bounds = self._settings.bounds
        if (
            self._group is None
            or self._workplace is None
            or self.unreclaimed >= bounds.max_running + bounds.max_pending
        ):
            raise TooManyPending
        if request.language == "node" and node_executable() is None:
            raise ValueError("language: node is not installed on this machine")
        self._made += 1
        session = SimulatedSession(
            f"{self._workplace.prefix}-{self._made}",
            principal,
            request,
            limits,
            bounds=bounds,
            on_change=self._on_change,
        )
        script = self.scripts.popleft() if self.scripts else None
        session.create(scripted_stream=script is not None and script.raw)
        self.sessions[session.id] = session
        self._forget_oldest()
        self.unreclaimed += 1
        self._group.start_soon(self._run, session, script)
        return session

    def get(self, org_id: str, session_id: str) -> SimulatedSession | None:
        """A session of this org."""
        session = self.sessions.get(session_id)
        return session if session is not None and session.org_id == org_id else None

    def newest_first(self, org_id: str) -> list[SimulatedSession]:
        """The org's sessions."""
        return [session for session in reversed(self.sessions.values()) if session.org_id == org_id]

    async def tear_down(self, session: SimulatedSession) -> None:
        """Tear down, and wait until nothing of the workload is left."""
        session.tear_down()
        with anyio.move_on_after(RECLAIM_WAIT_SECONDS):
            await session.reclaimed.wait()

    async def close(self) -> None:
        """Take no more sessions, tear down every one, and wait until all are reclaimed."""
        self._group = None
        # First all, then each: their teardowns go on at the same time.
        live = [session for session in self.sessions.values() if not session.reclaimed.is_set()]
        for session in live:
            session.tear_down()
        for session in live:
            await session.reclaimed.wait()

    async def _run(self, session: SimulatedSession, script: Script | None) -> None:
        try:
            with session.scope:
                await self._run_when_free(session, script)
        except Exception:
            logger.exception("session %s failed inside the simulator", session.id)
            session.finish(Exit(exit_code=None, kill_reason="simulator_error"))
        finally:
            self._note_reclaimed(session)
        # The session is reclaimed and its result can be read, so a webhook that hangs holds up nobody.
        try:
            await deliver(session)
        except Exception:
            logger.exception("webhook of session %s failed inside the simulator", session.id)
        if self._settings.auto_teardown:
            session.tear_down()

    def _note_reclaimed(self, session: SimulatedSession) -> None:
        if not session.is_finished:
            # Its teardown did not cancel the workload, so the whole simulator is leaving.
            session.tear_down()
        self.unreclaimed -= 1
        self._retained_bytes += session.log.size_bytes
        session.reclaimed.set()
        self._forget_oldest()
        self._on_change()

    async def _run_when_free(self, session: SimulatedSession, script: Script | None) -> None:
        assert self._running is not None  # noqa: S101 - for the type checker: open() came first
        async with self._running:
            end = await (_play(session, script) if script else self._run_code(session))
        session.finish(end)

    async def _run_code(self, session: SimulatedSession) -> Exit:
        if self._isolation is None:
            self._isolation = await probe_isolation() if self._settings.namespaces else Isolation()
        names = session.request.service_bindings or ()
        services = {name: self._settings.service_bindings[name] for name in names}
        assert self._workplace is not None  # noqa: S101 - for the type checker: open() came first
        max_disk_bytes = self._settings.bounds.max_disk_bytes
        return await Workload(session, self._isolation, services, self._workplace, max_disk_bytes=max_disk_bytes).run()

    def _forget_oldest(self) -> None:
        bounds = self._settings.bounds
        while len(self.sessions) > bounds.max_retained_sessions or self._retained_bytes > bounds.max_retained_bytes:
            finished = [session for session in self.sessions.values() if session.reclaimed.is_set()]
            # A session that is larger than the bound must not forget itself.
            if len(finished) < 2:  # noqa: PLR2004
                return
            torn_down = (session for session in finished if session.phase is SessionPhase.TORN_DOWN)
            session = next(torn_down, finished[0])
            del self.sessions[session.id]
            self._retained_bytes -= session.log.size_bytes


async def _play(session: SimulatedSession, script: Script) -> Exit:
    script.session_id = session.id
    session.start({"scripted": True})
    started = anyio.current_time()
    while (step := await script.next_step()) is not None:
        if not isinstance(step, bytes):
            await anyio.sleep(step)
        else:
            session.play(step)
            await anyio.sleep(script.delay_seconds)
    elapsed_ms = round((anyio.current_time() - started) * 1000, 3)
    return _scripted_end(session, script, elapsed_ms)


def _scripted_end(session: SimulatedSession, script: Script, duration_ms: float) -> Exit:
    """The script's own options decide. What they leave open, its frames may tell."""
    told = session.told
    value = script.result
    if value is msgspec.UNSET and told.result is not None:
        value = told.result.json
    if value is not msgspec.UNSET:
        session.returned(value)
    if script.exit_code is not None or script.kill_reason is not None:
        return Exit(exit_code=script.exit_code, kill_reason=script.kill_reason, duration_ms=duration_ms)
    if told.is_torn_down:
        session.tear_down()
    return Exit(exit_code=told.exit_code, kill_reason=told.kill_reason, phase=told.outcome, duration_ms=duration_ms)
