"""The fast way of decoding frames must agree with the exact one on every input and at every split into reads."""

from __future__ import annotations

import json
import time
from zlib import crc32

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from enclave._streams._decoder import FrameDecoder
from enclave._streams._frames import decode_frame
from enclave._streams._position import HistoryMismatch, Position, UnprovenContinuation
from enclave.errors import EventTooLargeError
from enclave.transport import SSEDecoder
from enclave.types import EndFrame, StderrFrame, StdoutFrame, StreamFrame, UnknownFrame

texts = st.sampled_from(
    [
        b'{"kind":"stdout","data":"one"}',
        b'{"kind":"stderr","data":"two\\n"}',
        b'{"kind":"stdout","data":"cut \\ud83d"}',
        b'{"kind":"stdout","data":"\\\\ud83d \\ud83d\\ude00"}',
        '{"kind":"stdout","data":"é😀\u2028"}'.encode(),
        b'{"kind":"stdout","data":"bad \xff\xf0\x9f"}',
        b'{"kind":"stdout","data":"x","more":"\xff"}',
        b'{"kind":"phase","phase":"running"}',
        b'{"kind":"phase","phase":"hibernating","x":[{}]}',
        b'{"kind":"audit","event":{"type":"egress_denied","detail":{"host":"h"}}}',
        b'{"kind":"result","result":{"exitCode":0,"json":{"a":[1]}}}',
        b'{"kind":"progress","done":3}',
        b'{"data":"kind from the event name"}',
        b'{"kind":"stdout"}',
        b'{"kind":"stdout","data":1}',
        b'{"kind":3}',
        b'{"kind":"stdout","data":"truncated',
        b'{"kind":"stdout","data":"x"}{"kind":"stdout","data":"y"}',
        b'{"kind":"stdout",',
        b'"data":"z"}',
        b"{}",
        b"{ }",
        b"",
        b" ",
        b"[1]",
        b"5",
        b'{"kind":"end"}',
    ]
)
names = st.sampled_from([b"", b"event: stdout\n", b"event: odd\n", b"event:\n", b"event: message\n"])
ids = st.sampled_from([b"", b"id: 1\n", b"id:2\n", b"id: \n", b"id: a\0b\n", "id: é\n".encode(), b"id: \xff\n"])
noise = st.sampled_from([b"", b"", b"", b": heartbeat\n", b"retry: 5\n", b"unknown: x\n", b"data\n", b"x", b"\n"])


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    text = draw(texts)
    data = b"data: " + text + b"\n"
    if draw(st.integers(0, 9)) == 0 and b":" in text:
        head, tail = text.split(b":", 1)
        data = b"data: " + head + b":\ndata: " + tail + b"\n"
    lines = draw(st.permutations([draw(ids), draw(names), draw(noise), data]))
    return b"".join(lines) + b"\n"


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    body = draw(st.lists(blocks(), min_size=1, max_size=12))
    if draw(st.booleans()):
        body = [draw(st.sampled_from(body))] * draw(st.integers(1, 6)) + body
    stream = b"".join(body)
    match draw(st.integers(0, 3)):
        case 0:
            stream = stream.replace(b"\n", b"\r\n")
        case 1:
            stream = stream.replace(b"\n", b"\r", draw(st.integers(0, 9)))
    if draw(st.booleans()):
        stream = b"\xef\xbb\xbf" + stream
    return stream[: draw(st.integers(0, len(stream)))] if draw(st.booleans()) else stream


sizes = st.one_of(st.just([]), st.lists(st.integers(1, 400), max_size=40), st.lists(st.integers(1, 7), max_size=400))


def exact(stream: bytes) -> list[StreamFrame]:
    """Event by event through the public decoder: the meaning of a stream."""
    seen: list[StreamFrame] = []
    for event in SSEDecoder().feed(stream):
        frame = decode_frame(event.data.encode(), event.event)
        seen.append(frame)
        if isinstance(frame, EndFrame):
            break
    return seen


def pieces_of(stream: bytes, cut_sizes: list[int]) -> list[bytes]:
    pieces, position = [], 0
    for size in cut_sizes:
        pieces.append(stream[position : position + size])
        position += size
    return [*pieces, stream[position:]]


def decode(decoder: FrameDecoder, pieces: list[bytes]) -> list[StreamFrame]:
    frames = [frame for piece in pieces for frame in decoder.feed(piece)]
    if decoder.failure is not None:
        raise decoder.failure
    return frames


@settings(max_examples=1000)
@given(streams(), sizes)
@example(b'data: {}\n\ndata: {"kind":"stdout"\n\ndata: "data":"x"}\n\ndata: {"kind":"end"}{"kind":"end"}\n\n', [])
@example(b'data: {}\r\rdata: {"kind":"progress"}\r\r', [10])
def test_reads_decoded_at_once_give_what_events_decoded_one_by_one_give(stream: bytes, cut_sizes: list[int]) -> None:
    assert decode(FrameDecoder(), pieces_of(stream, cut_sizes)) == exact(stream)


@settings(max_examples=300)
@given(streams(), sizes)
def test_frames_come_with_the_read_that_completes_them(stream: bytes, cut_sizes: list[int]) -> None:
    decoder, position = FrameDecoder(), 0
    seen: list[StreamFrame] = []
    for piece in pieces_of(stream, cut_sizes):
        position += len(piece)
        seen += decoder.feed(piece)
        assert seen == exact(stream[:position])


@settings(max_examples=300)
@given(streams(), sizes)
def test_the_position_does_not_depend_on_how_the_stream_was_cut(stream: bytes, cut_sizes: list[int]) -> None:
    events = SSEDecoder()
    data = [event.data.encode() for event in events.feed(stream)]
    decoder = FrameDecoder()
    decode(decoder, pieces_of(stream, cut_sizes))
    if decoder.ended:
        return
    checksum = crc32(b"".join(text + b"\n" for text in data))
    assert (decoder.position.count, decoder.position.checksum) == (len(data), checksum)
    assert decoder.position.last_event_id == events.last_event_id


@settings(max_examples=300)
@given(streams(), sizes, st.integers(0, 2000), st.booleans())
def test_a_stream_cut_anywhere_and_replayed_gives_every_frame_once(
    stream: bytes, cut_sizes: list[int], cut: int, ignores_id: bool
) -> None:
    first = FrameDecoder()
    seen = decode(first, pieces_of(stream[:cut], cut_sizes))
    if first.ended:
        return
    by_id = ignores_id and first.position.can_resume_by_id
    second = FrameDecoder(position=first.position, replays=not by_id)
    assert seen + decode(second, pieces_of(stream, cut_sizes)) == exact(stream)


def frame_block(index: int, text: str) -> bytes:
    return b"id: %d\nevent: stdout\ndata: %s\n\n" % (index, json.dumps({"kind": "stdout", "data": text}).encode())


@given(st.integers(1, 20), st.integers(0, 25), sizes)
def test_a_server_that_goes_on_after_the_last_id_is_followed(total: int, cut: int, cut_sizes: list[int]) -> None:
    stream = [frame_block(index, f"line {index}") for index in range(total)]
    first = FrameDecoder()
    seen = decode(first, pieces_of(b"".join(stream[:cut]), cut_sizes))
    second = FrameDecoder(position=first.position)
    seen += decode(second, pieces_of(b"".join(stream[cut:]), cut_sizes))
    assert seen == [StdoutFrame(f"line {index}") for index in range(total)]
    assert second.position.count == total


def test_a_replay_with_other_frames_is_refused() -> None:
    first = FrameDecoder()
    decode(first, [b'data: {"kind":"stdout","data":"a"}\n\ndata: {"kind":"stdout","data":"b"}\n\n'])
    second = FrameDecoder(position=first.position, replays=True)
    with pytest.raises(HistoryMismatch, match="differs"):
        decode(second, [b'data: {"kind":"stdout","data":"a"}\n\ndata: {"kind":"stdout","data":"c"}\n\n'])
    assert second.ended


def test_a_replay_that_ends_too_early_is_refused() -> None:
    first = FrameDecoder()
    decode(first, [b'data: {"kind":"stdout","data":"a"}\n\ndata: {"kind":"stdout","data":"b"}\n\n'])
    second = FrameDecoder(position=first.position, replays=True)
    with pytest.raises(HistoryMismatch, match="has 1 of the 2 frames received before"):
        decode(second, [b'data: {"kind":"stdout","data":"a"}\n\ndata: {"kind":"end"}\n\n'])


@pytest.mark.parametrize(
    ("next_id", "doubt"),
    [(20, "sent '20' again"), (17, "sent '17' again"), (22, "ids were consecutive, and '22' came after '20'")],
    ids=["the last again", "an earlier one again", "one left out"],
)
@pytest.mark.parametrize("cut_sizes", [[], [1] * 2000], ids=["in bulk", "byte by byte"])
def test_a_server_that_goes_on_elsewhere_proves_nothing_and_calls_for_a_replay(
    next_id: int, doubt: str, cut_sizes: list[int]
) -> None:
    first = FrameDecoder()
    seen = decode(first, pieces_of(b"".join(frame_block(index, str(index)) for index in range(1, 21)), cut_sizes))
    second = FrameDecoder(position=first.position)
    second.feed(frame_block(next_id, "x"))
    assert isinstance(second.failure, UnprovenContinuation)
    assert doubt in str(second.failure)
    assert second.position.count == len(seen) == 20
    assert not second.position.can_resume_by_id


@pytest.mark.parametrize("text", ["x", "x" * 5000], ids=["short", "long"])
@pytest.mark.parametrize("per_read", [1, 2, 10, 200])
def test_however_many_events_a_read_held_one_left_out_or_sent_again_is_noticed(per_read: int, text: str) -> None:
    events = [frame_block(index, text) for index in range(1, 121)]
    first = FrameDecoder()
    decode(first, [b"".join(events[start : start + per_read]) for start in range(0, 120, per_read)])
    for next_id in (171, 117):
        decoder = FrameDecoder(position=first.position)
        decoder.feed(frame_block(next_id, "y"))
        assert isinstance(decoder.failure, UnprovenContinuation)
    assert decode(FrameDecoder(position=first.position), [frame_block(121, "y")]) == [StdoutFrame("y")]


def test_ids_that_are_no_series_may_go_on_anywhere_but_back() -> None:
    first = FrameDecoder()
    decode(first, [b"".join(frame_block(index, "x") for index in (5, 9, 10, 30))])
    assert decode(FrameDecoder(position=first.position), [frame_block(77, "y")]) == [StdoutFrame("y")]


def test_a_connection_that_broke_before_its_first_event_leaves_the_position_as_it_was() -> None:
    first = FrameDecoder()
    decode(first, [frame_block(1, "a")])
    for replays in (True, False):
        assert FrameDecoder(position=first.position, replays=replays).position == first.position


def test_an_id_less_event_after_a_resume_proves_nothing_and_calls_for_a_replay() -> None:
    first = FrameDecoder()
    decode(first, [frame_block(1, "a")])
    second = FrameDecoder(position=first.position)
    second.feed(b'data: {"kind":"stdout","data":"b"}\n\n')
    assert isinstance(second.failure, UnprovenContinuation)
    assert second.position.count == first.position.count
    assert not second.position.can_resume_by_id


def test_an_empty_id_line_takes_the_id_away() -> None:
    first = FrameDecoder()
    decode(first, [frame_block(1, "a")])
    second = FrameDecoder(position=first.position)
    decode(second, [frame_block(2, "b") + b'id\ndata: {"kind":"stdout","data":"c"}\n\n'])
    assert second.position.last_event_id == ""
    assert not second.position.can_resume_by_id


def test_a_frame_that_cannot_be_read_stands_among_its_neighbours_and_is_told_with_its_place() -> None:
    blocks = [frame_block(index, str(index)) for index in range(100)]
    blocks[41] = b"id: 41\nevent: stdout\ndata: {broken}\n\n"
    told: list[tuple[UnknownFrame, int]] = []
    frames = FrameDecoder(on_unknown=lambda frame, index: told.append((frame, index))).feed(b"".join(blocks))
    assert len(frames) == 100
    unknown = frames[41]
    assert isinstance(unknown, UnknownFrame)
    assert (unknown.kind, unknown.raw) == ("stdout", b"{broken}")
    assert unknown.problem
    assert told == [(unknown, 41)]


def test_an_unknown_kind_keeps_its_json_and_its_place() -> None:
    frames = decode(FrameDecoder(), [b'data: {"kind":"stderr","data":"x"}\n\ndata: {"kind":"odd","n":1}\n\n'])
    assert frames == [StderrFrame("x"), UnknownFrame("odd", b'{"kind":"odd","n":1}')]


def test_frames_before_an_oversized_event_come_before_the_error() -> None:
    decoder = FrameDecoder(max_event_bytes=100)
    frames = decoder.feed(b'data: {"kind":"stdout","data":"x"}\n\n' * 3 + b"data: " + b"y" * 200)
    assert frames == [StdoutFrame("x")] * 3
    assert isinstance(decoder.failure, EventTooLargeError)
    assert decoder.ended
    assert decoder.feed(b"more") == []


def test_nothing_after_the_end_frame_is_given_out() -> None:
    decoder = FrameDecoder()
    assert decode(decoder, [b'data: {"kind":"end"}\n\ndata: {"kind":"stdout","data":"late"}\n\n']) == [EndFrame()]
    assert decoder.ended


@pytest.mark.parametrize("cut_sizes", [[], [1] * 2000], ids=["in bulk", "byte by byte"])
def test_what_comes_after_the_end_frame_is_not_counted(cut_sizes: list[int]) -> None:
    decoder = FrameDecoder()
    end = b'data: {"kind":"end"}\n\n'
    stream = (
        frame_block(1, "a") + frame_block(2, "b") + end + frame_block(3, "c") + b"data: {}\n\n" + frame_block(4, "d")
    )
    assert decode(decoder, pieces_of(stream, cut_sizes)) == [StdoutFrame("a"), StdoutFrame("b"), EndFrame()]
    assert decoder.position.count == 3


def test_a_position_knows_whether_its_id_can_be_trusted() -> None:
    assert not Position(count=3, last_event_id="9").can_resume_by_id
    assert Position(count=3, first_event_id="1", last_event_id="9").can_resume_by_id


@pytest.mark.parametrize(
    "block", [b":\n\n", b"id: 1\n\n", b"\n\n", b"retry: 1\r\n\r\n", b"dat\n\n", b"database: 1\n\n"]
)
def test_what_comes_before_the_first_event_is_taken_in_linear_time(block: bytes) -> None:
    def seconds(size: int) -> float:
        flood = block * (size // len(block))
        started = time.process_time()
        FrameDecoder().feed(flood)
        return time.process_time() - started

    small, large = min(seconds(16_384) for _ in range(3)), min(seconds(262_144) for _ in range(2))
    assert large < 50 * small + 0.05  # 16 times as much; quadratic would be 256 times
