"""The Python programs of the README and the guides, for the tests that run them and for the type checkers.

``python -m tests.support.programs FOLDER [PAGE...]`` writes each of them into a file of its own, of the pages that
begin with one of these paths.
"""

from __future__ import annotations

import ast
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

NOTEBOOKS = {"docs/notebooks.md"}
"""The pages whose blocks are cells of one notebook."""

_UNTYPED = {"docs/dask.md"}  # Dask itself has few types

# These are large, so the tools are installed without them, and nothing is known of their types then.
_LIBRARIES = {
    "docs/ray.md": "ray",
    "docs/recipes/fastapi.md": "fastapi",
    "docs/recipes/langchain.md": "langchain",
    "docs/recipes/openai-agents.md": "agents",
    "docs/recipes/pydantic-ai.md": "pydantic_ai",
}

_BLOCK = re.compile(r"^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)


def programs(page: str) -> list[tuple[str, str | None]]:
    """Each Python block of a page with the block of text behind it, which is its output, if there is one."""
    return [(found[1], found[2]) for found in _BLOCK.finditer(PAGES[page])]


def files(page: str) -> dict[str, str]:
    """The Python blocks of a page that begin with the name of a file, as in ``# grader.py``, by that name."""
    blocks = [program for program, _ in programs(page)]
    return {found[1]: block for block in blocks if (found := re.match(r"# (\w+\.py)\n", block))}


def is_installed(page: str) -> bool:
    """Whether what the programs of a page import is there."""
    return page not in _LIBRARIES or find_spec(_LIBRARIES[page]) is not None


def _write(folder: Path, beginnings: tuple[str, ...]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for page in PAGES:
        if page in _UNTYPED or not is_installed(page) or not page.startswith(beginnings):
            continue
        sources = [program for program, _ in programs(page)]
        if page in NOTEBOOKS:
            sources = [_one_program(sources)]
        stem = re.sub(r"\W", "_", page.removesuffix(".md"))
        named = {block: name for name, block in files(page).items()}
        for number, program in enumerate(sources):
            (folder / named.get(program, f"{stem}_{number}.py")).write_text(program)


def _one_program(cells: list[str]) -> str:
    """The cells of a notebook as one program. Type checkers know no `await` outside of a function."""
    lines: list[str] = []
    for cell in cells:
        *_, last = ast.parse(cell, mode="exec", type_comments=False).body
        # The value that a notebook shows: to a type checker it does nothing, and is a mistake.
        is_value = isinstance(last, ast.Expr) and not isinstance(last.value, ast.Call | ast.Await)
        source = cell.splitlines()
        if is_value:
            source[last.lineno - 1] = f"_ = {source[last.lineno - 1]}"
        lines += source
    return "\n".join(["async def notebook() -> None:", *(f"    {line}" if line else "" for line in lines), ""])


if __name__ == "__main__":
    _write(Path(sys.argv[1]), tuple(sys.argv[2:]) or ("",))
