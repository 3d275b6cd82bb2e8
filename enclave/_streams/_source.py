"""Opens one connection of an event stream. Resuming is the business of the stream above."""

from __future__ import annotations

from http import HTTPStatus
from typing import NoReturn

from enclave._observed import ObservedRequest
from enclave.errors import EnclaveError, MalformedResponseError, excerpt
from enclave.transport import (
    Body,
    Headers,
    Http,
    Response,
    TimeLimit,
    body_of,
    read_start,
    redacted,
    status_error,
)

_EXCERPT_BYTES = 1024


async def open_source(http: Http, path: str, last_event_id: bytes | None) -> Body:
    """The bytes of an event stream, to be read and closed by the caller. Raises as `Http.request` does.

    Args:
        http: what sends the request.
        path: of the stream.
        last_event_id: the ``Last-Event-ID`` to go on after. None asks for the session from its first event.
    """
    with http.observing.request("GET", path) as observed:
        try:
            return await _open(http, path, last_event_id, observed)
        except EnclaveError as error:
            failure = error
        failure.operation = excerpt(f"GET {path}")
        raise failure.with_traceback(None)  # the frames below hold headers


async def _open(http: Http, path: str, last_event_id: bytes | None, observed: ObservedRequest) -> Body:
    credential = await http.credential()  # asks code of the caller's, which no timeout of ours is about
    headers: Headers = [(b"Accept", b"text/event-stream"), (b"Cache-Control", b"no-cache"), *observed.headers()]
    if last_event_id is not None:
        headers.append((b"Last-Event-ID", last_event_id))
    response = await http.send("GET", path, headers, credential, is_stream=True)
    observed.answered(response.status)
    timeout = http.settings.timeout
    body = body_of(response, read_seconds=timeout.stream_idle)
    try:
        if not _is_event_stream(response):
            with TimeLimit(timeout.read, "no whole response came"):
                await _refuse(response, body, http)
    except BaseException:
        await body.aclose()
        raise
    return body


async def _refuse(response: Response, body: Body, http: Http) -> NoReturn:
    credential = http.settings.credential
    if not response.is_success:
        raise await status_error(response, body, credential)
    start = await read_start(body, _EXCERPT_BYTES)
    said = redacted(start.decode("utf-8", "replace"), credential)
    content_type = redacted(response.header(b"content-type") or "none", credential)
    shown = f"it starts with: {excerpt(said)}" if start else "its body is empty"
    raise MalformedResponseError(
        f"expected an event stream, got {response.status} "
        f"with content-type {excerpt(content_type.partition(';')[0].strip())} and {shown}"
    )


def _content_type(response: Response) -> str:
    # Parameters such as charset are ignored: an event stream is always UTF-8.
    return (response.header(b"content-type") or "").partition(";")[0].strip().lower()


def _is_event_stream(response: Response) -> bool:
    return response.status == HTTPStatus.OK and _content_type(response) == "text/event-stream"
