"""The pytest plugin's entry point: the fixtures, the marker and the option. Loading it imports pytest and nothing else.

pytest loads this in every run of every project that has the SDK installed, whether it uses the plugin or not. So this
stands outside the package `enclave`, whose import brings in anyio and msgspec. A fixture imports what it needs when a
test asks for it. What the fixtures give is made in `enclave.pytest_plugin`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

    from enclave import EnclaveClient, SyncEnclaveClient
    from enclave.pytest_plugin import LiveSimulator

MARKER = "enclave_simulator"
LEAKED_SESSIONS = "enclave_leaked_sessions"
_POLICIES = ("ignore", "warn", "fail")


class LeakedSessionsWarning(pytest.PytestWarning):
    """A test ended while sessions of its simulator were still running."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option in pytest's configuration."""
    parser.addini(
        LEAKED_SESSIONS,
        "What to do about sessions that still run when a test with enclave_simulator ends: ignore, warn or fail.",
        default="ignore",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, and check the option."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(leaked_sessions='ignore'|'warn'|'fail', **options): options of enclave.simulator.Simulator for the "
        "fixture enclave_simulator, and what to do about sessions that still run when the test ends.",
    )
    _check_policy(config.getini(LEAKED_SESSIONS), LEAKED_SESSIONS)


@pytest.fixture(scope="session")
def _enclave_portal() -> Iterator[BlockingPortal]:
    """The thread with the event loop that serves every simulator of the run."""
    try:
        from enclave.pytest_plugin import open_portal  # noqa: PLC0415 - see the module's docstring
    except ModuleNotFoundError as error:
        missing = error.name
    else:
        with open_portal() as portal:
            yield portal
        return
    pytest.fail(f"no module {missing}, install the simulator: pip install 'enclave-sdk[simulator]'", pytrace=False)


@pytest.fixture
def enclave_simulator(request: pytest.FixtureRequest, _enclave_portal: BlockingPortal) -> Iterator[LiveSimulator]:
    """A live control plane of this test's own, with scripted workloads, faults, and everything it was asked.

    It serves any event loop, and synchronous tests too. Its sessions are torn down when the test has ended.
    """
    from enclave.pytest_plugin import LiveSimulator  # noqa: PLC0415 - see the module's docstring

    options = _options(request.node)
    policy = options.pop("leaked_sessions", request.config.getini(LEAKED_SESSIONS))
    _check_policy(policy, f"{MARKER}(leaked_sessions=...)")
    with LiveSimulator(_enclave_portal, options) as simulator:
        yield simulator
        # This is asked before the simulator tears everything down, and reported after that.
        left = simulator.running_sessions if policy != "ignore" else []
    if left:
        _report(request.node, left, policy)


@pytest.fixture
def enclave_client(enclave_simulator: LiveSimulator) -> Iterator[EnclaveClient]:
    """An `EnclaveClient` of `enclave_simulator`, for whichever event loop the test runs."""
    from enclave.pytest_plugin import connect  # noqa: PLC0415 - see the module's docstring

    with connect(enclave_simulator) as client:
        yield client


@pytest.fixture
def sync_enclave_client(enclave_simulator: LiveSimulator) -> Iterator[SyncEnclaveClient]:
    """A `SyncEnclaveClient` of `enclave_simulator`. Its thread starts with its first call."""
    from enclave.pytest_plugin import connect_blocking  # noqa: PLC0415 - see the module's docstring

    with connect_blocking(enclave_simulator) as client:
        yield client


def _options(node: pytest.Item) -> dict[str, Any]:
    """What the markers ask for. The nearest one to the test counts most."""
    options: dict[str, Any] = {}
    for marker in reversed(list(node.iter_markers(MARKER))):
        if marker.args:
            raise pytest.UsageError(f"{MARKER} takes keyword arguments only, got {marker.args!r}")
        options.update(marker.kwargs)
    return options


def _check_policy(policy: object, where: str) -> None:
    if policy not in _POLICIES:
        raise pytest.UsageError(f"{where}: expected one of {', '.join(_POLICIES)}, got {policy!r}")


def _report(node: pytest.Item, left: list[str], policy: str) -> None:
    message = f"{node.nodeid} left sessions running: {', '.join(left)}"
    if policy == "fail":
        pytest.fail(message, pytrace=False)
    node.warn(LeakedSessionsWarning(message))
