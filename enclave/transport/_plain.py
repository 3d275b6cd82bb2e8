"""Which stretches of a stream are plain, and how to take the JSON texts out of them at once. Without state.

Plain is a block of ``id``, ``event`` and one ``data`` line, in any order, whose data goes from ``{`` to ``}``. All
functions take a *region*: bytes that begin at a block, end with a blank line, and hold no CR.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

ANY_PLAIN_BLOCK = re.compile(
    rb"(?:\A|(?<=\n\n))(?:(?:id|event):[^\0\n]*\n)*data: ?(\{.*\})\n(?:(?:id|event):[^\0\n]*\n)*\n"
)
"""Finds plain blocks of any shape, at the start of blocks only; group 1 is the JSON text."""

_DATA_LINE = re.compile(rb"^data(?=[:\r\n])", re.MULTILINE)
_ID_LINE = re.compile(rb"^id: ?(.+)\n", re.MULTILINE)
_TAIL_BYTES = 4096


_ID, _EVENT, _DATA, _DATA_WITH_SPACE = b"id:", b"event:", b"data:", b"data: "
_FIELD_LINE = {
    _ID: rb"id:.*+\n",
    _EVENT: rb"event:.*+\n",
    _DATA: rb"data:(\{.*\})\n",
    _DATA_WITH_SPACE: rb"data: (\{.*\})\n",
}
_Shape = tuple[bytes, ...]  # the fields of a block, in order


def _finder(shape: _Shape) -> Callable[[bytes], list[bytes]]:
    # The second branch takes whatever the first does not match, to the end, and leaves the group empty. So nothing is
    # ever skipped, and a last text that is not empty says that the whole region was of this shape.
    return re.compile(b"".join(_FIELD_LINE[field] for field in shape) + rb"\n|[\s\S]++").findall


_FINDERS = {
    shape: _finder(shape)
    for others in ((), (_EVENT,), (_ID,), (_ID, _EVENT))
    for data in (_DATA, _DATA_WITH_SPACE)
    for shape in itertools.permutations((*others, data))
}


def _field(line: bytes) -> bytes:
    return _DATA_WITH_SPACE if line.startswith(_DATA_WITH_SPACE) else line[: line.find(b":") + 1]


def texts_of_one_shape(region: bytes) -> tuple[list[bytes], bool] | None:
    """All JSON texts of a region whose blocks have one shape, and whether the shape has ids; None for other regions."""
    first_block = region[: region.index(b"\n\n")]
    shape = tuple([_field(line) for line in first_block.split(b"\n")])
    find_texts = _FINDERS.get(shape)
    if find_texts is None or b"\0" in region:  # an id that holds NUL is none
        return None
    texts = find_texts(region)
    return (texts, _ID in shape) if texts[-1] else None


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
