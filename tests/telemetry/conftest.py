"""A simulator, and a control plane that is scripted, for both loops."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from enclave.simulator import Simulator
from tests.support.messages import response
from tests.support.plane import ControlPlane
from tests.support.spans import Tracing


@pytest.fixture
def tracing() -> Tracing:
    return Tracing()


@pytest.fixture(autouse=True)
def _no_context_is_detached_elsewhere(caplog):
    yield
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator().serve() as sim:
        yield sim


@pytest.fixture
async def keeper() -> AsyncIterator[ControlPlane]:
    """Answers with an empty list what no test has another answer for."""
    async with ControlPlane(otherwise=response([])).serve() as plane:
        yield plane
