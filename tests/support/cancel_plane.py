"""A control plane on raw sockets and threads, which knows nothing of event loops: it counts sessions and can hold.

Being in threads, it serves whatever loop a test runs, and a client in another process alike.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Self

FRAMES = (
    '{"kind":"phase","phase":"running"}',
    '{"kind":"stdout","data":"one"}',
    '{"kind":"phase","phase":"succeeded"}',
    '{"kind":"result","result":{"exitCode":0,"json":7}}',
    '{"kind":"end"}',
)
PATIENCE_SECONDS = 30.0


class Gate:
    """A place where the server stops until it is let go."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def pass_through(self) -> None:
        self.reached.set()
        self.opened.wait(PATIENCE_SECONDS)


class ControlPlane:
    """Serves until the block is left. `sessions` is what it has made and not torn down.

    Places to hold at: ``"POST seen"`` (the request has come, no session is made yet), ``"POST done"`` (the session
    exists, not a byte of the answer is out), ``"POST half"`` (half of the answer's body is out), the same for DELETE,
    and ``"GET half"`` for anything read.
    """

    def __init__(self) -> None:
        self.sessions: set[str] = set()
        self.created = 0
        self.deletes = 0
        self.frames: tuple[str, ...] = FRAMES
        self.delete_status = 204
        self._gates: dict[str, Gate] = {}
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._connections: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, name="control plane", daemon=True)]

    @property
    def port(self) -> int:
        return self._listener.getsockname()[1]

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def hold(self, place: str) -> Gate:
        """Stop the next request that comes to this place."""
        self._gates[place] = Gate()
        return self._gates[place]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for gate in self._gates.values():
            gate.opened.set()
        with self._lock:
            connections = set(self._connections)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=[connection], daemon=True)
            with self._lock:
                self._connections.add(connection)
                self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as reader, suppress(OSError):
            while head := _read_head(reader):
                method, path = head[0].split(" ")[:2]
                reader.read(_content_length(head))
                self._pass(f"{method} seen")
                status, body = self._answer(method, path)
                self._pass(f"{method} done")
                with self._answering(connection, status, body, path) as rest:
                    self._pass(f"{method} half")
                    connection.sendall(rest)
        with self._lock:
            self._connections.discard(connection)

    def _pass(self, place: str) -> None:
        gate = self._gates.get(place)
        if gate is not None and not gate.reached.is_set():
            gate.pass_through()

    @contextmanager
    def _answering(self, connection: socket.socket, status: int, body: bytes, path: str) -> Generator[bytes]:
        kind = "text/event-stream" if path.endswith("/stream") and status == 200 else "application/json"
        head = f"HTTP/1.1 {status} Whatever\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body[: len(body) // 2])
        yield body[len(body) // 2 :]

    def _answer(self, method: str, path: str) -> tuple[int, bytes]:
        session_id, _, leaf = path.removeprefix("/sessions/").partition("/")
        with self._lock:
            if method == "POST":
                self.created += 1
                self.sessions.add(f"s-{self.created}")
                return 201, json.dumps({"id": f"s-{self.created}", "phase": "pending"}).encode()
            if method == "DELETE":
                self.deletes += 1
                if self.delete_status == 204:
                    self.sessions.discard(session_id)
                return self.delete_status, b"" if self.delete_status == 204 else b'{"message":"scripted"}'
        if leaf == "stream":
            return 200, "".join(f"data: {frame}\n\n" for frame in self.frames).encode()
        answers = {"result": {"exitCode": 0, "json": 7}, "": {"id": session_id, "phase": "succeeded"}}
        return 200, json.dumps({"ok": True} if path == "/healthz" else answers[leaf]).encode()


def _read_head(reader: socket.SocketIO) -> list[str]:
    lines: list[str] = []
    while (line := reader.readline()) not in (b"\r\n", b""):
        lines.append(line.decode().rstrip())
    return lines


def _content_length(head: list[str]) -> int:
    return next((int(line.split(":")[1]) for line in head if line.lower().startswith("content-length:")), 0)
