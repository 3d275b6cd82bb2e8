"""Frames that cannot be read: each stands in its place, says why, and ends nothing."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import anyio
import pytest

from enclave import (
    EnclaveClient,
    EndFrame,
    StdoutFrame,
    UnknownFrame,
)
from enclave._streams._decoder import FrameDecoder
from tests.support import PATIENCE_SECONDS
from tests.support.messages import CHUNKED_SSE, END, chunk, event
from tests.support.plane import ControlPlane, Request

UNREADABLE = [
    (b"[1]", "", "Expected `object`"),
    (b"{", "", "truncated"),
    (b"", "", "truncated"),
    (b'{"a":1}', "", "kind"),
    (b'{"kind":5}', "", r"\$\.kind"),
    (b'{"kind":"stdout"}', "stdout", "missing required field `data`"),
    (b'{"kind":"stdout","data":5}', "stdout", r"\$\.data"),
    (b'{"kind":"end","ts":"yesterday"}', "end", r"\$\.ts"),
    (b"not json", "", "malformed"),
    (b'{"kind":"stdout","data":"a"} {"kind":"stdout","data":"b"}', "", "trailing"),
    (b'{"kind":"odd","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "", "nested too deeply"),
]


@pytest.mark.parametrize(("text", "kind", "problem"), UNREADABLE)
async def test_a_frame_that_cannot_be_read_stands_in_its_place_and_says_why(
    server: ControlPlane, client: EnclaveClient, text, kind, problem
):
    server.streams(event("0") + b"data: %b\n\n" % text + event("1") + END)
    async with client.stream("s-1") as frames:
        before, unknown, *after = [frame async for frame in frames]
    assert before == StdoutFrame("0")
    assert isinstance(unknown, UnknownFrame)
    assert (unknown.kind, unknown.raw) == (kind, text)
    assert re.search(problem, unknown.problem or "")
    assert after == [StdoutFrame("1"), EndFrame()]


async def test_the_name_of_the_event_is_the_kind_of_what_is_not_json(server: ControlPlane, client: EnclaveClient):
    server.streams(b"event: ping\ndata: now\n\n" + b'event: ping\ndata: {"n":1}\n\n' + END)
    async with client.stream("s-1") as frames:
        not_json, json, _ = [frame async for frame in frames]
    assert (not_json.kind, not_json.raw) == ("ping", b"now")
    assert not_json.problem is not None
    assert json == UnknownFrame("ping", b'{"n":1}')


async def test_a_problem_is_one_short_printable_line_whatever_the_frame_says(
    server: ControlPlane, client: EnclaveClient
):
    key = '"' + "\u202e\u2028\x1b[31m" * 500 + '"'
    server.streams(f'data: {{"kind":"result","result":{{"exitCode":{{{key}:[]}}}}}}\n\n'.encode() + END)
    async with client.stream("s-1") as frames:
        unknown = await anext(frames)
    assert unknown.problem.isprintable()
    assert unknown.problem.isascii()
    assert 0 < len(unknown.problem) < 250


async def test_each_sort_of_unreadable_frame_is_logged_once_and_a_flood_does_not_flood_the_log(
    server: ControlPlane, client: EnclaveClient, caplog
):
    flood = b"".join(b'data: {"kind":"kind-%d"}\n\n' % number for number in range(500))
    bad = b"data: {}\n\n" + b'data: {"kind":"new"}\n\n'
    server.streams(event("0") + bad * 1000, flood + END)
    async with client.stream("s-1") as frames:
        assert len([frame async for frame in frames]) == 2502
    warnings = [record.getMessage() for record in caplog.records if record.name == "enclave"]
    assert "frame 1 (kind '') cannot be read: Object missing required field `kind`" in warnings[0]
    assert "frame 2 (kind 'new') cannot be read: this version does not know the kind" in warnings[1]
    assert len(warnings) == 8
    assert "more such frames of this stream are not logged" in warnings[-1]


@contextmanager
def log_filter(function: Callable[[logging.LogRecord], bool]) -> Iterator[None]:
    logger = logging.getLogger("enclave")
    logger.addFilter(function)
    try:
        yield
    finally:
        logger.removeFilter(function)


async def test_they_are_logged_by_the_task_of_the_stream(server: ControlPlane, client: EnclaveClient):
    """Filters and handlers look at the context, for the span that the stream belongs to."""
    tasks = []

    def note_task(record: logging.LogRecord) -> bool:
        tasks.append((record.levelname, anyio.get_current_task().name))
        return True

    server.streams(event("0"), b"data: {}\n\n", END)
    with log_filter(note_task):
        async with client.stream("s-1") as frames:
            assert len([frame async for frame in frames]) == 3
    assert ("WARNING", "enclave: stream of session s-1") in tasks


async def test_a_filter_that_fails_loses_no_frame(server: ControlPlane, client: EnclaveClient):
    def fail(record: logging.LogRecord) -> bool:
        if record.levelno == logging.WARNING:
            raise OSError("no space left")
        return True

    seen = []
    server.streams(event("0"), event("1") + b"data: {}\n\n" + event("2"), END)
    with log_filter(fail), pytest.raises(OSError, match="no space left"):
        async with client.stream("s-1") as frames:
            async for frame in frames:
                seen.append(frame)  # noqa: PERF401 - what came before the error counts
    assert [frame.data for frame in seen if isinstance(frame, StdoutFrame)] == ["0", "1", "2"]
    assert len(server.requests) == 1


@pytest.mark.parametrize("leaves", [True, False])
async def test_one_is_logged_though_nothing_follows_it_and_also_if_the_consumer_leaves_at_once(
    server: ControlPlane, client: EnclaveClient, caplog, leaves
):
    async def answer(request: Request) -> None:
        await request.send(CHUNKED_SSE, chunk(event("0")))
        await has_begun.wait()
        await request.send(chunk(b"data: {}\n\n"))
        await request.gone()

    has_begun = anyio.Event()
    server.answers(answer)
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client.stream("s-1") as frames:
            await anext(frames)
            has_begun.set()
            assert isinstance(await anext(frames), UnknownFrame)
            if not leaves:
                await anyio.wait_all_tasks_blocked()
                assert "cannot be read" in caplog.text
    assert "cannot be read" in caplog.text


async def test_a_fault_of_ours_is_raised_once_and_nothing_follows_it(
    server: ControlPlane, client: EnclaveClient, monkeypatch
):
    async def answer(request: Request) -> None:
        await request.send(CHUNKED_SSE, chunk(event("0")))
        await has_begun.wait()
        await request.send(chunk(event("1")), chunk(event("2")), chunk(END))
        await request.gone()

    def fail(*_: object) -> NoReturn:
        raise RecursionError("deep")

    has_begun = anyio.Event()
    server.answers(answer)
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client.stream("s-1") as frames:
            await anext(frames)
            monkeypatch.setattr(FrameDecoder, "feed", fail)
            has_begun.set()
            for _ in range(2):
                with pytest.raises(RecursionError, match="deep"):
                    await anext(frames)
    assert len(server.requests) == 1
