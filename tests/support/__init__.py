"""What tests of several subjects share: two scripted servers, transports without sockets, oracles, ways to cancel."""

from __future__ import annotations

from enclave import RetryPolicy

NO_WAITS = RetryPolicy(wait_seconds=0)

PATIENCE_SECONDS = 60.0
"""How long a test waits for what must come. A good run never waits so long, however busy the machine is."""
