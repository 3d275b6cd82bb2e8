"""One connection of an event stream, from the request to its close. Resuming is the business of the stream above."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from types import TracebackType
from typing import NoReturn, Self

import anyio

from enclave._observed import ObservedRequest
from enclave.errors import EnclaveError, MalformedResponseError, excerpt
from enclave.transport import (
    BodyReader,
    Delivery,
    Headers,
    Http,
    Response,
    Timeouts,
    redacted,
    status_error,
    time_limit,
)

_EXCERPT_BYTES = 1024
_DRAIN_SECONDS = 1.0


class EventSource:
    """An open event stream: `read` gives its bytes. Use it with ``async with``, which raises as `Http.request` does.

    Args:
        last_event_id: the ``Last-Event-ID`` to go on after. None asks for the session from its first event.
    """

    __slots__ = ("_body", "_http", "_last_event_id", "_path", "_timeout")

    def __init__(self, http: Http, path: str, last_event_id: bytes | None) -> None:
        self._http = http
        self._path = path
        self._timeout = http.settings.timeout
        self._last_event_id = last_event_id

    async def __aenter__(self) -> Self:
        with self._http.observing.request("GET", self._path) as observed:
            try:
                await self._open(observed)
            except EnclaveError as error:
                failure = error
            else:
                return self
            failure.operation = excerpt(f"GET {self._path}")
            raise failure.with_traceback(None)  # the frames below hold headers

    async def _open(self, observed: ObservedRequest) -> None:
        credential = await self._http.credential()  # asks code of the caller's, which no timeout of ours is about
        headers: Headers = [(b"Accept", b"text/event-stream"), (b"Cache-Control", b"no-cache"), *observed.headers()]
        if self._last_event_id is not None:
            headers.append((b"Last-Event-ID", self._last_event_id))
        # The head of the response is awaited here. How long its body may be silent is for whoever reads it.
        timeouts = Timeouts(self._timeout.connect, None, None, self._timeout.acquire)
        with time_limit(self._open_seconds(), "no response came") as limit:
            # A transport that tells when it sends leaves the response the time of a read. One that does not tell has
            # that of a connection as well.
            delivery = Delivery(lambda: limit.shorten(self._timeout.read))
            response = await self._http.send(
                "GET", self._path, headers, credential, timeouts=timeouts, is_stream=True, delivery=delivery
            )
        observed.answered(response.status)
        self._body = BodyReader(response, read_seconds=self._timeout.stream_idle)
        try:
            if not _is_event_stream(response):
                with time_limit(self._timeout.read, "no whole response came"):
                    await self._refuse(response)
        except BaseException:
            await self._body.aclose()
            raise

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._body.aclose()

    @property
    def idle_seconds(self) -> float | None:
        """The idle timeout that the caller must keep. None if there is none, or if a read keeps it itself.

        A read on our own transport can be cancelled and done again. One on another transport cannot.
        """
        return self._timeout.stream_idle if self._body.read_is_repeatable else None

    @property
    def read(self) -> Callable[[], Awaitable[bytes]]:
        """Gives the next bytes of the stream, and none once the server ended it. Raises as `BodyReader.read` does."""
        return self._body.fastest_read

    async def drain(self) -> None:
        """After the last frame, read on to the end that the server is about to send, so that it is not cut off."""
        if self._body.is_complete:
            return
        with anyio.move_on_after(_DRAIN_SECONDS):
            while await self._body.read():
                pass

    def _open_seconds(self) -> float | None:
        acquire, connect, read = self._timeout.acquire, self._timeout.connect, self._timeout.read
        return None if read is None else (acquire or 0.0) + (connect or 0.0) + read

    async def _refuse(self, response: Response) -> NoReturn:
        if not response.is_success:
            raise await status_error(response, self._body, self._http.settings.credential)
        start = await self._body.read_start(_EXCERPT_BYTES)
        said = redacted(start.decode("utf-8", "replace"), self._http.settings.credential)
        shown = f"it starts with: {excerpt(said)}" if start else "its body is empty"
        raise MalformedResponseError(
            f"expected an event stream, got {response.status} "
            f"with content-type {excerpt(_content_type(response)) or 'none'} and {shown}"
        )


def _content_type(response: Response) -> str:
    # Parameters such as charset are ignored: an event stream is always UTF-8.
    return (response.header(b"content-type") or "").partition(";")[0].strip().lower()


def _is_event_stream(response: Response) -> bool:
    return response.status == HTTPStatus.OK and _content_type(response) == "text/event-stream"
