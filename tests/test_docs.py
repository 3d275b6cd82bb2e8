"""Every Python program in the README and the guides runs as it stands, and prints what the page says it prints.

A program is a block of Python with its output in a block of text behind it. Pages with blocks of another kind are run
by a test beside what they describe, which is named here. `make types-programs` checks the types of all of them. A block
of `python3` is only shown: it is written for another SDK, or needs a control plane.
"""

from __future__ import annotations

import ast
import builtins
import collections.abc
import inspect
import pkgutil
import re
import subprocess
import sys
import typing
from textwrap import dedent

import pytest

import enclave
import enclave.errors
import enclave.opentelemetry
import enclave.ray
import enclave.simulator
import enclave.transport
from enclave._streams import DEFAULT_MAX_BUFFERED_BYTES
from enclave._streams._ids import MAX_HASHES, MAX_ID_BYTES
from enclave.errors import MAX_EXCERPT_CHARS, MAX_MESSAGE_CHARS
from enclave.transport import DEFAULT_MAX_EVENT_BYTES, DEFAULT_MAX_RESPONSE_BYTES
from enclave.transport.http11._transport import DEFAULT_MAX_HEADER_BYTES
from tests.support.programs import PAGES, ROOT, programs

RUN_ELSEWHERE = {
    "docs/testing.md": "tests/pytest_plugin/test_docs.py",
    "docs/mcp.md": "tests/mcp/test_docs.py",
    "docs/ray.md": "tests/ray/test_docs.py",
    "docs/dask.md": "tests/dask/test_docs.py",
    "docs/notebooks.md": "tests/test_notebooks.py",
    **{page: "tests/recipes/test_pages.py" for page in PAGES if page.startswith("docs/recipes/")},
}
RUN_HERE = [page for page in PAGES if page not in RUN_ELSEWHERE]
PROGRAMS = [
    pytest.param(program, output, id=f"{page}-{number}", marks=[] if page == "README.md" else pytest.mark.guides)
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


# The packages that the core brings, and the extra that the front page and the quickstart install for all pages.
AT_HAND = {"anyio", "enclave", "httpx", "msgspec", "enclave.simulator", "enclave.pytest_plugin", "pytest"}
INSTALLED_AS = {
    "agents": "openai-agents",
    "enclave.opentelemetry": "enclave-sdk[otel]",
    "enclave.ray": "enclave-sdk[ray]",
    "langchain_core": "langchain",
    "mcp": "enclave-sdk[mcp]",
    "opentelemetry": "opentelemetry-sdk",
    "pydantic": "fastapi",
    "pydantic_ai": "pydantic-ai-slim",
    "ray": "enclave-sdk[ray]",
}


def needed(program: str) -> set[str]:
    """What has to be installed for a program, beyond what every page needs."""
    nodes = list(ast.walk(ast.parse(program)))
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    packages = {name if name.startswith("enclave.") else name.partition(".")[0] for name in modules}
    if 'backend="trio"' in program:
        packages.add("trio")
    return {INSTALLED_AS.get(name, name) for name in packages - AT_HAND - sys.stdlib_module_names}


@pytest.mark.parametrize("page", [page for page in PAGES if programs(page)])
def test_a_page_says_what_its_programs_need_beside_the_simulator(page: str) -> None:
    said = " ".join(re.findall(r"pip install ([^`\n#]*)", PAGES[page]))
    # `'enclave-sdk[otel,simulator]'` stands for each of its extras.
    extras = {f"enclave-sdk[{extra}]" for group in re.findall(r"\[([\w,]+)\]", said) for extra in group.split(",")}
    files = set(re.findall(r"(\w+)\.py\b", PAGES[page]))  # of the page's own
    needs = {need for program, _ in programs(page) for need in needed(program)}
    assert needs - files <= extras | set(re.findall(r"[\w-]+", said))


def test_every_page_is_in_the_navigation_and_every_entry_has_a_page() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2].partition("\n\n")[0]
    entries = {f"docs/{entry}" for entry in re.findall(r"- ([\w/-]+\.md)$", navigation, re.MULTILINE)}
    elsewhere = dict(re.findall(r"^    ([\w-]+\.md): (\S+)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert entries == (PAGES.keys() - {"README.md"}) | {f"docs/{page}" for page in elsewhere}
    assert all((ROOT / source).is_file() for source in elsewhere.values())


def test_every_link_of_the_pages_leads_somewhere() -> None:
    for name, text in PAGES.items():
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)  # `Agent[int](...)` is no link
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", prose):
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
    modules = (enclave, enclave.errors, enclave.ray, enclave.simulator, enclave.transport, enclave.types)
    assert {name for module in modules for name in module.__all__} - described == {"__version__", "errors", "types"}


# What callers have of other packages, and aliases for what they pass.
KNOWN_TO_CALLERS = {"AsyncBaseTransport", "SSLContext", "ScriptStep", "TokenSource", "TracerProvider", "UnsetType"}


def test_the_reference_shows_no_constructor_that_takes_what_callers_do_not_have() -> None:
    known = KNOWN_TO_CALLERS | {*enclave.__all__, *enclave.simulator.__all__}
    known |= {*dir(builtins), *dir(collections.abc), *dir(typing)}
    checked = 0
    for name, options in re.findall(r"^::: (\S+)\n((?:    .+\n)*)", "\n".join(PAGES.values()), re.MULTILINE):
        if name.startswith("enclave.ray.") or "merge_init_into_class: false" in options:
            continue
        described = pkgutil.resolve_name(name)
        if inspect.isclass(described) and inspect.isfunction(described.__init__):
            annotations = [str(each.annotation) for each in inspect.signature(described).parameters.values()]
            assert set(re.findall(r"\b[A-Z]\w+", " ".join(annotations))) <= known, name
            checked += 1
    assert checked > 20


def test_the_bounds_in_the_guide_are_those_of_the_code() -> None:
    for shown in (
        f"{DEFAULT_MAX_EVENT_BYTES / 2**20:g} MiB an event",
        f"{DEFAULT_MAX_RESPONSE_BYTES / 2**20:g} MiB a body, after decompression",
        f"{DEFAULT_MAX_BUFFERED_BYTES / 2**10:g} KiB read and not yet taken",
        f"{MAX_HASHES:,} hashes of 8 bytes, and three ids of at most {MAX_ID_BYTES:,} bytes",
        f"{DEFAULT_MAX_HEADER_BYTES / 2**10:g} KiB a response's head",
        f"{MAX_MESSAGE_CHARS:,} characters of a server's message",
        f"{MAX_EXCERPT_CHARS} characters of a text in an error",
    ):
        assert f"| {shown}" in PAGES["docs/reliability.md"]


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


@pytest.mark.guides
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
