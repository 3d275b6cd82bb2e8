"""The log's share of what a stream could not read."""

from __future__ import annotations

from enclave._log import logger
from enclave.errors import excerpt
from enclave.types import UnknownFrame

_MAX_WARNINGS = 8
_NOTHING: frozenset[tuple[str, str | None]] = frozenset()


class UnknownFrameLog:
    """Warns of the frames of one stream that cannot be read: once for each kind and problem, and a few times at most.

    A server can send millions of such frames, and the log is no place for them all. The consumer gets every one.

    What is noted is not written at once. Handlers and filters are code of the program's, and run in the task and the
    context of the stream's reader.
    """

    __slots__ = ("_seen", "_session_id", "_unwritten")

    def __init__(self, session_id: str) -> None:
        self._session_id = session_id
        self._seen = _NOTHING
        self._unwritten: tuple[tuple[int, str, str, str], ...] = ()

    @property
    def has_unwritten(self) -> bool:
        """Whether `write` has something to do."""
        return bool(self._unwritten)

    def note(self, frame: UnknownFrame, index: int) -> None:
        """Take a frame, which is number `index` of its session, counted from 0."""
        seen = (excerpt(frame.kind), frame.problem)
        if seen in self._seen or len(self._seen) == _MAX_WARNINGS:
            return
        self._seen |= {seen}
        problem = frame.problem or "this version does not know the kind"
        more = " (more such frames of this stream are not logged)" if len(self._seen) == _MAX_WARNINGS else ""
        self._unwritten += ((index, seen[0], problem, more),)

    def write(self) -> None:
        """Write the warnings of what was noted."""
        while self._unwritten:
            index, kind, problem, more = self._unwritten[0]
            self._unwritten = self._unwritten[1:]
            text = "stream of session %s: frame %d (kind %r) cannot be read: %s%s"
            logger.warning(text, self._session_id, index, kind, problem, more)
