"""Connecting to the first address that answers: happy eyeballs, by RFC 8305, on plain sockets.

    start ──> pending ──┬──> connected     the first one wins, and the others are closed
                        └──> failed        the next address is tried at once

As long as no attempt outlasts its delay there is one at a time, which needs no task group, and an only address needs no
delay. So a connection by name costs hardly more than one by address.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from itertools import chain, zip_longest

import anyio

from enclave._groups import plain_exceptions

from ._resolver import Address

ATTEMPT_DELAY_SECONDS = 0.25
"""How long an address has before the next is tried beside it. What RFC 8305 recommends."""


async def connect_to_any(addresses: Sequence[Address], tried: list[Address]) -> socket.socket:
    """A connected, non-blocking socket. When this raises, or is cancelled, none stays open.

    Args:
        addresses: at least one.
        tried: takes each address as it is tried, and in the end none but the one that is connected.

    Raises:
        OSError: no address could be connected to. That of the system, if all fail alike.
    """
    race = _Race()
    try:
        for position, address in enumerate(in_turns(addresses), start=1):
            tried.append(address)
            race.start(address)
            await race.attempt_ended(None if position == len(addresses) else ATTEMPT_DELAY_SECONDS)
            if race.winner is not None:
                break
        while race.winner is None and race.pending:
            await race.attempt_ended(None)
        if race.winner is None:
            raise race.failure()
        tried[:] = [race.pending.pop(race.winner)]
        return race.winner
    finally:
        # Without a winner these are all that were on their way, as after a cancellation.
        for loser in race.pending:
            loser.close()


def in_turns(addresses: Sequence[Address]) -> list[Address]:
    """The families in turns, that of the first address first: a family that leads nowhere costs one delay."""
    first = [address for address in addresses if address.family == addresses[0].family]
    other = [address for address in addresses if address.family != addresses[0].family]
    return [address for address in chain.from_iterable(zip_longest(first, other)) if address is not None]


class _Race:
    """The attempts, and how they ended."""

    def __init__(self) -> None:
        self.pending: dict[socket.socket, Address] = {}
        """Those that are on their way, and the winner."""
        self.winner: socket.socket | None = None
        self._failures: list[tuple[Address, OSError]] = []

    def start(self, address: Address) -> None:
        """Begin to connect. Where that is done at once, the wait for it is over at once."""
        try:
            raw = socket.socket(address.family, socket.SOCK_STREAM)
        except OSError as error:  # this machine has no such family, or no descriptor left
            self._failures.append((address, error))
            return
        self.pending[raw] = address
        raw.setblocking(False)
        try:
            raw.connect(address.sockaddr)
        except BlockingIOError:
            pass  # it is on its way
        except OSError as error:
            self._fail(raw, error)

    async def attempt_ended(self, seconds: float | None) -> None:
        """Wait until an attempt has ended, well or not, for so long at most."""
        if self.winner is not None or not self.pending:
            return
        if seconds is None:
            await self._first_end()
        else:
            with anyio.move_on_after(seconds):
                await self._first_end()

    async def _first_end(self) -> None:
        if len(self.pending) == 1:
            await self._end_of(*self.pending)
            return
        with plain_exceptions():
            async with anyio.create_task_group() as attempts:

                async def watch(raw: socket.socket) -> None:
                    await self._end_of(raw)
                    attempts.cancel_scope.cancel()

                for raw in list(self.pending):
                    attempts.start_soon(watch, raw)

    async def _end_of(self, raw: socket.socket) -> None:
        await anyio.wait_writable(raw)
        # That it can be written to says that the attempt is over, and not how.
        code = raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._fail(raw, OSError(code, os.strerror(code)))
        elif self.winner is None:  # else two were connected in one turn of the event loop
            self.winner = raw

    def _fail(self, raw: socket.socket, error: OSError) -> None:
        self._failures.append((self.pending.pop(raw), error))
        raw.close()

    def failure(self) -> OSError:
        """What to raise when every attempt has failed."""
        _, first = self._failures[0]
        if all(error.errno == first.errno for _, error in self._failures):
            return first
        return OSError(", ".join(f"{address}: {error.strerror or error}" for address, error in self._failures))
