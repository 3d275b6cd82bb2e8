"""What can go wrong with a valid call, as a tree. Imports the types and the standard library only.

EnclaveError
├── ConfigurationError                the client cannot be built from what it was given (also a ValueError)
├── UsageError                        a call that cannot work: closed client, stream not entered (also a RuntimeError)
├── APIStatusError                    the server answered, and not with 2xx
│   ├── BadRequestError               400
│   ├── AuthenticationError           401
│   ├── PermissionDeniedError         403
│   ├── NotFoundError                 404, also for a session of another org
│   ├── ConflictError                 409, the result is not ready
│   ├── PayloadTooLargeError          413
│   ├── RateLimitError                429
│   └── ServerError                   5xx
│       └── ServiceUnavailableError   503
├── APIConnectionError                no answer: the connection failed, or broke before the answer was complete
│   ├── ConnectError                  no connection was made, so the server saw nothing of the request
│   │   └── CertificateError          the server's certificate is not trusted
│   └── APITimeoutError               the answer took longer than a timeout allows (also a TimeoutError)
│       └── ConnectTimeoutError       no connection was made in time (also a ConnectError)
├── ProtocolError                     the server answered something that cannot be used
│   ├── MalformedResponseError        the body, or the content type, of a response
│   ├── EventTooLargeError            one event exceeds max_event_bytes
│   └── ResponseTooLargeError         one body or header section exceeds its bound
├── StreamError                       a stream gave less than the whole session
│   └── StreamInterrupted             it broke, and could not be resumed exactly where it broke
├── WorkInterrupted                   somebody else cancelled a task of the SDK's, though its caller was not cancelled
└── WorkloadError                     the session worked, and the workload did not
    ├── WorkloadFailed                non-zero exit code
    ├── WorkloadKilled                killed by the platform, see kill_reason
    ├── ResultTypeError               its result does not fit the type asked for
    └── SessionTornDown               torn down before there was a result

Cancellation is not an error and never turned into one. No error holds a request, a header or a credential.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .types import KillReason, SessionResult
from .types._shown import printable

__all__ = [
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "CertificateError",
    "ConfigurationError",
    "ConflictError",
    "ConnectError",
    "ConnectTimeoutError",
    "EnclaveError",
    "EventTooLargeError",
    "MalformedResponseError",
    "NotFoundError",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "ProtocolError",
    "RateLimitError",
    "ResponseTooLargeError",
    "ResultTypeError",
    "ServerError",
    "ServiceUnavailableError",
    "SessionTornDown",
    "StreamError",
    "StreamInterrupted",
    "UsageError",
    "WorkInterrupted",
    "WorkloadError",
    "WorkloadFailed",
    "WorkloadKilled",
]

MAX_EXCERPT_CHARS = 200
"""How much of a text of the server's an error shows, in characters."""
MAX_MESSAGE_CHARS = 1000
"""How much of the message of an error response an error shows, in characters."""


def excerpt(text: bytes | str, *, max_chars: int = MAX_EXCERPT_CHARS) -> str:
    """The start of a text as one printable line of at most `max_chars`.

    Whatever a server or a workload wrote goes through this on its way into an exception or a log record. A line break
    there could forge a log record, and an escape sequence could change a terminal.
    """
    head = text[: max_chars + 1]
    if isinstance(head, bytes):
        head = head.decode("utf-8", "replace")
    shown = printable(head)
    return shown[:max_chars] + "…" if len(text) > max_chars or len(shown) > max_chars else shown


def decoding_problem(error: Exception) -> str:
    """What msgspec says of a document, as one printable and bounded line. It may quote the document."""
    what, at, path = str(error).partition(" - at `$")
    return excerpt(what) + excerpt(at + path)


class EnclaveError(Exception):
    """The root: catch it to catch whatever can go wrong with a valid call.

    A call that is wrong in itself (a field of the wrong type, a negative limit) raises TypeError or ValueError, as
    everywhere in Python, before anything is sent.
    """

    operation: str = ""
    """Method and path of the request that failed, as in ``GET /sessions/s-1``. Empty if no request failed."""
    retries: int = 0
    """How many times the failed operation was tried again before this was raised."""
    create_label: str | None = None
    """Set where the answer to a create was lost and its session did not show up in time. A session that shows up later
    has this value as its label ``enclave-sdk.create``, and `EnclaveClient.sweep` finds it by that."""

    def _describe(self) -> str:
        return super().__str__()

    def __str__(self) -> str:
        text = f"{self.operation}: {self._describe()}" if self.operation else self._describe()
        if self.retries:
            text += f" (gave up after {self.retries} {'retry' if self.retries == 1 else 'retries'})"
        if self.create_label is not None:
            text += f". No session with the label enclave-sdk.create={self.create_label} has shown up"
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        # The default rebuilds from `args` alone and loses keyword-only fields on the way between processes.
        return _rebuild, (type(self), self.args, dict(self.__dict__))


class ConfigurationError(EnclaveError, ValueError):
    """The client cannot be built: no base URL, a malformed one, or a credential that no header can carry."""


class UsageError(EnclaveError, RuntimeError):
    """A call that cannot work here, whatever the server does: the client is closed, a stream was not entered."""


class APIStatusError(EnclaveError):
    """The server answered with a status other than 2xx."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        operation: str = "",
        code: str | None = None,
        body: Any = None,
        request_id: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        message = excerpt(message, max_chars=MAX_MESSAGE_CHARS)
        super().__init__(status, message)
        self.status = status
        """HTTP status code."""
        self.message = message
        """What the server said, or the reason in its status line. One printable line of bounded length."""
        self.operation = operation
        self.code = None if code is None else excerpt(code)
        """Machine-readable code of the error, if the server gives one. Printable, and of bounded length."""
        self.body = body
        """The body: decoded if it is JSON, else the start of its text. None if it is empty."""
        self.request_id = None if request_id is None else excerpt(request_id)
        """The ``x-request-id`` of the response: what the operator of the server asks for."""
        self.retry_after_seconds = retry_after_seconds
        """Seconds after which the server wants to be asked again, from ``Retry-After``."""

    def _describe(self) -> str:
        text = f"{self.status} {self.message}"
        details = {"code": self.code, "request id": self.request_id, "retry after": self.retry_after_seconds}
        shown = [f"{name} {value}" for name, value in details.items() if value is not None]
        return f"{text} ({', '.join(shown)})" if shown else text


class BadRequestError(APIStatusError):
    """400: the server refuses the request as it stands. The message says why."""


class AuthenticationError(APIStatusError):
    """401: no credential, or one the server does not know. Set ``ENCLAVE_API_KEY`` or pass ``api_key=``."""


class PermissionDeniedError(APIStatusError):
    """403: the credential is good, but lacks the scope.

    Reading takes ``sessions:read``. Creating a session and tearing one down take ``sessions:write``.
    """


class NotFoundError(APIStatusError):
    """404: no such session in this org."""


class ConflictError(APIStatusError):
    """409: not now. A result, for example, is not ready before its session has ended."""


class PayloadTooLargeError(APIStatusError):
    """413: the request is larger than the server takes."""


class RateLimitError(APIStatusError):
    """429: too many requests. See `APIStatusError.retry_after_seconds`."""


class ServerError(APIStatusError):
    """5xx: the server failed."""


class ServiceUnavailableError(ServerError):
    """503: the server cannot take the request now. See `APIStatusError.retry_after_seconds`."""


STATUS_ERRORS: Mapping[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    413: PayloadTooLargeError,
    429: RateLimitError,
    503: ServiceUnavailableError,
}
"""Which class stands for which status. Another 5xx is a `ServerError`, any other status an `APIStatusError`."""


class APIConnectionError(EnclaveError):
    """No complete answer came: the connection could not be made or broke. The request may have been carried out."""


class ConnectError(APIConnectionError):
    """No connection was made, so the server saw nothing of the request."""


class CertificateError(ConnectError):
    """The server's certificate is not trusted, and the message says why. Never retried: it would be the same again.

    For an authority of your own set ``SSL_CERT_FILE``, or pass ``ssl_context=`` to the client.
    """


class APITimeoutError(APIConnectionError, TimeoutError):
    """A timeout of the client passed before the answer was there. The request may have been carried out."""


class ConnectTimeoutError(APITimeoutError, ConnectError):
    """No connection was made in time, so the server saw nothing of the request."""


class ProtocolError(EnclaveError):
    """The server answered something that cannot be used."""


class MalformedResponseError(ProtocolError):
    """A response is not what its route promises: not JSON, another shape, another content type, no body."""


class EventTooLargeError(ProtocolError):
    """One event of a stream exceeds ``max_event_bytes``. Never retried: it would come again."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"an event exceeds max_event_bytes={limit_bytes}. Raise the bound if such events are expected")
        self.limit_bytes = limit_bytes
        """The bound that was in force, in bytes."""


class ResponseTooLargeError(ProtocolError):
    """A response is too large: its body exceeds ``max_response_bytes``, or its header section a fixed bound.

    Never retried.
    """


class StreamError(EnclaveError):
    """A stream gave less than the whole session."""


class StreamInterrupted(StreamError):
    """The stream broke and could not be resumed exactly. Every frame up to the break was delivered."""

    def __init__(self, reason: str, *, delivered: int = 0, session_id: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        """Why the stream could not go on."""
        self.delivered = delivered
        """How many frames were received, in order and each once, before the break."""
        self.session_id = session_id
        """The session whose stream it was."""

    def _describe(self) -> str:
        return f"stream of session {self.session_id} interrupted after {self.delivered} frames: {self.reason}"


class WorkInterrupted(EnclaveError):
    """Somebody else cancelled a task of the SDK's, or something that it awaited, though its caller was not cancelled.

    Only asyncio lets a program do that. Sessions inside `session()` and `fan_out()` are torn down all the same.
    """


class WorkloadError(EnclaveError):
    """The session worked, and the workload did not.

    It failed, was killed, was torn down, or returned a value of another type.
    """

    @property
    def result(self) -> SessionResult[Any] | None:
        """The result with its value undecoded (plain JSON types).

        A `SessionTornDown` has none. Every other `WorkloadError` has one.
        """
        return None


class _WithResult(WorkloadError):
    """One that always has a result, so that whoever catches it need not ask for None."""

    def __init__(self, message: str, *, result: SessionResult[Any]) -> None:
        super().__init__(message)
        self._result = result

    @property
    def result(self) -> SessionResult[Any]:
        """The result with its value undecoded (plain JSON types). Never None."""
        return self._result


class WorkloadFailed(_WithResult):
    """The workload ended with a non-zero exit code, ``result.exit_code``."""

    @property
    def exit_code(self) -> int | None:
        """The workload's exit code. None if the server sent one that cannot be read."""
        return self.result.exit_code


class WorkloadKilled(_WithResult):
    """The platform killed the workload."""

    @property
    def kill_reason(self) -> KillReason | None:
        """Which limit it exceeded, where that is known."""
        return self.result.kill_reason


def workload_error(result: SessionResult[Any]) -> WorkloadError:
    """The error for a result that is no success."""
    if result.is_killed:
        why = excerpt(result.kill_reason) if result.kill_reason else "the server does not say why"
        return WorkloadKilled(f"the platform killed the workload: {why}", result=result)
    last_line = (result.stderr or "").rstrip().rpartition("\n")[2]
    shown = f": {excerpt(last_line)}" if last_line else ""
    code = "an exit code that cannot be read" if result.exit_code is None else f"exit code {result.exit_code}"
    return WorkloadFailed(f"the workload ended with {code}{shown}", result=result)


class ResultTypeError(_WithResult):
    """The value that the workload returned does not fit the type asked for. The message names the place in it."""


class SessionTornDown(WorkloadError):
    """The session was torn down before there was a result."""


def _rebuild(cls: type[EnclaveError], args: tuple[Any, ...], state: dict[str, Any]) -> EnclaveError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error
