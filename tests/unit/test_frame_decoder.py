"""The fast way of decoding frames must agree with the exact one on every input and at every split into reads."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from enclave._streams._decoder import FrameDecoder
from enclave._streams._frames import decode_frame
from enclave._streams._history import History, HistoryMismatch, UnprovenContinuation
from enclave._streams._warnings import UnknownFrameLog
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
    assert decode(FrameDecoder(History()), pieces_of(stream, cut_sizes)) == exact(stream)


@settings(max_examples=300)
@given(streams(), sizes)
def test_frames_come_with_the_read_that_completes_them(stream: bytes, cut_sizes: list[int]) -> None:
    decoder, position = FrameDecoder(History()), 0
    seen: list[StreamFrame] = []
    for piece in pieces_of(stream, cut_sizes):
        position += len(piece)
        seen += decoder.feed(piece)
        assert seen == exact(stream[:position])


@settings(max_examples=300)
@given(streams(), sizes)
def test_what_a_stream_remembers_does_not_depend_on_how_it_was_cut(stream: bytes, cut_sizes: list[int]) -> None:
    one, other = History(), History()
    decoder = FrameDecoder(one)
    decode(decoder, pieces_of(stream, cut_sizes))
    decode(FrameDecoder(other), [stream[index : index + 1] for index in range(len(stream))])
    assert one.count == other.count == len(exact(stream))
    if not decoder.ended:
        assert one.resume_id() == other.resume_id()
        assert one.has_ended_workload == other.has_ended_workload


@settings(max_examples=300)
@given(streams(), sizes, st.integers(0, 2000), st.booleans())
def test_a_stream_cut_anywhere_and_replayed_gives_every_frame_once(
    stream: bytes, cut_sizes: list[int], cut: int, ignores_id: bool
) -> None:
    history = History()
    first = FrameDecoder(history)
    seen = decode(first, pieces_of(stream[:cut], cut_sizes))
    if first.ended:
        return
    history.connected(asked_to_go_on=ignores_id and history.resume_id() is not None)
    assert seen + decode(FrameDecoder(history), pieces_of(stream, cut_sizes)) == exact(stream)


def frame_block(event_id: object, text: str, line_end: str = "\n") -> bytes:
    data = json.dumps({"kind": "stdout", "data": text})
    return "".join(f"{line}{line_end}" for line in (f"id: {event_id}", "event: stdout", f"data: {data}", "")).encode()


def resumed(history: History) -> FrameDecoder:
    """The decoder of a connection that was asked to go on after the last event."""
    assert history.resume_id() is not None
    history.connected(asked_to_go_on=True)
    return FrameDecoder(history)


def replayed(history: History) -> FrameDecoder:
    history.connected(asked_to_go_on=False)
    return FrameDecoder(history)


@given(st.integers(1, 20), st.integers(0, 25), sizes)
def test_a_server_that_goes_on_after_the_last_id_is_followed(total: int, cut: int, cut_sizes: list[int]) -> None:
    stream = [frame_block(index, f"line {index}") for index in range(total)]
    history = History()
    seen = decode(FrameDecoder(history), pieces_of(b"".join(stream[:cut]), cut_sizes))
    history.connected(asked_to_go_on=history.resume_id() is not None)
    seen += decode(FrameDecoder(history), pieces_of(b"".join(stream[cut:]), cut_sizes))
    assert seen == [StdoutFrame(f"line {index}") for index in range(total)]
    assert history.count == total


@pytest.mark.parametrize("per_read", [1, 2, 500], ids=["event by event", "in pairs", "at once"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("changed", [0, 1, 137, 298, 299])
def test_a_replay_with_another_frame_is_refused_however_it_was_read(per_read: int, line_end: str, changed: int) -> None:
    old = [frame_block(index, f"line {index}", line_end) for index in range(300)]
    new = [*old, frame_block(300, "more", line_end)]
    history = History()
    decode(FrameDecoder(history), in_reads(old, per_read))
    assert decode(replayed(history), in_reads(new, per_read)) == [StdoutFrame("more")]
    new[changed] = frame_block(changed, "another line", line_end)
    decoder = replayed(history)
    with pytest.raises(HistoryMismatch, match="differs"):
        decode(decoder, in_reads(new, per_read))
    assert decoder.ended


def in_reads(events: list[bytes], per_read: int) -> list[bytes]:
    return [b"".join(events[start : start + per_read]) for start in range(0, len(events), per_read)]


@pytest.mark.parametrize(
    "end", [b'data: {"kind":"end"}\n\n', b'event: end\ndata: {"ts":null}\n\n', b'id: 9\ndata: { "kind" : "end" }\n\n']
)
@pytest.mark.parametrize("count", [2, 200])
def test_a_replay_that_ends_too_early_is_refused(end: bytes, count: int) -> None:
    events = [frame_block(index, f"line {index}") for index in range(count)]
    history = History()
    decode(FrameDecoder(history), [b"".join(events)])
    with pytest.raises(HistoryMismatch, match=f"has {count - 1} of the {count} frames received before"):
        decode(replayed(history), [b"".join(events[:-1]) + end])


def test_an_end_that_cannot_be_read_is_compared_like_any_other_frame_of_a_replay() -> None:
    stream = b'data: {"kind":"stdout","data":"a"}\n\ndata: {"kind":"end","ts":7}\n\n'
    history = History()
    before, end = decode(FrameDecoder(history), [stream])
    assert before == StdoutFrame("a")
    assert isinstance(end, UnknownFrame)
    assert decode(replayed(history), [stream + b'data: {"kind":"end"}\n\n']) == [EndFrame()]


def test_the_name_of_an_event_counts_in_a_replay_if_it_is_the_kind_of_the_frame() -> None:
    history = History()
    decode(FrameDecoder(history), [b'event: stdout\ndata: {"data":"a"}\n\n'])
    with pytest.raises(HistoryMismatch, match="differs"):
        decode(replayed(history), [b'event: stderr\ndata: {"data":"a"}\n\n'])


def test_a_replay_of_a_replay_that_broke_starts_over() -> None:
    events = [frame_block("", f"line {index}") for index in range(30)]
    history = History()
    decode(FrameDecoder(history), [b"".join(events[:20])])
    assert decode(replayed(history), [b"".join(events[:10])]) == []
    assert history.is_replaying
    assert decode(replayed(history), [b"".join(events)]) == [StdoutFrame(f"line {index}") for index in range(20, 30)]
    assert not history.is_replaying


def test_a_frame_that_cannot_be_read_stands_among_its_neighbours_and_is_told_with_its_place() -> None:
    blocks = [frame_block(index, str(index)) for index in range(100)]
    blocks[41] = b"id: 41\nevent: stdout\ndata: {broken}\n\n"
    told: list[tuple[UnknownFrame, int]] = []

    class Log(UnknownFrameLog):
        def note(self, frame: UnknownFrame, index: int) -> None:
            told.append((frame, index))

    frames = FrameDecoder(History(), unknown_frames=Log("s-1")).feed(b"".join(blocks))
    assert len(frames) == 100
    unknown = frames[41]
    assert isinstance(unknown, UnknownFrame)
    assert (unknown.kind, unknown.raw) == ("stdout", b"{broken}")
    assert unknown.problem
    assert told == [(unknown, 41)]


def test_an_unknown_kind_keeps_its_json_and_its_place() -> None:
    stream = b'data: {"kind":"stderr","data":"x"}\n\ndata: {"kind":"odd","n":1}\n\n'
    frames = decode(FrameDecoder(History()), [stream])
    assert frames == [StderrFrame("x"), UnknownFrame("odd", b'{"kind":"odd","n":1}')]


def test_frames_before_an_oversized_event_come_before_the_error() -> None:
    decoder = FrameDecoder(History(), max_event_bytes=100)
    frames = decoder.feed(b'data: {"kind":"stdout","data":"x"}\n\n' * 3 + b"data: " + b"y" * 200)
    assert frames == [StdoutFrame("x")] * 3
    assert isinstance(decoder.failure, EventTooLargeError)
    assert decoder.ended
    assert decoder.feed(b"more") == []


def test_a_read_larger_than_the_bound_of_an_event_is_no_event_that_is_too_large() -> None:
    decoder = FrameDecoder(History(), max_event_bytes=3000)
    block = frame_block("", "x" * 1000)
    assert decode(decoder, [block * 50, block * 50]) == [StdoutFrame("x" * 1000)] * 100


@pytest.mark.parametrize("cut_sizes", [[], [1] * 2000], ids=["in bulk", "byte by byte"])
def test_what_comes_after_the_end_frame_is_neither_given_out_nor_counted(cut_sizes: list[int]) -> None:
    history = History()
    decoder = FrameDecoder(history)
    end = b'id: 9\nevent: end\ndata: {"kind":"end"}\n\n'
    stream = frame_block(1, "a") + frame_block(2, "b") + end + frame_block(3, "c") + frame_block(4, "d") * 100
    assert decode(decoder, pieces_of(stream, cut_sizes)) == [StdoutFrame("a"), StdoutFrame("b"), EndFrame()]
    assert decoder.ended
    assert history.count == 3


def test_nor_is_what_comes_after_it_in_a_read_that_is_too_odd_to_be_decoded_at_once() -> None:
    history = History()
    stream = [frame_block(number, "x" * 100) for number in range(100)]
    stream[20], stream[60] = b'id: 20\nevent: end\ndata: {"kind":"end"}\n\n', b"data: {broken}\n\n"
    frames = FrameDecoder(history).feed(b"".join(stream))
    assert frames == [StdoutFrame("x" * 100)] * 20 + [EndFrame()]
    assert history.count == 21


@pytest.mark.parametrize("cut_sizes", [[], [1] * 2000], ids=["in bulk", "byte by byte"])
@pytest.mark.parametrize("phase", ["succeeded", "failed", "killed", "torn_down"])
def test_a_terminal_phase_is_noticed_wherever_it_stands(cut_sizes: list[int], phase: str) -> None:
    history = History()
    frames = [{"kind": "phase", "phase": "running"}, {"kind": "phase", "phase": phase}, {"kind": "stdout", "data": "x"}]
    blocks = [f"data: {json.dumps(frame)}\n\n".encode() for frame in frames]
    decode(FrameDecoder(history), [blocks[0]])
    assert not history.has_ended_workload
    decode(FrameDecoder(history), pieces_of(b"".join(blocks[1:]), cut_sizes))
    assert history.has_ended_workload


@pytest.mark.parametrize("cut_sizes", [[], [1] * 2000], ids=["in bulk", "byte by byte"])
def test_a_connection_that_may_go_on_elsewhere_gives_no_frame(cut_sizes: list[int]) -> None:
    history = History()
    decode(FrameDecoder(history), [frame_block(1, "a") + frame_block(2, "b")])
    decoder = resumed(history)
    stream = frame_block(4, "x") + frame_block(5, "y") * 10
    assert [frame for piece in pieces_of(stream, cut_sizes) for frame in decoder.feed(piece)] == []
    assert isinstance(decoder.failure, UnprovenContinuation)
    assert decoder.ended
    assert history.count == 2
    assert history.resume_id() is None


@pytest.mark.parametrize("reads", ["whole", "bytes"])
def test_an_id_that_holds_nul_is_none_so_the_ids_prove_nothing_from_then_on(reads: str):
    ids = (b"1", b"2", b"3\0", b"4", b"5", b"6")
    data = b"".join(b'id: %b\ndata: {"kind":"stdout","data":"x"}\n\n' % event_id for event_id in ids)
    history = History()
    decoder = FrameDecoder(history)
    for piece in [data] if reads == "whole" else [data[n : n + 1] for n in range(len(data))]:
        decoder.feed(piece)
    assert history.count == len(ids)
    assert history.resume_id() is None
