"""Every Python program in the README and the guides runs as it stands, and prints what the page says it prints.

A program is a block of Python with its output in a block of text behind it. Pages with blocks of another kind are run
by a test beside what they describe, which is named here. `make types` checks the types of all of them.
"""

from __future__ import annotations

import re
import subprocess
import sys
from textwrap import dedent

import pytest

import enclave
import enclave.errors
import enclave.simulator
from tests.support.programs import PAGES, ROOT, programs

RUN_ELSEWHERE = {
    "docs/testing.md": "tests/pytest_plugin/test_docs.py",
    "docs/mcp.md": "tests/mcp/test_docs.py",
    "docs/ray.md": "tests/ray/test_docs.py",
    "docs/dask.md": "tests/dask/test_docs.py",
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


PROGRESS_BARS = {
    "tqdm": """
        import io
        import anyio
        from tqdm.asyncio import tqdm as bar
        from enclave import EnclaveClient
        from enclave.simulator import Simulator

        shown = io.StringIO()

        def tqdm(*arguments, **options):
            return bar(*arguments, **options, file=shown, mininterval=0)

        async def main():
            async with Simulator().serve() as simulator:
                async with EnclaveClient(simulator.base_url, api_key=simulator.api_key) as enclave:
                    for _ in range(3):
                        simulator.script()
                    async with enclave.fan_out(["x"] * 3) as outcomes:
                        LINE
                            print(outcome.verdict)

        anyio.run(main, backend=BACKEND)
        assert "| 3/3 [" in shown.getvalue(), shown.getvalue()
        """,
    "tqdm, blocking": """
        import io
        from tqdm import tqdm as bar
        from enclave import SyncEnclaveClient
        from enclave.simulator import SyncSimulator

        shown = io.StringIO()

        def tqdm(*arguments, **options):
            return bar(*arguments, **options, file=shown, mininterval=0)

        with SyncSimulator() as simulator:
            for _ in range(3):
                simulator.script()
            with SyncEnclaveClient(simulator.base_url, api_key=simulator.api_key) as enclave:
                with enclave.fan_out(["x"] * 3) as outcomes:
                    LINE
                        print(outcome.verdict)
        assert "| 3/3 [" in shown.getvalue(), shown.getvalue()
        """,
    "rich": """
        import io
        import anyio
        from rich.console import Console
        from rich.progress import Progress
        from enclave import EnclaveClient
        from enclave.simulator import Simulator

        async def main():
            async with Simulator().serve() as simulator:
                async with EnclaveClient(simulator.base_url, api_key=simulator.api_key) as enclave:
                    for _ in range(3):
                        simulator.script()
                    with Progress(console=Console(file=io.StringIO())) as progress:
                        task = progress.add_task("sessions", total=None)
                        async with enclave.fan_out(["x"] * 3) as outcomes:
                            async for outcome in outcomes:
                                print(outcome.verdict)
                                LINE
                        shown = progress.tasks[0]
                        assert (shown.completed, shown.total) == (3, 3)

        anyio.run(main, backend=BACKEND)
        """,
}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("kind", PROGRESS_BARS)
def test_the_lines_for_progress_bars_work_as_they_stand(kind: str, backend: str) -> None:
    lines = re.findall(r"`(async for outcome in tqdm.*?|progress\.update.*?)`", PAGES["docs/fan-out.md"])
    with_tqdm, with_rich = lines
    line = {"tqdm": with_tqdm, "tqdm, blocking": with_tqdm.removeprefix("async "), "rich": with_rich}[kind]
    if kind == "rich":
        pytest.importorskip("rich", reason="the extra cli is not installed")
    program = dedent(PROGRESS_BARS[kind]).replace("LINE", line).replace("BACKEND", repr(backend))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "succeeded\n" * 3)
