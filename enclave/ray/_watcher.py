"""`python -m enclave.ray._watcher`: sweeps the sessions of a run when the driver is gone. Does not load Ray.

Its standard input is a pipe from the driver. The first line is what to sweep, as JSON. The line ``done`` says that the
driver has swept. The end of the pipe without it says that the driver is gone, however it died. The process has a
session of its own, so Ctrl-C and a signal to the driver's process group do not reach it.
"""

from __future__ import annotations

import logging
import sys

import anyio
import msgspec

from enclave import EnclaveClient, RetryPolicy

from ._sweeping import sweep_until_quiet

DONE = b"done\n"
BUDGET_SECONDS = 600.0
_RETRY = RetryPolicy(attempts=3, max_wait_seconds=1.0)

logger = logging.getLogger("enclave")


class Order(msgspec.Struct):
    """What the driver asks for."""

    labels: dict[str, str]
    quiet_seconds: float
    base_url: str | None = None
    api_key: str | None = None

    def __repr__(self) -> str:
        return f"<Order {self.labels}>"  # without the key


def main() -> int:
    """Wait for the end of the pipe, and sweep. The exit status is 1 if that did not become quiet."""
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    if sys.stdin.buffer.readline() == DONE:
        return 0
    try:
        anyio.run(_sweep, order)
    except Exception:
        logger.exception("sessions of the run may be left: %s", order.labels)
        return 1
    return 0


async def _sweep(order: Order) -> None:
    async with EnclaveClient(order.base_url, api_key=order.api_key, retry=_RETRY) as client:
        await sweep_until_quiet(client, order.labels, order.quiet_seconds, budget_seconds=BUDGET_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
