"""A server that keeps the heads of the requests it gets, and answers with the bytes a test asks for."""

from __future__ import annotations

from collections import deque

from anyio.abc import SocketStream


class HeadKeeper:
    """Answers each request with the next of `answers`, then with an empty list; one connection a request."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.answers: deque[bytes] = deque()
        self.heads: list[dict[str, list[str]]] = []

    async def serve(self, stream: SocketStream) -> None:
        async with stream:
            data = b""
            while b"\r\n\r\n" not in data:
                data += await stream.receive()
            head: dict[str, list[str]] = {}
            for line in data.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]:
                name, _, value = line.partition(": ")
                head.setdefault(name.lower(), []).append(value)
            self.heads.append(head)
            await stream.send(self.answers.popleft() if self.answers else answer(200, b"[]"))


def answer(status: int, body: bytes, content_type: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status} R\r\nContent-Type: {content_type}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
