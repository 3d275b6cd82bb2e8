"""Requests to one control plane: credential, timeouts, retries, errors. `_streams/_source.py` opens streams with it."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio

from enclave._log import logger
from enclave._loop import current_time
from enclave._observed import ObservedRequest, observing
from enclave._observer import Observer
from enclave._version import __version__
from enclave.errors import ConfigurationError, EnclaveError, UsageError, excerpt

from ._body_reader import body_of, read_all
from ._brake import Brake, Turn
from ._credential import Secret
from ._messages import Delivery, Headers, Request, Response, Timeouts
from ._per_loop import PerLoop
from ._responses import status_error
from ._retry import RetryPolicy, is_refusal, may_retry
from ._settings import Settings, Timeout
from ._transports import Transports

if TYPE_CHECKING:
    import httpx

_HEADERS: Headers = [(b"Accept-Encoding", b"identity"), (b"User-Agent", f"enclave-sdk-python/{__version__}".encode())]
_JSON_HEADERS: Headers = [(b"Accept", b"application/json")]
_JSON_BODY_HEADERS: Headers = [*_JSON_HEADERS, (b"Content-Type", b"application/json")]


class Http:
    """Sends requests. Tasks may share it. It opens no connection before the first request."""

    def __init__(
        self,
        settings: Settings,
        retry: RetryPolicy,
        transport: httpx.AsyncBaseTransport | None,
        observer: Observer | None = None,
    ) -> None:
        self.settings = settings
        self.retry = _checked(retry)
        self.observing = observing(observer, settings.base_url)
        self._base_path = settings.base_path
        self._transports = Transports(settings, transport)
        self._brakes = PerLoop(Brake)

    @property
    def brake(self) -> Brake:
        """What holds creates back when the server refuses them."""
        return self._brakes.current()

    def with_options(self, *, timeout: Timeout, retry: RetryPolicy) -> Http:
        """The same connections with other timeouts and retries."""
        other = copy.copy(self)
        other.settings = dataclasses.replace(self.settings, timeout=timeout)
        other.retry = _checked(retry)
        return other

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called."""
        return self._transports.closed

    def check_open(self, *, is_closing: bool = False) -> None:
        """Raise `UsageError` once the client is closed, or is being closed where that counts."""
        if self.closed or is_closing:
            raise UsageError("this EnclaveClient is closed: make a new one")

    def close_idle(self) -> None:
        """Close the connections of this event loop that wait for another request."""
        self._transports.close_idle()

    async def aclose(self) -> None:
        """Close every connection. Harmless when called twice."""
        with anyio.move_on_after(self.settings.timeout.teardown, shield=True):
            await self._transports.aclose()

    async def request(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        authenticated: bool = True,
        is_final: Callable[[EnclaveError], bool] = lambda _: False,
        turn: Turn | None = None,
        delivery: Delivery | None = None,
    ) -> bytes:
        """Send a request, again where that is safe (see `RetryPolicy`), and give the body of its 2xx response.

        An error for which `is_final` holds is raised at once: another try would tell no more. A request with a `turn`
        is a create, and each of its tries waits for that. `delivery` tells whether the latest try may have reached the
        server.

        Raises:
            APIStatusError: another status. APIConnectionError: no complete answer. ProtocolError: a body out of bounds.
            UsageError: the client is closed.
        """
        with self.observing.request(method, path) as observed:
            return await self._request(
                method,
                path,
                content,
                authenticated=authenticated,
                is_final=is_final,
                turn=turn,
                delivery=delivery or Delivery(),
                observed=observed,
            )

    async def _request(
        self,
        method: str,
        path: str,
        content: bytes | None,
        *,
        authenticated: bool,
        is_final: Callable[[EnclaveError], bool],
        turn: Turn | None,
        delivery: Delivery,
        observed: ObservedRequest,
    ) -> bytes:
        async def send() -> bytes | EnclaveError:
            # Outside of what is tried again: an error of the caller's own token callable is not one of the network.
            credential = await self.credential() if authenticated else None
            try:
                return await self._request_once(method, path, content, credential, delivery=delivery, observed=observed)
            except EnclaveError as error:
                return error

        policy = self.retry
        started = current_time()
        failure: EnclaveError | None = None
        attempt = 0
        while True:
            delivery.may_have_begun = False
            answer = await (send() if turn is None else turn.take(send, policy, started, failure))
            if isinstance(answer, bytes):
                return answer
            if answer is failure:  # no turn came in time for another try
                break
            failure = answer
            failure.operation = excerpt(f"{method} {path}")  # an id of the server's may be of any length
            attempt += 1
            braked = turn is not None and is_refusal(failure)
            if turn is not None and braked and turn.has_progressed(started):
                attempt, started = 1, current_time()
            wait = turn.hold_seconds_left if turn is not None and braked else policy.wait_before(attempt, failure)
            late = policy.total_seconds is not None and current_time() + wait > started + policy.total_seconds
            again = may_retry(failure, creates=method in ("POST", "PATCH")) and not is_final(failure)
            if attempt >= policy.attempts or late or not again:
                break
            logger.info("%s, retry %d of %d in %.2f s", failure, attempt, policy.attempts - 1, wait)
            observed.retrying(failure, attempt, wait)
            if not braked:  # else the turn has the wait
                await anyio.sleep(wait)
        answer.retries = attempt - 1
        raise answer.with_traceback(None)  # the frames below hold headers

    async def _request_once(
        self,
        method: str,
        path: str,
        content: bytes | None,
        credential: Secret | None,
        *,
        delivery: Delivery,
        observed: ObservedRequest,
    ) -> bytes:
        headers = [*(_JSON_HEADERS if content is None else _JSON_BODY_HEADERS), *observed.headers()]
        response = await self.send(method, path, headers, credential, content=content, delivery=delivery)
        observed.answered(response.status)
        body = body_of(response)
        try:
            if not response.is_success:
                raise await status_error(response, body, self.settings.credential)
            return await read_all(body, self.settings.max_response_bytes)
        finally:
            await body.aclose()

    async def credential(self) -> Secret | None:
        """What to authorise the next request with. Raises what a token callable of the caller's raises.

        Raises:
            ConfigurationError: the callable gave nothing that a header can carry. UsageError: the client is closed.
        """
        self.check_open()
        credential = self.settings.credential
        if credential is None:
            return None
        secret = await credential.current()
        self.check_open()  # getting a token may have taken long
        return secret

    async def send(
        self,
        method: str,
        path: str,
        headers: Headers,
        credential: Secret | None,
        *,
        content: bytes | None = None,
        is_stream: bool = False,
        delivery: Delivery | None = None,
    ) -> Response:
        """Send one request and give its response with its body unread. The caller closes it.

        How long the body of a stream may be silent is for the caller to limit.

        Raises:
            APIConnectionError: no response came. UsageError: the client is closed.
        """
        self.check_open()
        timeout = self.settings.timeout
        request = Request(
            method,
            self._base_path + path,
            [*_HEADERS, *headers],
            timeouts=_timeouts_of_stream(timeout) if is_stream else _timeouts_of(timeout),
            credential=credential,
            content=content,
            is_stream=is_stream,
            delivery=delivery,
        )
        started = current_time() if logger.isEnabledFor(logging.DEBUG) else 0.0
        try:
            response = await self._transports.send(request)
        except EnclaveError:
            self.check_open()  # closed while the request waited for a connection
            raise
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s %s: %d after %.3f s", method, path, response.status, current_time() - started)
        return response


def _checked(retry: RetryPolicy) -> RetryPolicy:
    if not isinstance(retry, RetryPolicy):
        raise ConfigurationError(f"retry: expected a RetryPolicy or None, got {retry!r:.100}")
    return retry


def _timeouts_of(timeout: Timeout) -> Timeouts:
    return Timeouts(timeout.connect, timeout.read, timeout.write, timeout.acquire, timeout.total)


def _timeouts_of_stream(timeout: Timeout) -> Timeouts:
    acquire, connect, read, write = timeout.acquire, timeout.connect, timeout.read, timeout.write
    # For the head of its response. Our own transport leaves that the time of a read from the moment it is sent.
    total = None if read is None else (acquire or 0.0) + (connect or 0.0) + read
    return Timeouts(connect, read, write, acquire, total)
