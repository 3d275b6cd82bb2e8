"""Which stretches of a stream are plain, and how to take the JSON texts out of them at once. Without state.

Plain is a block of ``id``, ``event`` and one ``data`` line, in any order, whose data goes from ``{`` to ``}``. All
functions take a *region*: bytes that begin at a block, end with a blank line, and hold no CR.
"""

from __future__ import annotations

import itertools
import re

_FIELD_LINE = {b"id": rb"id:[^\0\n]*\n", b"event": rb"event:.*\n", b"data": rb"data: ?(\{.*\})\n"}
ANY_PLAIN_BLOCK = re.compile(
    rb"(?:\A|(?<=\n\n))(?:(?:id|event):[^\0\n]*\n)*data: ?(\{.*\})\n(?:(?:id|event):[^\0\n]*\n)*\n"
)
"""Finds plain blocks of any shape, at the start of blocks only; group 1 is the JSON text."""

_DATA_LINE = re.compile(rb"^data(?=[:\r\n])", re.MULTILINE)


_ID_LINE = re.compile(rb"^id: ?(.+)\n", re.MULTILINE)
_TAIL_BYTES = 4096


class _Shape:
    """The blocks that have lines of these names in this order."""

    def __init__(self, names: tuple[bytes, ...]) -> None:
        self.newlines = len(names) + 1
        self.has_id = b"id" in names
        pattern = b"^" + b"".join(_FIELD_LINE[name] for name in names) + b"\n"
        self.find_texts = re.compile(pattern, re.MULTILINE).findall


_SHAPES = {
    names: _Shape(names)
    for others in ((), (b"event",), (b"id",), (b"id", b"event"))
    for names in itertools.permutations((*others, b"data"))
}


def texts_of_one_shape(region: bytes) -> tuple[list[bytes], bool] | None:
    """All JSON texts of a region whose blocks have one shape, and whether the shape has ids; None for other regions.

    A match consumes a fixed number of newlines, and whatever a match skips has newlines too (matches begin at line
    starts). So the newlines add up exactly when nothing was skipped.
    """
    first_block = region[: region.index(b"\n\n")]
    shape = _SHAPES.get(tuple([line.partition(b":")[0] for line in first_block.split(b"\n")]))
    if shape is None:
        return None
    texts: list[bytes] = shape.find_texts(region)
    if region.count(b"\n") != len(texts) * shape.newlines:
        return None
    return texts, shape.has_id


def last_id(region: bytes, start: int, end: int) -> tuple[bytes, int] | None:
    """The last id that the plain blocks from `start` to `end` set, and where its line begins."""
    line = region.rfind(b"\nid:", max(start - 1, 0), end) + 1
    if not line and not region.startswith(b"id:", start, end):
        return None
    return region[line + len(b"id:") : region.index(b"\n", line)].removeprefix(b" "), line


def end_of_first_event(data: bytes) -> int:
    """Where the first blank line after a data line ends, of LF or CRLF lines; 0 where there is none.

    Blocks without data before it are passed over at once: one by one, a flood of them would cost quadratic time.
    """
    line = _DATA_LINE.search(data)
    if line is None:
        return 0
    start = line.start()
    ends = [found + len(blank) for blank in (b"\n\n", b"\n\r\n") if (found := data.find(blank, start)) >= 0]
    return min(ends, default=0)


def recent_ids(region: bytes) -> list[str]:
    """The ids that the last 4 KiB of a region set, in order."""
    tail = region[-_TAIL_BYTES:]
    if len(tail) < len(region):
        tail = tail[tail.find(b"\n") + 1 :]  # the first line may be cut
    return [found.decode("utf-8", "replace") for found in _ID_LINE.findall(tail)]


def end_of_last_block(data: bytes) -> int:
    """Where the last blank line ends, after LF or CRLF lines; 0 where there is none."""
    blanks = (b"\n\n", b"\n\r\n") if b"\r" in data else (b"\n\n",)
    ends = [found + len(blank) for blank in blanks if (found := data.rfind(blank)) >= 0]
    return max(ends, default=0)
