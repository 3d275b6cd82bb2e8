"""Requests to one control plane: credential, timeouts, retries, errors. Event streams are opened by `_event_source`."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from contextlib import nullcontext
from typing import Any

import anyio
import httpx

from enclave._log import logger
from enclave._observed import ObservedRequest, Observing
from enclave._observer import Observer
from enclave._version import __version__
from enclave.errors import EnclaveError, UsageError

from ._body_reader import BodyReader
from ._clients import Clients
from ._exceptions import transport_errors
from ._responses import status_error
from ._retry import RetryPolicy, may_retry
from ._settings import Settings, Timeout
from .http11 import STREAM_EXTENSION

Headers = list[tuple[bytes, bytes]]

_HEADERS: Headers = [(b"Accept-Encoding", b"identity"), (b"User-Agent", f"enclave-sdk-python/{__version__}".encode())]
_JSON_HEADERS: Headers = [(b"Accept", b"application/json")]
_JSON_BODY_HEADERS: Headers = [*_JSON_HEADERS, (b"Content-Type", b"application/json")]


class Http:
    """Sends requests; safe to share between tasks. Opens no connection before the first one."""

    def __init__(
        self,
        settings: Settings,
        retry: RetryPolicy,
        transport: httpx.AsyncBaseTransport | None,
        observer: Observer | None = None,
    ) -> None:
        self.settings = settings
        self.retry = retry
        self.observing = None if observer is None else Observing(observer, settings.base_url)
        self._clients = Clients(settings, transport)

    def with_options(self, *, timeout: Timeout, retry: RetryPolicy) -> Http:
        """The same connections with other timeouts and retries."""
        other = copy.copy(self)
        other.settings = dataclasses.replace(self.settings, timeout=timeout)
        other.retry = retry
        return other

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
        authenticated: bool = True,
    ) -> bytes:
        """Send a request, again where that is safe (see `RetryPolicy`), and give the body of its 2xx response.

        Raises:
            APIStatusError: another status. APIConnectionError: no complete answer. ProtocolError: a body out of bounds.
            UsageError: the client is closed.
        """
        observed = None if self.observing is None else self.observing.request(method, path)
        with observed or nullcontext():
            return await self._request(method, path, content, authenticated=authenticated, observed=observed)

    async def _request(
        self,
        method: str,
        path: str,
        content: bytes | None,
        *,
        authenticated: bool,
        observed: ObservedRequest | None,
    ) -> bytes:
        policy = self.retry
        started = anyio.current_time()
        for attempt in itertools.count(1):
            try:
                return await self._request_once(method, path, content, authenticated=authenticated, observed=observed)
            except EnclaveError as error:
                wait = policy.wait_before(attempt, error)
                late = policy.total_seconds is not None and anyio.current_time() + wait > started + policy.total_seconds
                if attempt >= policy.attempts or late or not may_retry(error, creates=method == "POST"):
                    error.retries = attempt - 1
                    raise
                logger.info("%s; retry %d of %d in %.2f s", error, attempt, policy.attempts - 1, wait)
                if observed is not None:
                    observed.retrying(error, attempt, wait)
            await anyio.sleep(wait)
        raise AssertionError("unreachable")

    async def _request_once(
        self, method: str, path: str, content: bytes | None, *, authenticated: bool, observed: ObservedRequest | None
    ) -> bytes:
        operation = f"{method} {path}"
        headers = _JSON_HEADERS if content is None else _JSON_BODY_HEADERS
        if observed is not None:
            headers = [*headers, *observed.headers()]
        with transport_errors(operation):
            response = await self.send(method, path, headers=headers, content=content, authenticated=authenticated)
            if observed is not None:
                observed.answered(response.status_code)
            body = BodyReader(response, operation)
            try:
                if not response.is_success:
                    raise await status_error(response, body, operation, self.settings.credential)
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
        authenticated: bool = True,
        is_stream: bool = False,
    ) -> httpx.Response:
        """Send one request and give its response, body unread; the caller closes it. Raises as httpx does."""
        self.check_open()
        request = httpx.Request(
            method,
            self.settings.base_url + path,
            headers=[*_HEADERS, *headers],
            content=content,
            extensions=_extensions(timeout or self.settings.timeout, is_stream=is_stream),
        )
        credential = self.settings.credential if authenticated else None
        if credential is not None:
            # Never a variable: it would show in tracebacks. Wire: contract "Base and authentication".
            request.headers["Authorization"] = f"Bearer {(await credential.current()).reveal()}"
            self.check_open()  # getting a token may have taken long
        try:
            return await self._clients.send(request, is_stream=is_stream)
        except httpx.LocalProtocolError:
            self.check_open()  # closed while the request waited for a connection
            raise


def _extensions(timeout: Timeout, *, is_stream: bool) -> dict[str, Any]:
    seconds = {"connect": timeout.connect, "read": timeout.read, "write": timeout.write, "pool": timeout.acquire}
    if not is_stream:
        return {"timeout": seconds}
    # Whoever opens a stream sees to the time that takes, and whoever reads it to its silence.
    return {"timeout": seconds | {"read": None, "write": None}, STREAM_EXTENSION: True}
