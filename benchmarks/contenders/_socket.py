"""No client at all: bytes are read and dropped. What the source can give."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

READ_BYTES = 256 * 1024
LAST_CHUNK = b"\r\n0\r\n\r\n"


class Client:
    """A blocking socket; counts frames by their blank lines."""

    def __init__(self, base_url: str) -> None:
        url = urlsplit(base_url)
        self._address = (url.hostname, url.port)
        self._tls = ssl.create_default_context() if url.scheme == "https" else None

    def _connect(self) -> socket.socket:
        sock = socket.create_connection(self._address)
        return sock if self._tls is None else self._tls.wrap_socket(sock, server_hostname=self._address[0])

    async def read(self, session_id: str) -> int:
        count = 0
        with self._connect() as sock:
            sock.sendall(f"GET /sessions/{session_id}/stream HTTP/1.1\r\nhost: source\r\n\r\n".encode())
            buffer = bytearray(READ_BYTES)
            last = b""
            while not last.endswith(LAST_CHUNK):
                size = sock.recv_into(buffer)
                count += buffer.count(b"\n\n", 0, size) + (last.endswith(b"\n") and buffer[:1] == b"\n")
                last = (last + buffer[:size])[-len(LAST_CHUNK) :]
        return count


@asynccontextmanager
async def connect(base_url: str, variant: str, connections: int | None) -> AsyncIterator[Client]:  # noqa: ARG001
    yield Client(base_url)
