"""Every Python program in the README and the guides runs as it stands, and prints what the page says it prints.

A program is a block of Python with its output in a block of text behind it. Pages with blocks of another kind are run
by a test beside what they describe, which is named here. `make types` checks the types of all of them.
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import enclave
import enclave.errors
import enclave.simulator
from tests.support.programs import PAGES, ROOT, programs

RUN_ELSEWHERE = {
    "docs/testing.md": "tests/pytest_plugin/test_docs.py",
    "docs/mcp.md": "tests/mcp/test_docs.py",
    "docs/ray.md": "tests/ray/test_docs.py",
}
RUN_HERE = [page for page in PAGES if page not in RUN_ELSEWHERE]
PROGRAMS = [
    pytest.param(program, output, id=f"{page}-{number}")
    for page in RUN_HERE
    for number, (program, output) in enumerate(programs(page))
]


def fences_of_python(text: str) -> int:
    """However such a block may be written: also indented, with attributes, or as `py`."""
    return len(re.findall(r"^\s*(?:```|~~~)[ {.]*py(?:thon|con)?\b", text, re.MULTILINE))


@pytest.mark.parametrize("page", RUN_HERE)
def test_every_python_block_is_a_program_followed_by_its_output(page: str) -> None:
    assert sum(output is not None for _, output in programs(page)) == fences_of_python(PAGES[page])


@pytest.mark.parametrize(("program", "output"), PROGRAMS)
def test_a_program_prints_what_the_page_says(program: str, output: str) -> None:
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
    assert page.removeprefix("docs/") in (ROOT / test).read_text()


def test_every_page_is_in_the_navigation_and_every_entry_has_a_page() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2].partition("\n\n")[0]
    entries = {f"docs/{entry}" for entry in re.findall(r"- ([\w/-]+\.md)$", navigation, re.MULTILINE)}
    assert entries == PAGES.keys() - {"README.md"}


def test_every_link_of_the_pages_leads_somewhere() -> None:
    for name, text in PAGES.items():
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
            page = (ROOT / name).parent / target if target else ROOT / name
            assert page.exists(), (name, target)
            if page.suffix != ".md":
                continue
            headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
            assert not anchor or anchor in slugs, (name, target, anchor)


def test_the_tree_of_errors_is_the_one_in_the_module() -> None:
    _, tree, _ = re.split(r"^(EnclaveError\n(?:[├│└ ].*\n)+)", PAGES["docs/errors.md"], maxsplit=1, flags=re.MULTILINE)
    assert tree in enclave.errors.__doc__


def test_the_reference_has_every_public_name() -> None:
    entries = re.findall(r"^::: (\S+)$", "".join(PAGES.values()), re.MULTILINE)
    described = {name.rpartition(".")[2] for name in entries}
    public = {*enclave.__all__, *enclave.types.__all__, *enclave.simulator.__all__, *enclave.errors.__all__}
    assert public - described == {"__version__", "errors", "types"}
