"""A control plane in memory that has room for so many sessions at once, for a virtual clock."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import anyio
import httpx

from tests.support.messages import END, event, session
from tests.support.scripted_transport import sse


class QuotaTransport(httpx.AsyncBaseTransport):
    """Makes at most `room` sessions at once, each of which runs `seconds`, and refuses what goes beyond.

    `refuse` may name a status for a create, whatever the room is. `gone` is called with the ids of deleted sessions.
    """

    def __init__(
        self,
        room: float,
        *,
        seconds: float = 0.5,
        retry_after: str | None = "1",
        create_seconds: float = 0.01,
        refuse: Callable[[], int | None] = lambda: None,
    ) -> None:
        self.room = room
        self.seconds = seconds
        self.retry_after = retry_after
        self.create_seconds = create_seconds
        self.refuse = refuse
        self.live: dict[str, float] = {}  # and when each ends
        self.most_live = 0
        self.created: list[float] = []
        self.refused: list[float] = []
        self.asked: list[float] = []
        self._ids = itertools.count(1)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        match request.method, request.url.path.strip("/").split("/"):
            case "POST", ["sessions"]:
                return await self._create()
            case "GET", ["sessions", session_id, "stream"]:
                frames = (event({"kind": "phase", "phase": "succeeded"}), END)
                seconds = max(0.0, self.live.get(session_id, 0.0) - anyio.current_time())
                return sse(event({"kind": "phase", "phase": "running"}), seconds, *frames)
            case "GET", ["sessions", session_id, "result"]:
                return httpx.Response(200, json={"exitCode": 0, "json": session_id})
            case "GET", ["sessions"]:
                return httpx.Response(200, json=[session(each, "running") for each in self.live])
            case "GET", ["sessions", session_id]:
                return httpx.Response(200, json=session(session_id, "running"))
            case "DELETE", ["sessions", session_id]:
                await anyio.sleep(0.001)
                self.live.pop(session_id, None)
                return httpx.Response(204)
        raise AssertionError(f"not scripted: {request.method} {request.url.path}")

    async def _create(self) -> httpx.Response:
        self.asked.append(anyio.current_time())
        status = self.refuse() or (429 if len(self.live) >= self.room else None)
        if status is not None:
            await anyio.sleep(0.001)
            self.refused.append(anyio.current_time())
            headers = {} if self.retry_after is None else {"retry-after": self.retry_after}
            return httpx.Response(status, headers=headers, json={"message": "no room"})
        session_id = f"s-{next(self._ids)}"
        self.live[session_id] = anyio.current_time() + self.create_seconds + self.seconds
        self.most_live = max(self.most_live, len(self.live))
        await anyio.sleep(self.create_seconds)
        self.created.append(anyio.current_time())
        return httpx.Response(201, json=session(session_id, "pending"))
