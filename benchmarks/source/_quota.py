"""A control plane with room for so many sessions at once. Each runs so many seconds, and does nothing."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys

from . import _wire


class Quota:
    """The sessions there are, and how often a create was refused for them."""

    def __init__(self, room: int, seconds: float, retry_after: float) -> None:
        self._room = room
        self._seconds = seconds
        self._retry_after = retry_after
        self._ids = itertools.count(1)
        self._ends: dict[str, float] = {}
        self.refused = 0
        self.created = 0

    async def answer(self, method: str, path: str, writer: asyncio.StreamWriter) -> None:
        now = asyncio.get_running_loop().time()
        match method, path.strip("/").split("/"):
            case "POST", ["sessions"]:
                writer.write(self._create(now))
            case "GET", ["sessions", session_id, "stream"]:
                writer.write(_wire.HEAD_OPEN + _wire.chunk(_wire.opening()))
                await asyncio.sleep(max(0.0, self._ends.get(session_id, now) - now))
                writer.write(_wire.chunk(_wire.closing(0)) + _wire.LAST_CHUNK)
            case "GET", ["sessions", _, "result"]:
                writer.write(_wire.document(b'{"exitCode": 0, "json": 1}'))
            case "DELETE", ["sessions", session_id]:
                self._ends.pop(session_id, None)
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            case "GET", ["sessions"]:
                writer.write(_wire.document(b"[" + b",".join(map(_wire.session, self._ends)) + b"]"))
            case "GET", ["control", "creates"]:
                writer.write(_wire.document(json.dumps({"created": self.created, "refused": self.refused}).encode()))
            case _:
                writer.write(_wire.document(b"{}", "404 Not Found"))
        await writer.drain()

    def _create(self, now: float) -> bytes:
        if len(self._ends) >= self._room:
            self.refused += 1
            body = b'{"statusCode": 429, "error": "Too Many Requests", "message": "no room"}'
            head = f"HTTP/1.1 429 Too Many Requests\r\nretry-after: {self._retry_after:g}\r\n"
            return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
        session_id = f"s-{next(self._ids)}"
        self.created += 1
        self._ends[session_id] = now + self._seconds
        return _wire.document(_wire.session(session_id), "201 Created")


def serve(room: int, seconds: float, retry_after: float) -> None:
    """Print the port, and serve until standard input ends."""
    asyncio.run(_serve(Quota(room, seconds, retry_after)))


async def _serve(quota: Quota) -> None:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        await reader.readexactly(int(line.partition(b":")[2]))
                await quota.answer(method, path, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has left
        finally:
            writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    loop.add_reader(sys.stdin.fileno(), lambda: ended.done() or ended.set_result(None))
    await ended
