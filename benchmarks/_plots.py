"""What the page of the benchmarks shows: throughput, cost of decoding, and cost per stream by their number."""

from __future__ import annotations

import math
from collections.abc import Iterator

from . import _svg
from ._report import Document

WIDTH, MARGIN, LABELS = 880, 28, 220
ROW, BAR, HEADING = 22, 14, 58
GROWTH_HEIGHT = 270
LINES = {
    "enclave": _svg.BLUE,
    "enclave-trio": _svg.LIGHT_BLUE,
    "enclave-uvloop": _svg.PURPLE,
    "aiohttp-lines": _svg.BROWN,
    "httpx-json": _svg.RED,
}
HIDDEN = {"socket", "aiohttp-lines"}
"""Not a client, and the slower way to use one: in the tables only."""


def picture(stored: Document) -> str:
    """All panels that the results have data for, one below the other."""
    panels = [
        panel
        for name, draw in (("stream", _bars), ("decode", _bars), ("concurrency", _growth))
        if (panel := draw(stored["benchmarks"].get(name))) is not None
    ]
    shapes: list[str] = []
    top = 0.0
    for height, drawn in panels:
        shapes.append(f'<g transform="translate(0 {top:.0f})">{drawn}</g>')
        top += height
    return _svg.picture(WIDTH, int(top) + MARGIN // 2, "Benchmarks of the enclave client", shapes)


def _heading(found: Document, unit: str, hint: str) -> Iterator[str]:
    yield _svg.text(MARGIN, 34, found["title"], size=15, bold=True)
    yield _svg.text(WIDTH - MARGIN, 34, f"{unit} ({hint})", fill=_svg.MUTED, anchor="end")


def _bars(found: Document | None) -> tuple[float, str] | None:
    """One column of bars for each point, over the same rows."""
    if found is None:
        return None
    table = found["tables"][0]
    points = [point for point in found["points"] if "backlog" not in point]
    rows = [row for row, cells in table["rows"].items() if row not in HIDDEN and any(map(cells.get, points))]
    if not rows:
        return None
    more_is_better = "per second" in table["title"]
    shapes = list(_heading(found, table["title"], "longer is faster" if more_is_better else "shorter is faster"))
    for index, row in enumerate(rows):
        shapes.append(_svg.text(MARGIN, HEADING + 30 + index * ROW, found["labels"][row], fill=_svg.INK))
    width = (WIDTH - MARGIN - LABELS - MARGIN) / len(points)
    for column, point in enumerate(points):
        shapes += _column(table, rows, point, MARGIN + LABELS + column * width, width)
    return HEADING + 30 + len(rows) * ROW, "\n".join(shapes)


def _column(table: Document, rows: list[str], point: str, left: float, width: float) -> Iterator[str]:
    values = {row: table["rows"][row][point] for row in rows}
    longest = max(filter(None, values.values()), default=1.0)
    yield _svg.text(left, HEADING + 8, point, fill=_svg.MUTED)
    for index, (row, value) in enumerate(values.items()):
        top = HEADING + 18 + index * ROW
        if value is None:
            continue
        length = (width - 64) * value / longest
        yield _svg.bar(left, top, length, BAR, _fill(row))
        yield _svg.text(left + max(length, 1) + 6, top + 12, _svg.figure(value), size=11)


def _fill(row: str) -> str:
    return _svg.OURS if row.startswith("enclave") else _svg.NODE if row == "node" else _svg.THEIRS


def _growth(found: Document | None) -> tuple[float, str] | None:
    """Cost per stream over the number of streams, both axes logarithmic: flat is linear, a slope is worse."""
    if found is None or len(found["points"]) < 2:
        return None
    table = found["tables"][0]
    series = {
        row: [(int(point.replace(",", "")), value) for point, value in cells.items() if value]
        for row, cells in table["rows"].items()
        if row in LINES
    }
    series = {row: values for row, values in series.items() if values}
    if not series:
        return None
    axes = _Axes([point for values in series.values() for point in values])
    shapes = [*_heading(found, table["title"], "lower is better, flat is linear"), *axes.shapes()]
    shapes += [_svg.curve(map(axes.place, values), LINES[row]) for row, values in series.items()]
    ends = {row: axes.place(values[-1]) for row, values in series.items()}
    for row, (x, y) in _apart(ends).items():
        shapes.append(_svg.text(x + 9, y + 4, found["labels"][row], fill=LINES[row], size=11))
    return HEADING + GROWTH_HEIGHT + 34, "\n".join(shapes)


def _apart(ends: dict[str, tuple[float, float]], gap: float = 14.0) -> dict[str, tuple[float, float]]:
    """The same places, moved down where labels at the same x would overlap."""
    placed: dict[str, tuple[float, float]] = {}
    lowest: dict[float, float] = {}
    for row, (x, y) in sorted(ends.items(), key=lambda item: item[1][1]):
        moved = max(y, lowest.get(x, -math.inf) + gap)
        lowest[x] = moved
        placed[row] = (x, moved)
    return placed


class _Axes:
    """Logarithmic both ways, with a tick at each size and each 1, 2 or 5 times a power of ten."""

    def __init__(self, points: list[tuple[int, float]]) -> None:
        self.sizes = sorted({x for x, _ in points})
        self.low, self.high = min(y for _, y in points) / 2, max(y for _, y in points) * 1.5
        self.left, self.right = MARGIN + 44, WIDTH - MARGIN - 170
        self.top, self.bottom = HEADING, HEADING + GROWTH_HEIGHT

    def place(self, point: tuple[int, float]) -> tuple[float, float]:
        along = math.log(point[0] / self.sizes[0]) / math.log(self.sizes[-1] / self.sizes[0])
        up = math.log(point[1] / self.low) / math.log(self.high / self.low)
        return self.left + along * (self.right - self.left), self.bottom - up * (self.bottom - self.top)

    def shapes(self) -> Iterator[str]:
        for value in self._ticks():
            _, y = self.place((self.sizes[0], value))
            yield _svg.line(self.left, y, self.right, y)
            yield _svg.text(self.left - 8, y + 4, f"{value:g}", fill=_svg.MUTED, size=11, anchor="end")
        for size in self.sizes:
            x, _ = self.place((size, self.low))
            yield _svg.line(x, self.top, x, self.bottom)
            yield _svg.text(x, self.bottom + 18, f"{size:,} streams", fill=_svg.MUTED, size=11, anchor="middle")

    def _ticks(self) -> Iterator[float]:
        for power in range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1):
            for step in (1, 2, 5):
                if self.low <= step * 10.0**power <= self.high:
                    yield step * 10.0**power
