"""What workloads and servers say, cut to bounds. It goes into a language model's context and onto people's screens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import msgspec

T = TypeVar("T")

MAX_LINE_CHARS = 400
"""How long a line for people is, in characters: an error, or the message of a progress notification."""
MAX_NAME_CHARS = 256
"""How much is shown of a short text such as a host or a kill reason, in characters."""
MAX_ENTRIES = 20
"""How many entries are shown of a mapping, such as the labels of a session or the detail of an event."""
MAX_ENTRY_BYTES = 300
"""How large the value of such an entry is, in bytes of JSON."""
MAX_VALUE_BYTES = 64_000
"""How large the value of a run is, in bytes of JSON."""
MAX_VALUE_DEPTH = 50
"""How deep arrays and objects in a value are nested. The protocol's own library gives up soon after 200."""
MAX_LIST_BYTES = 64_000
"""How large a list of sessions or events is, in bytes of JSON."""


class Tail:
    """The end of a text that arrives in pieces."""

    def __init__(self, max_chars: int) -> None:
        self._max_chars = max_chars
        self._parts: list[str] = []
        self._kept_chars = 0
        self.total_chars = 0
        """How long the whole text was."""

    def add(self, text: str) -> None:
        """Take the next piece."""
        self.total_chars += len(text)
        self._parts.append(text[-self._max_chars :])
        self._kept_chars += len(self._parts[-1])
        if self._kept_chars > 2 * self._max_chars:
            self._parts = [self.text()]
            self._kept_chars = len(self._parts[0])

    def text(self) -> str:
        """The last `max_chars` characters."""
        return "".join(self._parts)[-self._max_chars :]

    @property
    def cut_chars(self) -> int:
        """How many characters came before them."""
        return max(0, self.total_chars - self._max_chars)


def one_line(text: str) -> str:
    """A text as one printable line of at most `MAX_LINE_CHARS`."""
    # Cut before it is looked at character by character: a server can send megabytes.
    line = " ".join(text[: 2 * MAX_LINE_CHARS].split())
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)
    return _shortened(shown, MAX_LINE_CHARS)


def short(text: str) -> str:
    """The start of a text that is usually a name."""
    return _shortened(text, MAX_NAME_CHARS)


def problem_of(value: object) -> str | None:
    """Why a value cannot be shown. None if it can."""
    size_bytes = _size_of(value)
    if size_bytes is None:
        return "it is nested too deep"
    if size_bytes > MAX_VALUE_BYTES:
        return f"it has {size_bytes} bytes, and at most {MAX_VALUE_BYTES} are shown"
    if _depth(value) > MAX_VALUE_DEPTH:
        return f"it is nested deeper than {MAX_VALUE_DEPTH} levels"
    return None


def entries_of(mapping: Mapping[str, T]) -> dict[str, T | str]:
    """The first entries of a mapping. A large value is replaced by a text that says how large it is."""
    shown: dict[str, T | str] = {short(key): _entry(mapping[key]) for key in list(mapping)[:MAX_ENTRIES]}
    if len(mapping) > MAX_ENTRIES:
        shown["…"] = f"{len(mapping) - MAX_ENTRIES} more left out"
    return shown


def fitting(items: Iterable[T]) -> list[T]:
    """The first items, as many as fit into `MAX_LIST_BYTES` together."""
    kept: list[T] = []
    room_bytes = MAX_LIST_BYTES
    for item in items:
        room_bytes -= len(msgspec.json.encode(item)) + 1
        if room_bytes < 0:
            break
        kept.append(item)
    return kept


def _size_of(value: object) -> int | None:
    """How many bytes of JSON a value is. None if it is nested too deep to encode."""
    try:
        return len(msgspec.json.encode(value))
    except RecursionError:
        return None


def _entry(value: T) -> T | str:
    size_bytes = _size_of(value)
    if size_bytes is None:
        return "… nested too deep"
    if size_bytes > MAX_ENTRY_BYTES:
        return f"… {size_bytes} bytes left out"
    return value


def _shortened(text: str, max_chars: int) -> str:
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"


def _depth(value: object) -> int:
    # Without recursion, which the depth itself could exhaust.
    depth = 0
    level: list[object] = [value]
    while level:
        level = [inner for outer in level for inner in _inside(outer)]
        depth += 1
    return depth


def _inside(value: object) -> Sequence[object]:
    if isinstance(value, dict):
        return list(cast("dict[str, Any]", value).values())
    return cast("list[object]", value) if isinstance(value, list) else ()
