"""The routes, with authentication, faults and the shape of errors. No tasks of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

import anyio
import msgspec

from enclave.types import Health

from ._auth import READ, WRITE, Authority, Principal, redacted
from ._console import PATHS, page
from ._differences import Kind, rewrite, rewrite_json
from ._doorkeeper import Doorkeeper
from ._faults import AnswerFault, DelayFault, Faults, LossFault, RewriteFault, When
from ._fleet import Fleet, TooManyPending
from ._limits import effective
from ._server import AbortConnection, Exchange, Reply
from ._session import BACKEND, SimulatedSession
from ._settings import Settings
from ._sse import STREAM_HEAD, EventStream, first_index
from ._validation import parse_request

NOT_READY = "result_not_ready"
TORN_DOWN = "session_torn_down"

ANONYMOUS = Principal("", "", "viewer", frozenset())

Answer = Reply | EventStream


class RecordedRequest(msgspec.Struct, frozen=True):
    """A request that the simulator was sent, without its credentials."""

    method: str
    """The HTTP method."""
    path: str
    """The path, without its query."""
    query: str
    """What follows the question mark, as it was sent. Empty if nothing does."""
    headers: dict[str, str]
    """The headers by their names, which are in lower case."""


class ApiError(Exception):
    """A route raises it to answer with an error."""

    def __init__(self, status: int, message: str, *, code: str | None = None, **headers: str) -> None:
        super().__init__(status, message)
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        self.reply = Reply.error(status, message, code=code, headers=fields)


class Call(msgspec.Struct):
    """A request by somebody who may make it."""

    exchange: Exchange
    principal: Principal
    session_id: str


class Route(msgspec.Struct, frozen=True):
    """What serves one method of one path."""

    scope: str | None
    """The scope that it takes. None for a route that needs no credential."""
    kind: Kind | None
    """What its answer holds, if it holds anything."""
    serve: Callable[[Call], Awaitable[Answer]]


class ControlPlane:
    """Answers every request that the server takes."""

    def __init__(
        self,
        fleet: Fleet,
        authority: Authority,
        faults: Faults,
        settings: Settings,
        *,
        requests: deque[RecordedRequest],
        on_change: Callable[[], None],
    ) -> None:
        self.open_streams = 0
        self.doorkeeper = Doorkeeper()
        self._fleet = fleet
        self._authority = authority
        self._faults = faults
        self._settings = settings
        self._requests = requests
        self._on_change = on_change
        self._routes: dict[str, dict[str, Route]] = {
            "/healthz": {"GET": Route(None, "health", self._healthz)},
            "/sessions": {
                "GET": Route(READ, "sessions", self._list),
                "POST": Route(WRITE, "create", self._create),
            },
            "/sessions/{id}": {
                "GET": Route(READ, "session", self._get),
                "DELETE": Route(WRITE, None, self._delete),
            },
            "/sessions/{id}/result": {"GET": Route(READ, "result", self._result)},
            "/sessions/{id}/audit": {"GET": Route(READ, "audit", self._audit)},
            "/sessions/{id}/stream": {"GET": Route(READ, "stream", self._stream)},
            **{path: {"GET": Route(None, None, self._console)} for path in PATHS},
        }

    async def handle(self, exchange: Exchange) -> None:
        """Serve one request, unless a fault comes first."""
        headers = redacted(exchange.headers)
        self._requests.append(RecordedRequest(exchange.method, exchange.path, exchange.query, headers))
        self._on_change()
        answer = await self._meet_faults(exchange, "before", None)
        if answer is None:
            answer = await self._meet_faults(exchange, "after", await self._answer(exchange))
        if isinstance(answer, EventStream):
            await self._send_stream(exchange, answer)
        elif answer is not None:
            await exchange.answer(answer)

    async def _meet_faults(self, exchange: Exchange, when: When, answer: Answer | None) -> Answer | None:
        """Let what is armed for a request happen. Returns what is to be answered, None where the route shall say."""
        method, path = exchange.method, exchange.path
        if delay := self._faults.take(DelayFault, method, path, when):
            await anyio.sleep(delay.seconds)
        if loss := self._faults.take(LossFault, method, path, when):
            if loss.after_bytes and answer is not None:
                whole = answer if isinstance(answer, Reply) else STREAM_HEAD
                await exchange.answer_in_part(whole, loss.after_bytes)
            raise AbortConnection(reset=loss.reset)
        if instead := self._faults.take(AnswerFault, method, path, when):
            return instead.reply
        if isinstance(answer, Reply) and (rewriting := self._faults.take(RewriteFault, method, path, when)):
            return rewrite_json(rewriting.change, answer)
        return answer

    async def _answer(self, exchange: Exchange) -> Answer:
        if problem := self.doorkeeper.problem_with(exchange.headers):
            return Reply.error(403, problem)
        try:
            route, session_id = self._find_route(exchange)
            principal = self._authorize(exchange, route.scope) if route.scope else ANONYMOUS
            answer = await route.serve(Call(exchange, principal, session_id))
        except ApiError as error:
            return error.reply
        if isinstance(answer, Reply) and route.kind is not None:
            differences = self._faults.take_differences(route.kind, exchange.method, exchange.path)
            return rewrite(differences, route.kind, answer)
        return answer

    def _find_route(self, exchange: Exchange) -> tuple[Route, str]:
        parts = exchange.path.split("/")
        session_id = ""
        if exchange.path.startswith("/sessions/"):
            session_id, parts[2] = parts[2], "{id}"
        methods = self._routes.get("/".join(parts))
        if methods is None or (not session_id and "{id}" in parts):
            raise ApiError(404, f"Route {exchange.method}:{exchange.path} not found")
        if exchange.method not in methods:
            raise ApiError(405, f"{exchange.path} takes {' and '.join(methods)}", allow=", ".join(methods))
        return methods[exchange.method], session_id

    def _authorize(self, exchange: Exchange, scope: str) -> Principal:
        principal = self._authority.authenticate(exchange.headers.get("authorization"))
        if isinstance(principal, str):
            raise ApiError(401, principal, www_authenticate="Bearer")
        if not principal.may(scope):
            raise ApiError(403, f"role {principal.role} with these scopes may not do this: it takes {scope}")
        return principal

    # Routes

    async def _healthz(self, _: Call) -> Reply:
        return Reply.json(Health(ok=True, backend=BACKEND, backend_healthy=self._fleet.is_open))

    async def _console(self, call: Call) -> Reply:
        return page(call.exchange.path)

    async def _create(self, call: Call) -> Reply:
        max_bytes = self._settings.bounds.max_body_bytes
        body = await call.exchange.read_body(max_bytes)
        if body is None:
            raise ApiError(413, f"body: must be at most {max_bytes} bytes")
        try:
            request = parse_request(body, self._settings.service_bindings)
            limits = effective(request.limits, self._settings.default_limits, self._settings.max_limits)
            session = self._fleet.create(call.principal, request, limits)
        except ValueError as error:
            raise ApiError(400, str(error), code="invalid_request") from None
        except TooManyPending:
            raise ApiError(429, "too many sessions are pending", retry_after="1") from None
        return Reply.json(session.document(), 201)

    async def _list(self, call: Call) -> Reply:
        sessions = self._fleet.newest_first(call.principal.org_id)
        return Reply.json([session.document(with_output=False) for session in sessions])

    async def _get(self, call: Call) -> Reply:
        return Reply.json(self._session(call).document())

    async def _result(self, call: Call) -> Reply:
        session = self._session(call)
        if session.result is not None:
            return Reply.json(session.result)
        if session.is_finished:
            raise ApiError(409, f"session {session.id} was torn down before it had a result", code=TORN_DOWN)
        raise ApiError(409, f"session {session.id} is {session.phase}, and its result is not ready", code=NOT_READY)

    async def _audit(self, call: Call) -> Reply:
        return Reply.json(self._session(call).trail)

    async def _delete(self, call: Call) -> Reply:
        await self._fleet.tear_down(self._session(call))
        return Reply(status=204)

    async def _stream(self, call: Call) -> EventStream:
        log, path = self._session(call).log, call.exchange.path
        framing = self._settings.framing
        differences = self._faults.take_differences("stream", "GET", path)
        return EventStream(
            log,
            index=first_index(call.exchange.headers.get("last-event-id"), framing, log, differences),
            framing=framing,
            heartbeat_seconds=self._settings.bounds.heartbeat_seconds,
            faults=self._faults.take_stream(path),
            differences=differences,
        )

    # Details

    def _session(self, call: Call) -> SimulatedSession:
        session = self._fleet.get(call.principal.org_id, call.session_id)
        if session is None:
            # Also for a session of another org: that it exists is nobody else's business.
            raise ApiError(404, f"session {call.session_id} not found")
        return session

    async def _send_stream(self, exchange: Exchange, stream: EventStream) -> None:
        self._count_stream(1)
        try:
            await stream.respond(exchange)
        finally:
            self._count_stream(-1)

    def _count_stream(self, change: int) -> None:
        self.open_streams += change
        self._on_change()
