"""Every async test runs on both loops, asyncio and trio. None sleeps. `fail_after` bounds each wait."""

from __future__ import annotations

import gc
import inspect
import signal
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support import environment
from tests.support.browser import CHROMIUM
from tests.support.loops import ASYNCIO, TRIO

# How long an example takes is up to the machine, and to what else it does.
settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


def pytest_configure() -> None:
    # A runner started with nohup, or in the background, hands ignored signals down. Programs respect that, as they
    # should, and the tests that send them signals would wait for ever.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def pytest_collection_finish() -> None:
    # Thousands of tests and their modules stay to the end. The garbage collector need not look at them again each time.
    gc.collect()
    gc.freeze()


@pytest.fixture(params=[ASYNCIO, TRIO])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(autouse=True)
def _same_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    environment.clear_variables(monkeypatch)
    environment.refuse_names(monkeypatch)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("browser") and CHROMIUM is None:
        pytest.skip("no Chromium is installed")


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(name: str, obj: object) -> None:
    # Not `anyio_mode = "auto"`: the oldest anyio that we support does not know it.
    if name.startswith("test_") and inspect.iscoroutinefunction(inspect.unwrap(obj)):
        pytest.mark.anyio(obj)
