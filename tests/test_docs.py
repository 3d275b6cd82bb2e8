"""Every Python program in the guides runs as it stands, and prints what the page says it prints.

A program is a block of Python with its output in a block of text behind it, as in the README. Pages with blocks of
another kind are run by a test beside what they describe, which is named here.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import enclave
import enclave.errors
import enclave.simulator

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
RUN_ELSEWHERE = {
    "testing.md": "tests/pytest_plugin/test_docs.py",
    "mcp.md": "tests/mcp/test_docs.py",
}
PAGES = {str(path.relative_to(DOCS)): path.read_text() for path in sorted(DOCS.rglob("*.md"))}
GUIDES = {name: text for name, text in PAGES.items() if name not in RUN_ELSEWHERE}
PROGRAM = re.compile(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PROGRAMS = [
    pytest.param(program, output, id=f"{name}-{number}")
    for name, text in GUIDES.items()
    for number, (program, output) in enumerate(PROGRAM.findall(text))
]


def fences_of_python(text: str) -> int:
    """However such a block may be written: also indented, with attributes, or as `py`."""
    return len(re.findall(r"^\s*(?:```|~~~)[ {.]*py(?:thon|con)?\b", text, re.MULTILINE))


@pytest.mark.parametrize("name", GUIDES)
def test_every_python_block_is_a_program_followed_by_its_output(name: str) -> None:
    assert len(PROGRAM.findall(PAGES[name])) == fences_of_python(PAGES[name])


@pytest.mark.parametrize(("program", "output"), PROGRAMS)
def test_a_program_of_the_guides_prints_what_the_page_says(program: str, output: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", output)


@pytest.mark.parametrize(("page", "test"), RUN_ELSEWHERE.items())
def test_a_page_with_blocks_of_another_kind_has_a_test_of_its_own(page: str, test: str) -> None:
    assert fences_of_python(PAGES[page])
    assert page in (ROOT / test).read_text()


def test_every_page_is_in_the_navigation_and_every_entry_has_a_page() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"- ([\w/-]+\.md)$", navigation, re.MULTILINE)) == sorted(PAGES)


def test_every_link_of_the_pages_leads_somewhere() -> None:
    for name, text in PAGES.items():
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
            page = (DOCS / name).parent / target if target else DOCS / name
            assert page.is_file(), (name, target)
            headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
            assert not anchor or anchor in slugs, (name, target, anchor)


def test_the_tree_of_errors_is_the_one_in_the_module() -> None:
    _, tree, _ = re.split(r"^(EnclaveError\n(?:[├│└ ].*\n)+)", PAGES["errors.md"], maxsplit=1, flags=re.MULTILINE)
    assert tree in enclave.errors.__doc__


def test_the_reference_has_every_public_name() -> None:
    entries = re.findall(r"^::: (\S+)$", "".join(PAGES.values()), re.MULTILINE)
    described = {name.rpartition(".")[2] for name in entries}
    public = {*enclave.__all__, *enclave.types.__all__, *enclave.simulator.__all__, *enclave.errors.__all__}
    assert public - described == {"__version__", "errors", "types"}
