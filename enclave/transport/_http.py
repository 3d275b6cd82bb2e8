"""Requests to one control plane: credential, timeouts, retries, errors. Event streams are opened by `_event_source`."""

from __future__ import annotations

import itertools
import logging
from typing import Any
from urllib.parse import quote

import anyio
import httpx

from enclave._version import __version__
from enclave.errors import EnclaveError, InvalidArgumentError, UsageError

from ._body_reader import BodyReader
from ._clients import Clients
from ._exceptions import transport_errors
from ._responses import status_error
from ._retry import RetryPolicy, may_retry
from ._settings import Settings, Timeout

logger = logging.getLogger("enclave")

Headers = list[tuple[bytes, bytes]]

_HEADERS: Headers = [(b"Accept-Encoding", b"identity"), (b"User-Agent", f"enclave-sdk-python/{__version__}".encode())]
_JSON_HEADERS: Headers = [(b"Accept", b"application/json")]
_JSON_BODY_HEADERS: Headers = [*_JSON_HEADERS, (b"Content-Type", b"application/json")]


def session_path(session_id: str, *rest: str) -> str:
    """The path of a session's route, the id quoted so that it can reach no other one.

    Raises:
        InvalidArgumentError: the id is empty, a dot segment, or no text that a URL can carry.
    """
    if not isinstance(session_id, str):
        raise InvalidArgumentError(f"session id: expected a string, got {type(session_id).__name__}")
    if session_id in ("", ".", ".."):
        # Quoting does not help: "%2E%2E" is a dot segment like "..".
        raise InvalidArgumentError(f"session id: {session_id!r} names no session")
    try:
        quoted = quote(session_id, safe="")
    except UnicodeEncodeError:
        raise InvalidArgumentError("session id: holds a lone surrogate, which no URL can carry") from None
    return "/".join(("/sessions", quoted, *rest))


class Http:
    """Sends requests; safe to share between tasks. Opens no connection before the first one."""

    def __init__(self, settings: Settings, retry: RetryPolicy, transport: httpx.AsyncBaseTransport | None) -> None:
        self.settings = settings
        self.retry = retry
        self._clients = Clients(settings, transport)

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called."""
        return self._clients.closed

    def check_open(self) -> None:
        """Raise `UsageError` once the client is closed."""
        if self.closed:
            raise UsageError("this EnclaveClient is closed; make a new one")

    async def aclose(self) -> None:
        """Close every connection. Harmless when called twice."""
        with anyio.move_on_after(self.settings.timeout.teardown, shield=True):
            await self._clients.aclose()

    async def request(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        timeout: Timeout | None = None,
        retry: RetryPolicy | None = None,
        authenticated: bool = True,
    ) -> bytes:
        """Send a request, again where that is safe (see `RetryPolicy`), and give the body of its 2xx response.

        Raises:
            APIStatusError: another status. APIConnectionError: no complete answer. ProtocolError: a body out of bounds.
            UsageError: the client is closed.
        """
        policy = retry or self.retry
        started = anyio.current_time()
        for attempt in itertools.count(1):
            try:
                return await self._request_once(method, path, content, timeout, authenticated=authenticated)
            except EnclaveError as error:
                error.retries = attempt - 1
                wait = policy.wait_before(attempt, error)
                late = policy.total_seconds is not None and anyio.current_time() + wait > started + policy.total_seconds
                if attempt >= policy.attempts or late or not may_retry(error, creates=method == "POST"):
                    raise
                logger.info("%s; retry %d of %d in %.2f s", error, attempt, policy.attempts - 1, wait)
            await anyio.sleep(wait)
        raise AssertionError("unreachable")

    async def _request_once(
        self, method: str, path: str, content: bytes | None, timeout: Timeout | None, *, authenticated: bool
    ) -> bytes:
        operation = f"{method} {path}"
        headers = _JSON_HEADERS if content is None else _JSON_BODY_HEADERS
        with transport_errors(operation):
            response = await self.send(
                method, path, headers=headers, content=content, timeout=timeout, authenticated=authenticated
            )
            body = BodyReader(response)
            try:
                if not response.is_success:
                    raise await status_error(response, body, operation)
                return await body.read_all(self.settings.max_response_bytes)
            finally:
                await body.aclose()

    async def send(
        self,
        method: str,
        path: str,
        *,
        headers: Headers,
        content: bytes | None = None,
        timeout: Timeout | None = None,
        read_timeout: float | None = None,
        authenticated: bool = True,
        is_stream: bool = False,
    ) -> httpx.Response:
        """Send one request and give its response, body unread; the caller closes it. Raises as httpx does."""
        self.check_open()
        seconds = timeout or self.settings.timeout
        client = self._clients.for_streams() if is_stream else self._clients.for_requests()
        extensions: dict[str, Any] = {"enclave.stream": True} if is_stream else {}
        request = client.build_request(
            method,
            self.settings.base_url + path,
            headers=[*_HEADERS, *headers],
            content=content,
            timeout=httpx.Timeout(
                connect=seconds.connect,
                read=read_timeout if is_stream else seconds.read,
                write=seconds.write,
                pool=seconds.acquire,
            ),
            extensions=extensions,
        )
        auth = self.settings.credential if authenticated else None
        return await client.send(request, auth=auth, stream=True, follow_redirects=False)
