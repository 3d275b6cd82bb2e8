"""The routes: a Starlette app over the fleet, with authentication, faults and the error shape. No tasks of its own."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

import anyio
import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from enclave.types import SessionLimits

from ._auth import READ, WRITE, Authority, Principal, redacted
from ._faults import AnswerFault, Faults, LossFault
from ._fleet import Fleet, TooManyPending
from ._limits import effective
from ._server import AbortConnection, Message, error_body
from ._session import BACKEND, NOT_READY, TORN_DOWN, SimulatedSession
from ._sse import EventStream, Framing, parse_last_event_id
from ._validation import parse_request

logger = logging.getLogger(__name__)

Endpoint = Callable[[Request, Principal], Awaitable[Response]]


class Settings(msgspec.Struct, kw_only=True):
    """What the routes need to know; `framing` may change between requests."""

    framing: Framing
    heartbeat_seconds: float
    max_body_bytes: int
    default_limits: SessionLimits
    max_limits: SessionLimits
    services: Mapping[str, str]


class RecordedRequest(msgspec.Struct, frozen=True):
    """A request the simulator was sent, without its credentials."""

    method: str
    path: str
    query: str
    headers: dict[str, str]


class ApiError(Exception):
    """Answered in the Fastify shape."""

    def __init__(self, status: int, message: str, *, code: str | None = None, **headers: str) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class ControlPlane:
    """The ASGI app."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        authority: Authority,
        faults: Faults,
        settings: Settings,
        requests: deque[RecordedRequest],
        on_change: Callable[[], None],
    ) -> None:
        self.open_streams = 0
        self._fleet = fleet
        self._authority = authority
        self._faults = faults
        self._settings = settings
        self._requests = requests
        self._on_change = on_change
        self._routes = Starlette(
            routes=[
                Route("/healthz", self._healthz, methods=["GET"]),
                Route("/sessions", self._sessions, methods=["GET", "POST"]),
                Route("/sessions/{id}", self._session, methods=["GET", "DELETE"]),
                Route("/sessions/{id}/result", self._guard(READ, self._result), methods=["GET"]),
                Route("/sessions/{id}/audit", self._guard(READ, self._audit), methods=["GET"]),
                Route("/sessions/{id}/stream", self._guard(READ, self._stream), methods=["GET"]),
            ],
            exception_handlers={ApiError: _api_error, HTTPException: _http_error},
        )

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request, unless a fault comes first."""
        method, path = scope["method"], scope["path"]
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        self._requests.append(RecordedRequest(method, path, scope["query_string"].decode("latin-1"), redacted(headers)))
        self._on_change()
        if delay := self._faults.take_delay(method, path, "before"):
            await anyio.sleep(delay.seconds)
        if loss := self._faults.take_loss(method, path, handled=False):
            raise AbortConnection(reset=loss.reset)
        if answer := self._faults.take_answer(method, path):
            await _answer(answer, scope, receive, send)
        else:
            await self._routes(scope, receive, self._faulty_send(method, path, send))

    def _faulty_send(self, method: str, path: str, send: Send) -> Send:
        delay = self._faults.take_delay(method, path, "after")
        loss = self._faults.take_loss(method, path, handled=True)
        if delay is None and loss is None:
            return send

        async def faulty(message: Message) -> None:
            nonlocal delay
            if delay is not None:
                seconds, delay = delay.seconds, None
                await anyio.sleep(seconds)
            if loss is None:
                await send(message)
            else:
                await _lose(loss, message, send)

        return faulty

    # Routes

    async def _healthz(self, _: Request) -> Response:
        return _json({"ok": True, "backend": BACKEND, "backendHealthy": self._fleet.backend_healthy()})

    async def _sessions(self, request: Request) -> Response:
        create = request.method == "POST"
        return await self._guard(WRITE if create else READ, self._create if create else self._list)(request)

    async def _session(self, request: Request) -> Response:
        delete = request.method == "DELETE"
        return await self._guard(WRITE if delete else READ, self._delete if delete else self._get)(request)

    async def _create(self, request: Request, principal: Principal) -> Response:
        body = await _read_body(request, self._settings.max_body_bytes)
        try:
            parsed = parse_request(body, self._settings.services)
            limits = effective(parsed.limits, self._settings.default_limits, self._settings.max_limits)
            session = self._fleet.create(principal, parsed, limits)
        except ValueError as error:
            raise ApiError(400, str(error), code="invalid_request") from None
        except TooManyPending:
            raise ApiError(429, "too many sessions are pending", retry_after="1") from None
        return _json(session.document(), status=201)

    async def _list(self, _: Request, principal: Principal) -> Response:
        sessions = self._fleet.newest_first(principal.org_id)
        return _json([session.document(with_output=False) for session in sessions])

    async def _get(self, request: Request, principal: Principal) -> Response:
        return _json(self._find(request, principal).document())

    async def _result(self, request: Request, principal: Principal) -> Response:
        session = self._find(request, principal)
        if session.result is not None:
            return _json(session.result)
        if session.is_finished:
            raise ApiError(409, f"session {session.id} was torn down before it had a result", code=TORN_DOWN)
        message = f"session {session.id} is {session.phase.value}; its result is not ready"
        raise ApiError(409, message, code=NOT_READY)

    async def _audit(self, request: Request, principal: Principal) -> Response:
        return _json(self._find(request, principal).trail)

    async def _delete(self, request: Request, principal: Principal) -> Response:
        await self._fleet.tear_down(self._find(request, principal))
        return Response(status_code=204)

    async def _stream(self, request: Request, principal: Principal) -> Response:
        session = self._find(request, principal)
        framing = self._settings.framing
        last_event_id = request.headers.get("last-event-id")
        stream = EventStream(
            session.log,
            index=parse_last_event_id(last_event_id, framing, session.log),
            framing=framing,
            heartbeat_seconds=self._settings.heartbeat_seconds,
            faults=self._faults.take_stream(request.url.path),
        )
        return _StreamResponse(self, stream)

    # Details

    def _find(self, request: Request, principal: Principal) -> SimulatedSession:
        session_id = request.path_params["id"]
        session = self._fleet.get(principal.org_id, session_id)
        if session is None:
            raise ApiError(404, f"session {session_id} not found")
        return session

    def _guard(self, scope: str, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            principal = self._authority.authenticate(request.headers.get("authorization"))
            if isinstance(principal, str):
                raise ApiError(401, principal, www_authenticate="Bearer")
            if not principal.may(scope):
                raise ApiError(403, f"role {principal.role} with these scopes may not do this: it takes {scope}")
            return await endpoint(request, principal)

        return guarded

    def count_stream(self, change: int) -> None:
        """A stream opened (1) or closed (-1)."""
        self.open_streams += change
        self._on_change()


class _StreamResponse(Response):
    def __init__(self, plane: ControlPlane, stream: EventStream) -> None:
        super().__init__()
        self._plane = plane
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            await Response(headers={"content-type": "text/event-stream"})(scope, receive, send)
            return
        self._plane.count_stream(1)
        try:
            await self._stream.respond(receive, send)
        finally:
            self._plane.count_stream(-1)


async def _read_body(request: Request, max_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "")
    body = bytearray()
    if not (declared.isdigit() and int(declared) > max_bytes):
        async with aclosing(request.stream()) as parts:
            async for part in parts:
                body += part
                if len(body) > max_bytes:
                    break
            else:
                return bytes(body)
    raise ApiError(413, f"body: must be at most {max_bytes} bytes")


async def _answer(fault: AnswerFault, scope: Scope, receive: Receive, send: Send) -> None:
    await Response(fault.body, status_code=fault.status, headers=fault.headers)(scope, receive, send)


async def _lose(loss: LossFault, message: Message, send: Send) -> None:
    if message["type"] == "http.response.start":
        if loss.after_bytes:
            await send(message)
        return
    if loss.after_bytes:
        body = message.get("body", b"")[: loss.after_bytes]
        await send({"type": "http.response.body", "body": body, "more_body": True})
    raise AbortConnection(reset=loss.reset)


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)  # noqa: S101 - registered for this class alone
    body = error_body(error.status, error.message, error.code)
    return Response(body, error.status, headers=error.headers, media_type="application/json")


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class alone
    message = f"Route {request.method}:{request.url.path} not found" if error.status_code == 404 else error.detail  # noqa: PLR2004
    body = error_body(error.status_code, message)
    return Response(body, error.status_code, headers=error.headers, media_type="application/json")


def _json(document: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(document), status, media_type="application/json")
