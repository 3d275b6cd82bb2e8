"""`Observer`: the interface through which a client tells what it does. Imports types and errors.

Each request, stream and session gets an observation of its own. It is told how its subject goes on and, exactly once,
how it ended. The calls of one observation come one after the other. Those of different observations interleave, in one
thread. A tracer keeps state in context variables, so it matters which task makes the calls:

- A request begins and ends in the task that makes it.
- A stream begins and ends in the task that reads it. The context of that task is a copy of the context of the
  ``async with``. What is set there is seen by the requests of the stream, and by nothing else.
- A session begins in the context of its ``async with``. What is set there is seen in the block, in tasks that are
  started in the block, and by all their requests. It may end in another context, for example if a fixture of a test
  holds the block.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import EnclaveError
from .types import CreateSessionRequest, Session, SessionResult


class RequestObservation:
    """One request, from its first attempt to the end of its last. Override the methods that you need.

    Opening a connection of a stream is a request too. It ends when the head of the response has arrived.
    """

    def headers(self) -> Mapping[str, str]:
        """Headers to add to the next attempt, for example to carry a trace further.

        A header is left out, and that is logged, if it is not valid or if the SDK sends one of the same name itself.
        """
        return {}

    def answered(self, status: int) -> None:
        """The attempt got a response with this status. The body has not been read yet."""

    def retrying(self, error: EnclaveError, *, retry: int, wait_seconds: float) -> None:
        """The attempt failed with `error`. Retry number `retry`, counted from 1, follows after a wait."""

    def ended(self, error: BaseException | None) -> None:
        """The request is over. `error` is what the caller gets, a cancellation included. None if all went well."""


class StreamObservation:
    """One stream with all its connections, from ``async with`` to the last read. Override the methods that you need.

    No method is called for a single frame or a single read, because that would slow the stream down.
    """

    def retrying(self, error: EnclaveError, *, retry: int, wait_seconds: float) -> None:
        """The stream could not be opened. Retry number `retry`, counted from 1, follows after a wait."""

    def resuming(self, error: EnclaveError, *, attempt: int, wait_seconds: float, frames: int) -> None:
        """The connection broke. The stream is resumed after a wait.

        Args:
            error: why the connection broke.
            attempt: the number of attempts in a row that brought nothing new, this one included.
            wait_seconds: how long the stream waits before it connects again.
            frames: how many frames have been received so far.
        """

    def ended(self, error: BaseException | None, *, frames: int, resumes: int) -> None:
        """Nothing more is read.

        Args:
            error: None if the end of the session was reached. Otherwise what iterating raises, or a cancellation. To
                leave the block early or to call `FrameStream.cancel` counts as a cancellation too.
            frames: how many frames were received, each counted once.
            resumes: how many times the stream was resumed.
        """


class SessionObservation:
    """One ``async with enclave.session(...)`` block, tear-down included. Override the methods that you need."""

    def seen(self, session: Session) -> None:
        """The server has shown the session: when it was created, and after each `SessionHandle.refresh`."""

    def finished(self, result: SessionResult[Any]) -> None:
        """`SessionHandle.result` has learned how the workload ended. It may do so more than once.

        A result is untrusted data.
        """

    def ended(self, error: BaseException | None, *, torn_down: bool) -> None:
        """The block is left.

        Args:
            error: the exception that leaves the block, which may be a cancellation. None if there is none.
            torn_down: whether the session is known to be gone. False if none was created.
        """


class Observer:
    """Is told what a client does. Pass one as ``EnclaveClient(observer=...)``.

    Each method returns an observation, or None if the subject is of no interest. None is the default. Derive from these
    classes and override what you need: later versions may add methods, and those of the base class do nothing.

    What a subclass may do, and what not:

    - It is called in the event loop, so it must not block. It may start tasks of its own.
    - One observer may serve several clients. Requests and streams overlap, so keep what belongs to one of them in its
      observation, whose calls come one after the other. Blocking clients call from threads of their own.
    - It may set context variables. What `session` sets is seen in the block, in tasks that are started there, and by
      their requests. What `stream` sets is seen by the requests of the stream alone.
    - It cannot change a request, apart from headers that `RequestObservation.headers` adds, and cannot stop a call. An
      exception of its own does not reach the caller. It is logged, as a warning the first time and at DEBUG from then
      on, and the call goes on.
    - What it is given may hold code, output and messages of a server, though never a credential.

    `enclave.opentelemetry` has an observer that makes spans.
    """

    def request(self, method: str, route: str, *, url: str, session_id: str | None) -> RequestObservation | None:
        """A request begins.

        Args:
            method: the HTTP method, for example ``"GET"``.
            route: the path with ``{id}`` in the place of the session's id, for example ``"/sessions/{id}/result"``.
            url: the whole URL. It holds no credential.
            session_id: the session that the path names, if it names one.
        """

    def stream(self, session_id: str) -> StreamObservation | None:
        """A stream of a session begins. It is not connected yet."""

    def session(self, request: CreateSessionRequest) -> SessionObservation | None:
        """A session block begins. The session has not been created yet."""
