"""Faults on request: what the simulator does wrong, for tests of clients. No I/O here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from email.utils import format_datetime
from typing import Any, Literal, TypeVar, get_args

import msgspec

from . import _checks
from ._differences import Difference, Kind, affects
from ._server import Reply

FINAL_STATUSES = range(200, 600)
"""Those of HTTP below 200 are no answers yet, and h11 sends none above."""

When = Literal["before", "after"]
"""Before the route sees the request, or after the route did its work and before its answer is sent."""


class Fault(msgspec.Struct, kw_only=True):
    """An armed fault."""

    method: str | None = None
    """The method it waits for. None stands for any."""
    path: str | None = None
    """A regular expression that the whole path must match. None stands for any path."""
    times: int | None = 1
    """How many more times it will happen. None stands for every time."""
    hits: int = 0
    """How many times it happened."""

    @property
    def is_armed(self) -> bool:
        """Whether it will happen again."""
        return self.times is None or self.times > 0

    def matches(self, method: str, path: str) -> bool:
        """Whether it is still armed and waits for such a request."""
        wanted = self.method is None or self.method.upper() == method
        return self.is_armed and wanted and (self.path is None or re.fullmatch(self.path, path) is not None)

    def use(self) -> None:
        """Count one time."""
        self.hits += 1
        if self.times is not None:
            self.times -= 1


class RequestFault(Fault, kw_only=True):
    """Something that happens to a request."""

    when: When


class DelayFault(RequestFault, kw_only=True):
    """Wait."""

    seconds: float


class LossFault(RequestFault, kw_only=True):
    """Cut the connection, after so many bytes of the answer's body if there is an answer."""

    after_bytes: int = 0
    reset: bool = False


class AnswerFault(RequestFault, kw_only=True):
    """Answer this instead."""

    reply: Reply


class RewriteFault(RequestFault, kw_only=True):
    """Answer what the route answers, with its JSON changed."""

    change: Callable[[Any], Any]


class DifferenceFault(Fault, kw_only=True):
    """Answer as a server does that differs from ours."""

    difference: Difference


class StreamFault(Fault, kw_only=True):
    """Something that happens to a stream once it has sent `after_frames` frames on its connection."""

    action: Literal["drop", "reset", "end", "go_on"]
    after_frames: int = 0
    after_bytes: int = 0
    data: bytes = b""
    seconds: float = 0.0
    also: bool = False


F = TypeVar("F", bound=Fault)
R = TypeVar("R", bound=RequestFault)


class Faults:
    """Arms faults. Each call arms one, for the next requests or streams that match.

    `times` says how often it happens, and None stands for every time. After that it is gone. `method` and `path` say
    which requests match, and None stands for any. Each call but `differ` returns the `Fault`, which counts its `hits`.

    A `path` is a regular expression that must match the whole path of the request, without its query.
    ``"/sessions"`` matches creates and the list and nothing below, ``"/sessions/[^/]+"`` matches every single
    session, and ``"/sessions/[^/]+/stream"`` every stream.

    A request meets the first armed fault of each kind: a delay, a loss, an answer, a rewriting. A stream meets the
    first armed fault that matches, and every one after it that was armed with ``also=True``. So two calls of
    `drop_stream` cut two connections, one after the other. Differences all apply at once.

    Raises:
        TypeError, ValueError: an argument makes no sense, as a method that HTTP does not have, or a path that no
            request has. The message names it, and nothing is armed.
    """

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    # Requests

    def respond(
        self,
        status: int,
        *,
        when: When = "before",
        times: int | None = 1,
        method: str | None = None,
        path: str | None = None,
        retry_after: float | str | datetime | None = None,
        body: bytes | None = None,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Fault:
        """Answer with a status in place of the route.

        Args:
            status: the status. Without a `body`, the answer is an error in the server's usual shape.
            when: ``"before"`` the route sees the request, or ``"after"`` it did its work, as a failing proxy answers.
            times: how often.
            method: the method to wait for.
            path: the path to wait for.
            retry_after: the header of this name: seconds, a time that is sent as an HTTP date, or any text.
            body: the body as it is sent.
            content_type: the type of the body.
            headers: further headers.
        """
        if _checks.whole("status", status) not in FINAL_STATUSES:
            raise ValueError(f"status: expected a final status from 200 to 599, got {status}")
        if body is None:
            reply = Reply.error(status, "a fault that was asked for")
        else:
            reply = Reply(status=status, body=_checks.octets("body", body))
        reply.headers = _checks.headers({"content-type": content_type}) | _checks.headers(headers or {})
        if retry_after is not None:
            reply.headers |= _checks.headers({"retry-after": _retry_after(retry_after)})
        return self._arm(AnswerFault(when=when, method=method, path=path, times=times, reply=reply))

    def delay(
        self,
        seconds: float,
        *,
        when: When = "before",
        times: int | None = 1,
        method: str | None = None,
        path: str | None = None,
    ) -> Fault:
        """Let a request wait.

        Args:
            seconds: how long.
            when: ``"before"`` the route sees the request, or ``"after"`` it did its work and has an answer.
            times: how often.
            method: the method to wait for.
            path: the path to wait for.
        """
        return self._arm(DelayFault(when=when, method=method, path=path, times=times, seconds=seconds))

    def refuse(
        self, *, times: int | None = 1, method: str | None = None, path: str | None = None, reset: bool = False
    ) -> Fault:
        """Close the connection without an answer. The route never sees the request.

        Args:
            times: how often.
            method: the method to wait for.
            path: the path to wait for.
            reset: whether a TCP reset ends the connection, instead of an orderly close.
        """
        return self._arm(LossFault(when="before", method=method, path=path, times=times, reset=reset))

    def lose_response(
        self,
        *,
        after_bytes: int = 0,
        times: int | None = 1,
        method: str | None = None,
        path: str | None = None,
        reset: bool = False,
    ) -> Fault:
        """Do the work, then close the connection.

        Args:
            after_bytes: how many bytes of the answer's body are sent before. 0 sends no answer at all.
            times: how often.
            method: the method to wait for.
            path: the path to wait for.
            reset: whether a TCP reset ends the connection, instead of an orderly close.
        """
        return self._arm(
            LossFault(when="after", method=method, path=path, times=times, after_bytes=after_bytes, reset=reset)
        )

    def rewrite(
        self,
        change: Callable[[Any], Any],
        *,
        times: int | None = 1,
        method: str | None = None,
        path: str | None = None,
    ) -> Fault:
        """Answer what the route answers, with its JSON changed.

        ::

            simulator.faults.rewrite(lambda session: {**session, "id": 7}, method="POST", path="/sessions")

        Args:
            change: takes the decoded JSON of an answer, and returns what is encoded instead. It may return bytes, which
                are sent as they are.
            times: how often.
            method: the method to wait for.
            path: the path to wait for.
        """
        return self._arm(RewriteFault(when="after", method=method, path=path, times=times, change=change))

    def differ(self, *differences: Difference, times: int | None = None, path: str | None = None) -> None:
        """Be a server that differs from the documented one in these ways, in all answers that can show it.

        Args:
            *differences: what differs. [A table of them][playing-a-server-that-differs] is in the guide.
            times: how many answers and streams show each of them. By default they last until `clear`.
            path: the path to wait for.

        Raises:
            ValueError: there is no such difference, or none is named.
        """
        if not differences:
            raise ValueError(f"difference: name at least one of {', '.join(get_args(Difference))}")
        for name in differences:
            if name not in get_args(Difference):
                raise ValueError(f"difference: expected one of {', '.join(get_args(Difference))}, got {name!r}")
        for name in differences:
            self._arm(DifferenceFault(path=path, times=times, difference=name))

    # Streams

    def drop_stream(
        self,
        *,
        after_frames: int = 0,
        after_bytes: int = 0,
        times: int | None = 1,
        path: str | None = None,
        reset: bool = False,
        also: bool = False,
    ) -> Fault:
        """Cut the connection of a stream, between two frames or inside one.

        Args:
            after_frames: how many frames the connection carries before.
            after_bytes: how many bytes of the next frame's event are sent as well.
            times: how often.
            path: the path to wait for.
            reset: whether a TCP reset ends the connection, instead of an orderly close.
            also: whether it happens together with the faults armed before it, on the same connection.
        """
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
        self, *, after_frames: int = 0, times: int | None = 1, path: str | None = None, also: bool = False
    ) -> Fault:
        """Close the response in good order, without an `end` frame.

        Args:
            after_frames: how many frames the connection carries before.
            times: how often.
            path: the path to wait for.
            also: whether it happens together with the faults armed before it, on the same connection.
        """
        return self._arm(StreamFault(path=path, times=times, action="end", after_frames=after_frames, also=also))

    def stall_stream(
        self,
        *,
        after_frames: int = 0,
        seconds: float = 86_400.0,
        times: int | None = 1,
        path: str | None = None,
        also: bool = False,
    ) -> Fault:
        """Send nothing for a while, not even heartbeats. Then go on.

        Args:
            after_frames: how many frames the connection carries before.
            seconds: how long. A day by default.
            times: how often.
            path: the path to wait for.
            also: whether it happens together with the faults armed before it, on the same connection.
        """
        return self._arm(
            StreamFault(path=path, times=times, action="go_on", after_frames=after_frames, seconds=seconds, also=also)
        )

    def inject(
        self,
        data: bytes,
        *,
        after_frames: int = 0,
        times: int | None = 1,
        path: str | None = None,
        also: bool = False,
    ) -> Fault:
        """Send bytes of your own between two frames.

        Args:
            data: the bytes. They are sent as they are, so they must end the event themselves.
            after_frames: how many frames the connection carries before.
            times: how often.
            path: the path to wait for.
            also: whether it happens together with the faults armed before it, on the same connection.
        """
        return self._arm(
            StreamFault(path=path, times=times, action="go_on", after_frames=after_frames, data=data, also=also)
        )

    # All

    def clear(self) -> None:
        """Disarm every fault."""
        self._faults.clear()

    @property
    def armed(self) -> list[Fault]:
        """The faults that have not happened yet, or not as often as asked."""
        return [fault for fault in self._faults if fault.is_armed]

    def take(self, kind: type[R], method: str, path: str, when: When) -> R | None:
        """Use the first fault of a kind that applies to a request, if there is one."""
        for fault in self._matching(kind, method, path):
            if fault.when == when:
                fault.use()
                return fault
        return None

    def take_differences(self, kind: Kind, method: str, path: str) -> list[Difference]:
        """Use every difference that shows in an answer of this kind."""
        faults = [fault for fault in self._matching(DifferenceFault, method, path) if affects(fault.difference, kind)]
        for fault in faults:
            fault.use()
        return [fault.difference for fault in faults]

    def take_stream(self, path: str) -> list[StreamFault]:
        """Use the faults that apply to a stream, in the order they happen."""
        taken: list[StreamFault] = []
        for fault in self._matching(StreamFault, "GET", path):
            if not taken or fault.also:
                fault.use()
                taken.append(fault)
        return sorted(taken, key=lambda fault: fault.after_frames)

    def _matching(self, kind: type[F], method: str, path: str) -> list[F]:
        return [fault for fault in self._faults if isinstance(fault, kind) and fault.matches(method, path)]

    def _arm(self, fault: Fault) -> Fault:
        for field in msgspec.structs.fields(type(fault)):
            value = getattr(fault, field.name)
            if field.name in _CHECKS and (value is not None or field.name not in _OPTIONAL):
                _CHECKS[field.name](field.name, value)
        if isinstance(fault, StreamFault) and fault.path is not None:
            _checks.stream_path("path", fault.path)
        self._faults = [*self.armed, fault]
        return fault


def _check_times(name: str, value: object) -> None:
    if _checks.whole(name, value) < 1:
        raise ValueError(f"{name}: must be at least 1, or None for every time, got {value}")


def _check_when(name: str, value: object) -> None:
    if value not in get_args(When):
        raise ValueError(f"{name}: expected one of {', '.join(get_args(When))}, got {value!r}")


_OPTIONAL = {"method", "path", "times"}
_CHECKS: dict[str, Callable[[str, object], object]] = {
    "method": _checks.method,
    "path": _checks.path,
    "times": _check_times,
    "when": _check_when,
    "seconds": _checks.seconds,
    "after_frames": _checks.count,
    "after_bytes": _checks.count,
    "reset": _checks.flag,
    "also": _checks.flag,
    "data": _checks.octets,
    "change": _checks.function,
}
"""How the fields of faults are checked, by their names. Those of `_OPTIONAL` may be None."""


def _retry_after(value: float | str | datetime) -> str:
    if not isinstance(value, (int, float, str, datetime)) or isinstance(value, bool):
        raise TypeError(f"retry_after: expected seconds, a text or a datetime, got {value!r}")
    return format_datetime(value, usegmt=True) if isinstance(value, datetime) else str(value)
