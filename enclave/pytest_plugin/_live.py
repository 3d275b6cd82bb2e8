"""`LiveSimulator`, which serves on a thread of its own, and the client of it.

A fixture that is a coroutine belongs to one plugin and one loop, and a test may run on anyio's, pytest-asyncio's or
pytest-trio's, or on none. So the simulator has its own loop in its own thread, and the fixtures are plain functions.

The client is made and closed outside the test's loop, where no socket of that loop may be touched. So it keeps no idle
connection. Each connection closes with its response, on the loop that used it, and the fixture has none to close.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import anyio.to_thread
from anyio.from_thread import BlockingPortal, start_blocking_portal

from enclave import EnclaveClient, RetryPolicy, SessionPhase
from enclave.simulator import Faults, Framing, RecordedRequest, Script, Simulator
from enclave.transport.http11 import OriginTransport

from ._remote import Remote

P = ParamSpec("P")
T = TypeVar("T")

_CLIENT_CONNECTIONS = 100
_WITHOUT_WAITS = RetryPolicy(wait_seconds=0, max_retry_after_seconds=0)


def _on_its_loop(method: Callable[Concatenate[Simulator, P], T]) -> Callable[Concatenate[LiveSimulator, P], T]:
    """The same method for `LiveSimulator`. It is called on the simulator's event loop."""

    @wraps(method)
    def call(self: LiveSimulator, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.call(partial(method, self.simulator, *args, **kwargs))

    return call


class LiveSimulator:
    """A control plane that serves until the test has ended: what `Simulator` offers, usable from the test's thread."""

    def __init__(self, portal: BlockingPortal, simulator: Simulator) -> None:
        self._portal = portal
        self.simulator = simulator
        """The simulator itself, which only its own event loop may use. What `until` takes is called there."""
        self.base_url = simulator.base_url
        """Where it is, as in ``"http://127.0.0.1:40123"``."""
        self.faults = cast(Faults, Remote(portal, simulator.faults))
        """Arms faults for the requests and streams to come. See `enclave.simulator.Faults`."""

    def __repr__(self) -> str:
        return f"<LiveSimulator {self.base_url}>"

    def call(self, function: Callable[[], T]) -> T:
        """Call a function on the simulator's event loop. A script that it returns may be used from any thread."""
        value = self._portal.call(function)
        return cast(T, Remote(self._portal, value)) if isinstance(value, Script) else value

    # Credentials

    @property
    def api_key(self) -> str:
        """A key of an owner in the first org."""
        return self.simulator.api_key

    add_api_key = _on_its_loop(Simulator.add_api_key)
    issue_token = _on_its_loop(Simulator.issue_token)

    # Behaviour

    script = _on_its_loop(Simulator.script)

    @property
    def framing(self) -> Framing:
        """How streams that open from now on are written."""
        return self.simulator.framing

    @framing.setter
    def framing(self, framing: Framing) -> None:
        self.call(lambda: setattr(self.simulator, "framing", framing))

    # Observation

    @property
    def requests(self) -> list[RecordedRequest]:
        """Everything it was asked so far, without credentials. The oldest request comes first."""
        return self.call(lambda: list(self.simulator.requests))

    @property
    def phases(self) -> dict[str, str]:
        """The phase of every session of the test, by its id. The oldest session comes first."""
        return self.call(lambda: self.simulator.phases)

    @property
    def running_sessions(self) -> list[str]:
        """The ids of the sessions that have not ended. A service that cleans up after itself leaves none."""
        return [id_ for id_, phase in self.phases.items() if not SessionPhase(phase).is_terminal]

    @property
    def open_streams(self) -> int:
        """How many streams are open."""
        return self.call(lambda: self.simulator.open_streams)

    async def until(self, condition: Callable[[Simulator], bool]) -> None:
        """Wait until a condition on the simulator's state holds. Bound it with a timeout of your loop.

        ::

            await enclave_simulator.until(lambda simulator: simulator.unreclaimed_sessions == 0)
        """
        # The wait happens on the simulator's loop. A thread carries its end over to the test's loop, whichever it is.
        waiting = self._portal.start_task_soon(self.simulator.until, condition)
        try:
            await anyio.to_thread.run_sync(waiting.result, abandon_on_cancel=True)
        finally:
            waiting.cancel()

    def wait_until(self, condition: Callable[[Simulator], bool], *, seconds: float = 10.0) -> None:
        """The same for a synchronous test. In a coroutine it would block the loop that it waits for.

        Raises:
            TimeoutError: the condition did not hold within `seconds`.
        """
        self._portal.call(_until, self.simulator, condition, seconds)

    # For the fixtures

    def close_client(self, client: EnclaveClient) -> None:
        """Close a client that holds no connection."""
        self._portal.call(client.aclose)


def open_portal() -> AbstractContextManager[BlockingPortal]:
    """A thread with an event loop. It is asyncio's, which is always there. The tests may run on another."""
    return start_blocking_portal("asyncio")


@contextmanager
def serve(portal: BlockingPortal, options: Mapping[str, Any]) -> Generator[LiveSimulator]:
    """A new simulator on the portal's loop. Leaving tears its sessions down, and ends its faults and scripts."""
    with portal.wrap_async_context_manager(Simulator(**options).serve()) as simulator:
        yield LiveSimulator(portal, simulator)


@contextmanager
def connect(simulator: LiveSimulator) -> Generator[EnclaveClient]:
    """A client for any event loop, or for several one after the other. It retries without waiting."""
    transport = OriginTransport(simulator.base_url, max_connections=_CLIENT_CONNECTIONS, keepalive_seconds=0)
    client = EnclaveClient(
        simulator.base_url,
        api_key=simulator.api_key,
        transport=transport,  # type: ignore[arg-type]  # one of the SDK's own, no part of its public interface
        retry=_WITHOUT_WAITS,
    )
    try:
        yield client
    finally:
        simulator.close_client(client)


async def _until(simulator: Simulator, condition: Callable[[Simulator], bool], seconds: float) -> None:
    with anyio.fail_after(seconds):
        await simulator.until(condition)
