"""What is left behind by a stream that is left early: nothing."""

from __future__ import annotations

import gc
import warnings
from collections.abc import AsyncIterator, Iterator

import anyio
import httpx
import pytest
from anyio.lowlevel import checkpoint

from enclave import EnclaveClient
from tests.support import PATIENCE_SECONDS
from tests.support.messages import END, event


class _Generated(httpx.AsyncByteStream):
    """A body as tests write them: an async generator that never waits."""

    def __init__(self, pieces: list[bytes], *, waits_first: bool) -> None:
        self._pieces = pieces
        self._waits_first = waits_first

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._generate()

    async def _generate(self) -> AsyncIterator[bytes]:
        if self._waits_first:
            await checkpoint()
        for piece in self._pieces:
            yield piece


@pytest.fixture
def _no_abandoned_generator(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    seen: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", lambda unraisable: seen.append(unraisable.exc_value))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
        gc.collect()
    assert not seen


@pytest.mark.usefixtures("_no_abandoned_generator")
@pytest.mark.parametrize("waits_first", [False, True])
async def test_leaving_a_stream_early_abandons_no_generator_of_a_callers_transport(waits_first: bool) -> None:
    rest = [event(str(number)) for number in range(50)]
    pieces = [event("a"), b'data: {"kind":"phase","phase":"succeeded"}\n\n', *rest, END]

    def handle(request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/stream"):
            return httpx.Response(200, json={"exitCode": 0})
        headers = {"content-type": "text/event-stream"}
        return httpx.Response(200, headers=headers, stream=_Generated(pieces, waits_first=waits_first))

    with anyio.fail_after(PATIENCE_SECONDS):
        async with EnclaveClient("http://127.0.0.1", transport=httpx.MockTransport(handle)) as client:
            assert (await client.result("s")).exit_code == 0
            async with client.stream("s") as frames:
                await anext(frames)
            gc.collect()
            await checkpoint()  # where a loop would finalise what it found
