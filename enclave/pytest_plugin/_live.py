"""`LiveSimulator`, which serves on a thread of its own, and the clients of it.

A fixture that is a coroutine belongs to one plugin and one loop, and a test may run on anyio's, pytest-asyncio's or
pytest-trio's, or on none. So the simulator has its own loop in its own thread, and the fixtures are plain functions.

The client is made and closed outside the test's loop, where no socket of that loop may be touched. So it keeps no idle
connection. Each connection closes with its response, on the loop that used it, and the fixture has none to close.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import anyio.to_thread
from anyio.from_thread import BlockingPortal, start_blocking_portal

from enclave import EnclaveClient, RetryPolicy, SyncEnclaveClient
from enclave.simulator import Simulator, SyncSimulator
from enclave.transport.http11 import OriginTransport

_CLIENT_CONNECTIONS = 100
_WITHOUT_WAITS = RetryPolicy(wait_seconds=0, max_retry_after_seconds=0)


class LiveSimulator(SyncSimulator):
    """A control plane that serves until the test has ended: what `SyncSimulator` offers, and `until` for coroutines."""

    def __init__(self, portal: BlockingPortal, options: Mapping[str, Any]) -> None:
        super().__init__(**options)
        self._shared_portal = portal

    async def until(self, condition: Callable[[Simulator], bool]) -> None:
        """Wait until a condition on the simulator's state holds. Bound it with a timeout of your loop.

        ::

            await enclave_simulator.until(lambda simulator: simulator.unreclaimed_sessions == 0)
        """
        # The wait happens on the simulator's loop. A thread carries its end over to the test's loop, whichever it is.
        waiting = self._shared_portal.start_task_soon(self.simulator.until, condition)
        try:
            await anyio.to_thread.run_sync(waiting.result, abandon_on_cancel=True)
        finally:
            waiting.cancel()

    def close_client(self, client: EnclaveClient) -> None:
        """Close a client that holds no connection."""
        self._shared_portal.call(client.aclose)

    def _open_portal(self) -> AbstractContextManager[BlockingPortal]:
        return nullcontext(self._shared_portal)  # all simulators of a run share one thread


def open_portal() -> AbstractContextManager[BlockingPortal]:
    """A thread with an event loop. It is asyncio's, which is always there. The tests may run on another."""
    return start_blocking_portal("asyncio")


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


def connect_blocking(simulator: LiveSimulator) -> SyncEnclaveClient:
    """A blocking client that retries without waiting."""
    return SyncEnclaveClient(simulator.base_url, api_key=simulator.api_key, retry=_WITHOUT_WAITS)
