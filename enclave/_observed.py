"""The one way to call an `Observer`: what it raises is logged and goes no further. Without I/O.

Requests and sessions are observed inside a ``with`` block. Leaving it ends the observation. What nobody observes is an
`ObservedRequest`, `ObservedStream` or `ObservedSession` too: the classes of these names do nothing, and those derived
from them tell an observer. So nobody has to ask whether there is one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from ._log import logger
from ._observer import Observer, RequestObservation, SessionObservation, StreamObservation
from ._routes import session_id_of
from .errors import ConfigurationError, EnclaveError
from .types import CreateSessionRequest, Session, SessionResult

T = TypeVar("T")

MAX_ADDED_HEADER_BYTES = 12 * 1024
"""Bound of the headers that an observer adds: more than trace context and baggage may take by their specifications."""

_MAX_WARNINGS = 100  # an observer that is broken in ever new ways must not fill the log

# What the SDK sends itself, what frames a message, and what would make a server answer in another way.
_RESERVED = {
    *("accept", "accept-encoding", "authorization", "cache-control", "connection", "content-encoding"),
    *("content-length", "content-type", "cookie", "expect", "host", "keep-alive", "last-event-id"),
    *("proxy-authorization", "proxy-connection", "range", "te", "trailer", "transfer-encoding", "upgrade"),
    "user-agent",
}
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[!-~](?:[\t -~]*[!-~])?")


class Guard:
    """Calls what may raise, and logs it: as a warning with its traceback the first time, at DEBUG from then on."""

    def __init__(self) -> None:
        self._shown: set[tuple[str, str]] = set()

    def call(self, method: Callable[..., T], *arguments: Any, **keywords: Any) -> T | None:
        """What `method` gives, or None if it raised."""
        try:
            return method(*arguments, **keywords)
        except Exception as error:  # noqa: BLE001 - logged. What is observed must not fail for it
            self.complain(getattr(method, "__qualname__", repr(method)), f"raised {type(error).__name__}", error)
        return None

    def complain(self, where: str, what: str, error: Exception | None = None) -> None:
        """Log what is wrong with the observer."""
        # One warning for each fault. An observer is called for every request, and would fill the log.
        is_new = (where, what) not in self._shown and len(self._shown) < _MAX_WARNINGS
        if is_new:
            self._shown.add((where, what))
        logger.log(logging.WARNING if is_new else logging.DEBUG, "observer: %s %s", where, what, exc_info=error)


class ObservedRequest:
    """A request that nobody observes."""

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What to send along with the next attempt."""
        return []

    def answered(self, status: int) -> None:
        """The attempt got a response."""

    def retrying(self, error: EnclaveError, retry: int, wait_seconds: float) -> None:
        """The attempt failed, and another one follows."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """It is over."""


class ObservedStream:
    """A stream that nobody observes."""

    def retrying(self, error: EnclaveError, retry: int, wait_seconds: float) -> None:
        """It could not be opened, and will be tried again."""

    def resuming(self, error: EnclaveError, attempt: int, wait_seconds: float, frames: int) -> None:
        """It broke, and will be resumed."""

    def ended(self, error: BaseException | None, frames: int, resumes: int) -> None:
        """Nothing more is read."""


class ObservedSession:
    """A session block that nobody observes."""

    def __init__(self) -> None:
        self.torn_down = False
        """Whether the session is gone. The block sets it."""

    def seen(self, session: Session) -> None:
        """The session as the server sees it."""

    def finished(self, result: SessionResult[Any]) -> None:
        """How the workload ended."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """The block is left."""


class Observing:
    """What begins, where nobody observes it."""

    def request(self, method: str, path: str) -> ObservedRequest:  # noqa: ARG002 - for those who observe
        """A request begins."""
        return _NOBODYS_REQUEST

    def stream(self, session_id: str) -> ObservedStream:  # noqa: ARG002
        """A stream begins."""
        return _NOBODYS_STREAM

    def session(self, request: CreateSessionRequest) -> ObservedSession:  # noqa: ARG002
        """A session block begins."""
        return ObservedSession()


# Those of a session are not shared, for each keeps whether its session is gone.
_NOBODYS_REQUEST = ObservedRequest()
_NOBODYS_STREAM = ObservedStream()


def observing(observer: Observer | None, base_url: str) -> Observing:
    """An observer, and where the client is that it observes.

    Raises:
        ConfigurationError: it is no observer, but the class of one, for instance.
    """
    if observer is None:
        return Observing()
    if not isinstance(observer, Observer):
        raise ConfigurationError(f"observer: expected an instance of enclave.Observer, got {observer!r:.100}")
    return _Observing(observer, base_url)


class _Observing(Observing):
    def __init__(self, observer: Observer, base_url: str) -> None:
        self._observer = observer
        self._guard = Guard()
        self._base_url = base_url
        self._base_path = urlsplit(base_url).path

    def request(self, method: str, path: str) -> ObservedRequest:
        session_id, route = session_id_of(path)
        observation = self._guard.call(
            self._observer.request,
            method,
            self._base_path + route,
            url=self._base_url + path,
            session_id=session_id,
        )
        return _NOBODYS_REQUEST if observation is None else _ObservedRequest(observation, self._guard)

    def stream(self, session_id: str) -> ObservedStream:
        observation = self._guard.call(self._observer.stream, session_id)
        return _NOBODYS_STREAM if observation is None else _ObservedStream(observation, self._guard)

    def session(self, request: CreateSessionRequest) -> ObservedSession:
        observation = self._guard.call(self._observer.session, request)
        return ObservedSession() if observation is None else _ObservedSession(observation, self._guard)


class _ObservedRequest(ObservedRequest):
    def __init__(self, observation: RequestObservation, guard: Guard) -> None:
        self._observation = observation
        self._guard = guard

    def headers(self) -> list[tuple[bytes, bytes]]:
        given = self._guard.call(self._observation.headers)
        return (self._guard.call(self._checked, given) or []) if given else []

    def answered(self, status: int) -> None:
        self._guard.call(self._observation.answered, status)

    def retrying(self, error: EnclaveError, retry: int, wait_seconds: float) -> None:
        self._guard.call(self._observation.retrying, error, retry=retry, wait_seconds=wait_seconds)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._guard.call(self._observation.ended, exc)

    def _checked(self, given: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
        headers: list[tuple[bytes, bytes]] = []
        size = 0
        for name, value in given.items():
            size += len(name) + len(value)
            problem = _problem(name, value, size)
            if problem:
                self._guard.complain("headers", f"gave a header that is not sent: {problem}")
            else:
                headers.append((name.encode(), value.encode()))
        return headers


def _problem(name: str, value: str, size: int) -> str | None:
    """Why a header cannot be sent. The text never holds the header's value."""
    if not _NAME.fullmatch(name):
        return "its name is no header name"
    if name.lower() in _RESERVED:
        return f"{name} is for the SDK to send"
    if not _VALUE.fullmatch(value):
        return f"{name} has a value that no header can carry"
    return f"{name} exceeds {MAX_ADDED_HEADER_BYTES} bytes in all" if size > MAX_ADDED_HEADER_BYTES else None


class _ObservedStream(ObservedStream):
    def __init__(self, observation: StreamObservation, guard: Guard) -> None:
        self._observation = observation
        self._guard = guard

    def retrying(self, error: EnclaveError, retry: int, wait_seconds: float) -> None:
        self._guard.call(self._observation.retrying, error, retry=retry, wait_seconds=wait_seconds)

    def resuming(self, error: EnclaveError, attempt: int, wait_seconds: float, frames: int) -> None:
        self._guard.call(self._observation.resuming, error, attempt=attempt, wait_seconds=wait_seconds, frames=frames)

    def ended(self, error: BaseException | None, frames: int, resumes: int) -> None:
        self._guard.call(self._observation.ended, error, frames=frames, resumes=resumes)


class _ObservedSession(ObservedSession):
    def __init__(self, observation: SessionObservation, guard: Guard) -> None:
        super().__init__()
        self._observation = observation
        self._guard = guard

    def seen(self, session: Session) -> None:
        self._guard.call(self._observation.seen, session)

    def finished(self, result: SessionResult[Any]) -> None:
        self._guard.call(self._observation.finished, result)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._guard.call(self._observation.ended, exc, torn_down=self.torn_down)
