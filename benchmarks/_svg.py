"""A few shapes as SVG. Coordinates are pixels, y grows downwards."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

FONT = "ui-sans-serif, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
CARD, BORDER = "#fbfbfa", "#d5d8dc"
INK, MUTED, GRID = "#1f2328", "#59636e", "#e4e7ea"
OURS, THEIRS, NODE = "#3b6fd4", "#9aa3ad", "#3f8f5f"
BLUE, LIGHT_BLUE, PURPLE, BROWN, RED = "#1f4fb0", "#4079e0", "#8f6fd8", "#b07a1e", "#c0453c"
"""Of lines. No two look the same, and none looks like the bars."""
DARK = {
    CARD: "#161b22",
    BORDER: "#30363d",
    INK: "#e6edf3",
    MUTED: "#9198a1",
    GRID: "#2a3038",
    OURS: "#5b8def",
    THEIRS: "#6e7681",
    NODE: "#4fae75",
    BLUE: "#a9c5ff",
    PURPLE: "#b59af0",
    BROWN: "#d9a14a",
    RED: "#ef7a70",
}
"""What stands for each colour in a dark scheme. The picture brings its own card, and both follow the system."""


def text(
    x: float, y: float, words: str, *, size: int = 12, fill: str = INK, anchor: str = "start", bold: bool = False
) -> str:
    weight = ' font-weight="600"' if bold else ""
    style = f'font-size="{size}" fill="{fill}" text-anchor="{anchor}"{weight}'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'


def figure(value: float) -> str:
    """A value with three digits, those that are 0 included."""
    return f"{value:#.3g}".rstrip(".")


def bar(x: float, y: float, width: float, height: float, fill: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{height:.1f}" rx="2" fill="{fill}"/>'


def line(x1: float, y1: float, x2: float, y2: float, stroke: str = GRID) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}"/>'


def curve(points: Iterable[tuple[float, float]], stroke: str) -> str:
    """A line through points, each marked."""
    points = list(points)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{stroke}"/>' for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="2"/>{dots}'


def picture(width: int, height: int, title: str, shapes: Iterable[str]) -> str:
    """The whole file."""
    body = "\n".join(shapes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="{FONT}" role="img" aria-label="{escape(title)}">\n<title>{escape(title)}</title>\n'
        f"{_dark_style()}"
        f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8" fill="{CARD}" stroke="{BORDER}"/>\n'
        f"{body}\n</svg>\n"
    )


def _dark_style() -> str:
    rules = "".join(
        f'[fill="{light}"]{{fill:{dark}}}[stroke="{light}"]{{stroke:{dark}}}' for light, dark in DARK.items()
    )
    return f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>\n"
