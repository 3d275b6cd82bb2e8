"""Every async test runs on both loops: asyncio in debug mode, and trio. No test sleeps; `fail_after` bounds each wait."""

from __future__ import annotations

from typing import Any

import pytest

BACKENDS = [
    pytest.param(("asyncio", {"debug": True}), id="asyncio"),
    pytest.param(("trio", {}), id="trio"),
]


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and _is_async(item):
            item.add_marker(pytest.mark.anyio)


def _is_async(item: pytest.Function) -> bool:
    import inspect  # noqa: PLC0415 - only needed here

    function = inspect.unwrap(item.obj)
    inner = getattr(getattr(function, "hypothesis", None), "inner_test", function)
    return inspect.iscoroutinefunction(inner)
