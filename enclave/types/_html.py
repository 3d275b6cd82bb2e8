"""The tables that a notebook shows: HTML without a colour, a script or a style sheet, so that they fit every theme."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from ._shown import Shown, is_nothing, printable, short

_MAX_ROWS = 50
_MAX_CELL_CHARS = 120
_MAX_FACT_CHARS = 2_000
_MAX_COUNTS = 8
# Notebooks align cells to the right. The white space of an output is part of what it says.
_STYLE = "text-align:left;vertical-align:top;white-space:pre"
_WRAPPED = _STYLE + "-wrap;overflow-wrap:anywhere"
_WRAPPED_CHARS = 40


def table_of_one(facts: Mapping[str, object]) -> str:
    """A row for each fact that says something."""
    return _table(
        f'<tr><th scope="row" style="{_STYLE}">{_text(name)}</th>{_cell(value, _MAX_FACT_CHARS)}</tr>'
        for name, value in facts.items()
        if not is_nothing(value)
    )


def table_of_many(items: Sequence[object]) -> str | None:
    """A row for each of the first items, and how many there are. None if they are no table."""
    shown = [item for _, item in zip(range(_MAX_ROWS), items, strict=False) if isinstance(item, Shown)]
    if not shown or len(shown) < min(len(items), _MAX_ROWS):
        return None
    rows = [item._row() for item in shown]  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - one of us
    names = dict.fromkeys(name for row in rows for name in row)
    columns = [name for name in names if not all(is_nothing(row.get(name)) for row in rows)]
    head = "".join(f'<th scope="col" style="{_STYLE}">{_text(name)}</th>' for name in columns)
    body = ("".join(_cell(row.get(name), _MAX_CELL_CHARS) for name in columns) for row in rows)
    return f"<p>{_summary(items)}</p>" + _table([f"<tr>{head}</tr>", *(f"<tr>{cells}</tr>" for cells in body)])


def _summary(items: Sequence[object]) -> str:
    kinds = (item._kind() for item in items if isinstance(item, Shown))  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    counts = Counter(kind for kind in kinds if kind is not None).most_common(_MAX_COUNTS)
    parts = [f"{len(items):,} in all", *(f"{count:,} {_text(kind)}" for kind, count in counts)]
    if len(items) > _MAX_ROWS:
        parts.append(f"the first {_MAX_ROWS} shown")
    return ", ".join(parts)


def _table(rows: Iterable[str]) -> str:
    return f"<table><tbody>{''.join(rows)}</tbody></table>"


def _cell(value: object, max_chars: int) -> str:
    text = _text(value, max_chars)
    return f'<td style="{_WRAPPED if len(text) > _WRAPPED_CHARS else _STYLE}">{text}</td>'


def _text(value: object, max_chars: int = _MAX_CELL_CHARS) -> str:
    """A value as text of a page. No part of it is a tag, or turns the direction of the text around it."""
    if is_nothing(value):
        return ""
    if not isinstance(value, str):
        return escape(short(value, max_chars))
    text = str.__str__(value)
    rest = len(text) - max_chars
    shown = escape(printable(text[:max_chars], keep="\n\t"))
    return f"{shown}… and {rest:,} more" if rest > 0 else shown
