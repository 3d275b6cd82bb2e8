"""The small picture of the README: one question a panel, in plain words, for readers who have seen no other figure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from . import _svg
from ._report import Document

WIDTH, MARGIN, GAP, LABELS = 880, 20, 40, 132
ROW, BAR, HEADING = 24, 14, 62
NAMES = {
    "enclave": "Enclave",
    "node": "Node.js",
    "aiohttp-reads": "aiohttp",
    "aiohttp-lines": "aiohttp",
    "httpx-json": "httpx",
}
"""What a reader knows the rows by. The page behind the picture has their long names."""


class _Panel(NamedTuple):
    benchmark: str
    point: str
    rows: tuple[str, ...]
    title: str
    hint: str


PANELS = (
    _Panel(
        "stream",
        "10 a write",  # where one a write keeps the reader waiting, it is the source that is measured
        ("enclave", "node", "aiohttp-reads", "httpx-json"),
        "Reading the output of one session",
        "million pieces of output a second, ten a write, more is better",
    ),
    _Panel(
        "concurrency",
        "1,000",
        ("enclave", "aiohttp-lines", "httpx-json"),
        "Reading 1,000 sessions at once",
        "milliseconds of CPU a session of 40 pieces, less is better",
    ),
)


def picture(stored: Document) -> str:
    """Both panels side by side, in the colours of a light or a dark page."""
    width = (WIDTH - 2 * MARGIN - GAP) / len(PANELS)
    shapes = [
        shape
        for place, panel in enumerate(PANELS)
        for shape in _panel(panel, stored["benchmarks"].get(panel.benchmark), MARGIN + place * (width + GAP), width)
    ]
    height = HEADING + ROW * max(len(panel.rows) for panel in PANELS) + MARGIN // 2
    return _svg.picture(WIDTH, height, "Enclave beside other clients", shapes)


def _panel(panel: _Panel, found: Document | None, left: float, width: float) -> Iterator[str]:
    if found is None:
        return
    cells = found["tables"][0]["rows"]
    values = {row: value for row in panel.rows if (value := cells.get(row, {}).get(panel.point)) is not None}
    yield _svg.text(left, 28, panel.title, size=15, bold=True)
    yield _svg.text(left, 46, panel.hint, fill=_svg.MUTED)
    longest = max(values.values(), default=1.0)
    for index, (row, value) in enumerate(values.items()):
        top = HEADING + index * ROW
        length = (width - LABELS) * value / longest
        yield _svg.text(left, top + 12, NAMES[row])
        yield _svg.bar(left + 72, top, length, BAR, _svg.OURS if row == "enclave" else _svg.THEIRS)
        yield _svg.text(left + 72 + max(length, 1) + 6, top + 12, _svg.figure(value), size=11)
