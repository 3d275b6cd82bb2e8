"""What the pytest fixtures `enclave_simulator`, `enclave_client` and `sync_enclave_client` give.

Needs the extra `enclave-sdk[simulator]`. The fixtures themselves are declared in the package `enclave_pytest`, which
pytest loads without loading any of this.

_live.py    LiveSimulator, a simulator on a thread of its own for tests on any event loop or none, and its clients
"""

from ._live import LiveSimulator, connect, connect_blocking, open_portal

__all__ = ["LiveSimulator", "connect", "connect_blocking", "open_portal"]
