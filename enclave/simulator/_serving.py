"""The `async with` of a served simulator: owns the listener and every task. Knows nothing of HTTP or sessions' insides.

The body's own exception leaves plainly: the task group never sees it, and no task of ours lets one out.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Generic, Protocol, TypeVar, cast

import anyio
import anyio.abc

from ._fleet import Fleet
from ._server import HTTPServer

STREAM_GRACE_SECONDS = 1.0
ACCEPT_PAUSE_SECONDS = 0.1
CLOSE_SECONDS = 1.0
BACKLOG_CONNECTIONS = 1024

logger = logging.getLogger(__name__)


class Served(Protocol):
    """What `Serving` needs of a `Simulator`."""

    def bind(self, base_url: str | None) -> None: ...

    async def streams_closed(self) -> None: ...


S = TypeVar("S", bound=Served)


class Serving(Generic[S]):
    """Serves while its block runs; leaving tears every session down, within `grace_seconds`."""

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
        """Where every task lives, out of reach of what cancels the block: clients inside tear their sessions down then.

        The shield ends with `_end`, which `__aexit__` reaches within its grace.
        """
        with self._life:
            async with self._group:
                self._fleet.open(self._group)
                for listener in listeners:
                    self._group.start_soon(self._accept, cast(anyio.abc.SocketListener, listener))
                task_status.started()

    async def _end(self) -> None:
        self._simulator.bind(None)
        self._life.cancel()
        await self._outer.__aexit__(None, None, None)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Tear down, bounded in time, also when cancelled."""
        try:
            with anyio.move_on_after(self._grace_seconds, shield=True):
                self._accepting.cancel()
                await self._fleet.close()
                with anyio.move_on_after(STREAM_GRACE_SECONDS):  # readers still get their torn_down and end
                    await self._simulator.streams_closed()
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
            except (OSError, anyio.BrokenResourceError) as error:  # out of file descriptors, say
                logger.warning("cannot accept a connection: %s", error)
                await anyio.sleep(ACCEPT_PAUSE_SECONDS)
            else:
                self._group.start_soon(self._http.serve, stream)
