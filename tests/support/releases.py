"""What older releases of our dependencies do not do, and no code of ours can, as marks of tests."""

from __future__ import annotations

from importlib.metadata import version

import pytest

_ANYIO = tuple(int(part) for part in version("anyio").split(".")[:2])

anyio_closes_its_sockets = pytest.mark.skipif(
    _ANYIO < (4, 16),
    reason="an older anyio leaves to the garbage collector what it cannot bind, and what it is cancelled connecting",
)

anyio_may_leave_a_socket = pytest.mark.filterwarnings(f"{'ignore' if _ANYIO < (4, 16) else 'error'}::ResourceWarning")
"""For a test that would not be there without httpx's own transport, and whose subject is something else."""
