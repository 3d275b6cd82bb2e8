"""How an object shows itself: as one short line, and in a notebook as a small table.

Much of what is shown was written by a server or a workload. So all of it has a bound, and none of it can act on the
terminal or on the page.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, ClassVar, SupportsIndex, TypeVar, cast, overload

import msgspec

T = TypeVar("T")

MAX_SHORT_CHARS = 100
"""Bound of one value in a line."""
MAX_LINES = 20
"""Bound of the lines that a list is shown in."""
_MAX_DEPTH = 20
_BRACKETS: dict[type[Any], str] = {list: "[]", tuple: "()", dict: "{}"}


class Shown(msgspec.Struct, frozen=True):
    """The base of what shows itself. By default a line has the fields that say something."""

    _in_short: ClassVar[tuple[str, ...]] = ()
    """The attributes that a line shows, and a row of a list. Empty for all fields."""

    def __repr__(self) -> str:
        facts = [(name, value) for name, value in self._row().items() if not is_nothing(value)]
        # One that shows itself within another has its own bounds.
        shown = (f"{name}={repr(value) if isinstance(value, Shown) else short(value)}" for name, value in facts)
        return f"{type(self).__name__}({', '.join(shown)})"

    def _repr_html_(self) -> str:
        from ._html import table_of_one  # noqa: PLC0415 - only a notebook needs it

        return table_of_one(self._facts())

    def _kind(self) -> str | None:
        """What a list of these counts them by."""
        return None

    def _row(self) -> dict[str, object]:
        """What it shows among others."""
        return {name: getattr(self, name) for name in self._in_short or self.__struct_fields__}

    def _facts(self) -> dict[str, object]:
        """What it shows alone."""
        row = self._row()
        return row | {name: getattr(self, name) for name in self.__struct_fields__ if name not in row}


class Listing(list[T]):
    """A list that a notebook shows as a table. Elsewhere its repr has a line for each of its first items.

    `EnclaveClient.list`, `EnclaveClient.audit` and `EnclaveClient.map` give one, and a slice of one is one. What was
    collected or filtered shows as a table in the same way:

    ::

        Listing(outcome for outcome in outcomes if outcome.verdict == "failed")
    """

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> T: ...
    @overload
    def __getitem__(self, index: slice, /) -> Listing[T]: ...

    def __getitem__(self, index: SupportsIndex | slice, /) -> T | Listing[T]:
        return Listing(super().__getitem__(index)) if isinstance(index, slice) else super().__getitem__(index)

    def __repr__(self) -> str:
        lines = [repr(item) for _, item in zip(range(MAX_LINES), self, strict=False)]
        if len(self) > MAX_LINES:
            lines.append(f"… {len(self) - MAX_LINES:,} more")
        return "[" + ",\n ".join(lines) + "]"

    def _repr_html_(self) -> str | None:
        from ._html import table_of_many  # noqa: PLC0415 - only a notebook needs it

        return table_of_many(self)


def is_nothing(value: object) -> bool:
    """Whether there is nothing to show: None, or an empty text or container."""
    return value is None or (isinstance(value, str | bytes | list | tuple | dict) and not value)


def short(value: object, max_chars: int = MAX_SHORT_CHARS) -> str:
    """The start of a value's repr, as one printable line."""
    text = ""
    for part in _parts(value, max_chars, _MAX_DEPTH):
        text += part
        if len(text) > max_chars:
            break
    text = printable(text[: max_chars + 1])
    return text if len(text) <= max_chars else text[:max_chars] + "…"


def printable(text: str, *, keep: str = "") -> str:
    """The text with all escaped that is not printable, line breaks included, but for the characters in `keep`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else ascii(char)[1:-1] for char in text)


def _parts(value: Any, max_chars: int, depth: int) -> Iterator[str]:
    """The repr of a value, part by part: whoever stops early has not paid for the rest of a large one."""
    brackets = _BRACKETS.get(cast("Any", type(value)))
    if isinstance(value, str):  # a member of an enumeration too
        yield repr(str.__str__(value[: max_chars + 1]))
    elif isinstance(value, bytes):
        yield repr(value[: max_chars + 1])
    elif isinstance(value, datetime):
        yield value.isoformat(" ", "seconds")
    elif brackets is None:
        yield repr(value)
    elif not depth:
        yield "…"
    else:
        yield brackets[0]
        for number, member in enumerate(value):
            yield ", " if number else ""
            yield from _parts(member, max_chars, depth - 1)
            if brackets == "{}":
                yield ": "
                yield from _parts(value[member], max_chars, depth - 1)
        yield "," * (brackets == "()" and len(value) == 1) + brackets[1]
