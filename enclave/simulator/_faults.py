"""Faults on request: what the simulator does wrong, for tests of clients. No I/O here.

Each call arms a fault for the next `times` requests, or streams, that match. After that the fault is gone. A request
meets the first armed fault of each kind: a delay, a loss, an answer, a rewriting. A stream meets the first armed fault
that matches, and every one behind it that was armed with `also=True`. So two calls of `drop_stream` cut two
connections, one after the other. Differences all apply at once.
"""

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
    """Arms faults. A path is a regular expression for the whole path, as in ``r"/sessions/[^/]+/stream"``.

    Each call returns the `Fault`, which counts its `hits`. `times` is how often it happens, and None is every time.

    Raises:
        TypeError, ValueError: an argument cannot be meant, as a path that is no regular expression. The message names
            it, and nothing is armed.
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
        """Wait ``"before"`` the route sees the request, or ``"after"`` it did its work and has an answer."""
        return self._arm(DelayFault(when=when, method=method, path=path, times=times, seconds=seconds))

    def refuse(
        self, *, times: int | None = 1, method: str | None = None, path: str | None = None, reset: bool = False
    ) -> Fault:
        """Close the connection without an answer. The route never sees the request."""
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
        """Do the work, then close the connection: before the answer, or after so many bytes of its body."""
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

        docs/simulator.md has a table of the differences. They last until `clear`, unless `times` says how many answers
        and streams show each of them.

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
        self, *, after_frames: int = 0, times: int | None = 1, path: str | None = None, also: bool = False
    ) -> Fault:
        """Close the response in good order after so many frames, without an `end` frame."""
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
        """Send nothing for so long after so many frames, not even heartbeats. Then go on."""
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
        """Send these bytes after so many frames. They are sent as they are, so they must end the event themselves."""
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
        self._faults = [*self.armed, fault]
        return fault


def _check_times(name: str, value: object) -> None:
    if _checks.whole(name, value) < 1:
        raise ValueError(f"{name}: must be at least 1, or None for every time, got {value}")


def _check_path(name: str, value: object) -> None:
    try:
        re.compile(_checks.text(name, value))
    except re.error as error:
        raise ValueError(f"{name}: {value!r} is no regular expression: {error}") from None


def _check_when(name: str, value: object) -> None:
    if value not in get_args(When):
        raise ValueError(f"{name}: expected one of {', '.join(get_args(When))}, got {value!r}")


_OPTIONAL = {"method", "path", "times"}
_CHECKS: dict[str, Callable[[str, object], object]] = {
    "method": _checks.text,
    "path": _check_path,
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
