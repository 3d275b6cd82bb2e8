"""Names without a name server: what `socket.getaddrinfo` gives is what a test says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from .environment import is_local

Sockaddr = tuple[Any, ...]


class Names:
    """What each name leads to: a list of socket addresses, or the exception that its look-up raises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entries: dict[str, list[Sockaddr] | Exception] = {}
        self.asked: list[str] = []
        self.has_hung = threading.Event()
        self._released = threading.Event()
        self._released.set()
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._getaddrinfo)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Let no look-up end within the block."""
        self._released.clear()
        try:
            yield
        finally:
            self._released.set()

    def _getaddrinfo(self, host: Any, *arguments: Any, **options: Any) -> list[Any]:
        if is_local(host):  # a test's own server, which listens at an address
            return self._real(host, *arguments, **options)
        self.asked.append(host)
        if not self._released.is_set():
            self.has_hung.set()
            self._released.wait()
        entry = self.entries.get(host, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
        if isinstance(entry, Exception):
            raise entry
        return [(_family(each), socket.SOCK_STREAM, socket.IPPROTO_TCP, "", each) for each in entry]


def _family(sockaddr: Sockaddr) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in sockaddr[0] else socket.AF_INET


@contextmanager
def black_hole() -> Iterator[Sockaddr]:
    """An address that neither takes nor refuses a connection: the queue of its listener is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        yield listener.getsockname()
