"""Each recipe runs as it stands and prints what its page says, and the page's own tests pass.

The pages are recipes/fastapi.md, recipes/grading.md, recipes/langchain.md, recipes/openai-agents.md,
recipes/pydantic-ai.md, recipes/recording.md and recipes/rewards.md. Those that need a framework run in
`make test-recipes`, which installs it. There mypy and pyright check all of them, but for pyright and the agent of
LangChain: `create_agent` has types that are partly unknown, which a strict check refuses.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import PAGES, files, is_installed, programs

RECIPES = [page for page in PAGES if page.startswith("docs/recipes/")]


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        check=False,
    )


def run_recipe(page: str, folder: Path) -> None:
    name, program = next(iter(files(page).items()))
    done = run(name, folder=folder)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", dict(programs(page))[program])


@pytest.mark.parametrize("page", RECIPES)
def test_the_recipe_prints_what_its_page_says(page, folder_of) -> None:
    if not is_installed(page):
        pytest.skip("the group recipes is not installed")
    run_recipe(page, folder_of(page))


@pytest.mark.parametrize("page", RECIPES)
def test_the_tests_of_the_page_pass(page, folder_of) -> None:
    if not is_installed(page):
        pytest.skip("the group recipes is not installed")
    folder = folder_of(page)
    if page == "docs/recipes/recording.md":
        run_recipe(page, folder)  # its tests read what it has recorded
    options = ("-m", "pytest", "-W", "error", "-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:trio", "-q")
    done = run(*options, list(files(page))[1], folder=folder)
    assert (done.returncode, "skipped" in done.stdout) == (0, False), done.stdout


@pytest.mark.parametrize("page", RECIPES)
def test_every_block_of_python_is_a_file_and_each_recipe_has_tests(page) -> None:
    names = list(files(page))
    assert len(names) == len(programs(page)) == PAGES[page].count("```python")
    assert names == [names[0], f"test_{names[0]}"]
