"""How much Python runs for a read: as much for a thousand frames as for a hundred, wherever they have one shape."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from types import FrameType

import pytest

from enclave._streams._decoder import FrameDecoder
from enclave._streams._history import History

SMALL, LARGE = 100, 1000
FIELDS = {
    "data alone": "data: {data}",
    "ids": "id: {number}\ndata: {data}",
    "opaque ids": "id: {number:x}!\ndata: {data}",
    "ids, names": "id: {number}\nevent: stdout\ndata: {data}",
    "ids at the end, no blanks": "event:stdout\ndata:{data}\nid:{number}",
}


def events(fields: str, start: int, count: int, line_end: str = "\n") -> bytes:
    blocks = [
        fields.format(number=number, data=json.dumps({"kind": "stdout", "data": f"line {number}"}))
        for number in range(start, start + count)
    ]
    return "".join(f"{block}\n\n" for block in blocks).replace("\n", line_end).encode()


def calls_of(feed: Callable[[bytes], list[object]], data: bytes, frames: int) -> int:
    """How many Python functions run where this is fed, which holds so many new frames."""
    calls = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(note)
    try:
        given = feed(data)
    finally:
        sys.setprofile(None)
    assert len(given) == frames
    return calls


@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_a_read_of_events_of_one_shape_is_decoded_at_once(fields, line_end):
    FrameDecoder(History()).feed(events(fields, 0, SMALL, line_end))  # compiles what it needs once
    decoder = FrameDecoder(History())
    first = calls_of(decoder.feed, events(fields, 0, SMALL, line_end), SMALL)
    small = calls_of(decoder.feed, events(fields, SMALL, SMALL, line_end), SMALL)
    large = calls_of(decoder.feed, events(fields, 2 * SMALL, LARGE, line_end), LARGE)
    assert small == large < SMALL
    assert first < SMALL  # though the very first event is looked at alone


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_a_replay_is_compared_at_once(fields):
    history = History()
    FrameDecoder(history).feed(events(fields, 0, LARGE + SMALL))
    history.connected(asked_to_go_on=False)
    decoder = FrameDecoder(history)
    assert calls_of(decoder.feed, events(fields, 0, LARGE), 0) < 2 * SMALL


ODD = [b": a comment\n\n", b"retry: 5\n\n", b"data: {broken}\n\n", b'data: {"a":\ndata: 1}\n\n']


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_event_sends_only_its_neighbours_the_slow_way(odd):
    decoder = FrameDecoder(History())
    decoder.feed(events(FIELDS["data alone"], 0, 1))
    data = events(FIELDS["data alone"], 1, LARGE)
    middle = data.index(b"\n\n", len(data) // 3) + 2
    frames = LARGE + odd.startswith(b"data")
    assert calls_of(decoder.feed, data[:middle] + odd + data[middle:], frames) < LARGE


@pytest.mark.parametrize("is_last", [True, False], ids=["last", "first"])
def test_an_odd_event_larger_than_all_others_leaves_these_the_fast_way(is_last):
    decoder = FrameDecoder(History())
    decoder.feed(events(FIELDS["data alone"], 0, 1))
    data, odd = events(FIELDS["data alone"], 1, LARGE), b"data: {" + b"x" * 200_000 + b"}\n\n"
    assert calls_of(decoder.feed, data + odd if is_last else odd + data, LARGE + 1) < LARGE
