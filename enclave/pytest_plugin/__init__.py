"""What the pytest fixtures `enclave_simulator` and `enclave_client` give. Needs the extra `enclave-sdk[simulator]`.

The fixtures themselves are declared in the package `enclave_pytest`, which pytest loads without loading any of this.

_live.py    LiveSimulator, a simulator on a thread of its own for tests on any event loop or none, and its client
_remote.py  an object's methods, called on the event loop that it belongs to
"""

from ._live import LiveSimulator, connect, open_portal, serve

__all__ = ["LiveSimulator", "connect", "open_portal", "serve"]
