"""The tests in docs/testing.md pass as they stand."""

from __future__ import annotations

import pytest

from enclave.pytest_plugin import LiveSimulator
from enclave.simulator import Faults
from tests.support.programs import PAGES, programs

pytest_plugins = ["pytester"]

PAGE = PAGES["docs/testing.md"]
PROGRAMS = [program for program, _ in programs("docs/testing.md")]


@pytest.mark.parametrize(
    ("program", "passing"), list(zip(PROGRAMS, [6, 3], strict=True)), ids=["scripts", "environment"]
)
def test_the_tests_of_the_page_pass(run_tests, program, passing) -> None:
    run_tests(program, "-o", "enclave_leaked_sessions=fail").assert_outcomes(passed=passing)


def test_the_page_names_every_fault_and_every_attribute_there_is() -> None:
    names = [name for name in vars(LiveSimulator) if not name.startswith("_") and name != "close_client"]
    faults = [name for name in vars(Faults) if not name.startswith(("_", "take_"))]
    assert [name for name in (*names, *faults, "base_url", "faults") if name not in PAGE] == []
