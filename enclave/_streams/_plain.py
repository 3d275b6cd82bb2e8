"""Which stretches of a stream are plain, and how to take the JSON texts out of them at once. Without state.

Plain is a block of ``id``, ``event`` and one ``data`` line, in any order, whose data goes from ``{`` to ``}``. All
functions take a *region*: bytes that begin at a block, end with a blank line, and hold no CR.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import NamedTuple

ANY_PLAIN_BLOCK = re.compile(
    rb"(?:\A|(?<=\n\n))(?:(?:id|event):[^\0\n]*\n)*data: ?(\{.*\})\n(?:(?:id|event):[^\0\n]*\n)*\n"
)
"""Finds plain blocks of any shape, at the start of blocks only; group 1 is the JSON text."""

_DATA_LINE = re.compile(rb"^data(?=[:\r\n])", re.MULTILINE)
_ID_LINE = re.compile(rb"^id: ?(.*)\n", re.MULTILINE)
_MAX_LATEST_IDS = 4
_TAIL_BYTES = 4096

_ID, _EVENT, _DATA, _DATA_WITH_SPACE = b"id:", b"event:", b"data:", b"data: "
_FIELD_LINE = {
    _ID: rb"id:.*+\n",
    _EVENT: rb"event:.*+\n",
    _DATA: rb"data:(\{.*\})\n",
    _DATA_WITH_SPACE: rb"data: (\{.*\})\n",
}


class Shape(NamedTuple):
    """The fields of a block, in order, and what takes the JSON texts out of a region of such blocks."""

    find_texts: Callable[[bytes], list[bytes]]
    """All texts. The last one is empty where any of the region is of another shape."""
    has_ids: bool


def _shape(*fields: bytes) -> Shape:
    # The second branch takes whatever the first does not match, to the end, and leaves the group empty. So nothing is
    # ever skipped, and a last text that is not empty says that the whole region was of this shape.
    pattern = re.compile(b"".join(_FIELD_LINE[field] for field in fields) + rb"\n|[\s\S]++")
    return Shape(pattern.findall, _ID in fields)


_SHAPES = {
    fields: _shape(*fields)
    for others in ((), (_EVENT,), (_ID,), (_ID, _EVENT))
    for data in (_DATA, _DATA_WITH_SPACE)
    for fields in itertools.permutations((*others, data))
}


def _field(line: bytes) -> bytes:
    return _DATA_WITH_SPACE if line.startswith(_DATA_WITH_SPACE) else line[: line.find(b":") + 1]


def shape_of(region: bytes) -> Shape | None:
    """The shape of a region's first block; None for one that is not plain."""
    first_block = region[: region.index(b"\n\n")]
    return _SHAPES.get(tuple([_field(line) for line in first_block.split(b"\n")]))


def texts_of(shape: Shape, region: bytes) -> list[bytes] | None:
    """All JSON texts of a region whose blocks are all of one shape; None for other regions."""
    texts = shape.find_texts(region)
    if not texts[-1] or b"\0" in region:  # an id that holds NUL is none
        return None
    return texts


def last_id(region: bytes) -> tuple[bytes, bool] | None:
    """The last id that the plain blocks of a region set, and whether it is the last block that sets it."""
    line = region.rfind(b"\nid:") + 1
    if not line and not region.startswith(b"id:"):
        return None
    value = region[line + len(b"id:") : region.index(b"\n", line)].removeprefix(b" ")
    return value, line >= _start_of_last_block(region)


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


def ids_of(region: bytes) -> list[str]:
    """The ids that the plain blocks of a region set, in order; a block that sets an empty one has none."""
    return [found.decode("utf-8", "replace") for found in _ID_LINE.findall(region) if found]


def tail_of(region: bytes) -> bytes:
    """The last whole blocks of a region, at most 4 KiB; nothing where these are not all of it and set but a few ids."""
    if len(region) <= _TAIL_BYTES:
        return region
    tail = region[region.find(b"\n\n", len(region) - _TAIL_BYTES) + len(b"\n\n") :]
    return tail if tail.count(b"\nid:") >= _MAX_LATEST_IDS else b""


def latest_ids_of(region: bytes) -> list[str]:
    """The last few ids that the blocks of a region set, in order."""
    start = len(region)
    for _ in range(_MAX_LATEST_IDS):
        start = region.rfind(b"\nid:", 0, start)
        if start < 0:
            return ids_of(region)
    return ids_of(region[start + 1 :])


def _start_of_last_block(region: bytes) -> int:
    before = region.rfind(b"\n\n", 0, -len(b"\n\n"))
    return 0 if before < 0 else before + len(b"\n\n")


def end_of_last_block(data: bytes) -> int:
    """Where the last blank line ends, after LF or CRLF lines; 0 where there is none."""
    blanks = (b"\n\n", b"\n\r\n") if b"\r" in data else (b"\n\n",)
    ends = [found + len(blank) for blank in blanks if (found := data.rfind(blank)) >= 0]
    return max(ends, default=0)
