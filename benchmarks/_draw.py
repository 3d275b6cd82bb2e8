"""The command `report`: draw the pictures, and fill the README, from the results file. Measures nothing."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from . import _overview, _plots, _report

HERE = Path(__file__).parent
RESULTS, PLOT, README = HERE / "results.json", HERE / "results.svg", HERE / "README.md"
OVERVIEW = HERE / "overview.svg"


def main(arguments: list[str]) -> int:
    """Redraw from the results file."""
    parser = argparse.ArgumentParser("python -m benchmarks report", description=__doc__)
    parser.parse_args(arguments)
    draw(json.loads(RESULTS.read_text()), write_readme=True)
    return 0


def draw(stored: _report.Document, *, write_readme: bool) -> None:
    """Write both pictures, and the README's block if asked to."""
    PLOT.write_text(_plots.picture(stored))
    OVERVIEW.write_text(_overview.picture(stored))
    if write_readme:
        README.write_text(_report.replace_block(README.read_text(), _report.markdown(stored)))
