"""What may import what."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import enclave

PACKAGE = Path(enclave.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# Lowest first. A module imports from lower ranks and from its own package. What is not named here is an edge, such as
# the simulator: nothing of the core imports it.
RANKS = {
    "types": 0,
    "_version": 0,
    "errors": 1,
    "_log": 2,
    "_routes": 2,
    "_observer": 2,
    "_loop": 2,
    "_groups": 2,
    "_observed": 3,
    "_owned_task": 3,
    "_tasks": 4,
    "_slots": 3,
    "_pace": 4,
    "_open_work": 5,
    "transport": 4,
    "_streams": 5,
    "_request_arguments": 6,
    "_calls": 6,
    "_outcome": 6,
    "_create": 7,
    "_result_type": 6,
    "_result": 7,
    "_session": 8,
    "_sweep": 8,
    "_fan_out": 9,
    "_client": 10,
    "_sync": 11,
    "__init__": 12,
}
# One adapter reads from asyncio's transports. The blocking client and the blocking simulator have loops of their own.
MAY_NAME_A_LOOP = {"transport/http11/_asyncio_stream.py", "_sync/_loop.py", "simulator/_sync.py"}


def part_of(path: Path) -> str:
    """The top-level module or package inside `enclave` that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def run_time_imports(path: Path) -> list[str]:
    """Absolute names of all modules that a file imports as it is imported."""
    package = ["enclave", *path.relative_to(PACKAGE).parts[:-1]]
    found = []
    for node in _statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module or ""]))
            parent = module == "enclave" or not node.module
            found += [f"{module}.{alias.name}" for alias in node.names] if parent else [module]
    return found


def _statements(node: ast.AST) -> list[ast.stmt]:
    """Statements that run when a module is imported: not those of functions, nor those for type checkers alone."""
    found: list[ast.stmt] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.stmt):
            found.append(child)
        found += _statements(child)
    return found


def all_imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").partition(".")[0])
    return names


def test_every_part_of_the_core_has_its_rank():
    assert set(RANKS) <= {part_of(path) for path in MODULES}
    documented = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    missing = [name for name in RANKS if f"{name}.py`" not in documented and f"{name}/`" not in documented]
    assert missing == ["_version"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_lies_below_it(path):
    part = part_of(path)
    for name in run_time_imports(path):
        root, _, rest = name.partition(".")
        if root != "enclave":
            continue
        imported = rest.partition(".")[0]
        if imported == part:
            continue
        if part in RANKS:
            assert imported in RANKS, f"the core imports {name}, an edge"
            assert RANKS[imported] < RANKS[part], f"{part} imports {name}, which lies above it"
        elif part == "simulator":
            assert imported in ("types", "_version"), f"the simulator imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_names_an_event_loop(path):
    if str(path.relative_to(PACKAGE)) not in MAY_NAME_A_LOOP:
        assert not all_imports(path) & {"asyncio", "trio", "uvloop", "sniffio"}


def test_httpx_is_imported_in_the_transport_alone():
    outside = [path for path in MODULES if part_of(path) in RANKS and part_of(path) != "transport"]
    assert outside
    for path in outside:
        assert not {name for name in run_time_imports(path) if name.partition(".")[0] in ("httpx", "httptools")}
        if path.name != "_client.py":  # names httpx's types, for type checkers alone
            assert "httpx" not in all_imports(path)


def test_types_and_errors_import_no_more_than_they_say():
    for path in MODULES:
        if part_of(path) in ("types", "errors"):
            foreign = {name.partition(".")[0] for name in run_time_imports(path)} & {"anyio", "httpx", "httpx_sse"}
            assert not foreign
