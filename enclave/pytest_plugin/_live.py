"""`LiveSimulator`, which serves on a thread of its own, and the client of it.

A fixture that is a coroutine belongs to one plugin and one loop, and a test may run on anyio's, pytest-asyncio's or
pytest-trio's, or on none. So the simulator has its own loop in its own thread, and the fixtures are plain functions.

The client is made and closed outside the test's loop, where no socket of that loop may be touched. So it keeps no idle
connection: each closes with its response, on the loop that used it, and nothing is left for the fixture to close.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar, cast

import anyio.to_thread
from anyio.from_thread import BlockingPortal, start_blocking_portal

from enclave import EnclaveClient, SessionPhase
from enclave.simulator import Faults, Framing, RecordedRequest, Script, Simulator
from enclave.simulator._script import NO_RESULT, ScriptStep
from enclave.transport.http11 import OriginTransport

from ._remote import Remote

T = TypeVar("T")

_CLIENT_CONNECTIONS = 100


class LiveSimulator:
    """A control plane that serves until the test has ended: what `Simulator` offers, usable from the test's thread."""

    def __init__(self, portal: BlockingPortal, simulator: Simulator) -> None:
        self._portal = portal
        self._simulator = simulator
        self.base_url = simulator.base_url
        """Where it is, as in ``"http://127.0.0.1:40123"``."""
        self.faults = cast(Faults, Remote(portal, simulator.faults))
        """Arms faults for the requests and streams to come. See `enclave.simulator.Faults`."""

    def __repr__(self) -> str:
        return f"<LiveSimulator {self.base_url}>"

    # Credentials

    @property
    def api_key(self) -> str:
        """A key of an owner in the first org."""
        return self._simulator.api_key

    def add_api_key(self, **options: Any) -> str:
        """A new API key with a role, or scopes, of its own. See `Simulator.add_api_key`."""
        return self._call(lambda: self._simulator.add_api_key(**options))

    def issue_token(self, **options: Any) -> str:
        """A user JWT. See `Simulator.issue_token`."""
        return self._call(lambda: self._simulator.issue_token(**options))

    # Behaviour

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
        """The next session that is created plays these frames instead of running its code. See `Simulator.script`.

        Args:
            frames: what it prints and reports: frames of `enclave.types`, dicts, or pauses in seconds.
            result: the value it gives to ``enclave.result``; nothing unless given.
            exit_code: its exit code, unless there is a `kill_reason`.
            kill_reason: why the platform kills it, as in ``"memory_exceeded"``.
            delay_seconds: a pause after each frame.
            raw: whether `frames` are the whole stream; else phases, trail and result are added.
            hold: whether it runs on after its frames, until ``release()``; ``push(...)`` adds frames meanwhile.
        """
        script = self._call(
            lambda: self._simulator.script(
                frames,
                result=result,
                exit_code=exit_code,
                kill_reason=kill_reason,
                delay_seconds=delay_seconds,
                raw=raw,
                hold=hold,
            )
        )
        return cast(Script, Remote(self._portal, script))

    @property
    def framing(self) -> Framing:
        """How streams that open from now on are written."""
        return self._simulator.framing

    @framing.setter
    def framing(self, framing: Framing) -> None:
        self._call(lambda: setattr(self._simulator, "framing", framing))

    # Observation

    @property
    def requests(self) -> list[RecordedRequest]:
        """Everything it was asked so far, without credentials; the oldest first."""
        return self._call(lambda: list(self._simulator.requests))

    @property
    def phases(self) -> dict[str, str]:
        """The phase of every session of the test, by id, oldest first."""
        return self._call(lambda: self._simulator.phases)

    @property
    def running_sessions(self) -> list[str]:
        """The ids of sessions that are neither torn down nor at their end: empty once a service cleans up well."""
        return [id_ for id_, phase in self.phases.items() if not SessionPhase(phase).is_terminal]

    @property
    def open_streams(self) -> int:
        """Streams open now."""
        return self._call(lambda: self._simulator.open_streams)

    async def until(self, condition: Callable[[Simulator], bool]) -> None:
        """Wait until a condition on the simulator's state holds. Bound it with a timeout of your loop.

        ::

            await enclave_simulator.until(lambda simulator: simulator.unreclaimed_sessions == 0)
        """
        waiting = self._portal.start_task_soon(self._simulator.until, condition)
        try:
            await anyio.to_thread.run_sync(waiting.result, abandon_on_cancel=True)
        finally:
            waiting.cancel()

    def wait_until(self, condition: Callable[[Simulator], bool], *, seconds: float = 10.0) -> None:
        """The same for a synchronous test. In a coroutine it would stop the loop that it waits for.

        Raises:
            TimeoutError: the condition did not hold within `seconds`.
        """
        self._portal.call(_until, self._simulator, condition, seconds)

    # For the fixtures

    def close_client(self, client: EnclaveClient) -> None:
        """Close a client that holds no connection."""
        self._portal.call(client.aclose)

    def _call(self, function: Callable[[], T]) -> T:
        return self._portal.call(function)


def open_portal() -> AbstractContextManager[BlockingPortal]:
    """A thread with an event loop. asyncio's, which is always there; the tests' own loops do not matter to it."""
    return start_blocking_portal("asyncio")


@contextmanager
def serve(portal: BlockingPortal, options: Mapping[str, Any]) -> Generator[LiveSimulator]:
    """A new simulator on the portal's loop. Leaving tears its sessions down; its faults and scripts end with it."""
    with portal.wrap_async_context_manager(Simulator(**options).serve()) as simulator:
        yield LiveSimulator(portal, simulator)


@contextmanager
def connect(simulator: LiveSimulator) -> Generator[EnclaveClient]:
    """A client for any event loop, or several one after the other; closed in the end."""
    transport = OriginTransport(simulator.base_url, max_connections=_CLIENT_CONNECTIONS, keepalive_seconds=0)
    # A transport of the SDK's own, which is no part of its public interface.
    client = EnclaveClient(simulator.base_url, api_key=simulator.api_key, transport=transport)  # type: ignore[arg-type]
    try:
        yield client
    finally:
        simulator.close_client(client)


async def _until(simulator: Simulator, condition: Callable[[Simulator], bool], seconds: float) -> None:
    with anyio.fail_after(seconds):
        await simulator.until(condition)
