"""One thread, non-blocking sockets, a selector. Small on purpose: what it does per write is one `send`."""

from __future__ import annotations

import json
import selectors
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterable

from . import _wire
from ._plan import Idle, Paced, Plan, plan

TICK_SECONDS = 0.001
"""How often paced groups are looked at."""
REQUEST_BYTES = 64 * 1024
LISTEN_BACKLOG = 4096
NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""What a socket says that has no bytes, or takes no more."""
READ, BOTH = selectors.EVENT_READ, selectors.EVENT_READ | selectors.EVENT_WRITE


class Connection:
    """A client's socket, the bytes it has asked so far, and the writes it has not taken yet."""

    __slots__ = ("closing", "control", "received", "sock", "waiting", "writes")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = b""
        self.writes: deque[bytes | memoryview] = deque()
        self.waiting = False  # for the socket to become writable
        self.closing = False  # once all is written
        self.control = False  # not one of the clients that are counted

    def flush(self) -> None:
        """Send until nothing is left or the socket is full; one `send` for each write."""
        send, writes = self.sock.send, self.writes
        try:
            while writes:
                head = writes.popleft()
                sent = send(head)
                if sent < len(head):
                    writes.appendleft(memoryview(head)[sent:])
        except NOT_NOW:
            writes.appendleft(head)


class Group:
    """Paced streams: round after round, one write to each, evenly spread over time."""

    def __init__(self, paced: Paced) -> None:
        self.paced = paced
        self.members: list[Connection] = []
        self.written = 0
        self.started = 0.0

    def join(self, connection: Connection) -> None:
        self.members.append(connection)
        if len(self.members) == self.paced.streams:
            self.started = time.monotonic()

    @property
    def running(self) -> bool:
        return bool(self.started) and self.written < len(self.members) * len(self.paced.writes)

    def due(self) -> Iterable[tuple[Connection, bytes]]:
        """The writes whose time has come."""
        total = len(self.members) * len(self.paced.writes)
        until = min(total, int((time.monotonic() - self.started) * self.paced.per_second))
        for number in range(self.written, until):
            round_number, member = divmod(number, len(self.members))
            yield self.members[member], self.paced.writes[round_number]
        self.written = until


class Server:
    """Serves until `stop_on` becomes readable (its other end was closed)."""

    def __init__(self, stop_on: int, certificate: str | None = None) -> None:
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(certificate)
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=LISTEN_BACKLOG)
        self._listener.setblocking(False)
        self._selector.register(self._listener, READ)
        self._selector.register(stop_on, READ)
        self._stop_on = stop_on
        self._open: set[Connection] = set()
        self._groups: dict[str, Group] = {}
        self.port: int = self._listener.getsockname()[1]

    def serve(self) -> None:
        while True:
            pacing = any(group.running for group in self._groups.values())
            for key, events in self._selector.select(TICK_SECONDS if pacing else None):
                if key.fd == self._stop_on:
                    return
                if key.data is None:
                    self._accept()
                else:
                    self._on_ready(key.data, events)
            for group in self._groups.values():
                if group.running:
                    self._write_due(group)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as a live stream's server does
            if self._tls is not None:  # the handshake is done by the first reads
                sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            connection = Connection(sock)
            self._open.add(connection)
            self._selector.register(sock, READ, connection)

    def _close(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._selector.unregister(connection.sock)
        connection.sock.close()

    def _on_ready(self, connection: Connection, events: int) -> None:
        try:
            if events & READ and not self._receive(connection):
                self._close(connection)
                return
            self._flush(connection)
        except (ConnectionError, ssl.SSLError):
            self._close(connection)

    def _receive(self, connection: Connection) -> bool:
        """Read requests and queue the answers; False once the client has left."""
        try:
            data = connection.sock.recv(REQUEST_BYTES)
        except NOT_NOW:
            return True
        connection.received += data
        while b"\r\n\r\n" in connection.received:
            request, connection.received = connection.received.split(b"\r\n\r\n", 1)
            self._answer(connection, request.split(b" ", 2)[1].decode())
        return bool(data)

    def _flush(self, connection: Connection) -> None:
        connection.flush()
        if bool(connection.writes) != connection.waiting:
            connection.waiting = bool(connection.writes)
            self._selector.modify(connection.sock, BOTH if connection.waiting else READ, connection)
        if connection.closing and not connection.writes:
            self._close(connection)

    def _answer(self, connection: Connection, path: str) -> None:
        match path.split("/")[1:]:
            case ["sessions", session_id, "stream"]:
                self._start(connection, session_id, plan(session_id))
            case ["sessions", session_id]:
                connection.writes.append(_wire.document(_wire.session(session_id)))
            case ["control", "sockets"]:
                connection.control = True
                count = sum(not other.control for other in self._open)
                connection.writes.append(_wire.document(json.dumps({"open": count}).encode()))
            case _:
                connection.writes.append(_wire.document(b"{}", "404 Not Found"))

    def _start(self, connection: Connection, session_id: str, wanted: Plan) -> None:
        closes = isinstance(wanted, Paced) and wanted.closes
        connection.writes.append(_wire.HEAD_CLOSE if closes else _wire.HEAD_OPEN)
        match wanted:
            case Idle():
                connection.writes.append(_wire.chunk(_wire.opening()))
            case Paced():
                group = self._groups.get(session_id)
                if group is None or group.started:  # a group is used once; the next stream begins another
                    group = self._groups[session_id] = Group(wanted)
                group.join(connection)
            case _:
                connection.writes.extend(wanted.writes)

    def _write_due(self, group: Group) -> None:
        last = group.paced.writes[-1] if group.paced.closes else None
        for connection, data in group.due():
            if connection not in self._open:
                continue
            connection.writes.append(data)
            connection.closing = data is last
            try:
                self._flush(connection)
            except (ConnectionError, ssl.SSLError):
                self._close(connection)
