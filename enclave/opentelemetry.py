"""`OpenTelemetryObserver`: a span for each session, stream and request. Needs the extra `enclave-sdk[otel]`.

Imports the public names of `enclave` and the API of OpenTelemetry. The application chooses the SDK of OpenTelemetry, so
that is not imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit

try:
    from opentelemetry import context, trace
    from opentelemetry.context import Context
    from opentelemetry.propagate import inject
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, TracerProvider
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "opentelemetry":
        raise
    raise ModuleNotFoundError(
        "enclave.opentelemetry needs an extra: pip install 'enclave-sdk[otel]'", name=error.name
    ) from error

from . import (
    APIStatusError,
    CreateSessionRequest,
    EnclaveError,
    Observer,
    RequestObservation,
    Session,
    SessionObservation,
    SessionResult,
    StreamObservation,
    __version__,
)

__all__ = ["MAX_CONTENT_BYTES", "OpenTelemetryObserver"]

MAX_CONTENT_BYTES = 4096
"""How much of the code, or of an error's message, `capture_content` puts into one attribute, in bytes of UTF-8."""

_SCHEMA_URL = "https://opentelemetry.io/schemas/1.37.0"
_PORTS = {"http": 80, "https": 443}
_KEY = context.create_key("enclave-span")

Attributes = dict[str, str | int | float | bool]


class OpenTelemetryObserver(Observer):
    """Makes spans of what a client does. Pass it as ``EnclaveClient(observer=OpenTelemetryObserver())``.

    - ``enclave.session`` is a session block, from creating the session to tearing it down. It is the current span
      inside the block.
    - ``enclave.stream`` is a stream. Its parent is the span that is current where the stream is entered. The requests
      of its connections are its children. Each resume is an event, ``resume``.
    - ``GET /sessions/{id}`` and so on is a request with its retries. Each retry is an event, ``retry``. The span
      follows the semantic conventions for HTTP clients, except that all attempts are one span.

    No span holds a credential, output, a label or a result. Code and messages of errors are in spans only if
    `capture_content` is set. The guide lists all attributes and events, see [The spans][the-spans].

    Args:
        tracer_provider: where the spans go. By default the global provider, which may also be set later.
        propagate: whether requests carry the trace on to the control plane. The global propagator decides how. By
            default these are the headers ``traceparent``, ``tracestate`` and ``baggage``.
        capture_content: whether spans hold the code that is run, and the messages of errors, which may quote output.
            Each is cut to 4,096 bytes.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        *,
        propagate: bool = True,
        capture_content: bool = False,
    ) -> None:
        provider = tracer_provider or trace.get_tracer_provider()
        self._tracer = provider.get_tracer("enclave", __version__, schema_url=_SCHEMA_URL)
        self._propagate = propagate
        self._capture_content = capture_content

    def request(self, method: str, route: str, *, url: str, session_id: str | None) -> RequestObservation:
        """A span of kind client."""
        parts = urlsplit(url)
        attributes: Attributes = {
            "http.request.method": method,
            "server.address": parts.hostname or "",
            "server.port": parts.port or _PORTS[parts.scheme],
            "url.full": url,
            "url.template": route,
        }
        if session_id is not None:
            attributes["enclave.session.id"] = session_id
        span = self._start(f"{method} {route}", SpanKind.CLIENT, attributes)
        return _Request(span, propagate=self._propagate)

    def stream(self, session_id: str) -> StreamObservation:
        """A span around the requests of a stream."""
        return _Stream(self._start("enclave.stream", SpanKind.INTERNAL, {"enclave.session.id": session_id}))

    def session(self, request: CreateSessionRequest) -> SessionObservation:
        """A span around a session block."""
        attributes: Attributes = {"enclave.session.language": request.language or "python"}
        if self._capture_content:
            attributes["enclave.session.code"] = _cut(request.code)
        return _Session(self._start("enclave.session", SpanKind.INTERNAL, attributes))

    def _start(self, name: str, kind: SpanKind, attributes: Attributes) -> _CurrentSpan:
        return _CurrentSpan(self._tracer, name, kind, attributes, shows_messages=self._capture_content)


class _CurrentSpan:
    """A span that is the current one from its start until it is ended."""

    def __init__(
        self, tracer: Tracer, name: str, kind: SpanKind, attributes: Attributes, *, shows_messages: bool
    ) -> None:
        self._shows_messages = shows_messages
        self.before = _without_ended(context.get_current())
        self.span: Span = tracer.start_span(name, self.before, kind, attributes)
        self.ended = False
        self.context = context.set_value(_KEY, self, trace.set_span_in_context(self.span, self.before))
        # Without a token: a fixture or a generator may leave a block in another context than it was entered in, and
        # `detach` logs an error there. Putting the earlier context back works everywhere.
        context.attach(self.context)

    def fail(self, error: BaseException) -> None:
        """Mark the span as failed. The message is added only if `capture_content` is set."""
        self.span.set_attribute("error.type", _error_type(error))
        self.span.set_status(Status(StatusCode.ERROR, _cut(str(error)) if self._shows_messages else None))

    def end(self) -> None:
        self.ended = True
        now = context.get_current()
        if now.get(_KEY) is self:  # otherwise it is not the current span in this context
            context.attach(_without_ended(now))
        self.span.end()


def _without_ended(now: Context) -> Context:
    """The context without those spans of ours that have ended in another context and are still current in this one."""
    while isinstance(current := now.get(_KEY), _CurrentSpan) and current.ended:
        if trace.get_current_span(now) is not current.span:
            break  # a span that is not ours lies on top
        now = current.before
    return now


class _Request(RequestObservation):
    def __init__(self, current: _CurrentSpan, *, propagate: bool) -> None:
        self._current = current
        self._span = current.span
        self._propagate = propagate
        self._status: int | None = None
        self._retries = 0

    def headers(self) -> Mapping[str, str]:
        carrier: dict[str, str] = {}
        if self._propagate:
            inject(carrier, self._current.context)
        return carrier

    def answered(self, status: int) -> None:
        self._status = status

    def retrying(self, error: EnclaveError, *, retry: int, wait_seconds: float) -> None:
        self._status = None  # the next attempt may get none
        self._retries = retry
        self._span.add_event("retry", _again(error, retry, wait_seconds))

    def ended(self, error: BaseException | None) -> None:
        if self._status is not None:
            self._span.set_attribute("http.response.status_code", self._status)
        if self._retries:
            self._span.set_attribute("http.request.resend_count", self._retries)
        if error is not None:
            # By the conventions a cancelled request has failed: nobody knows what became of it.
            self._current.fail(error)
        self._current.end()


class _Stream(StreamObservation):
    def __init__(self, current: _CurrentSpan) -> None:
        self._current = current
        self._span = current.span

    def retrying(self, error: EnclaveError, *, retry: int, wait_seconds: float) -> None:
        self._span.add_event("retry", _again(error, retry, wait_seconds))

    def resuming(self, error: EnclaveError, *, attempt: int, wait_seconds: float, frames: int) -> None:
        self._span.add_event("resume", {**_again(error, attempt, wait_seconds), "enclave.stream.frames": frames})

    def ended(self, error: BaseException | None, *, frames: int, resumes: int) -> None:
        self._span.set_attribute("enclave.stream.frames", frames)
        self._span.set_attribute("enclave.stream.resumes", resumes)
        self._span.set_attribute("enclave.stream.complete", error is None)
        if error is not None and not _is_cancellation(error):  # a consumer may have seen enough
            self._current.fail(error)
        self._current.end()


class _Session(SessionObservation):
    def __init__(self, current: _CurrentSpan) -> None:
        self._current = current
        self._span = current.span

    def seen(self, session: Session) -> None:
        self._span.set_attribute("enclave.session.id", session.id)
        if session.phase is not None:
            self._span.set_attribute("enclave.session.phase", str(session.phase))
        if session.backend is not None:
            self._span.set_attribute("enclave.session.backend", session.backend)
        if session.kill_reason is not None:
            self._span.set_attribute("enclave.session.kill_reason", str(session.kill_reason))

    def finished(self, result: SessionResult[Any]) -> None:
        self._span.set_attribute("enclave.session.phase", str(result.ended_as))
        if result.exit_code is not None:
            self._span.set_attribute("enclave.session.exit_code", result.exit_code)
        if result.kill_reason is not None:
            self._span.set_attribute("enclave.session.kill_reason", str(result.kill_reason))

    def ended(self, error: BaseException | None, *, torn_down: bool) -> None:
        self._span.set_attribute("enclave.session.torn_down", torn_down)
        if error is not None and _is_cancellation(error):
            self._span.set_attribute("enclave.session.cancelled", True)
        elif error is not None:
            self._current.fail(error)
        self._current.end()


def _again(error: EnclaveError, attempt: int, wait_seconds: float) -> Attributes:
    return {"error.type": _error_type(error), "enclave.attempt": attempt, "enclave.wait_seconds": wait_seconds}


def _error_type(error: BaseException) -> str:
    """The kind of an error, which is the same on every event loop. Never its message."""
    if isinstance(error, APIStatusError):
        return str(error.status)
    return "cancelled" if _is_cancellation(error) else type(error).__qualname__.lstrip("_")


def _is_cancellation(error: BaseException) -> bool:
    """Whether an exception cancels a task or a generator, also if a task group has wrapped it.

    It does not ask the event loop, which may be gone by now.
    """
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return all(_is_cancellation(inner) for inner in group.exceptions)
    return not isinstance(error, Exception | KeyboardInterrupt | SystemExit)


def _cut(text: str) -> str:
    return text.encode("utf-8", "replace")[:MAX_CONTENT_BYTES].decode("utf-8", "ignore")
