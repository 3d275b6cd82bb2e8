"""Changes the code at random, one place at a time, and reports the changes that no test notices.

    python -m tests.mutants --count 50 --seed 1 enclave/_result.py enclave/_streams

First the tests run once with coverage, so that each change is met by the tests that run its line, and by no others.
What runs when a module is imported, such as a constant or an option of a class, is met by the tests that name it, or
run a line that does. The quick ones run first, because the first failure ends a run, and half a minute of them is
enough. The changes are made in copies of the checkout. What lives is a missing test, or a change that makes no
difference.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, cast

import coverage
import pytest

ROOT = Path(__file__).parent.parent
COVERAGE_SETTINGS = "[run]\nparallel = true\npatch = subprocess\nsource_pkgs = enclave, enclave_pytest\n"
LIVES = "LIVES "  # as wide as the others
DURATIONS = ".durations"
MAX_MEMORY_BYTES = 4 << 30  # a change can make a buffer endless
MAX_TEST_SECONDS = 30.0  # of those that run one line. More of them seldom notice more
START_SECONDS = 30.0  # of patience with pytest itself
PATIENCE = 5  # how many times longer than without a change tests may take, until they count as hung

PAIRS: list[tuple[type[Any], type[Any]]] = [
    *((ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot), (ast.In, ast.NotIn)),
    *((ast.Add, ast.Sub), (ast.Mult, ast.FloorDiv), (ast.And, ast.Or)),
]
SWAPS: dict[type[Any], Any] = {
    **dict(PAIRS),
    **{after: before for before, after in PAIRS},
    ast.Div: ast.Mult,
    ast.Mod: ast.Mult,
}
HARMLESS_DECORATORS = ("overload", "override", "final", "property", "dataclass", "contextmanager", "method", "setter")


@dataclass(frozen=True)
class Mutant:
    """One change: the text of one node, and what takes its place."""

    path: str
    node: Any
    text: str

    @property
    def line(self) -> int:
        return int(self.node.lineno)

    def __str__(self) -> str:
        before, after = (" ".join(text.split())[:100] for text in (ast.unparse(self.node), self.text))
        return f"{self.path}:{self.line}  {before}  ->  {after}"

    def apply(self, source: str) -> str:
        """The whole file with this change."""
        data = source.encode()  # columns count bytes
        lines = data.splitlines(keepends=True)
        start = sum(map(len, lines[: self.node.lineno - 1])) + self.node.col_offset
        end = sum(map(len, lines[: self.node.end_lineno - 1])) + self.node.end_col_offset
        return (data[:start] + self.text.encode() + data[end:]).decode()


@dataclass(frozen=True)
class Definition:
    """A statement that runs when its module is imported, with what it gives names to."""

    lines: range
    names: frozenset[str]


def definition_of(mutant: Mutant, source: str) -> Definition | None:
    """The statement of a module or class that a change is in. None if the change is in the body of a function."""
    lines, names = range(0), frozenset[str]()
    body: list[ast.stmt] = ast.parse(source).body
    while body:
        statement = next((each for each in body if mutant.line in _lines_of(each)), None)
        body = []
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            if mutant.line >= statement.body[0].lineno:
                return None
            lines, names = _lines_of(statement), frozenset({statement.name})
        elif isinstance(statement, ast.ClassDef):
            lines, names = _lines_of(statement), frozenset({statement.name})
            body = statement.body
        elif statement is not None:
            stored = {each.id for each in ast.walk(statement) if isinstance(each, ast.Name) and _is_stored(each)}
            lines, names = _lines_of(statement), frozenset(stored) or names
    return Definition(lines, names)


def _lines_of(statement: ast.stmt) -> range:
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    return range(min([statement.lineno, *(each.lineno for each in decorators)]), (statement.end_lineno or 0) + 1)


def _is_stored(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


def mutants_of(path: str, source: str) -> list[Mutant]:
    """Every change that is known for a file."""
    return [Mutant(path, node, text) for each in _code(ast.parse(source)) for node, text in _changes(each)]


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that do something when the program runs: no annotations, no docstrings."""
    yield node
    if isinstance(node, ast.keyword) and _is_bool(node.value):
        return  # changed as a whole, so that a report names it
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns"):
            for child in cast("list[object]", value if isinstance(value, list) else [value]):
                if isinstance(child, ast.AST) and not _is_idle(child):
                    yield from _code(child)


def _is_bool(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, bool)


def _is_idle(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    # What Python 3.11 says of places within f-strings is wrong.
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))


def _changes(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:  # noqa: PLR0912 - a table of changes
    """Nodes that may be replaced, and by what."""
    match node:
        case ast.Compare(left, ops, comparators):
            for position, op in enumerate(ops):
                swapped: list[Any] = [*ops[:position], SWAPS[type(op)](), *ops[position + 1 :]]
                yield node, f"({ast.unparse(ast.Compare(left, swapped, comparators))})"
        case ast.BoolOp(op, values):
            yield node, f"({ast.unparse(ast.BoolOp(SWAPS[type(op)](), values))})"
        case ast.BinOp(left, op, right) if type(op) in SWAPS:
            yield node, f"({ast.unparse(ast.BinOp(left, SWAPS[type(op)](), right))})"
        case ast.UnaryOp(ast.Not(), operand):
            yield node, f"({ast.unparse(operand)})"
        case ast.keyword(str(name), ast.Constant(bool(value))):
            yield node, f"{name}={not value}"
        case ast.Constant(bool(value)):
            yield node, str(not value)
        case ast.Constant(int() | float() as value):
            for other in (value + 1, value - 1) if value else (1,):
                yield node, repr(other)
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            yield test, f"(not ({ast.unparse(test)}))"
        case ast.Return(ast.expr() as value) if ast.unparse(value) != "None":
            yield node, "return None"
        case ast.Return() | ast.Raise() | ast.Break() | ast.Continue() | ast.Delete() | ast.Expr() | ast.AugAssign():
            yield node, "pass"
        case ast.Assign([ast.Attribute() | ast.Subscript(), *_]):
            yield node, "pass"
        case ast.ExceptHandler(ast.Tuple(classes) as caught):
            for each in classes:
                yield caught, f"({', '.join(ast.unparse(other) for other in classes if other is not each)},)"
        case ast.ExceptHandler(ast.expr() as caught):
            yield caught, "Exception" if ast.unparse(caught) == "BaseException" else "()"
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            for decorator in node.decorator_list:
                if not any(name in ast.unparse(decorator) for name in HARMLESS_DECORATORS):
                    yield decorator, "(lambda same: same)"
        case _:
            return


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Note which test is running. This module is a plugin of pytest's."""
    measuring = coverage.Coverage.current()
    if measuring is not None:
        measuring.switch_context(item.nodeid)
    return (yield)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note how long each test took. The process that hears of the tests of all workers does that."""
    if "PYTEST_XDIST_WORKER" not in os.environ and coverage.Coverage.current() is not None:
        with Path(DURATIONS).open("a") as file:
            file.write(f"{report.outcome} {report.duration} {report.nodeid}\n")


class Checkout:
    """A copy of the working tree, to make changes in."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.check_output(listing, cwd=ROOT, text=True).split("\0"):
            if (ROOT / name).is_file():
                (directory / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, directory / name)

    def test(self, arguments: list[str], seconds: float, *program: str) -> tuple[int | None, str]:
        """The exit code of pytest, or None if it took too long, and what it printed."""
        # Through a file: the ids of many tests are too long for a command line.
        (self.directory / ".arguments").write_text("\n".join(arguments))
        process = subprocess.Popen(
            [sys.executable, *program, "-m", "pytest", "-q", "-p", "tests.mutants", "@.arguments"],
            cwd=self.directory,
            env=os.environ | {"PYTHONPATH": str(self.directory), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        if sys.platform == "linux":
            resource.prlimit(process.pid, resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None, ""
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        return process.returncode, output.decode(errors="replace")

    def verdict(self, mutant: Mutant, tests: list[str], seconds: float) -> str:
        file = self.directory / mutant.path
        source = file.read_text()
        file.write_text(mutant.apply(source))
        try:
            code, _ = self.test(["-x", *tests], seconds)
            return "hung" if code is None else "killed" if code else LIVES
        finally:
            file.write_text(source)

    def measure(self, tests: list[str], jobs: int) -> coverage.CoverageData:
        """Run these tests once, and note which of them run which line."""
        (self.directory / ".settings").write_text(COVERAGE_SETTINGS)
        program = ["-m", "coverage", "run", "--rcfile", str(self.directory / ".settings")]
        code, output = self.test(["--numprocesses", str(jobs), *tests], 3600, *program)
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            sys.exit(f"the tests cannot be run:\n{output[-3000:]}")
        measured = coverage.Coverage(data_file=str(self.directory / ".coverage"))
        measured.combine([str(self.directory)])
        return measured.get_data()

    def durations(self) -> dict[str, float]:
        """How long each test took in the checkout's last run of it, in seconds. Without the tests that failed."""
        seconds: dict[str, float] = {}
        failed: set[str] = set()
        for line in (self.directory / DURATIONS).read_text().splitlines():
            outcome, duration, test = line.split(" ", 2)
            seconds[test] = seconds.get(test, 0.0) + float(duration)
            if outcome == "failed":
                failed.add(test)
        for test in sorted(failed):
            print(f"left out, because it fails without any change: {test}", flush=True)
            del seconds[test]
        return seconds


def selected(tests: Iterable[str], durations: dict[str, float], seconds: float) -> list[str]:
    """Some of these tests, which take so many seconds together: one of each function first, and the quick ones."""
    turns: dict[str, int] = {}
    ranked: list[tuple[int, str]] = []
    for test in sorted(durations.keys() & set(tests), key=durations.__getitem__):
        function = test.partition("[")[0]
        turns[function] = turns.get(function, -1) + 1
        ranked.append((turns[function], test))
    ranked.sort(key=lambda each: each[0])
    chosen: list[str] = []
    total = 0.0
    for _, test in ranked:
        total += durations[test]
        if chosen and total > seconds:
            break
        chosen.append(test)
    return chosen


class Reach:
    """Which tests a change concerns.

    Args:
        directory: the checkout in which the tests ran.
        data: which of them ran which line of the package there.
        tests: the ids of all of them.
    """

    def __init__(self, directory: Path, data: coverage.CoverageData, tests: Iterable[str]) -> None:
        self._directory = directory
        self._tests = set(tests)
        self._sources = {path: path.read_text().splitlines() for path in sorted((directory / "enclave").rglob("*.py"))}
        self._contexts = {path: data.contexts_by_lineno(str(path)) for path in self._sources}

    def tests(self, mutant: Mutant) -> set[str] | None:
        """The tests that run its line, or use what it is part of. None if nothing runs the line."""
        path = self._directory / mutant.path
        definition = definition_of(mutant, "\n".join(self._sources[path]))
        if definition is not None:
            return self._users(path, definition) or self._tests
        contexts = self._contexts[path].get(mutant.line)
        # What ran in processes that the tests start has no name.
        return None if contexts is None else self._tests.intersection(contexts) or self._tests

    def _users(self, path: Path, definition: Definition) -> set[str]:
        found = {context for number in definition.lines for context in self._contexts[path].get(number, ())}
        if definition.names:
            word = re.compile(rf"\b({'|'.join(map(re.escape, definition.names))})\b")
            for other, lines in self._sources.items():
                for number, text in enumerate(lines, 1):
                    if word.search(text):
                        found.update(self._contexts[other].get(number, ()))
            files = {test.partition("::")[0] for test in self._tests}
            naming = tuple(name for name in files if word.search((self._directory / name).read_text()))
            found.update(test for test in self._tests if test.startswith(naming))
        return self._tests & found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("modules", nargs="+", help="files or folders of the package")
    parser.add_argument("--count", type=int, default=30, help="how many changes (30)")
    parser.add_argument("--seed", type=int, default=0, help="which ones (0)")
    parser.add_argument("--tests", nargs="+", default=["tests"], help="files or folders of tests (tests)")
    parser.add_argument("--seconds", type=float, default=MAX_TEST_SECONDS, help="of tests for each change (30)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at once (one a core)")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    files = [file for name in options.modules for file in sorted(Path(name).rglob("*.py")) or [Path(name)]]
    mutants = [mutant for file in files for mutant in mutants_of(str(file), file.read_text())]
    chosen = chance.sample(mutants, min(options.count, len(mutants)))
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory, ThreadPoolExecutor(options.jobs) as pool:
        checkouts: SimpleQueue[Checkout] = SimpleQueue()
        for number in range(1, options.jobs):
            checkouts.put(Checkout(Path(directory, str(number))))
        first = Checkout(Path(directory, "0"))
        data = first.measure(options.tests, options.jobs)
        durations = first.durations()
        checkouts.put(first)
        reach = Reach(first.directory, data, durations)

        def report(mutant: Mutant) -> bool:
            concerned = reach.tests(mutant)
            if concerned is None:
                print(f"{LIVES}  {mutant}  (no test runs the line)", flush=True)
                return True
            tests = selected(concerned, durations, options.seconds)
            seconds = START_SECONDS + PATIENCE * sum(durations[test] for test in tests)
            checkout = checkouts.get()
            verdict = checkout.verdict(mutant, tests, seconds)
            checkouts.put(checkout)
            print(f"{verdict}  {mutant}  ({len(tests)} tests)", flush=True)
            return verdict == LIVES

        lived = [mutant for mutant, lives in zip(chosen, pool.map(report, chosen), strict=True) if lives]
    print(f"\n{len(lived)} of {len(chosen)} changes lived, of {len(mutants)} that could be made:", *lived, sep="\n")


if __name__ == "__main__":
    main()
