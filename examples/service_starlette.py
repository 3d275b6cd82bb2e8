"""A web service on asyncio: runs the code that a browser page posts, and relays its frames over Server-Sent Events.

A run lives as long as its HTTP request: a browser that leaves, or a service that stops, tears the session down. Needs
`pip install 'enclave-sdk[simulator]' starlette uvicorn`. Against the embedded simulator, or the control plane that
ENCLAVE_BASE_URL names:

    python examples/service_starlette.py [--port 8000]

Anybody who reaches it may run code, so it listens on this machine only: put your own authentication in front of it.
"""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Literal

import anyio
import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from enclave import (
    CreateSessionRequest,
    EgressPolicy,
    EnclaveClient,
    EnclaveError,
    SessionLimits,
    StreamFrame,
    UnknownFrame,
)

PAGE = Path(__file__).with_suffix(".html")
MAX_RUNS = 8
MAX_BODY_BYTES = 256 * 1024
STOP_SECONDS = 60
LIMITS = SessionLimits(memory_mb=256, wall_clock_ms=10_000, pids=32)
SSE_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class Program(msgspec.Struct, forbid_unknown_fields=True):
    """What the page posts. The limits and the network policy are the service's to choose."""

    code: Annotated[str, msgspec.Meta(min_length=1)]
    language: Literal["python", "node"] = "python"


class Service:
    """What requests share."""

    def __init__(self, enclave: EnclaveClient) -> None:
        self.enclave = enclave
        self.running: set[anyio.CancelScope] = set()

    @contextmanager
    def registered(self, scope: anyio.CancelScope) -> Generator[None]:
        self.running.add(scope)
        try:
            yield
        finally:
            self.running.discard(scope)

    def stop(self) -> None:
        for scope in self.running:
            scope.cancel()


class Run(Response):
    """The frames of one session as an event stream.

    An ASGI response and not a generator for `StreamingResponse`: a generator would hold the session's task group and
    cancel scope across its yields, where nobody can tell which task a cancellation is for (PEP 789).
    """

    def __init__(self, service: Service, request: CreateSessionRequest) -> None:
        super().__init__()
        self._service = service
        self._request = request
        self._relaying = anyio.CancelScope()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - of ASGI
        with self._service.registered(self._relaying):
            await send({"type": "http.response.start", "status": 200, "headers": SSE_HEADERS})
            with self._relaying:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._cancel_when_gone, receive)
                    await self._respond(send)
                    tasks.cancel_scope.cancel()
            await send({"type": "http.response.body", "body": b""})

    async def _cancel_when_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._relaying.cancel()

    async def _respond(self, send: Send) -> None:
        try:
            await self._relay(send)
        except EnclaveError as error:
            await send_event(send, "error", msgspec.json.encode({"message": str(error)}))

    async def _relay(self, send: Send) -> None:
        async with self._service.enclave.session(self._request) as session, session.stream() as frames:
            await send_event(send, "session", msgspec.json.encode({"id": session.id}))
            async for batch in frames.batches():
                await send_chunk(send, b"".join(map(as_event, batch)))


def as_event(frame: StreamFrame) -> bytes:
    match frame:
        case UnknownFrame(problem=str(problem)):
            return event("malformed", msgspec.json.encode({"message": problem}))
        case UnknownFrame(raw=raw):  # of a newer server
            return event("frame", raw)
        case _:
            return event("frame", frame.to_json())


def event(name: str, data: bytes) -> bytes:
    """One event. JSON needs no line ends, so a raw frame's own, if any, are space between its tokens."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), b" ".join(data.splitlines()))


async def send_event(send: Send, name: str, data: bytes) -> None:
    await send_chunk(send, event(name, data))


async def send_chunk(send: Send, chunk: bytes) -> None:
    # The server waits here for a slow browser, so we take no frames meanwhile, and that slows the workload's stream.
    await send({"type": "http.response.body", "body": chunk, "more_body": True})


class TooLarge(Exception):
    """More was posted than the service takes."""


async def read_program(request: Request) -> CreateSessionRequest:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise TooLarge
    program = msgspec.json.decode(bytes(body), type=Program)
    return CreateSessionRequest(
        code=program.code, language=program.language, limits=LIMITS, egress=EgressPolicy.deny_all()
    )


def refusal(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"message": message}, status, headers)


async def run(request: Request) -> Response:
    # A page of another site can post a form or plain text here without being asked, but not JSON.
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return refusal(415, "post JSON")
    try:
        program = await read_program(request)
    except TooLarge:
        return refusal(413, f"at most {MAX_BODY_BYTES} bytes")
    except (msgspec.DecodeError, ValueError) as error:  # no JSON of this shape; or CreateSessionRequest's own checks
        return refusal(400, str(error))
    service: Service = request.app.state.service
    if len(service.running) >= MAX_RUNS:
        return refusal(503, f"{MAX_RUNS} programs are running", headers={"retry-after": "1"})
    return Run(service, program)


async def page(_: Request) -> Response:
    policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'"
    return FileResponse(PAGE, headers={"content-security-policy": policy})


async def sessions(request: Request) -> Response:
    enclave: EnclaveClient = request.app.state.service.enclave
    return JSONResponse([{"id": session.id, "phase": str(session.phase)} for session in await enclave.list()])


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[None]:
    async with AsyncExitStack() as stack:
        if os.environ.get("ENCLAVE_BASE_URL"):
            client = EnclaveClient()
        else:
            from enclave.simulator import Simulator  # noqa: PLC0415 - an extra, needed only here

            simulator = await stack.enter_async_context(Simulator().serve())
            client = EnclaveClient(simulator.base_url, api_key=simulator.api_key)
        app.state.service = Service(await stack.enter_async_context(client))
        yield


app = Starlette(
    routes=[Route("/", page), Route("/run", run, methods=["POST"]), Route("/sessions", sessions)], lifespan=lifespan
)


class Server(uvicorn.Server):
    """Ends what runs before it waits for it; the client is closed after that, in the lifespan."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app.state.service.stop()
        await super().shutdown(sockets)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000, help="0 takes any free one")
    options = parser.parse_args()
    config = uvicorn.Config(app, log_level="warning", loop="asyncio", timeout_graceful_shutdown=STOP_SECONDS)
    with socket.create_server(("127.0.0.1", options.port)) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}/", flush=True)
        Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
