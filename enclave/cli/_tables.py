"""Tables for a terminal, by Rich. Cells are `Text`, never markup, and hold no control character."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from ._text import one_line

_STYLES = {"succeeded": "green", "running": "cyan", "pending": "cyan", "failed": "red", "killed": "red"}


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows under a heading."""
    result = Table(box=None, pad_edge=False, header_style="bold")
    for position, column in enumerate(columns):
        result.add_column(column, no_wrap=position == 0, overflow="fold")
    for row in rows:
        result.add_row(*(cell(value) for value in row))
    return _rendered(result)


def details(fields: Mapping[str, object]) -> str:
    """Names and values, one pair on a line; what is None is left out."""
    result = Table(box=None, pad_edge=False, show_header=False)
    result.add_column(no_wrap=True, style="bold")
    result.add_column(overflow="fold")
    for name, value in fields.items():
        if value is not None:
            result.add_row(name, cell(value))
    return _rendered(result)


def cell(value: object) -> Text:
    """One value, harmless, coloured where it is a phase."""
    if value is None:
        return Text("-", style="dim")
    if isinstance(value, datetime):
        return Text(value.astimezone().isoformat(" ", "milliseconds"))
    text = one_line(value)
    return Text(text, style=_STYLES.get(text, ""))


def age(since: datetime | None) -> str | None:
    """How long ago, in one unit."""
    if since is None:
        return None
    if since.tzinfo is None:
        since = since.replace(tzinfo=UTC)
    seconds = max(0, int((datetime.now(UTC) - since).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _rendered(renderable: RenderableType) -> str:
    """For the terminal that standard output is; it is written elsewhere."""
    console = Console(legacy_windows=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()
