"""`EnclaveClient`: the control plane's calls, and the two ways to hold a session: `run` and `session`."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar, Unpack, overload

import msgspec

from . import _calls
from ._create import Creates, create
from ._fan_out import DEFAULT_MAX_CONCURRENCY, FanOut, Requests, in_sessions
from ._loop import uninterrupted
from ._observer import Observer
from ._outcome import Outcome
from ._request_arguments import as_request
from ._result import ResultQuery
from ._result_type import result_decoder
from ._routes import session_path
from ._session import SessionBlock, SessionHandle
from ._streams import DEFAULT_MAX_BUFFERED_BYTES, FrameStream
from ._sweep import Sweep, SweepResult
from .transport import (
    DEFAULT_MAX_EVENT_BYTES,
    DEFAULT_MAX_RESPONSE_BYTES,
    NO_RETRY,
    RetryPolicy,
    Secret,
    Settings,
    Timeout,
    TokenSource,
)
from .types import AuditEvent, CreateSessionRequest, Health, Listing, Session, SessionFields, SessionResult

if TYPE_CHECKING:
    import ssl

    import httpx

    from .transport import Http

T = TypeVar("T")

_DEFAULT_TIMEOUT = Timeout()
_DEFAULT_RETRY = RetryPolicy()


class EnclaveClient:
    """A client of one control plane, for asyncio and trio alike.

    ::

        async with EnclaveClient() as enclave:
            async with enclave.session("print('hello')") as session:
                result = await session.result()

    It can be made anywhere, also before an event loop runs, and shared by any number of tasks. It is closed by its
    ``async with`` or by `aclose`.

    Args:
        base_url: the control plane, as in ``"http://127.0.0.1:8088"``. By default ``ENCLAVE_BASE_URL``.
        api_key: ``ek_<id>_<secret>``. By default ``ENCLAVE_API_KEY``. Wins over `token`.
        token: a user JWT, or an async callable that returns one, asked before each request. By default
            ``ENCLAVE_TOKEN``.
        transport: any `httpx.AsyncBaseTransport` to use instead of the client's own. Closed with the client. It serves
            streams and requests alike, so a pool needs room for a connection a stream.
        timeout: a `Timeout`, or one number of seconds for connect, read, write and acquire, or None for none of these.
        retry: a `RetryPolicy`, or None to try everything once, the resuming of streams included.
        labels: go on every session that the client creates. A request's own labels win over these.
        recover_creates: whether each create carries a label of its own, ``enclave-sdk.create``. If the answer to a
            create is lost, the client finds the session by that label, and adopts it or tears it down. Without it such
            a session is left to itself.
        ssl_context: for TLS with authorities or a client certificate of one's own. Not with `transport`, which has its
            own. By default the authorities of certifi, or of ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``. TLS sessions are
            resumed for up to an hour, unless the context has the option ``ssl.OP_NO_TICKET``.
        max_event_bytes: bound of one event of a stream.
        max_response_bytes: bound of one response that is not a stream.
        max_buffered_bytes: how much of a stream may have been read and wait for its consumer.
        observer: an `Observer` to tell of requests, streams and sessions, as `enclave.opentelemetry` has one.

    Raises:
        ConfigurationError: there is no base URL, or an argument cannot be used. The message names it.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        token: TokenSource | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        timeout: float | Timeout | None = _DEFAULT_TIMEOUT,
        retry: RetryPolicy | None = _DEFAULT_RETRY,
        labels: Mapping[str, str] | None = None,
        recover_creates: bool = True,
        ssl_context: ssl.SSLContext | None = None,
        max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES,
        max_response_bytes: int = DEFAULT_MAX_RESPONSE_BYTES,
        max_buffered_bytes: int = DEFAULT_MAX_BUFFERED_BYTES,
        observer: Observer | None = None,
    ) -> None:
        # Before anything can raise: a traceback that shows local variables must not show these. The URL is one of them
        # until it is known to hold no password.
        secrets = Secret(api_key), Secret(token), Secret(base_url)
        del api_key, token, base_url
        self._creates = Creates(labels, recover=recover_creates)
        settings = Settings.resolve(
            secrets[2],
            api_key=secrets[0],
            token=secrets[1],
            timeout=timeout,
            max_event_bytes=max_event_bytes,
            max_response_bytes=max_response_bytes,
            max_buffered_bytes=max_buffered_bytes,
            ssl_context=ssl_context,
        )
        self.base_url: str = settings.base_url
        """Where the control plane is."""
        from .transport import Http  # noqa: PLC0415 - brings in the sockets and TLS, which only a client needs

        self._http: Http = Http(settings, NO_RETRY if retry is None else retry, transport, observer)

    def __repr__(self) -> str:
        http: Http | None = getattr(self, "_http", None)  # a traceback out of __init__ may show a client without one
        if http is None:
            return "<EnclaveClient unfinished>"
        state = "closed" if http.closed else "open"
        return f"<EnclaveClient {self.base_url!r} {state}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "an EnclaveClient cannot be pickled. Send its arguments instead, and make a client from them at the other "
            "end. Leave the key out: the client takes it from ENCLAVE_API_KEY there"
        )

    async def __aenter__(self) -> Self:
        self._http.check_open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection, cancelled or not. Harmless when called twice. Other calls raise `UsageError` then.

        First it tears down the sessions of blocks that are still open in this event loop, and waits for creates and
        teardowns that are under way, for `Timeout.teardown` seconds at most.
        """
        cancellation = await self._creates.open_work.close(self._http.settings.timeout.teardown)
        await self._http.aclose()
        if cancellation is not None:
            raise cancellation

    def with_options(
        self,
        *,
        timeout: float | Timeout | msgspec.UnsetType | None = msgspec.UNSET,
        retry: RetryPolicy | msgspec.UnsetType | None = msgspec.UNSET,
    ) -> EnclaveClient:
        """The same client with other timeouts or retries, as for one call: ``enclave.with_options(timeout=5).get(id)``.

        Shares all connections with this one, so closing either closes both. What is not given stays as it is.

        Raises:
            ConfigurationError: an argument cannot be used. The message names it.
        """
        http = self._http.with_options(
            timeout=self._http.settings.timeout if timeout is msgspec.UNSET else Timeout.of(timeout),
            retry=self._http.retry if retry is msgspec.UNSET else NO_RETRY if retry is None else retry,
        )
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._http = http
        return other

    # Holding a session

    @uninterrupted
    async def run(
        self, request: CreateSessionRequest | str | None = None, **fields: Unpack[SessionFields]
    ) -> SessionHandle:
        """Create a session, which starts at once and outlives this call. Use `session` to have it torn down for sure.

        Cancelled while the request is under way, the call still learns the session's id and tears it down. A session
        whose creation was not answered is found and adopted, see `EnclaveClient(recover_creates=...)`.

        Args:
            request: the source text, or a whole `CreateSessionRequest`.
            **fields: fields of `CreateSessionRequest`, in place of a request or on top of one: `code`, `language`,
                `limits`, `egress`, `service_bindings`, `webhook_url`, `labels` or `extra`.

        Raises:
            TypeError, ValueError: the request is not valid. The message names the field.
            APIStatusError: the server refuses, as with `BadRequestError`, `AuthenticationError` or `RateLimitError`.
            APIConnectionError: it cannot be reached, or its answer was lost and no session shows up. Then
                `EnclaveError.create_label` says by which label one that is late can be found.
        """
        session = await create(self._http, self._creates, as_request(request, fields))
        return SessionHandle(self._http, session.id, session)

    def session(
        self, request: CreateSessionRequest | str | None = None, **fields: Unpack[SessionFields]
    ) -> AbstractAsyncContextManager[SessionHandle, None]:
        """A session for the length of a block, torn down on every exit: shielded from cancellation, with a deadline.

        ::

            async with enclave.session("print('hello')") as session:
                result = await session.result()

        If tearing down fails, that is raised. If the block itself raised, its exception goes on, and the failure is
        attached to it as a note. A session that is gone already counts as torn down.

        Args:
            request: the source text, or a whole `CreateSessionRequest`.
            **fields: `code`, `language`, `limits`, `egress`, `service_bindings`, `webhook_url`, `labels` or `extra`, as
                for `run`.

        Raises:
            TypeError, ValueError: the request is not valid. This raises at the call. Entering the block raises what
                else `run` raises.
        """
        return SessionBlock(self._http, self._creates, as_request(request, fields))

    def attach(self, session_id: str) -> SessionHandle:
        """A handle for an existing session. Sends nothing, so whether the session exists shows with the first call.

        Raises:
            TypeError, ValueError: `session_id` cannot be the id of a session.
        """
        session_path(session_id)
        return SessionHandle(self._http, session_id)

    def stream(self, session_id: str) -> FrameStream:
        """The frames of a session, from the first one: an async context manager and iterator. See `FrameStream`.

        Raises:
            TypeError, ValueError: `session_id` cannot be the id of a session.
        """
        return FrameStream(self._http, session_id)

    @overload
    def fan_out(
        self,
        requests: Requests,
        *,
        max_concurrency: int = ...,
        creates_per_second: float | None = ...,
        fail_fast: bool = ...,
    ) -> FanOut[Any]: ...
    @overload
    def fan_out(
        self,
        requests: Requests,
        *,
        max_concurrency: int = ...,
        creates_per_second: float | None = ...,
        type: type[T],
        fail_fast: bool = ...,
    ) -> FanOut[T]: ...
    @overload
    def fan_out(
        self,
        requests: Requests,
        *,
        max_concurrency: int = ...,
        creates_per_second: float | None = ...,
        type: Any,
        fail_fast: bool = ...,
    ) -> FanOut[Any]: ...

    def fan_out(
        self,
        requests: Requests,
        *,
        max_concurrency: int = DEFAULT_MAX_CONCURRENCY,
        creates_per_second: float | None = None,
        type: Any = Any,
        fail_fast: bool = False,
    ) -> FanOut[Any]:
        """Run many requests, each in a session of its own that is torn down when it has ended.

        ::

            async with enclave.fan_out(requests, max_concurrency=50, type=Answer) as outcomes:
                async for outcome in outcomes:
                    ...

        A server that has no room for more sessions answers 429 or 503. Then the creates of this client wait, as long as
        its ``Retry-After`` says, and come back step by step, for as many sessions as it has room for. Such a refusal
        stands in an outcome only if creating does not go on within the bounds of the client's `RetryPolicy`.

        Args:
            requests: source texts or `CreateSessionRequest` objects, from any iterable or async iterable. They are
                taken as needed: there are never more than `max_concurrency` whose outcome you have not taken yet.
            max_concurrency: how many sessions run at once.
            creates_per_second: how many sessions are created in a second at most, evenly spread. None for no bound.
            type: what each result's value is decoded into, as for `result`.
            fail_fast: whether the first error is raised and ends the fan-out, instead of standing in its outcome. A
                session that could not be torn down counts as one.

        Raises:
            TypeError, ValueError: an argument cannot be used. The message names it.
            UsageError: the client is closed.
        """
        self._http.check_open()
        result_decoder(type)  # a type that cannot be decoded into shows here, not in every outcome
        run = in_sessions(self._http, self._creates, type, creates_per_second)
        return FanOut(run, requests, max_concurrency=max_concurrency, fail_fast=fail_fast)

    @overload
    async def map(
        self,
        requests: Requests,
        *,
        max_concurrency: int = ...,
        creates_per_second: float | None = ...,
        fail_fast: bool = ...,
    ) -> builtins.list[Outcome[Any]]: ...
    @overload
    async def map(
        self,
        requests: Requests,
        *,
        max_concurrency: int = ...,
        creates_per_second: float | None = ...,
        type: type[T],
        fail_fast: bool = ...,
    ) -> builtins.list[Outcome[T]]: ...
    @overload
    async def map(
        self,
        requests: Requests,
        *,
        max_concurrency: int = ...,
        creates_per_second: float | None = ...,
        type: Any,
        fail_fast: bool = ...,
    ) -> builtins.list[Outcome[Any]]: ...

    async def map(
        self,
        requests: Requests,
        *,
        max_concurrency: int = DEFAULT_MAX_CONCURRENCY,
        creates_per_second: float | None = None,
        type: Any = Any,
        fail_fast: bool = False,
    ) -> builtins.list[Outcome[Any]]:
        """What `fan_out` gives, as a list in the order of the input. Takes and raises the same."""
        async with self.fan_out(
            requests,
            max_concurrency=max_concurrency,
            creates_per_second=creates_per_second,
            type=type,
            fail_fast=fail_fast,
        ) as outcomes:
            collected = [outcome async for outcome in outcomes]
        return Listing(sorted(collected, key=lambda outcome: outcome.index))

    # Single calls

    async def get(self, session_id: str) -> Session:
        """The session as it is now.

        Raises:
            NotFoundError: there is none of this id in the caller's org.
            EnclaveError: what every call raises: `APIStatusError`, `APIConnectionError`, `ProtocolError`, `UsageError`.
            TypeError, ValueError: `session_id` cannot be the id of a session.
        """
        return await _calls.get(self._http, session_id)

    async def list(self) -> builtins.list[Session]:
        """All sessions of the caller's org, newest first. Raises what every call raises, see `get`.

        The server takes no filter. Pick from the list, as by ``session.labels.get("team") == "data"``.
        """
        return await _calls.list_sessions(self._http)

    async def audit(self, session_id: str) -> builtins.list[AuditEvent]:
        """The session's audit trail so far, oldest first. Raises as `get` does."""
        return await _calls.audit(self._http, session_id)

    async def teardown(self, session_id: str) -> None:
        """Stop the workload if it runs, and reclaim everything. Idempotent. Raises as `get` does."""
        await _calls.teardown(self._http, session_id)

    async def health(self) -> Health:
        """Whether the control plane and its backend are well. Sends no credential. Raises what every call raises."""
        return await _calls.health(self._http)

    async def sweep(
        self, *, labels: Mapping[str, str], older_than: float | timedelta | None = None, dry_run: bool = False
    ) -> SweepResult:
        """Tear down every session that carries all these labels and is not torn down yet, a few at once.

        Any process can do that, for example after the one that created the sessions has crashed. A session that cannot
        be torn down does not stop the others.

        Args:
            labels: which sessions. A session may have more labels than these.
            older_than: only sessions that were created this long ago, in seconds or as a timedelta. Those whose
                creation time the server does not tell are left alone then.
            dry_run: only say which sessions would be torn down.

        Raises:
            TypeError, ValueError: an argument cannot be used, as with no `labels`, which would tear down everything.
            EnclaveError: what every call raises, see `get`.
        """
        return await Sweep(labels, older_than).run(self._http, dry_run=dry_run)

    async def request(self, method: str, path: str, *, json: Any = msgspec.UNSET) -> Any:
        """Call a route that this version has no method for. Gives its JSON as plain types, None for an empty answer.

        Credential, errors and retries are those of every call. A POST or PATCH is sent again only where a create would
        be: it cannot have been carried out.

        Args:
            method: GET, POST, PUT, PATCH or DELETE.
            path: from the control plane's base URL on, with one slash at its beginning. It may have a query.
            json: what to send as the body, if anything.

        Raises:
            TypeError, ValueError: an argument cannot be used, as with a path that has a host or a dot segment.
            EnclaveError: what every call raises, see `get`.
        """
        return await _calls.request(self._http, method, path, json)

    @overload
    async def result(self, session_id: str) -> SessionResult[Any]: ...
    @overload
    async def result(self, session_id: str, type: type[T]) -> SessionResult[T]: ...
    @overload
    async def result(self, session_id: str, type: Any) -> SessionResult[Any]: ...

    async def result(self, session_id: str, type: Any = Any) -> SessionResult[Any]:
        """Wait until the workload has ended, then give its result. A session that has ended already resolves as well.

        Asks for the result. If there is none yet, the session's stream is read until a terminal phase, across dropped
        connections. Cancel it at any time.

        Args:
            session_id: which session.
            type: what the workload's value is decoded into: a Struct, dataclass, TypedDict, Pydantic model or built-in
                type.

        Raises:
            ResultTypeError: the value does not fit `type`. The error names the path and carries the undecoded result.
            SessionTornDown: the session was torn down before there was a result.
            StreamInterrupted: the stream could not be resumed, and the session has not ended.
            TypeError: nothing can be decoded into `type`. This raises before anything is sent.
            EnclaveError: what every call raises, see `get`.
        """
        query = ResultQuery[Any](self._http, session_id, type, stream=lambda: self.stream(session_id))
        return await query.ask_first()
