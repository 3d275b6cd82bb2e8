"""The plugin costs nothing where it is not used, and breaks nothing where it cannot be."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

pytest_plugins = ["pytester"]

HEAVY = {"anyio", "enclave", "h11", "httptools", "httpx", "httpx_sse", "msgspec", "trio"}
LIST_MODULES = """
import json, sys

def pytest_sessionfinish():
    with open("modules.json", "w") as file:
        json.dump(sorted(sys.modules), file)
"""
WITHOUT_H11 = """
import sys

class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "h11":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent)
"""


def loaded(pytester: pytest.Pytester) -> set[str]:
    return set(json.loads((pytester.path / "modules.json").read_text()))


def test_it_is_registered_with_pytest() -> None:
    assert [point.value for point in entry_points(group="pytest11", name="enclave")] == ["enclave_pytest"]


def test_loading_it_imports_pytest_and_nothing_else() -> None:
    program = """
import sys, pytest
before = set(sys.modules)
import enclave_pytest
print(*sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["enclave_pytest"]


def test_a_run_that_does_not_use_it_imports_nothing_of_the_sdk_or_below_it(run_tests, pytester) -> None:
    pytester.makeconftest(LIST_MODULES)
    run_tests("def test_it(): pass", own_process=True, plugins=()).assert_outcomes(passed=1)
    modules = loaded(pytester)
    assert "enclave_pytest" in modules
    assert modules & HEAVY == set()


def test_collecting_tests_that_use_it_imports_nothing_either(run_tests, pytester) -> None:
    pytester.makeconftest(LIST_MODULES)
    source = "def test_it(enclave_simulator, enclave_client): pass"
    run = run_tests(source, "--collect-only", own_process=True, plugins=())
    assert run.ret == pytest.ExitCode.OK
    assert loaded(pytester) & HEAVY == set()


def test_without_the_extra_other_tests_run_and_those_that_need_it_say_what_to_install(run_tests, pytester) -> None:
    pytester.makeconftest(WITHOUT_H11)
    source = """
        def test_other(): pass

        def test_that_needs_it(enclave_client): pass
    """
    run = run_tests(source, own_process=True, plugins=())
    run.assert_outcomes(passed=1, errors=1)
    wanted = "no module h11, install the simulator: pip install 'enclave-sdk[simulator]'"
    assert wanted in str(run.stdout)
    assert "During handling" not in str(run.stdout)


def test_its_fixtures_and_its_marker_are_described(run_tests) -> None:
    fixtures = str(run_tests("def test_it(): pass", "--fixtures").stdout)
    assert "enclave_simulator -- " in fixtures
    assert "enclave_client -- " in fixtures
    assert "@pytest.mark.enclave_simulator(leaked_sessions=" in str(run_tests("", "--markers").stdout)
