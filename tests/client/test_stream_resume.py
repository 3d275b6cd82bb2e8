"""A stream across connections that break: every frame once and in order, or `StreamInterrupted`."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from types import TracebackType

import anyio
import pytest

from enclave import (
    EnclaveClient,
    EndFrame,
    FrameStream,
    NotFoundError,
    RetryPolicy,
    StdoutFrame,
    StreamInterrupted,
    Timeout,
)
from tests.support import PATIENCE_SECONDS
from tests.support.messages import CHUNKED_SSE, END, SSE, chunk, event, response
from tests.support.plane import ControlPlane, Request

TEXTS = ["one", "zwölf 😀", "three\r\n", "four", "five"]
FRAMES = [*map(StdoutFrame, TEXTS), EndFrame()]


async def test_a_connection_that_breaks_after_the_end_is_not_resumed(server, client):
    async def cut(request: Request) -> None:
        await request.send(CHUNKED_SSE + chunk(event("a") + END))  # and never the last chunk
        await request.close()

    server.answers(cut)
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client.stream("s-1") as frames:
            assert [frame async for frame in frames] == [StdoutFrame("a"), EndFrame()]
            await frames._reader.wait()
            assert frames.resumes == 0
    assert len(server.requests) == 1


def session(ids: list[str] | None) -> list[bytes]:
    """The events of one session, the last of them `end`."""
    names = ids or [None] * 6
    return [*(event(*pair) for pair in zip(TEXTS, names, strict=False)), event({"kind": "end"}, names[5])]


NUMBERS = ["1", "2", "3", "4", "5", "6"]
ODD = ["é", "b c", "😀", "::", "5 ", "x" * 300]


def serve(events: list[bytes], ids: list[str] | None) -> Callable[[Request], bytes]:
    """What a correct server sends on a connection: the rest after ``Last-Event-ID``, else everything."""

    def rest(request: Request) -> bytes:
        last = request.headers.get("last-event-id")
        start = ids.index(last) + 1 if ids and last is not None else 0
        return b"".join(events[start:])

    return rest


def cut_after(count: int, way: str, rest: Callable[[Request], bytes], *, chunked: bool = False):
    async def answer(request: Request) -> None:
        data = rest(request)[:count]
        await request.send(CHUNKED_SSE + chunk(data) if chunked else SSE + data)
        await getattr(request, way)()

    return answer


def everything(rest: Callable[[Request], bytes]):
    async def answer(request: Request) -> None:
        await request.send_stream(rest(request))

    return answer


CUTS = [
    pytest.param(ids, newline, way, id=f"{'ids' if ids else 'no-ids'}-{newline!r}-{way}")
    for ids in (NUMBERS, None)
    for newline in (b"\n", b"\r\n")
    for way in ("close", "reset")
]


@pytest.mark.parametrize(("ids", "newline", "way"), CUTS)
async def test_a_cut_at_any_byte_loses_and_repeats_nothing(server: ControlPlane, ids, newline, way):
    events = [block.replace(b"\n", newline) for block in session(ids)]
    rest = serve(events, ids)
    size = len(b"".join(events))
    policy = RetryPolicy(wait_seconds=0)
    with anyio.fail_after(60):
        async with EnclaveClient(server.base_url, retry=policy) as client:
            # Each case cuts elsewhere. That every byte will do is shown in memory, see test_client_resume_property.py.
            for count in range(1 + len(way + str(newline)) % 7, size, 11):
                server.answers(cut_after(count, way, rest, chunked=bool(count % 2)), everything(rest))
                async with client.stream("s-1") as frames:
                    assert [frame async for frame in frames] == FRAMES, f"cut after {count} bytes"
                    # A reset may overtake what was sent before it, the head included. Then nothing was resumed.
                    assert frames.resumes == 1 or way == "reset"


@pytest.mark.parametrize("ids", [NUMBERS, ODD, None], ids=["ids", "odd-ids", "no-ids"])
async def test_a_stream_that_drops_after_every_frame_is_put_together(server: ControlPlane, client: EnclaveClient, ids):
    events = session(ids)
    rest = serve(events, ids)
    lengths = [len(block) for block in events] if ids else [len(b"".join(events[:n])) for n in range(1, 6)]
    server.answers(*(cut_after(length, "close", rest) for length in lengths[:5]), everything(rest))
    async with client.stream("s-1") as frames:
        assert [frame async for frame in frames] == FRAMES
        assert frames.resumes == 5
    asked = [request.headers.get("last-event-id") for request in server.requests]
    # "5 " could not travel in a header unchanged: everything is replayed, and checked.
    expected = {None: [None] * 6}.get(
        ids and ids[0], [None, *(name if name.strip() == name else None for name in (ids or [])[:5])]
    )
    assert asked == expected


async def test_a_server_that_ignores_the_id_and_replays_is_noticed(server: ControlPlane, client: EnclaveClient):
    events = session(NUMBERS)
    whole = b"".join(events)
    server.streams(b"".join(events[:3]))
    server.streams(b"".join(events[:4]))
    server.streams(whole)
    async with client.stream("s-1") as frames:
        assert [frame async for frame in frames] == FRAMES
        assert frames.resumes == 2


async def test_an_id_that_only_some_frames_have_repeats_no_frame(server: ControlPlane, client: EnclaveClient):
    """The id in force after a frame without one is an older frame's: going on after that would repeat frames."""
    events = session(["1", None, None, "4", None, None])
    whole = b"".join(events)

    async def answer(request: Request) -> None:
        last = request.headers.get("last-event-id")
        await request.send_stream(b"".join(events[int(last) :]) if last else whole)

    server.streams(b"".join(events[:3]))
    server.answers(answer)
    server.streams(b"".join(events[:5]))
    server.answers(answer)
    for _ in range(2):
        async with client.stream("s-1") as frames:
            assert [frame async for frame in frames] == FRAMES


@pytest.mark.parametrize(
    "preamble", [b": hello\n\n", b"retry: 0\n\n", b": hello\n", b"\xef\xbb\xbf\n\n", b"event: x\n\n"]
)
async def test_ids_are_used_whatever_stands_before_the_first_event(
    server: ControlPlane, client: EnclaveClient, preamble
):
    events = session(NUMBERS)
    server.streams(preamble, b"".join(events[:2]))
    server.streams(preamble + b"".join(events[2:4]))
    server.streams(preamble + b"".join(events[4:]))
    async with client.stream("s-1") as frames:
        assert [frame async for frame in frames] == FRAMES
    assert [request.headers.get("last-event-id") for request in server.requests] == [None, "2", "4"]


async def test_an_id_in_a_block_without_data_counts(server: ControlPlane, client: EnclaveClient):
    events = session(NUMBERS)
    server.streams(b"".join(events[:2]) + b"id: 2b\n\n")
    server.streams(b"".join(events[2:]))
    async with client.stream("s-1") as frames:
        assert [frame async for frame in frames] == FRAMES
    assert server.requests[1].headers["last-event-id"] == "2b"


async def test_an_empty_id_means_to_start_again_and_check(server: ControlPlane, client: EnclaveClient):
    events = session(NUMBERS)
    server.streams(b"".join(events[:2]) + b"id\n\n")
    server.streams(b"".join(events))
    async with client.stream("s-1") as frames:
        assert [frame async for frame in frames] == FRAMES
    assert "last-event-id" not in server.requests[1].headers


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (event("one") + event("zwei") + event("three\r\n") + event("four") + END, "differs"),
        (event("one") + event("zwölf 😀") + END, "has 2 of the 3 frames"),
        (event("one") + b": comment\n\n" + END, "has 1 of the 3 frames"),
        (event("zwölf 😀") + event("one") + event("three\r\n") + END, "differs"),
        (event("one") + event("zwölf 😀") + event({"kind": "stderr", "data": "three\r\n"}) + END, "differs"),
    ],
    ids=["changed", "shorter", "much-shorter", "swapped", "other-kind"],
)
async def test_history_that_changed_is_an_interruption_with_the_count_of_what_was_delivered(
    server: ControlPlane, client: EnclaveClient, second, says
):
    server.streams(b"".join(session(None)[:3]))
    server.streams(second)
    seen = []
    async with client.stream("s-1") as frames:
        with pytest.raises(StreamInterrupted, match=says) as caught:
            async for frame in frames:
                seen.append(frame)  # noqa: PERF401 - an error follows
    assert seen == FRAMES[:3]
    assert (caught.value.delivered, caught.value.session_id) == (3, "s-1")
    assert "session s-1 interrupted after 3 frames" in str(caught.value)


@pytest.mark.parametrize("goes_on_with", [1, 2, 4], ids=["an earlier one", "the last", "a later one"])
async def test_a_server_that_goes_on_elsewhere_is_asked_for_a_replay(
    server: ControlPlane, client: EnclaveClient, goes_on_with: int
):
    events = session(NUMBERS)
    server.streams(b"".join(events[:3]))
    server.streams(b"".join(events[goes_on_with:]))
    server.streams(b"".join(events))
    async with client.stream("s-1") as frames:
        assert [frame async for frame in frames] == FRAMES
    assert [request.headers.get("last-event-id") for request in server.requests] == [None, "3", None]


STALLS = {"a-part": lambda whole: whole[:9], "known": lambda whole: whole[:-80], "all-known": lambda whole: whole}
"""What comes of the events that are known, before the connection is cut. Two of these count as one attempt."""


@pytest.mark.parametrize("stall", STALLS.values(), ids=STALLS)
async def test_a_replay_that_breaks_off_is_tried_again_but_not_for_ever(
    server: ControlPlane, client: EnclaveClient, stall
):
    known = b"".join(session(None)[:3])
    server.streams(known)
    for _ in range(8):
        server.streams(stall(known))
    seen = []
    async with client.stream("s-1") as frames:
        with pytest.raises(StreamInterrupted, match=r"before its end frame \(gave up after 8 retries\)") as caught:
            async for frame in frames:
                seen.append(frame)  # noqa: PERF401 - an error follows
    assert seen == FRAMES[:3]
    assert caught.value.delivered == 3


@pytest.mark.parametrize("stall", STALLS.values(), ids=STALLS)
@pytest.mark.parametrize("ids", [NUMBERS, None], ids=["ignored-ids", "no-ids"])
async def test_replays_that_break_off_are_outlasted_where_one_gets_further_now_and_then(
    server: ControlPlane, client: EnclaveClient, ids, stall
):
    events = session(ids)
    for count in (2, 3, 4):
        known = b"".join(events[:count])
        server.streams(known)
        for _ in range(7):
            server.streams(stall(known))
    server.streams(*events)
    async with client.stream("s-1") as frames:
        assert [frame async for frame in frames] == FRAMES


async def test_a_stream_that_closes_cleanly_without_its_end_again_and_again_is_given_up(
    server: ControlPlane, client: EnclaveClient
):
    for _ in range(5):
        server.streams(b": hello\n\n")
    async with client.stream("s-1") as frames:
        with pytest.raises(StreamInterrupted, match="4 retries") as caught:
            await anext(frames)
    assert caught.value.delivered == 0


async def test_progress_resets_the_count_of_failures(server: ControlPlane, client: EnclaveClient):
    events = session(NUMBERS)
    for block in events[:5]:
        server.streams(block)
        for _ in range(3):
            server.streams()
    server.streams(events[5])
    async with client.stream("s-1") as frames:
        assert [frame async for frame in frames] == FRAMES


@pytest.mark.parametrize("retry_after", ["0", "Wed, 21 Oct 2015 07:28:00 GMT"])
async def test_refusals_on_reconnecting_are_waited_out(
    server: ControlPlane, client: EnclaveClient, retry_after, caplog
):
    caplog.set_level(logging.DEBUG, "enclave")
    events = session(NUMBERS)
    server.streams(b"".join(events[:2]))
    for status in (503, 429, 504):
        server.answers(response({"message": "busy"}, status, retry_after=retry_after))
    server.streams(b"".join(events[2:]))
    async with client.stream("s-1") as frames:
        assert [frame async for frame in frames] == FRAMES
        assert frames.resumes == 1
    assert [request.headers.get("last-event-id") for request in server.requests[1:]] == ["2"] * 4
    messages = [record.getMessage() for record in caplog.records if record.name == "enclave"]
    assert any("503 busy" in message and "resume after 2 frames, attempt 2 of 4" in message for message in messages)
    assert not any("gave up" in message for message in messages)


async def test_a_final_refusal_on_reconnecting_is_an_interruption_with_its_cause(
    server: ControlPlane, client: EnclaveClient
):
    server.streams(event("one"))
    server.answers(response({"message": "gone"}, 404))
    async with client.stream("s-1") as frames:
        assert await anext(frames) == FRAMES[0]
        with pytest.raises(StreamInterrupted, match="404 gone") as caught:
            await anext(frames)
    assert isinstance(caught.value.__cause__, NotFoundError)
    assert caught.value.delivered == 1


async def test_refusals_before_the_first_frame_are_waited_out_at_the_async_with_line(
    server: ControlPlane, client: EnclaveClient
):
    server.answers(response({}, 503, retry_after="0"), response({}, 429))
    server.streams(*session(None))
    async with client.stream("s-1") as frames:
        assert frames.resumes == 0
        assert [frame async for frame in frames] == FRAMES


@pytest.mark.parametrize("ids", [NUMBERS, None], ids=["ids", "no-ids"])
async def test_a_silent_session_is_resumed_any_number_of_times(server: ControlPlane, ids):
    events = session(ids)
    rest = serve(events, ids)

    async def silent(request: Request) -> None:
        data = b"".join(events[:2]) if "last-event-id" not in request.headers else b""
        await request.send(SSE, data)
        await request.gone()

    server.answers(*[silent] * 7, everything(rest))
    policy = RetryPolicy(attempts=2, wait_seconds=0)
    with anyio.fail_after(PATIENCE_SECONDS):
        async with EnclaveClient(server.base_url, retry=policy, timeout=Timeout(stream_idle=0.1)) as client:
            async with client.stream("s-1") as frames:
                assert [frame async for frame in frames] == FRAMES
                assert frames.resumes >= 1


async def beat(request: Request, seconds: float) -> None:
    """Send heartbeats for so long."""
    with anyio.move_on_after(seconds):
        while True:
            await request.send(b": beat\n")
            await anyio.sleep(0.05)


async def read_past_the_idle_timeout(server: ControlPlane, before_the_frames: Callable[[], object]) -> FrameStream:
    """Read a stream whose heartbeats outlast the idle timeout, and whose frames come after them."""

    async def answer(request: Request) -> None:
        await request.send(SSE)
        await beat(request, 0.8)
        before_the_frames()
        await request.send(b"\n", *session(None))
        await request.close()

    server.answers(answer)
    with anyio.fail_after(PATIENCE_SECONDS):
        async with EnclaveClient(server.base_url, timeout=Timeout(stream_idle=0.5), retry=None) as client:
            async with client.stream("s-1") as frames:
                assert [frame async for frame in frames] == FRAMES
    return frames


async def test_heartbeats_keep_a_stream_from_being_taken_for_dropped(server: ControlPlane):
    frames = await read_past_the_idle_timeout(server, lambda: None)
    assert frames.resumes == 0


@pytest.fixture
def new_objects_only() -> Iterator[None]:
    """The garbage collector visits, and gives, only what the test makes. To look through all else takes a second."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def left_reads() -> list[TracebackType]:
    """The tracebacks that are kept of reads that an exception has ended."""
    gc.collect()
    tracebacks = [each for each in gc.get_objects() if isinstance(each, TracebackType)]
    return [each for each in tracebacks if each.tb_frame.f_code.co_name == "read_to_end"]


@pytest.mark.usefixtures("new_objects_only")
async def test_a_stream_keeps_nothing_of_a_deadline_that_has_passed_while_bytes_came(server: ControlPlane):
    kept: list[TracebackType] = []
    await read_past_the_idle_timeout(server, lambda: kept.extend(left_reads()))
    assert kept == []
