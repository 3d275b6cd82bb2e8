"""The ``async with`` of a served simulator. It owns the listener and every task, and knows nothing of HTTP.

The block's own exception leaves as it is. No task group sees it, and none of our tasks lets an exception out, so
callers never get an ExceptionGroup of ours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar, cast

import anyio
import anyio.abc
import anyio.to_thread

from ._fleet import Fleet
from ._server import HTTPServer
from ._workplace import Workplace, clear_abandoned

STREAM_GRACE_SECONDS = 1.0
ACCEPT_PAUSE_SECONDS = 0.1
CLOSE_SECONDS = 1.0
BACKLOG_CONNECTIONS = 1024

logger = logging.getLogger(__name__)


class Served(Protocol):
    """What `Serving` needs of a `Simulator`."""

    def bind(self, base_url: str | None) -> None:
        """Note where it is served, or that it is served no longer."""
        ...

    @property
    def open_streams(self) -> int:
        """How many streams are open."""
        ...

    async def until(self, condition: Callable[[Any], bool]) -> None:
        """Wait until a condition on the simulator's state holds."""
        ...


S = TypeVar("S", bound=Served)


class Serving(Generic[S]):
    """Serves while its block runs. Leaving tears every session down, within `grace_seconds`."""

    def __init__(
        self, simulator: S, fleet: Fleet, http: HTTPServer, *, host: str, port: int, grace_seconds: float
    ) -> None:
        self._simulator = simulator
        self._fleet = fleet
        self._http = http
        self._host = host
        self._port = port
        self._grace_seconds = grace_seconds

    async def __aenter__(self) -> S:
        """Listen."""
        await anyio.to_thread.run_sync(clear_abandoned)
        listeners = await anyio.create_tcp_listener(
            local_host=self._host, local_port=self._port, backlog=BACKLOG_CONNECTIONS
        )
        host = f"[{self._host}]" if ":" in self._host else self._host
        port = listeners.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - not Django
        try:
            self._simulator.bind(f"http://{host}:{port}")
        except RuntimeError:
            await listeners.aclose()
            raise
        self._workplace = Workplace()
        self._accepting = anyio.CancelScope()
        self._life = anyio.CancelScope(shield=True)
        self._group = anyio.create_task_group()
        self._outer = anyio.create_task_group()
        await self._outer.__aenter__()
        try:
            await self._outer.start(self._live, listeners.listeners)
        except BaseException:
            await self._end()
            raise
        return self._simulator

    async def _live(
        self,
        listeners: Sequence[anyio.abc.Listener[anyio.abc.SocketStream]],
        *,
        task_status: anyio.abc.TaskStatus[None],
    ) -> None:
        """Where every task lives."""
        # The shield keeps what cancels the block away from the server. Clients in the block tear their sessions down
        # when they are cancelled, and need a server for that. `_end` ends the shield, within the grace of `__aexit__`.
        with self._life:
            async with self._group:
                self._fleet.open(self._group, self._workplace)
                for listener in listeners:
                    self._group.start_soon(self._accept, cast(anyio.abc.SocketListener, listener))
                task_status.started()

    async def _end(self) -> None:
        self._simulator.bind(None)
        self._life.cancel()
        await self._outer.__aexit__(None, None, None)
        self._workplace.close()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Tear every session down. This is bounded in time, and goes on where the block was cancelled."""
        try:
            with anyio.move_on_after(self._grace_seconds, shield=True):
                self._accepting.cancel()
                await self._fleet.close()
                # Readers still get the phase torn_down and the end.
                with anyio.move_on_after(STREAM_GRACE_SECONDS):
                    await self._simulator.until(lambda simulator: simulator.open_streams == 0)
        finally:
            await self._end()

    async def _accept(self, listener: anyio.abc.SocketListener) -> None:
        try:
            with self._accepting:
                await self._accept_for_ever(listener)
        finally:
            with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                await listener.aclose()

    async def _accept_for_ever(self, listener: anyio.abc.SocketListener) -> None:
        while True:
            try:
                stream = await listener.accept()
            except (OSError, anyio.BrokenResourceError) as error:
                # The process may be out of file descriptors. Without a pause this loop would use a whole core.
                logger.warning("cannot accept a connection: %s", error)
                await anyio.sleep(ACCEPT_PAUSE_SECONDS)
            else:
                self._group.start_soon(self._http.serve, stream)
