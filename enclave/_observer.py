"""`Observer`: what the client does, told to whoever watches it. The interface alone; imports types and errors.

Each request, stream and session that begins gets an observation of its own, which hears how it goes on and, exactly
once, how it ended. The calls of one observation come one after the other; those of different ones interleave, in one
thread. What runs where matters to whoever keeps state in context variables, as tracers do:

- A request is announced and ended in the task that makes it.
- A stream is announced and ended in the task that reads it, whose context is a copy of that of ``async with``; so what
  is set there is seen by the stream's requests and by nothing else.
- A session is announced in the context of ``async with``, so what is set there is seen in the block, in tasks begun in
  it, and by all requests of theirs. It may be ended in another context, as where a test's fixture holds the block.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import EnclaveError
from .types import CreateSessionRequest, Session, SessionResult


class RequestObservation:
    """One request, from its first attempt to the end of its last; override what is of interest.

    The opening of each of a stream's connections is a request too, which ends when the response's head is there.
    """

    def headers(self) -> Mapping[str, str]:
        """Asked before each attempt: headers to send along, to carry a trace further.

        Sent where a header can carry them and the SDK does not send one of this name itself; else they are left out,
        and that is logged.
        """
        return {}

    def answered(self, status: int) -> None:
        """The attempt got a response with this status; its body is not read yet."""

    def retrying(self, error: EnclaveError, *, retry: int, wait_seconds: float) -> None:
        """The attempt failed with `error`; after a wait comes retry number `retry`, counted from 1."""

    def ended(self, error: BaseException | None) -> None:
        """It is over: well, or with what is raised to the caller, a cancellation included."""


class StreamObservation:
    """One stream, across its connections, from ``async with`` until nothing more is read; override what is of interest.

    Nothing is called for a frame, nor for a read.
    """

    def retrying(self, error: EnclaveError, *, retry: int, wait_seconds: float) -> None:
        """It could not be opened; after a wait comes retry number `retry`, counted from 1."""

    def resuming(self, error: EnclaveError, *, attempt: int, wait_seconds: float, frames: int) -> None:
        """Its connection broke; after a wait it is resumed.

        Args:
            error: why it broke.
            attempt: which consecutive attempt this is that began without a new frame, from 1.
            wait_seconds: how long is waited first.
            frames: how many frames were received so far.
        """

    def ended(self, error: BaseException | None, *, frames: int, resumes: int) -> None:
        """Nothing more is read.

        Args:
            error: None at the session's end; else what iterating raises, or the cancellation that leaving the block
                early, `FrameStream.cancel` and a cancelled caller all are.
            frames: how many frames were received, each once.
            resumes: how many times it was resumed.
        """


class SessionObservation:
    """One ``async with enclave.session(...)`` block, tearing down included; override what is of interest."""

    def seen(self, session: Session) -> None:
        """The session as the server sees it: when it was created, and after each `SessionHandle.refresh`."""

    def finished(self, result: SessionResult[Any]) -> None:
        """The workload ended, and `SessionHandle.result` learned how. May come more than once. Untrusted data."""

    def ended(self, error: BaseException | None, *, torn_down: bool) -> None:
        """The block is left.

        Args:
            error: what leaves it, a cancellation included; None where nothing does.
            torn_down: whether the session is gone for sure; also False where none was created.
        """


class Observer:
    """Hears what a client does; pass one as ``EnclaveClient(observer=...)``.

    Its methods give an observation for what begins, or None for what is of no interest, which is the default. They, and
    those of the observations, are called in the event loop and must not block. What they raise does not reach the
    caller: it is logged, as a warning the first time and at DEBUG from then on, and what is observed goes on.

    `enclave.opentelemetry` has one that makes spans. New methods may be added in later versions, and do nothing unless
    overridden, so derive from these classes.
    """

    def request(self, method: str, route: str, *, url: str, session_id: str | None) -> RequestObservation | None:
        """A request begins.

        Args:
            method: as in ``"GET"``.
            route: its path with ``{id}`` for the session's id, as in ``"/sessions/{id}/result"``.
            url: where it goes; holds no credential.
            session_id: the session in the path, if there is one.
        """

    def stream(self, session_id: str) -> StreamObservation | None:
        """The stream of a session begins, before it is connected."""

    def session(self, request: CreateSessionRequest) -> SessionObservation | None:
        """A session block begins, before the session is created."""
