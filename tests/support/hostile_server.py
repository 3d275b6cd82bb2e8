"""A server on raw sockets and threads that answers each request with whatever a test's script does to the socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

PATIENCE_SECONDS = 30.0
STALL_SECONDS = 0.3
JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"

Script = Callable[["Wire"], None]


class Wire:
    """One connection, in the hands of a script. Sending fails once the client has given up, which ends the script."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reader = connection.makefile("rb")
        self.sent_bytes = 0
        self.request: list[bytes] = []

    def read_request(self) -> bool:
        self.request = []
        while (line := self._reader.readline()) not in (b"\r\n", b""):
            self.request.append(line.rstrip())
        lengths = [line for line in self.request if line.lower().startswith(b"content-length:")]
        self._reader.read(int(lengths[0].split(b":")[1]) if lengths else 0)
        return bool(self.request)

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)
        self.sent_bytes += len(data)

    def flood(self, piece: bytes, stalled: threading.Event) -> None:
        """Send for as long as anything is taken; then say so, and go on."""
        self._connection.settimeout(STALL_SECONDS)
        while True:
            try:
                self.send(piece)
            except TimeoutError:
                stalled.set()
                self._connection.settimeout(None)

    def hang(self) -> None:
        """Say nothing until the client closes."""
        self._connection.settimeout(PATIENCE_SECONDS)
        while self._reader.read1():
            pass

    def close(self) -> None:
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._reader.close()
        self._connection.close()


class HostileServer:
    """Serves with a script until the block is left; the script is called once for each request."""

    def __init__(self, script: Script, *, greeting: bytes = b"") -> None:
        self.script = script
        self.greeting = greeting
        self.requests: list[list[bytes]] = []
        self.asked = threading.Event()
        self.sent_bytes = 0
        self._wires: list[Wire] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(PATIENCE_SECONDS)
        for wire in self._wires:
            with suppress(OSError):
                wire._connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                wire = Wire(connection)
                self._wires.append(wire)
                self._threads.append(threading.Thread(target=self._serve, args=[wire], daemon=True))
                self._threads[-1].start()

    def _serve(self, wire: Wire) -> None:
        with suppress(OSError):
            wire.send(self.greeting)
            while wire.read_request():
                self.requests.append(wire.request)
                self.asked.set()
                self.script(wire)
        self.sent_bytes += wire.sent_bytes
        wire.close()


def answer(data: bytes, *, then_close: bool = True) -> Script:
    """A script that sends these bytes, and closes."""

    def script(wire: Wire) -> None:
        wire.send(data)
        if then_close:
            wire._connection.shutdown(socket.SHUT_WR)

    return script


def with_body(body: bytes, head: bytes = JSON_HEAD) -> bytes:
    return head + b"content-length: %d\r\n\r\n" % len(body) + body
