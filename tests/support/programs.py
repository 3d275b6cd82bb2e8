"""The Python programs of the README and the guides, for the tests that run them and for the type checkers.

``python -m tests.support.programs FOLDER`` writes each of them into a file of its own.
"""

from __future__ import annotations

import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = {
    str(path.relative_to(ROOT)): path.read_text() for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
}
"""The text of each page by its path, as in ``docs/fan-out.md``."""

_UNTYPED = {"docs/dask.md"}  # Dask itself has few types

_BLOCK = re.compile(r"^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)


def programs(page: str) -> list[tuple[str, str | None]]:
    """Each Python block of a page with the block of text behind it, which is its output, if there is one."""
    return [(found[1], found[2]) for found in _BLOCK.finditer(PAGES[page])]


def _write(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for page in PAGES:
        # Ray is large, so the tools are installed without it, and nothing is known of its types then.
        if page in _UNTYPED or (page == "docs/ray.md" and find_spec("ray") is None):
            continue
        stem = re.sub(r"\W", "_", page.removesuffix(".md"))
        for number, (program, _) in enumerate(programs(page)):
            (folder / f"{stem}_{number}.py").write_text(program)


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
