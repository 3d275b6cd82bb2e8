"""What tests of several subjects share: two scripted servers, transports without sockets, oracles, ways to cancel."""

from __future__ import annotations

from enclave import RetryPolicy

NO_WAITS = RetryPolicy(wait_seconds=0)
