"""Faults on request: what the simulator does wrong, for tests of clients. No I/O here.

Each call arms a fault for the next `times` requests, or streams, that match; then it is gone. A request meets the first
armed fault of each kind (delay, answer, loss); a stream meets the first armed fault that matches and every one armed
with `also=True` behind it. So two calls of `drop_stream` cut two connections, one after the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from email.utils import format_datetime
from typing import Literal, TypeVar

import msgspec

from ._server import error_body


class Fault(msgspec.Struct, kw_only=True):
    """An armed fault."""

    method: str | None = None
    """The method it waits for; None for any."""
    path: str | None = None
    """A regular expression that the whole path must match; None for any."""
    times: int = 1
    """How many more times it will happen."""
    hits: int = 0
    """How many times it happened."""

    def matches(self, method: str, path: str) -> bool:
        """Whether it is still armed and waits for such a request."""
        wanted = self.method is None or self.method.upper() == method
        return self.times > 0 and wanted and (self.path is None or re.fullmatch(self.path, path) is not None)

    def use(self) -> None:
        """Count one time."""
        self.times -= 1
        self.hits += 1


F = TypeVar("F", bound=Fault)


class DelayFault(Fault, kw_only=True):
    """Wait before the request is handled, or after it was handled and before its answer."""

    seconds: float
    when: Literal["before", "after"] = "before"


class AnswerFault(Fault, kw_only=True):
    """Answer in place of the route, which never sees the request."""

    status: int
    headers: dict[str, str]
    body: bytes


class LossFault(Fault, kw_only=True):
    """Cut the connection: before the route sees the request, or after it did its work."""

    handled: bool
    after_bytes: int = 0
    reset: bool = False


class StreamFault(Fault, kw_only=True):
    """Something that happens to a stream once it has sent `after_frames` frames on its connection."""

    action: Literal["drop", "reset", "end", "go_on"]
    after_frames: int = 0
    after_bytes: int = 0
    data: bytes = b""
    seconds: float = 0.0
    also: bool = False

    @property
    def needs_frame(self) -> bool:
        """Whether the next frame must be there, to be cut in two."""
        return self.after_bytes > 0


class Faults:
    """Arms faults. Paths are regular expressions for the whole path, as in ``r"/sessions/[^/]+/stream"``."""

    def __init__(self) -> None:
        self._armed: list[Fault] = []

    # Requests

    def respond(
        self,
        status: int,
        *,
        times: int = 1,
        method: str | None = None,
        path: str | None = None,
        retry_after: float | str | datetime | None = None,
        body: bytes | None = None,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Fault:
        """Answer with a status in place of the route; `retry_after` in seconds, as an HTTP date, or as any text."""
        fields = {"content-type": content_type, **(headers or {})}
        if retry_after is not None:
            fields["retry-after"] = _retry_after(retry_after)
        document = error_body(status, "a fault that was asked for") if body is None else body
        return self._arm(
            AnswerFault(method=method, path=path, times=times, status=status, headers=fields, body=document)
        )

    def delay(
        self,
        seconds: float,
        *,
        when: Literal["before", "after"] = "before",
        times: int = 1,
        method: str | None = None,
        path: str | None = None,
    ) -> Fault:
        """Wait before the route sees the request, or ``"after"`` it did its work and before its answer is sent."""
        return self._arm(DelayFault(method=method, path=path, times=times, seconds=seconds, when=when))

    def refuse(
        self, *, times: int = 1, method: str | None = None, path: str | None = None, reset: bool = False
    ) -> Fault:
        """Close the connection without an answer; the route never sees the request."""
        return self._arm(LossFault(method=method, path=path, times=times, handled=False, reset=reset))

    def lose_response(
        self,
        *,
        after_bytes: int = 0,
        times: int = 1,
        method: str | None = None,
        path: str | None = None,
        reset: bool = False,
    ) -> Fault:
        """Do the work, then close the connection: before the answer, or after so many bytes of its body."""
        fault = LossFault(method=method, path=path, times=times, handled=True, after_bytes=after_bytes, reset=reset)
        return self._arm(fault)

    # Streams

    def drop_stream(
        self,
        *,
        after_frames: int = 0,
        after_bytes: int = 0,
        times: int = 1,
        path: str | None = None,
        reset: bool = False,
        also: bool = False,
    ) -> Fault:
        """Cut the connection after so many frames and, inside the next one, so many bytes of its event."""
        return self._arm(
            StreamFault(
                path=path,
                times=times,
                action="reset" if reset else "drop",
                after_frames=after_frames,
                after_bytes=after_bytes,
                also=also,
            )
        )

    def end_stream(
        self, *, after_frames: int = 0, times: int = 1, path: str | None = None, also: bool = False
    ) -> Fault:
        """Close the response in good order after so many frames, without an `end` frame."""
        return self._arm(StreamFault(path=path, times=times, action="end", after_frames=after_frames, also=also))

    def stall_stream(
        self,
        *,
        after_frames: int = 0,
        seconds: float = 86_400.0,
        times: int = 1,
        path: str | None = None,
        also: bool = False,
    ) -> Fault:
        """Send nothing for so long, heartbeats included, after so many frames; then go on."""
        return self._arm(
            StreamFault(path=path, times=times, action="go_on", after_frames=after_frames, seconds=seconds, also=also)
        )

    def inject(
        self,
        data: bytes,
        *,
        after_frames: int = 0,
        times: int = 1,
        path: str | None = None,
        also: bool = False,
    ) -> Fault:
        """Send these bytes of SSE, as they are, after so many frames; nothing is added, so end the event yourself."""
        return self._arm(
            StreamFault(path=path, times=times, action="go_on", after_frames=after_frames, data=data, also=also)
        )

    # All

    def clear(self) -> None:
        """Disarm every fault."""
        self._armed.clear()

    @property
    def armed(self) -> list[Fault]:
        """The faults that have not happened yet, or not as often as asked."""
        return [fault for fault in self._armed if fault.times > 0]

    def take_delay(self, method: str, path: str, when: str) -> DelayFault | None:
        """Use the delay that applies to a request, if any."""
        return self._take(DelayFault, method, path, lambda fault: fault.when == when)

    def take_answer(self, method: str, path: str) -> AnswerFault | None:
        """Use the answer that applies to a request, if any."""
        return self._take(AnswerFault, method, path)

    def take_loss(self, method: str, path: str, *, handled: bool) -> LossFault | None:
        """Use the loss that applies to a request, if any."""
        return self._take(LossFault, method, path, lambda fault: fault.handled == handled)

    def take_stream(self, path: str) -> list[StreamFault]:
        """Use the faults that apply to a stream, in the order they happen."""
        taken: list[StreamFault] = []
        for fault in self._matching(StreamFault, "GET", path):
            if not taken or fault.also:
                fault.use()
                taken.append(fault)
        return sorted(taken, key=lambda fault: fault.after_frames)

    def _take(self, kind: type[F], method: str, path: str, accepts: Callable[[F], bool] = lambda _: True) -> F | None:
        fault = next(filter(accepts, self._matching(kind, method, path)), None)
        if fault is not None:
            fault.use()
        return fault

    def _matching(self, kind: type[F], method: str, path: str) -> list[F]:
        return [fault for fault in self._armed if isinstance(fault, kind) and fault.matches(method, path)]

    def _arm(self, fault: Fault) -> Fault:
        if fault.times < 1:
            raise ValueError(f"times: must be at least 1, got {fault.times}")
        self._armed = [*self.armed, fault]
        return fault


def _retry_after(value: float | str | datetime) -> str:
    return format_datetime(value, usegmt=True) if isinstance(value, datetime) else str(value)
