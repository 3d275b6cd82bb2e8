"""A control plane in memory, as an `httpx.AsyncBaseTransport`: no sockets, so a virtual clock can run."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import anyio
import httpx

Step = bytes | float | BaseException
Answer = httpx.Response | BaseException | Callable[[httpx.Request], Any]


class Body(httpx.AsyncByteStream):
    """Pieces of a body. A number waits so many seconds, an exception is raised in place of the next piece."""

    def __init__(self, steps: Iterable[Step]) -> None:
        self._steps = deque(steps)
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._steps:
            step = self._steps.popleft()
            if isinstance(step, BaseException):
                raise step
            if isinstance(step, bytes):
                yield step
            else:
                await anyio.sleep(step)

    async def aclose(self) -> None:
        self.closed = True


def sse(*steps: Step, **headers: str) -> httpx.Response:
    return httpx.Response(200, headers={"content-type": "text/event-stream", **headers}, stream=Body(steps))


class ScriptedTransport(httpx.AsyncBaseTransport):
    """Gives each request the next answer: a response, an exception, or what a function makes of the request."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = deque(answers)
        self.requests: list[httpx.Request] = []
        self.times: list[float] = []
        self.closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.times.append(anyio.current_time())
        await anyio.lowlevel.checkpoint()
        if not self._answers:
            raise AssertionError(f"not scripted: {request.method} {request.url.path}")
        # The last answer stands for all that follow.
        answer = self._answers[0] if len(self._answers) == 1 else self._answers.popleft()
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    @property
    def waits(self) -> list[float]:
        """Seconds between one request and the next, to the microsecond: a clock's difference is never exact."""
        return [round(later - sooner, 6) for sooner, later in zip(self.times, self.times[1:], strict=False)]

    async def aclose(self) -> None:
        self.closed = True
