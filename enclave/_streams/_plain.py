"""Which stretches of a stream are plain, and how to take the JSON texts out of them at once. Without state.

A block is plain if it has one ``data`` line, which goes from ``{`` to ``}``, and at most one ``id`` and one ``event``
line. All functions take a *region*: bytes that begin at a block, end with a blank line, and hold no CR.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from functools import cache, cached_property

_DATA_LINE = re.compile(rb"^data(?=[:\r\n])", re.MULTILINE)

_ID, _EVENT, _DATA, _DATA_WITH_SPACE = b"id:", b"event:", b"data:", b"data: "
_ORDERS = frozenset(
    order
    for others in ((), (_EVENT,), (_ID,), (_ID, _EVENT))
    for data in (_DATA, _DATA_WITH_SPACE)
    for order in itertools.permutations((*others, data))
)


class Shape:
    """The fields of a block, in order, and what takes them out of a region of such blocks."""

    def __init__(self, fields: tuple[bytes, ...]) -> None:
        self.has_ids = _ID in fields
        self._fields = fields
        self._find_texts = _finder(fields, text=rb"(\{.*\})")

    def texts_of(self, region: bytes) -> list[bytes] | None:
        """All JSON texts of a region whose blocks are all of this shape. None for other regions."""
        texts = self._find_texts(region)
        if not texts[-1] or b"\0" in region:  # the specification ignores an id that holds NUL
            return None
        return texts

    @cached_property
    def find_ids(self) -> Callable[[bytes], list[bytes]]:
        """Gives all ids, of a region that is wholly of this shape and has ids."""
        return _finder(self._fields, id_=rb"(.*+)")


def _finder(
    fields: tuple[bytes, ...], *, id_: bytes = rb".*+", text: bytes = rb"\{.*\}"
) -> Callable[[bytes], list[bytes]]:
    lines = {_ID: rb"id: ?%b\n" % id_, _EVENT: rb"event:.*+\n", _DATA: rb"data:%b\n" % text}
    lines[_DATA_WITH_SPACE] = rb"data: %b\n" % text
    # The second branch takes whatever the first does not match, to the end, and leaves the group empty. So nothing is
    # ever skipped, and a last text that is not empty says that the whole region was of this shape.
    return re.compile(b"".join([lines[field] for field in fields]) + rb"\n|[\s\S]++").findall


@cache  # as many as there are orders
def _shape(order: tuple[bytes, ...]) -> Shape:
    return Shape(order)


def _field(line: bytes) -> bytes:
    return _DATA_WITH_SPACE if line.startswith(_DATA_WITH_SPACE) else line[: line.find(b":") + 1]


def shape_of(region: bytes) -> Shape | None:
    """The shape of a region's first block. None if that is not plain."""
    first_block = region[: region.index(b"\n\n")]
    order = tuple([_field(line) for line in first_block.split(b"\n")])
    return _shape(order) if order in _ORDERS else None


def first_id(region: bytes) -> bytes:
    """The id of the first block of a region whose blocks all have one."""
    start = len(_ID) if region.startswith(_ID) else region.index(b"\nid:") + len(b"\nid:")
    return region[start : region.index(b"\n", start)].removeprefix(b" ")


def last_id(region: bytes) -> bytes:
    """The id of the last block of a region whose blocks all have one."""
    start = region.rfind(b"\nid:") + len(b"\nid:")  # -1 and 4 make 3, if the only one is at the very start
    return region[start : region.index(b"\n", start)].removeprefix(b" ")


def middle_of(region: bytes) -> int:
    """Where a block ends near the middle of a region, for halving it. 0 if the region is one block."""
    middle = len(region) // 2
    end = region.find(b"\n\n", middle) + len(b"\n\n")
    if end < len(region):
        return end
    before = region.rfind(b"\n\n", 0, middle)
    return 0 if before < 0 else before + len(b"\n\n")


def end_of_first_event(data: bytes) -> int:
    """Where the first blank line after a data line ends, of LF or CRLF lines. 0 if there is none.

    Blocks without data before it are passed over at once: one by one, a flood of them would cost quadratic time.
    """
    line = _DATA_LINE.search(data)
    if line is None:
        return 0
    start = line.start()
    ends = [found + len(blank) for blank in (b"\n\n", b"\n\r\n") if (found := data.find(blank, start)) >= 0]
    return min(ends, default=0)


def end_of_last_block(data: bytes) -> int:
    """Where the last blank line ends, after LF or CRLF lines. 0 if there is none."""
    blanks = (b"\n\n", b"\n\r\n") if b"\r" in data else (b"\n\n",)
    ends = [found + len(blank) for blank in blanks if (found := data.rfind(blank)) >= 0]
    return max(ends, default=0)
