"""How a stream opens: what refuses it, what is no stream, and how its block is to be written."""

from __future__ import annotations

import anyio
import pytest

from enclave import (
    AuthenticationError,
    EnclaveClient,
    EndFrame,
    MalformedResponseError,
    NotFoundError,
    Observer,
    RequestObservation,
    Timeout,
    UsageError,
)
from tests.support import PATIENCE_SECONDS
from tests.support.messages import END, response
from tests.support.plane import ControlPlane, stalling


async def test_iterating_outside_its_block_shows_the_right_form(server: ControlPlane, client: EnclaveClient):
    frames = client.stream("s-1")
    right = r"'async with session\.stream\(\) as frames:', and in that block 'async for frame in frames:'"
    for wrong in (lambda: aiter(frames), frames.batches):
        with pytest.raises(UsageError, match=right):
            wrong()
    with pytest.raises(UsageError, match=right):
        await anext(frames)
    frames.cancel()
    assert server.requests == []
    frames = client.stream("s-1")
    server.streams(END)
    async with frames:
        batches = frames.batches()
    for late in (lambda: aiter(frames), frames.batches):
        with pytest.raises(UsageError, match=r"closed\. Iterate inside its async with block"):
            late()
    for late in (frames, batches):
        with pytest.raises(UsageError, match="closed"):
            await anext(late)
    with pytest.raises(UsageError, match=r"entered once\. Call stream\(\) again"):
        async with frames:
            pass


@pytest.mark.parametrize(("status", "error"), [(404, NotFoundError), (401, AuthenticationError), (599, Exception)])
async def test_a_refusal_is_raised_at_the_async_with_line_as_a_plain_exception(
    server: ControlPlane, client_once: EnclaveClient, status, error
):
    server.answers(response({"message": "no such thing"}, status))
    with pytest.raises(error, match="no such thing") as caught:
        async with client_once.stream("s-1"):
            pytest.fail("opened")
    assert not isinstance(caught.value, BaseExceptionGroup)
    assert caught.value.__context__ is None
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            response(b"<html>login</html>", content_type="text/html"),
            "content-type text/html and it starts with: <html>",
        ),
        (response({"kind": "end"}), "application/json"),
        (response(END), "content-type none"),
        (response(b"", content_type="text/event-streams"), "its body is empty"),
        (response(status=204), "got 204"),
        (response(b"x", 201, content_type="text/event-stream"), "got 201"),
    ],
)
async def test_an_answer_that_is_no_event_stream_is_said_to_be_none(
    server: ControlPlane, client: EnclaveClient, answer, says
):
    server.answers(answer)
    with pytest.raises(MalformedResponseError, match=says):
        async with client.stream("s-1"):
            pytest.fail("opened")
    assert len(server.requests) == 1


async def test_a_refused_opening_closes_its_connection_while_the_client_stays_open(
    server: ControlPlane, client_once: EnclaveClient
):
    html = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 9000\r\n\r\n" + b"<html>" * 400
    server.answers(stalling(html))
    with anyio.fail_after(PATIENCE_SECONDS):
        with pytest.raises(MalformedResponseError, match="content-type text/html"):
            async with client_once.stream("s-1"):
                pytest.fail("opened")
        while server.open_connections:
            await anyio.lowlevel.checkpoint()


async def test_an_opening_that_is_cancelled_in_the_middle_of_a_refusal_closes_its_connection(server: ControlPlane):
    server.answers(stalling(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 9000\r\n\r\n<html>"))

    class CancelsWhenAnswered(RequestObservation):
        def answered(self, status: int) -> None:
            scope.cancel()

    class Requests(Observer):
        def request(self, *args: object, **options: object) -> RequestObservation:
            return CancelsWhenAnswered()

    with anyio.fail_after(PATIENCE_SECONDS):
        async with EnclaveClient(server.base_url, observer=Requests()) as client:
            with anyio.CancelScope() as scope:
                async with client.stream("s-1"):
                    pytest.fail("opened")
            assert scope.cancelled_caught
            while server.open_connections:
                await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("timeout", [Timeout(connect=None, read=5), Timeout(acquire=None, read=5)])
async def test_a_stream_opens_without_a_timeout_for_the_connection(server: ControlPlane, timeout: Timeout):
    server.streams(END)
    async with EnclaveClient(server.base_url, timeout=timeout) as client, client.stream("s-1") as frames:
        assert [frame async for frame in frames] == [EndFrame()]
