"""Tables and a progress bar for a terminal, by Rich. Cells are `Text`, never markup, and hold no control character."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
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
        result.add_row(*(_cell(value) for value in row))
    return _rendered(result)


def details(fields: Mapping[str, object]) -> str:
    """Names and values, one pair on each line. A value of None is left out."""
    result = Table(box=None, pad_edge=False, show_header=False)
    result.add_column(no_wrap=True, style="bold")
    result.add_column(overflow="fold")
    for name, value in fields.items():
        if value is not None:
            result.add_row(name, _cell(value))
    return _rendered(result)


def age(since: datetime | None) -> str | None:
    """How long ago that was, in one unit."""
    if since is None:
        return None
    if since.tzinfo is None:
        since = since.replace(tzinfo=UTC)
    seconds = max(0, int((datetime.now(UTC) - since).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


@contextmanager
def progress(total: int | None) -> Generator[Callable[[int, int], None]]:
    """A progress bar on standard error. Call what it gives with the number of items done and the number failed."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[failed]} failed"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("map", total=total, failed=0)
        yield lambda done, failed: bar.update(task, completed=done, failed=failed)


def _cell(value: object) -> Text:
    """One value, harmless, and coloured if it is a phase."""
    if value is None:
        return Text("-", style="dim")
    if isinstance(value, datetime):
        return Text(value.astimezone().isoformat(" ", "milliseconds"))
    text = one_line(value)
    return Text(text, style=_STYLES.get(text, ""))


def _rendered(renderable: RenderableType) -> str:
    """The text for the terminal that standard output is."""
    console = Console(legacy_windows=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()
