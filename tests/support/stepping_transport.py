"""An in-memory control plane behind `httpx.AsyncBaseTransport`, whose every operation is one checkpoint.

With it a test can cancel between any two steps and see exactly what was left: sessions, open bodies, cut-off closes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
from anyio.lowlevel import checkpoint

FRAMES = (
    b'data: {"kind":"phase","phase":"running"}\n\n',
    b'data: {"kind":"stdout","data":"one"}\n\ndata: {"kind":"stdout","data":"two"}\n\n',
    b'data: {"kind":"phase","phase":"succeeded"}\n\ndata: {"kind":"result","result":{"exitCode":0,"json":7}}\n\n',
    b'data: {"kind":"end"}\n\n',
)


class ScriptedBody(httpx.AsyncByteStream):
    """A response's body. Like a good socket it counts as closed at once, but a close can be cut short."""

    def __init__(self, transport: ScriptedTransport, chunks: tuple[bytes, ...]) -> None:
        self._transport = transport
        self._chunks = iter(chunks)
        self._open = True
        transport.open_bodies += 1

    def __aiter__(self) -> ScriptedBody:
        return self

    async def __anext__(self) -> bytes:
        await checkpoint()
        for chunk in self._chunks:
            return chunk
        raise StopAsyncIteration

    async def aclose(self) -> None:
        if self._open:
            self._open = False
            self._transport.open_bodies -= 1
            self._transport.closes_begun += 1
            await checkpoint()
            await checkpoint()
            self._transport.closes_ended += 1


class ScriptedTransport(httpx.AsyncBaseTransport):
    """Counts what a client could leak. A session exists from the middle of its POST on, as on a real server."""

    def __init__(self) -> None:
        self.sessions: set[str] = set()
        self.created = 0
        self.open_bodies = 0
        self.in_flight = 0
        self.closes_begun = self.closes_ended = 0
        self.closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.in_flight += 1
        try:
            await checkpoint()  # the connection
            await checkpoint()  # the request
            status, chunks = self._answer(request.method, request.url.path)
            await checkpoint()  # the server has done its work, and nobody knows yet
            await checkpoint()  # the head of the response
        finally:
            self.in_flight -= 1
        content_type = "text/event-stream" if request.url.path.endswith("/stream") else "application/json"
        headers = {"content-type": content_type}
        return httpx.Response(status, headers=headers, stream=ScriptedBody(self, chunks))

    async def aclose(self) -> None:
        self.closed = True
        await checkpoint()

    def _answer(self, method: str, path: str) -> tuple[int, tuple[bytes, ...]]:  # noqa: PLR0911 - a table of routes
        session_id, _, leaf = path.removeprefix("/sessions/").partition("/")
        if path == "/healthz":
            return 200, (b'{"ok":true}',)
        if method == "POST":
            self.created += 1
            self.sessions.add(f"s-{self.created}")
            return 201, tuple(_halves({"id": f"s-{self.created}", "phase": "pending"}))
        if session_id not in self.sessions:
            return 404, tuple(_halves({"message": f"no session {session_id}"}))
        if method == "DELETE":
            self.sessions.remove(session_id)
            return 204, ()
        if leaf == "stream":
            return 200, FRAMES
        if leaf == "result":
            return 200, tuple(_halves({"exitCode": 0, "json": 7}))
        return 200, tuple(_halves({"id": session_id, "phase": "succeeded"}))


def _halves(document: object) -> Iterator[bytes]:
    text = json.dumps(document).encode()
    yield text[: len(text) // 2]
    yield text[len(text) // 2 :]
