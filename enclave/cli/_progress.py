"""A progress bar on standard error, by Rich."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager


@contextmanager
def progress(total: int | None, *, shown: bool) -> Generator[Callable[[int, int], None]]:
    """Gives a function to call with how many are done and how many of these failed."""
    if not shown:
        yield _ignore
        return
    from rich.console import Console  # noqa: PLC0415 - only where there is a terminal
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[failed]} failed"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("map", total=total, failed=0)
        yield lambda done, failed: bar.update(task, completed=done, failed=failed)


def _ignore(_done: int, _failed: int) -> None:
    pass
