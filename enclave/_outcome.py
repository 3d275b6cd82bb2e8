"""What became of one request of a fan-out: `Completed` or `Errored`, and the `Verdict` on it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Generic, TypeVar

from .errors import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    EnclaveError,
    PayloadTooLargeError,
    PermissionDeniedError,
    ResultTypeError,
    UsageError,
)
from .types import CreateSessionRequest, SessionResult
from .types._shown import Shown, short

T = TypeVar("T")
RequestLike = CreateSessionRequest | str

_SHOWN_CHARS = 60


class Verdict(StrEnum):
    """Whose doing an outcome is. Only the first four say something about the workload."""

    SUCCEEDED = "succeeded"
    """The workload ended with exit code 0, and its value fits the type asked for."""
    FAILED = "failed"
    """The workload ended with another exit code."""
    KILLED = "killed"
    """The platform killed the workload, for a limit it exceeded."""
    MISTYPED = "mistyped"
    """The workload ended, and its value does not fit the type asked for."""
    INFRASTRUCTURE = "infrastructure"
    """There is no result, and the workload is not to blame: the server refused or could not be reached, a stream was
    interrupted, or somebody else tore the session down. Worth another try."""
    CLIENT = "client"
    """There is no result because of a mistake of the caller's: a request that is not valid or too large, a missing
    credential or scope, or a token callable that fails."""


class Completed(Shown, Generic[T], frozen=True, kw_only=True):
    """A workload ran, and how it ended is known. One that failed or was killed has completed as well."""

    index: int
    """The request's place in the input, from 0."""
    request: RequestLike
    """The request as it was given."""
    session_id: str
    """The session it ran in."""
    result: SessionResult[T]
    """How the workload ended, and its value."""
    verdict: Verdict
    """``succeeded``, ``failed`` or ``killed``."""
    duration_seconds: float
    """Seconds from taking the request to its result, the session's creation included."""
    teardown_error: Exception | None = None
    """Why the session could not be torn down. None where it was, which is nearly always."""

    def __repr__(self) -> str:
        facts = [*_common(self), f"exit_code={self.result.exit_code}", f"value={_short(self.result.value)}"]
        if self.teardown_error is not None:
            facts.append(f"teardown_error={_short(self.teardown_error)}")
        return f"<Completed {' '.join(facts)}>"

    def _kind(self) -> str:
        return self.verdict

    def _row(self) -> dict[str, object]:
        result = self.result
        facts = {"kill_reason": result.kill_reason, "exit_code": result.exit_code, "value": result.value}
        return _row(self) | facts | {"teardown_error": self.teardown_error}

    def _facts(self) -> dict[str, object]:
        return self._row() | {"stdout": self.result.stdout, "stderr": self.result.stderr, "request": self.request}


class Errored(Shown, frozen=True, kw_only=True):
    """There is no result of the type asked for."""

    index: int
    """The request's place in the input, from 0."""
    request: RequestLike
    """The request as it was given."""
    session_id: str | None
    """The session it ran in. None where none was created."""
    error: Exception
    """Why there is no result. A `ResultTypeError` carries the result with its value undecoded."""
    verdict: Verdict
    """``mistyped``, ``infrastructure`` or ``client``."""
    duration_seconds: float
    """Seconds from taking the request to the error, the session's creation included."""

    def __repr__(self) -> str:
        return f"<Errored {' '.join(_common(self))} error={_short(self.error)}>"

    def _kind(self) -> str:
        return self.verdict

    def _row(self) -> dict[str, object]:
        return _row(self) | {"error": self.error}


Outcome = Completed[T] | Errored
"""What became of one request: ``match`` and ``isinstance`` tell the two apart."""


def verdict_of_result(result: SessionResult[Any]) -> Verdict:
    """The verdict on a workload whose value fits."""
    return Verdict(str(result.ended_as))


_CALLERS_MISTAKES = (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    PayloadTooLargeError,
    PermissionDeniedError,
    UsageError,
)


def verdict_of_error(error: Exception) -> Verdict:
    """The verdict where there is no result of the type asked for."""
    if isinstance(error, ResultTypeError):
        return Verdict.MISTYPED
    # What is no EnclaveError comes from the caller's own code: a request that is none, a token callable, a transport.
    if isinstance(error, _CALLERS_MISTAKES) or not isinstance(error, EnclaveError):
        return Verdict.CLIENT
    return Verdict.INFRASTRUCTURE


def _common(outcome: Completed[Any] | Errored) -> list[str]:
    return [
        f"#{outcome.index}",
        str(outcome.verdict),
        f"session={outcome.session_id}" if outcome.session_id is not None else "no session",
        f"{outcome.duration_seconds:.3f} s",
    ]


def _row(outcome: Completed[Any] | Errored) -> dict[str, object]:
    return {
        "index": outcome.index,
        "verdict": outcome.verdict,
        "session_id": outcome.session_id,
        "duration_seconds": round(outcome.duration_seconds, 3),
    }


def _short(value: object) -> str:
    return short(value, _SHOWN_CHARS)
