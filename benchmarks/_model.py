"""What a benchmark is, and what it gives. Plain data: no process is started and nothing is printed here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

Measured = dict[str, float | list[str]]
"""What one run of one contender gave, by name."""

SMALLEST_COUNTS = frozenset({"wall", "cpu", "bytes_per_stream"})
"""What noise can only make larger, so that the smallest repeat is the truest. Of anything else the worst counts."""


@dataclass(frozen=True)
class Options:
    """How much to run."""

    quick: bool = False
    """Sizes so small that only the harness is tested; the figures mean nothing."""
    full: bool = False
    """With the rows that take minutes because the contender is quadratic."""
    repeats: int | None = None
    """Instead of each benchmark's own number."""


@dataclass(frozen=True)
class Case:
    """One cell of a table: a contender (row) at a size (point)."""

    row: str
    point: str
    run: Callable[[], Measured]
    repeats: int = 3


@dataclass
class Results:
    """The cells of a benchmark, each merged from its repeats."""

    order: list[tuple[str, str]] = field(default_factory=list)
    """Rows and points as the benchmark lists them."""
    cells: dict[tuple[str, str], Measured] = field(default_factory=dict)
    crashed: dict[tuple[str, str], str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, row: str, point: str, measured: Measured) -> None:
        self.cells[row, point] = _merge(self.cells.get((row, point), {}), measured)

    def value(self, row: str, point: str, read: Callable[[Measured], float]) -> float | None:
        cell = self.cells.get((row, point))
        return None if cell is None else read(cell)


def _merge(before: Measured, now: Measured) -> Measured:
    merged = dict(before)
    for name, value in now.items():
        old = before.get(name)
        if isinstance(value, list):
            merged[name] = sorted({*value, *(old if isinstance(old, list) else ())})
        elif isinstance(old, int | float):
            merged[name] = min(old, value) if name in SMALLEST_COUNTS else max(old, value)
        else:
            merged[name] = value
    return merged


def number(name: str) -> Callable[[Measured], float]:
    """Reads one number of a measurement."""

    def read(measured: Measured) -> float:
        value = measured[name]
        if isinstance(value, list):
            raise TypeError(f"{name} is a list")
        return value

    return read


def per(name: str, unit: str, scale: float = 1.0) -> Callable[[Measured], float]:
    """Reads one number divided by another, such as CPU seconds per stream."""
    return lambda measured: scale * number(name)(measured) / number(unit)(measured)


@dataclass(frozen=True)
class Table:
    """One view of a benchmark's cells."""

    title: str
    read: Callable[[Measured], float]
    form: str
    """A format specification, such as ".2f"."""


@dataclass(frozen=True)
class Target:
    """A number to reach in the same run."""

    what: str
    value: float | None
    """None where a contender it needs did not run."""
    bound: float
    at_least: bool
    goal: bool = False
    """Worth reaching and reported, but no failure."""
    form: str = ".2f"
    unit: str = "x"

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        reached = self.value >= self.bound if self.at_least else self.value <= self.bound
        return "reached" if reached else "missed"

    @property
    def failed(self) -> bool:
        return self.verdict == "missed" and not self.goal


def ratio(over: float | None, under: float | None) -> float | None:
    """The quotient of two cells, where both were measured."""
    return over / under if over is not None and under else None


@dataclass(frozen=True)
class Benchmark:
    """One question and how it is answered. The registry is in `suite/__init__.py`."""

    name: str
    title: str
    how: str
    """What is measured, in a sentence or two for the reader of the results."""
    cases: Callable[[Options], Iterable[Case]]
    tables: Sequence[Table]
    targets: Callable[[Results, Options], list[Target]]
