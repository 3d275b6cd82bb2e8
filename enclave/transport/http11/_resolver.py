"""The addresses of a host, from `socket.getaddrinfo` on every event loop.

One look-up serves a burst of connections. It runs in a thread of its own, which nobody waits for: neither a caller who
is cancelled, nor the end of the event loop, nor that of the process. asyncio's own look-ups run in its executor, whose
threads its end joins, so a name server that does not answer holds a program up after Ctrl-C.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import anyio

from enclave._loop import run_soon, running_loop

from ._origin import Origin

SHARED_SECONDS = 5.0
"""How long after its start a look-up serves whoever asks. The system does not tell how long an answer holds."""

MAX_ADDRESSES = 16
"""How many addresses of a host are kept, and tried."""


class Address(NamedTuple):
    """Where a socket can be connected to."""

    family: socket.AddressFamily
    sockaddr: Any
    """Address and port, as the family has them."""

    def __str__(self) -> str:
        """The address without its port, for messages."""
        return str(self.sockaddr[0])


class Resolver:
    """Looks one host up. It belongs to one event loop."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._address = origin.address
        self._latest: _LookUp | None = None

    async def addresses(self) -> Sequence[Address]:
        """The addresses of the host, the system's favourite first. Those of a name may be up to 5 seconds old.

        Raises:
            OSError: the name is unknown, no name server answered, or the zone of the address does not exist here.
            UnicodeError: no name can be like that.
        """
        if self._address is not None:
            return [self._numeric_address()]
        look_up = self._latest
        if look_up is None or not look_up.serves_now():
            look_up = self._latest = _LookUp(self._origin.host, self._origin.port)
        return await look_up.result()

    def forget(self, addresses: Sequence[Address]) -> None:
        """Look the name up again for the next who asks: these addresses led nowhere."""
        # Of many who fail together only the first makes a difference, and the look-up that it causes serves the others.
        if self._latest is not None and self._latest.found is addresses:
            self._latest = None

    def _numeric_address(self) -> Address:
        address, port, zone = str(self._address), self._origin.port, self._origin.zone
        if ":" not in address:
            return Address(socket.AF_INET, (address, port))
        scope = int(zone) if zone.isdigit() else socket.if_nametoindex(zone) if zone else 0
        return Address(socket.AF_INET6, (address, port, 0, scope))


class _LookUp:
    """One call of `socket.getaddrinfo`, and what wakes those who wait for it."""

    def __init__(self, host: str, port: int) -> None:
        self._began = anyio.current_time()
        self._done = anyio.Event()
        self.found: Sequence[Address] = ()
        self._error: BaseException | None = None
        # A daemon: the interpreter does not wait for it at its end.
        thread = threading.Thread(
            target=self._run, args=(host, port, running_loop()), name=f"enclave: look up {host}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            # An interpreter that is about to end starts no thread any more. Nothing else goes on then, so it may block.
            self._run(host, port, running_loop())

    def serves_now(self) -> bool:
        """Whether one who asks now should wait for it, or take what it found. Nobody does for an error."""
        return self._error is None and anyio.current_time() - self._began < SHARED_SECONDS

    async def result(self) -> Sequence[Address]:
        """Wait for the end. Cancelling the wait leaves the look-up to the others."""
        if not self._done.is_set():
            await self._done.wait()
        if self._error is not None:
            raise self._error.with_traceback(None)  # without those of all others who raised it
        return self.found

    def _run(self, host: str, port: int, loop: Any) -> None:
        try:
            self.found = _look_up(host, port)
        except BaseException as error:  # noqa: BLE001 - those who wait raise it
            self._error = error.with_traceback(None)
        with suppress(RuntimeError):  # the event loop is over, and with it all who waited
            run_soon(loop, self._done.set)


def _look_up(host: str, port: int) -> Sequence[Address]:
    found = socket.getaddrinfo(host, port, family=socket.AF_UNSPEC, type=socket.SOCK_STREAM)
    of_internet = (Address(family, sockaddr) for family, _, _, _, sockaddr in found if family in _FAMILIES)
    addresses = list(dict.fromkeys(of_internet))[:MAX_ADDRESSES]
    if not addresses:
        raise socket.gaierror(socket.EAI_NONAME, "the name has no address")
    return addresses


_FAMILIES = (socket.AF_INET, socket.AF_INET6)
