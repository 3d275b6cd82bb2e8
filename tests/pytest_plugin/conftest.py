"""Runs test files of users with the installed plugin, in this process where that shows the same and is faster."""

from __future__ import annotations

from textwrap import dedent

import pytest

import enclave.pytest_plugin  # noqa: F401 - a run inside this process forgets the modules that it loads first

TIMEOUT_SECONDS = 120


@pytest.fixture
def run_tests(pytester: pytest.Pytester):
    """`run_tests(source, *arguments)` runs a file of tests with warnings as errors, and of the plugins those named."""

    def run(
        source: str, *arguments: str, own_process: bool = False, plugins: tuple[str, ...] = ("anyio",)
    ) -> pytest.RunResult:
        off = [f"-pno:{name}" for name in ("anyio", "asyncio", "hypothesispytest", "trio") if name not in plugins]
        pytester.makepyfile(test_of_a_user=dedent(source))
        options = ("-W", "error", "-p", "no:cacheprovider", *off, *arguments)
        if own_process:
            return pytester.runpytest_subprocess(*options, timeout=TIMEOUT_SECONDS)
        return pytester.runpytest_inprocess(*options)

    return run
