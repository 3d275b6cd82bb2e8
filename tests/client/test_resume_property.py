"""For any session, framing and cuts, in memory: what the consumer sees is the session's frames, each once, in order."""

from __future__ import annotations

import json
from collections.abc import Sequence

import anyio
import httpx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enclave import EnclaveClient, RetryPolicy, StreamFrame, StreamInterrupted, UnknownFrame
from enclave._streams._decoder import FrameDecoder
from enclave._streams._history import History
from tests.support import PATIENCE_SECONDS
from tests.support.scripted_transport import ScriptedTransport, sse

THRICE_AT_ONCE = RetryPolicy(attempts=3, wait_seconds=0)
PARTS = ["a", "é", "😀", "\n", "\r", "\u2028", '"', "\\", "\ufeff", "data: ", "id: 1"]
TEXT = st.lists(st.sampled_from(PARTS), max_size=6).map("".join)
FRAME = st.one_of(
    st.builds(lambda kind, data: {"kind": kind, "data": data}, st.sampled_from(["stdout", "stderr"]), TEXT),
    st.builds(lambda phase: {"kind": "phase", "phase": phase}, st.sampled_from(["running", "weird"])),
    st.builds(lambda value: {"kind": "coffee", "value": value}, TEXT),
)
IDS = ["none", "all", "some"]
NEWLINES = ["\n", "\r\n", "\r"]


def framed(frames: Sequence[dict], ids: str, newline: str, extras: Sequence[int]) -> list[tuple[str | None, bytes]]:
    """Each event with its id, comments and names here and there."""
    events = []
    for index, frame in enumerate(frames):
        extra = extras[index % len(extras)] if extras else 0
        event_id = None if ids == "none" or (ids == "some" and extra % 3) else f"é{index}"
        lines = [": beat", ""] * (extra % 2)
        lines += [f"id: {event_id}"] if event_id else []
        lines += [f"event: {frame['kind']}"] * (extra // 2 % 2)
        lines += [f"data: {json.dumps(frame, ensure_ascii=bool(extra // 4))}", "", ""]
        events.append((event_id, newline.join(lines).encode()))
    return events


def server(events: list[tuple[str | None, bytes]], cuts: Sequence[int], sizes: Sequence[int], *, obeys: bool):
    """Answers as the contract says, cutting one connection after another. The last one is whole."""
    left = list(cuts)
    names = [event_id for event_id, _ in events]

    def answer(request: httpx.Request) -> httpx.Response:
        last = request.headers.raw and dict(request.headers.raw).get(b"Last-Event-ID")
        start = names.index(last.decode()) + 1 if last and obeys else 0
        data = b"".join(block for _, block in events[start:])
        if left:
            data = data[: left.pop(0) % (len(data) + 1)]
        return sse(*pieces(data, sizes))

    return answer


def pieces(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    result = []
    while data and sizes:
        size = sizes[len(result) % len(sizes)]
        result.append(data[:size])
        data = data[size:]
    return [*result, data]


async def consume(transport: ScriptedTransport, policy: RetryPolicy) -> list[dict]:
    with anyio.fail_after(PATIENCE_SECONDS):
        async with EnclaveClient("http://127.0.0.1:1", transport=transport, retry=policy) as client:
            async with client.stream("s-1") as frames:
                return [all_of(frame) async for frame in frames]


def expected(frames: Sequence[dict]) -> list[dict]:
    decoder = FrameDecoder(History())
    plain = b"".join(event for _, event in framed(frames, "none", "\n", [4]))
    return [all_of(frame) for frame in decoder.feed(plain)]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=40)
@given(
    frames=st.lists(FRAME, min_size=1, max_size=8),
    ids=st.sampled_from(IDS),
    newline=st.sampled_from(NEWLINES),
    extras=st.lists(st.integers(0, 7), max_size=8),
    cuts=st.lists(st.integers(0, 2000), max_size=6),
    sizes=st.lists(st.integers(1, 40), max_size=4),
    obeys=st.booleans(),
)
def test_the_consumer_sees_the_sessions_frames_wherever_the_connections_are_cut(
    *, backend, frames, ids, newline, extras, cuts, sizes, obeys
):
    session = [*frames, {"kind": "end"}]
    events = framed(session, ids, newline, extras)
    transport = ScriptedTransport(server(events, cuts, sizes, obeys=obeys))
    policy = RetryPolicy(attempts=len(cuts) + 2, wait_seconds=0)
    seen = anyio.run(consume, transport, policy, backend=backend)
    assert seen == expected(session)


def all_of(frame: StreamFrame) -> dict:
    """What the frame says. The repr of a frame has a bound, and the bytes of an unknown one depend on the framing."""
    content = {"kind": frame.kind} if isinstance(frame, UnknownFrame) else msgspec.to_builtins(frame)
    return {"type": type(frame).__name__, **content}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=40)
@given(
    frames=st.lists(FRAME, min_size=2, max_size=6),
    changed=st.integers(0, 5),
    sizes=st.lists(st.integers(1, 40), max_size=4),
)
def test_a_replay_with_any_frame_changed_is_never_delivered(backend, frames, changed, sizes):
    changed %= len(frames)
    other = [*frames]
    other[changed] = {"kind": "stdout", "data": "not what was said before"}
    first = b"".join(block for _, block in framed(frames, "none", "\n", []))
    second = b"".join(block for _, block in framed([*other, {"kind": "end"}], "none", "\n", []))
    transport = ScriptedTransport(sse(*pieces(first, sizes)), sse(*pieces(second, sizes)))

    async def main() -> list[dict]:
        seen = []
        async with EnclaveClient("http://127.0.0.1:1", transport=transport, retry=THRICE_AT_ONCE) as client:
            async with client.stream("s-1") as stream:
                with pytest.raises(StreamInterrupted, match="differs") as caught:
                    async for frame in stream:
                        seen.append(all_of(frame))  # noqa: PERF401 - an error follows
        assert caught.value.delivered == len(frames)
        return seen

    assert anyio.run(main, backend=backend) == expected(frames)
