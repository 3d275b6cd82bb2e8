"""Results as JSON, as text for the terminal and as Markdown for the README. All three from the same document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ._model import Benchmark, Options, Results, Target
from .contenders import CONTENDERS

Document = dict[str, Any]
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def document(benchmark: Benchmark, results: Results, options: Options) -> Document:
    """Everything about one benchmark's run that is worth keeping."""
    ran = [key for key in results.order if key in results.cells or key in results.crashed]
    rows = list(dict.fromkeys(row for row, _ in ran))
    points = list(dict.fromkeys(point for _, point in ran))
    tables = [
        {
            "title": table.title,
            "format": table.form,
            "rows": {row: {point: results.value(row, point, table.read) for point in points} for row in rows},
        }
        for table in benchmark.tables
    ]
    return {
        "title": benchmark.title,
        "how": benchmark.how,
        "points": points,
        "labels": {row: _label(row) for row in rows},
        "tables": tables,
        "measured": [{"row": row, "point": point, **cell} for (row, point), cell in results.cells.items()],
        "targets": [_target(target) for target in benchmark.targets(results, options)],
        "skipped": results.skipped,
        "crashed": [{"row": row, "point": point, "why": why} for (row, point), why in results.crashed.items()],
    }


def _label(row: str) -> str:
    return CONTENDERS[row].label if row in CONTENDERS else row


def _target(target: Target) -> Document:
    sign = ">=" if target.at_least else "<="
    return {
        "what": target.what,
        "value": target.value,
        "shown": "-" if target.value is None else f"{target.value:{target.form}}{target.unit}",
        "bound": f"{sign} {target.bound:g}{target.unit}",
        "verdict": target.verdict,
        "goal": target.goal,
        "failed": target.failed,
    }


def text(found: Document) -> str:
    """For a terminal."""
    lines = [found["title"], "=" * len(found["title"]), found["how"]]
    for table in found["tables"]:
        lines += ["", *_columns([[table["title"], *found["points"]], *_cells(found, table)])]
    if found["targets"]:
        lines += ["", *_columns([["target", "", "value", ""], *map(_verdict, found["targets"])])]
    lines += [f"skipped {row}: {why}" for row, why in found["skipped"].items()]
    lines += [f"CRASHED {row} at {', '.join(points)}: {why}" for (row, why), points in _crashes(found).items()]
    return "\n".join(lines) + "\n"


def _crashes(found: Document) -> dict[tuple[str, str], list[str]]:
    """The points at which a row crashed for one reason."""
    points: dict[tuple[str, str], list[str]] = {}
    for one in found["crashed"]:
        points.setdefault((one["row"], one["why"]), []).append(one["point"])
    return points


def _cells(found: Document, table: Document) -> Iterator[list[str]]:
    for row, values in table["rows"].items():
        shown = ("-" if values[point] is None else f"{values[point]:{table['format']}}" for point in found["points"])
        yield [found["labels"][row], *shown]


def _verdict(target: Document) -> list[str]:
    verdict = f"{target['verdict']} (a goal)" if target["goal"] else target["verdict"]
    return [target["what"], target["bound"], target["shown"], verdict]


def _columns(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(row: list[str]) -> str:
        first, *others = row
        return "  ".join(
            [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        )

    return [line(row).rstrip() for row in rows]


def markdown(stored: Document) -> str:
    """For the README: environment, tables and targets of all benchmarks."""
    return "\n\n".join([_environment(stored), *map(_section, stored["benchmarks"].values())])


def _environment(stored: Document) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in stored["environment"].items())
    return f"Taken {stored['taken']} with {versions}."


def _section(found: Document) -> str:
    parts = [f"### {found['title']}", found["how"]]
    parts += [_markdown_table([[table["title"], *found["points"]], *_cells(found, table)]) for table in found["tables"]]
    if found["targets"]:
        header = ["target", "must be", "is", "verdict"]
        parts.append(_markdown_table([header, *map(_verdict, found["targets"])]))
    parts += [f"Skipped {found['labels'].get(row, row)}: {why}." for row, why in found["skipped"].items()]
    return "\n\n".join(parts)


def _markdown_table(rows: list[list[str]]) -> str:
    header, *body = rows
    rule = ["---", *("--:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *body))


def replace_block(readme: str, block: str) -> str:
    """The README with the text between its two markers replaced.

    Raises:
        ValueError: a marker is missing.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README must hold {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{block}\n\n{END}{after}"
