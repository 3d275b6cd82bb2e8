"""A scripted control plane: it answers as a real one would, until a test says otherwise.

An answer is the bytes of a response, or a function that is given the request and does what it likes on its connection::

    plane.answers(response({}, 502), reset)                         # the next two requests
    plane.streams(event("a"), END)                                  # the next one: a stream, and the connection's end
    plane.route("DELETE", "/sessions/*", response({}, 500))         # all such requests

    async def lost(request: Request) -> None:                       # done, and the answer is lost
        plane.perform(request)
        await request.reset()
"""

from __future__ import annotations

import json
import ssl
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from fnmatch import fnmatchcase
from typing import Any, Self

import anyio
import anyio.to_thread

from tests.support import PATIENCE_SECONDS, wire
from tests.support.messages import END, SSE, event, response, session

STALL_SECONDS = 0.3

RESULT = {"exitCode": 0, "json": 7}
FRAMES = (
    event({"kind": "phase", "phase": "running"}),
    event("one"),
    event({"kind": "phase", "phase": "succeeded"}),
    event({"kind": "result", "result": RESULT}),
    END,
)
NOT_SCRIPTED = response({"message": "not scripted"}, 599)
"""What no test expects, for a plane on which every request must be scripted."""


class Request:
    """A request as it arrived, and the connection to answer on."""

    def __init__(self, peer: wire.Peer, raw: bytes) -> None:
        self.peer = peer
        self.head, _, self.body = raw.partition(b"\r\n\r\n")
        first, *lines = self.head.decode("utf-8").split("\r\n")
        self.method, self.target, _ = first.split(" ")
        self.fields = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]
        self.headers = dict(self.fields)
        self.closed = False

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def values(self, name: str) -> list[str]:
        """Every value of a header, in the order of the request."""
        return [value for each, value in self.fields if each == name]

    async def send(self, *pieces: bytes) -> None:
        """One write a piece."""
        await self.peer.send(*pieces)

    async def send_stream(self, *pieces: bytes, head: bytes = SSE) -> None:
        """A stream, then the end of the connection."""
        await self.send(head, *pieces)
        await self.close()

    async def close(self) -> None:
        self.closed = True
        await self.peer.stream.aclose()

    async def reset(self) -> None:
        """End the connection with RST."""
        self.peer.reset()
        await self.close()

    async def gone(self) -> None:
        """Wait until the client has closed the connection."""
        await self.peer.closed_by_client()


Handler = Callable[[Request], Awaitable[None]]
Answer = bytes | Handler


async def reset(request: Request) -> None:
    """No answer but a reset."""
    await request.reset()


async def hang_up(request: Request) -> None:
    """No answer, and an orderly end of the connection."""
    await request.close()


async def silence(request: Request) -> None:
    """No answer, for as long as the client has patience."""
    await request.gone()


def closing(*pieces: bytes) -> Handler:
    """These pieces, a write each, and then the end of the connection."""

    async def handler(request: Request) -> None:
        await request.send(*pieces)
        await request.close()

    return handler


def stalling(*pieces: bytes) -> Handler:
    """These pieces, a write each, and then nothing, for as long as the client has patience."""

    async def handler(request: Request) -> None:
        await request.send(*pieces)
        await request.gone()

    return handler


def trickling(data: bytes, seconds: float) -> Handler:
    """One byte a write, so many seconds apart."""

    async def handler(request: Request) -> None:
        await request.peer.trickle(data, seconds)

    return handler


ODD_ENTRIES = {
    "no id": b'{"phase":"running","labels":{"run":"7"}}',
    "an id that no URL carries": b'{"id":"..","phase":"running","labels":{"run":"7"}}',
    "a number for an id": b'{"id":7,"labels":{"run":"7"}}',
    "no object": b"null",
    "nested too deeply": b'{"id":"odd","result":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}
"""What may stand in a list of sessions beside those that are looked for."""


def listing(plane: ControlPlane, *others: bytes) -> Handler:
    """The list of the plane's sessions, with others before and after them."""

    async def handler(request: Request) -> None:
        sessions = [json.dumps(session).encode() for session in plane.sessions.values()]
        await request.send(response(b"[%b]" % b",".join([*others, *sessions, *others])))

    return handler


def endless(head: bytes, piece: bytes) -> Handler:
    """A head, and then as much of `piece` as is taken."""

    async def handler(request: Request) -> None:
        await request.send(head)
        while True:
            await request.send(piece)

    return handler


async def _happened(event: threading.Event) -> None:
    """Wait for an event that may happen in another thread than the test's, where a loop's own would not do."""
    assert await anyio.to_thread.run_sync(event.wait, PATIENCE_SECONDS, abandon_on_cancel=True)


class Flood:
    """A handler that sends `piece` as often as `count` says, and notes when the client takes no more for a while."""

    def __init__(self, head: bytes, piece: bytes, count: int, end: bytes = b"") -> None:
        self._head = head
        self._piece = piece
        self._count = count
        self._end = end
        self.sent_bytes = 0
        self._stalled = threading.Event()

    async def stalled(self) -> None:
        """Wait until the client takes no more."""
        await _happened(self._stalled)

    async def __call__(self, request: Request) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch)
            try:
                await request.send(self._head)
                for _ in range(self._count):
                    await request.send(self._piece)
                    self.sent_bytes += len(self._piece)
                await request.send(self._end)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass  # the client left. Not raised here, where the task group would wrap it
            tasks.cancel_scope.cancel()
        await request.close()

    async def _watch(self) -> None:
        before = -1
        while before != self.sent_bytes:
            before = self.sent_bytes
            await anyio.sleep(STALL_SECONDS)
        self._stalled.set()


class Gate:
    """A place where the plane stops until it is let go, whichever thread or event loop it is in."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    async def wait(self) -> None:
        """Wait until a request has come here."""
        await _happened(self.reached)

    async def pass_through(self) -> None:
        self.reached.set()
        await _happened(self.opened)


class ControlPlane:
    """Keeps sessions, remembers what came, and misbehaves as it is told.

    A request gets the answer of its route, else the next of those in the queue, else `otherwise`. Where that is None,
    it gets what a control plane would say. `sessions` are those that were created and not torn down.
    """

    def __init__(self, otherwise: Answer | None = None) -> None:
        self.otherwise = otherwise
        self.requests: list[Request] = []
        self.sessions: dict[str, dict[str, Any]] = {}
        self.created = 0
        self.deleted: list[str] = []
        self.frames: tuple[bytes, ...] = FRAMES
        self._routes: dict[tuple[str, str], Answer] = {}
        self._queue: deque[Answer] = deque()
        self._gates: dict[str, Gate] = {}
        self._asked = threading.Event()
        self._server = wire.Server("http", "nowhere.invalid", 0)

    def answers(self, *answers: Answer) -> None:
        """What the next requests get, in this order."""
        self._queue.extend(answers)

    def streams(self, *pieces: bytes, head: bytes = SSE) -> None:
        """The next request gets a stream of these pieces, a write each, and then the end of the connection."""
        self.answers(closing(head, *pieces))

    def route(self, method: str, target: str, answer: Answer) -> None:
        """What every such request gets. A star in the target stands for anything."""
        self._routes[method, target] = answer

    def hold(self, place: str) -> Gate:
        """Stop the next request that comes to this place.

        Places are ``"POST seen"`` (the request has come, and nothing is done), ``"POST done"`` (the session exists, and
        not a byte of the answer is out), ``"POST half"`` (half of the answer's body is out), and the same for GET and
        DELETE.
        """
        self._gates[place] = Gate()
        return self._gates[place]

    async def asked(self) -> None:
        """Wait until a request has come."""
        await _happened(self._asked)

    @property
    def unused(self) -> int:
        """How many answers wait for a request."""
        return len(self._queue)

    @property
    def base_url(self) -> str:
        return self._server.origin

    @property
    def port(self) -> int:
        return self._server.port

    @property
    def connections(self) -> int:
        return self._server.connections

    @property
    def open_connections(self) -> int:
        return self._server.open_connections

    @asynccontextmanager
    async def serve(self, *, name: str | None = None, tls: ssl.SSLContext | None = None) -> AsyncIterator[Self]:
        async with wire.serve(self._serve, name=name, tls=tls) as self._server:
            try:
                yield self
            finally:
                for gate in self._gates.values():
                    gate.opened.set()

    def in_thread(self) -> AbstractContextManager[Self]:
        """The same in a thread with an event loop of its own, see `wire.in_thread`."""
        return wire.in_thread(self.serve())

    def perform(self, request: Request) -> bytes:  # noqa: PLR0911 - a table of routes
        """Do what a control plane does for this request, and return the response that it gives."""
        match request.method, *request.target.partition("?")[0].strip("/").split("/"):
            case "GET", "healthz":
                return response({"ok": True})
            case "POST", "sessions":
                return response(self._create(request.json), 201)
            case "GET", "sessions":
                return response([*reversed(self.sessions.values())])
            case "GET", "sessions", session_id:
                return response(self.sessions.get(session_id) or session(session_id, "succeeded"))
            case "GET", "sessions", _, "result":
                return response(RESULT)
            case "GET", "sessions", _, "audit":
                return response([])
            case "GET", "sessions", _, "stream":
                return response(b"".join(self.frames), content_type="text/event-stream")
            case "DELETE", "sessions", session_id:
                self.sessions.pop(session_id, None)
                self.deleted.append(session_id)
                return response(status=204)
            case _:
                return response({"message": f"no route {request.target}"}, 404)

    def _create(self, asked_for: dict[str, Any]) -> dict[str, Any]:
        self.created += 1
        made = session(f"s-{self.created}", "succeeded", labels=asked_for.get("labels", {}))
        self.sessions[made["id"]] = made
        return {**made, "phase": "pending"}

    async def _serve(self, peer: wire.Peer, _: wire.Server) -> None:
        while (raw := await peer.request()) is not None:
            request = Request(peer, raw)
            self.requests.append(request)
            self._asked.set()
            await self._respond(request)
            if request.closed:
                return

    async def _respond(self, request: Request) -> None:
        await self._pass(f"{request.method} seen")
        answer = self._answer_to(request)
        await self._pass(f"{request.method} done")
        if not isinstance(answer, bytes):
            await answer(request)
        elif self._is_held(f"{request.method} half"):
            head, end, body = answer.partition(b"\r\n\r\n")
            half = len(body) // 2
            await request.send(head + end + body[:half])
            await self._pass(f"{request.method} half")
            await request.send(body[half:])
        else:
            await request.send(answer)

    def _answer_to(self, request: Request) -> Answer:
        for (method, target), answer in self._routes.items():
            if method == request.method and fnmatchcase(request.target, target):
                return answer
        if self._queue:
            return self._queue.popleft()
        return self.perform(request) if self.otherwise is None else self.otherwise

    def _is_held(self, place: str) -> bool:
        gate = self._gates.get(place)
        return gate is not None and not gate.reached.is_set()

    async def _pass(self, place: str) -> None:
        if self._is_held(place):
            await self._gates[place].pass_through()
