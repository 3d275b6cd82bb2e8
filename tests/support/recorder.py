"""An observer without any library behind it, that writes down what it hears."""

from __future__ import annotations

from typing import Any

from enclave import EnclaveClient, Observer, RequestObservation, SessionObservation, StreamObservation
from enclave.simulator import Simulator
from tests.support import NO_WAITS

STREAM = r"/sessions/[^/]+/stream"


def client_of(sim: Simulator, observer: Observer, **options: Any) -> EnclaveClient:
    """A client that is observed, and retries without a wait."""
    return EnclaveClient(sim.base_url, api_key=sim.api_key, retry=NO_WAITS, observer=observer, **options)


def name_of(error: BaseException | None) -> str | None:
    return None if error is None else type(error).__name__


class Recorder(Observer):
    """`heard` has a tuple for each call, in order. `added` is what goes along with each request."""

    def __init__(self, added: dict[str, str] | None = None) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self.added = added or {}

    def request(self, method: str, route: str, *, url: str, session_id: str | None) -> RequestObservation:
        self.heard.append(("request", method, route, url, session_id))
        return _Request(self)

    def stream(self, session_id: str) -> StreamObservation:
        self.heard.append(("stream", session_id))
        return _Stream(self)

    def session(self, request: Any) -> SessionObservation:
        self.heard.append(("session", request.code))
        return _Session(self)

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [call for call in self.heard if call[0].partition(".")[0] == kind]


class _Request(RequestObservation):
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def headers(self) -> dict[str, str]:
        return self._recorder.added

    def answered(self, status: int) -> None:
        self._recorder.heard.append(("request.answered", status))

    def retrying(self, error: Exception, *, retry: int, wait_seconds: float) -> None:
        self._recorder.heard.append(("request.retrying", name_of(error), retry, wait_seconds))

    def ended(self, error: BaseException | None) -> None:
        self._recorder.heard.append(("request.ended", name_of(error)))


class _Stream(StreamObservation):
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def retrying(self, error: Exception, *, retry: int, wait_seconds: float) -> None:
        self._recorder.heard.append(("stream.retrying", name_of(error), retry, wait_seconds))

    def resuming(self, error: Exception, *, attempt: int, wait_seconds: float, frames: int) -> None:
        self._recorder.heard.append(("stream.resuming", name_of(error), attempt, wait_seconds, frames))

    def ended(self, error: BaseException | None, *, frames: int, resumes: int) -> None:
        is_cancellation = error is not None and not isinstance(error, Exception)
        self._recorder.heard.append(
            ("stream.ended", "cancelled" if is_cancellation else name_of(error), frames, resumes)
        )


class _Session(SessionObservation):
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def seen(self, session: Any) -> None:
        self._recorder.heard.append(("session.seen", session.id))

    def finished(self, result: Any) -> None:
        self._recorder.heard.append(("session.finished", result.exit_code))

    def ended(self, error: BaseException | None, *, torn_down: bool) -> None:
        self._recorder.heard.append(("session.ended", name_of(error), torn_down))
