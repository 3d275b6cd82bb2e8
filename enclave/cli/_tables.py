"""Tables and a progress bar for a terminal, by Rich. Cells are `Text`, never markup, and hold no control character."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ._output import PHASE_COLORS, Output
from ._text import known_time, local_time, one_line


def table(output: Output, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows under a heading, for the terminal that an output is."""
    result = Table(box=None, pad_edge=False, header_style="bold")
    for position, column in enumerate(columns):
        result.add_column(column, no_wrap=position == 0, overflow="fold")
    for row in rows:
        result.add_row(*(_cell(value) for value in row))
    return _rendered(output, result)


def details(output: Output, fields: Mapping[str, object]) -> str:
    """Names and values, one pair on each line, for the terminal that an output is. A value of None is left out."""
    result = Table(box=None, pad_edge=False, show_header=False)
    result.add_column(no_wrap=True, style="bold")
    result.add_column(overflow="fold")
    for name, value in fields.items():
        if value is not None:
            result.add_row(name, _cell(value))
    return _rendered(output, result)


def age(since: datetime | None) -> str | None:
    """How long ago that was, in one unit."""
    since = known_time(since)
    if since is None:
        return None
    seconds = max(0, int((datetime.now(UTC) - since).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


@contextmanager
def progress(output: Output, *, done: int, failed: int, total: int | None) -> Generator[Callable[[int, int], None]]:
    """A progress bar on standard error. Call what it gives with the number of items done and the number failed."""
    columns = (
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]} failed"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_console(output, stderr=True), expand=True) as bar:
        task = bar.add_task("map", completed=done, failed=failed, total=total)
        yield lambda done, failed: bar.update(task, completed=done, failed=failed)


def _cell(value: object) -> Text:
    """One value, harmless, and coloured if it is a phase or an exit code, which no other number is."""
    if isinstance(value, datetime):
        time = known_time(value)
        value = time and local_time(time)
    if value is None:
        return Text("-", style="dim")
    # `Text` and not a string, which Rich would search for its markup.
    text = one_line(value)
    is_failure = isinstance(value, int) and value != 0
    return Text(text, style="red" if is_failure else PHASE_COLORS.get(text, ""))


def _console(output: Output, *, stderr: bool = False) -> Console:
    """Our own idea of width and colour, since Rich does not know the options, and takes COLUMNS=0 for a width."""
    return Console(
        stderr=stderr,
        legacy_windows=False,
        width=output.columns(),
        force_terminal=output.is_terminal,
        color_system="standard" if output.is_colored else None,
        no_color=not output.is_colored,
    )


def _rendered(output: Output, renderable: RenderableType) -> str:
    console = _console(output)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()
