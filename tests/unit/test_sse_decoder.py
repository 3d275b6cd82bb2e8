"""SSEDecoder against an oracle written from the specification's text, character by character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave.errors import EventTooLargeError
from enclave.transport import SSEDecoder

Event = tuple[str, str, str, int | None]

fragments = st.sampled_from(
    [
        *b"data id event retry : a 7 1_0 +5 {}".split(),
        *(b": ", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b"\0", b"\x0b", b"\x0c", b"\xff", b"\xf0\x9f"),
        *("\ufeff".encode(), "\u2028".encode(), "\x85".encode(), "é😀".encode()),
    ]
)
streams = st.lists(fragments, max_size=60).map(b"".join)
lines = st.tuples(
    st.sampled_from([b"data:", b"data: ", b"data", b"id:", b"id: ", b"id", b"event: ", b"retry: ", b":", b"x: ", b""]),
    st.sampled_from([b"", b"1", b"22", b" x", b"\0", "é".encode(), b"a:b", b"{}"]),
    st.sampled_from([b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"\r\r"]),
).map(b"".join)
streams |= st.lists(lines, max_size=30).map(b"".join)
cuts = st.lists(st.integers(1, 9), max_size=60)


def oracle(stream: bytes) -> list[Event]:
    """https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation, as it reads."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    lines, line, position = [], "", 0
    while position < len(text):
        char = text[position]
        position += 1
        if char not in "\r\n":
            line += char
            continue
        if char == "\r" and text[position : position + 1] == "\n":
            position += 1
        lines.append(line)
        line = ""
    events: list[Event] = []
    data, event_type, id_buffer, retry = "", "", "", None
    for line in lines:
        if line == "":
            if data:
                events.append((event_type or "message", data.removesuffix("\n"), id_buffer, retry))
            data, event_type, retry = "", "", None
            continue
        if line.startswith(":"):
            continue
        name, colon, value = line.partition(":")
        value = value.removeprefix(" ") if colon else ""
        if name == "data":
            data += value + "\n"
        elif name == "event":
            event_type = value
        elif name == "id" and "\0" not in value:
            id_buffer = value
        elif name == "retry" and value and all(char in "0123456789" for char in value):
            retry = int(value)
    return events


def split(stream: bytes, sizes: list[int]) -> list[bytes]:
    pieces, position = [], 0
    for size in sizes:
        pieces.append(stream[position : position + size])
        position += size
    return [*pieces, stream[position:]]


def decode(decoder: SSEDecoder, pieces: list[bytes]) -> list[Event]:
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return [(event.event, event.data, event.id, event.retry) for event in events]


@given(streams, cuts)
def test_every_stream_at_every_split_decodes_as_the_specification_says(stream: bytes, sizes: list[int]) -> None:
    assert decode(SSEDecoder(), split(stream, sizes)) == oracle(stream)


@given(streams)
def test_bytes_one_at_a_time_give_the_same_events_as_all_at_once(stream: bytes) -> None:
    assert decode(SSEDecoder(), [stream[i : i + 1] for i in range(len(stream))]) == decode(SSEDecoder(), [stream])


def test_an_id_in_a_block_without_data_still_counts() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"id: 7\n") == []
    assert decoder.last_event_id == ""
    assert decoder.feed(b"\n") == []
    assert decoder.last_event_id == "7"


def test_an_id_with_nul_leaves_the_old_one() -> None:
    decoder = SSEDecoder()
    decoder.feed(b"id: 7\ndata: x\n\nid: 8\x009\ndata: y\n\n")
    assert decoder.last_event_id == "7"


@pytest.mark.parametrize("value", ["1_000", "+5", "-1", "\uff15", " 5", "5 ", "1e3", ""])
def test_what_is_not_ascii_digits_is_no_retry(value: str) -> None:
    decoder = SSEDecoder()
    decoder.feed(f"retry:  {value}\n\n".encode())
    assert decoder.retry_ms is None


def test_a_retry_of_many_digits_costs_nothing_and_is_bounded() -> None:
    decoder = SSEDecoder()
    decoder.feed(b"retry: " + b"9" * 100_000 + b"\n\n")
    assert decoder.retry_ms == 10**12 - 1


def test_events_before_an_oversized_one_come_first_then_the_error_every_time() -> None:
    decoder = SSEDecoder(max_event_bytes=20)
    (event,) = decoder.feed(b"data: small\n\ndata: " + b"x" * 30)
    assert event.data == "small"
    for _ in range(2):
        with pytest.raises(EventTooLargeError, match="max_event_bytes=20"):
            decoder.feed(b"x")


def test_a_line_without_end_is_refused_before_it_outgrows_the_bound() -> None:
    decoder = SSEDecoder(max_event_bytes=1000)
    fed = 0
    with pytest.raises(EventTooLargeError):
        while fed < 10_000:
            decoder.feed(b"x" * 100)
            fed += 100
    assert fed == 1000


def test_many_small_data_lines_count_together() -> None:
    with pytest.raises(EventTooLargeError):
        SSEDecoder(max_event_bytes=1000).feed(b"data: x\n" * 200)


def test_comments_do_not_add_up() -> None:
    decoder = SSEDecoder(max_event_bytes=100)
    decoder.feed(b": heartbeat\n" * 1000)
    (event,) = decoder.feed(b"data: x\n\n")
    assert event.data == "x"


def test_a_bound_that_admits_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="max_event_bytes: must be positive, got 0"):
        SSEDecoder(max_event_bytes=0)


@pytest.mark.parametrize("bound", ["1", 1.5, True])
def test_a_bound_that_is_no_whole_number_is_refused(bound) -> None:
    with pytest.raises(TypeError, match=f"max_event_bytes: expected a whole number, got {type(bound).__name__}"):
        SSEDecoder(max_event_bytes=bound)
