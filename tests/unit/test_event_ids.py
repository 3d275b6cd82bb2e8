"""What the ids of events prove: the same whether they were read one by one or many at once, and in bounded memory."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave._streams import _plain
from enclave._streams._ids import MAX_HASHES, MAX_ID_BYTES, EventIds, IdState

MAX_CPU_SECONDS = 0.4
"""A fifth of it is usual, and looking at the whole of such an id takes twice as long."""


def noted(*event_ids: str | bytes | None) -> EventIds:
    """The ids of events that were read one by one."""
    ids = EventIds()
    for event_id in event_ids:
        ids.note(event_id.encode() if isinstance(event_id, str) else event_id)
    return ids


def region_of(event_ids: Iterable[bytes]) -> bytes:
    return b"".join(b"id: %b\ndata: {}\n\n" % event_id for event_id in event_ids)


def noted_at_once(*event_ids: str) -> EventIds:
    """The same ids, the first one alone, and the others in one read."""
    first, *others = [event_id.encode() for event_id in event_ids]
    ids = noted(first)
    if others:
        region = region_of(others)
        shape = _plain.shape_of(region)
        assert shape is not None
        ids.note_region(region, shape, len(others))
    return ids


BOTH = pytest.mark.parametrize("note", [noted, noted_at_once], ids=["one by one", "at once"])


@BOTH
@pytest.mark.parametrize(
    ("event_ids", "follows"),
    [
        (["1"], "2"),
        (["0", "1"], "2"),
        (["1", "2", "3"], "4"),
        (["7", "17"], "27"),
        (["100", "99", "98"], "97"),
        (["98", "99"], "100"),
        (["008", "009"], "010"),
        (["0"], "1"),
        (["s-1", "s-2"], "s-3"),
        (["é9", "é10"], "é11"),
        (["100%-1", "100%-2"], "100%-3"),
        (["start", "1", "2", "3"], "4"),
        (["5", "9", "10", "11"], "12"),
        (["9" * 17, "1" + "0" * 17], "1" + "0" * 16 + "1"),
    ],
)
def test_of_ids_that_count_only_the_next_number_follows(note, event_ids, follows):
    ids = note(*event_ids)
    last = event_ids[-1]
    assert ids.doubt_about(follows.encode()) is None
    assert ids.resume_id() == last.encode()
    for other in (last, event_ids[0], follows + "0", "x" + follows, "0" + follows, "1000"):
        assert ids.doubt_about(other.encode()) is not None, other
    assert (
        ids.doubt_about(b"") == ids.doubt_about(None) == f"after the event {last!r} the server sent one without an id"
    )


@BOTH
@pytest.mark.parametrize(
    ("event_ids", "follow"),
    [
        (["a"], ["b", "1", "zz"]),
        (["a", "b", "q"], ["c", "d"]),
        (["e1"], ["f7", "x", "e2"]),
        (["5", "9", "10", "30"], ["31", "77"]),
        (["0-1", "0-2", "1-0", "7-0"], ["7-1", "8-0"]),
        (["1" * 19, "1" * 18 + "2"], ["1" * 18 + "3"]),
        (["x" * MAX_ID_BYTES], ["y"]),
        (["y"], ["x" * MAX_ID_BYTES]),
    ],
)
def test_of_other_ids_any_new_one_may_follow_and_none_that_came_before(note, event_ids, follow):
    ids = note(*event_ids)
    assert ids.resume_id() == event_ids[-1].encode()
    for event_id in follow:
        assert ids.doubt_about(event_id.encode()) is None
    for event_id in event_ids:
        assert ids.doubt_about(event_id.encode()) is not None


@BOTH
def test_a_number_that_falls_is_a_doubt_although_it_is_new(note):
    ids = note("5", "9", "10", "30")
    assert ids.doubt_about(b"7") == "after the event '30' the server sent '7', which is an earlier one"
    assert ids.doubt_about(b"030") == "after the event '30' the server sent '030', which is an earlier one"


@BOTH
def test_a_doubt_says_what_came_and_what_was_expected(note):
    assert note("1", "2").doubt_about(b"4") == "after the event '2' the server sent '4', and '3' is the next"
    assert note("a", "b").doubt_about(b"a") == "after the event 'b' the server sent 'a' again"
    assert note("e1").doubt_about(b"e1") == "after the event 'e1' the server sent 'e1' again"


@pytest.mark.parametrize("event_ids", [["1"], ["1", "2"], ["a", "b"]])
def test_an_id_too_long_to_compare_is_a_doubt_and_costs_no_time(event_ids):
    ids = noted(*event_ids)
    began = time.process_time()
    for text in (b"9", b"x"):
        assert ids.doubt_about(text * (8 << 20)) == (
            f"after the event {event_ids[-1]!r} the server sent one whose id is too long to compare"
        )
    region = region_of([b"9" * (8 << 20)])
    shape = _plain.shape_of(region)
    assert shape is not None
    ids.note_region(region, shape, 1)
    assert ids.state is IdState.USELESS
    assert time.process_time() - began < MAX_CPU_SECONDS


@BOTH
def test_a_rewind_of_any_depth_is_noticed(note):
    event_ids = [f"{number * 7919 % 10007:x}" for number in range(3000)]
    ids = note(*event_ids)
    assert ids.resume_id() == event_ids[-1].encode()
    assert all(ids.doubt_about(event_id.encode()) is not None for event_id in event_ids)


@BOTH
@pytest.mark.parametrize(
    "event_ids",
    [
        ["x", "x"],
        ["a", "b", "c", "a", "b"],
        ["1", "1"],
        ["1", "2", "2"],
        ["1", "2", "1"],
        ["a", "", "b"],
        ["1", ""],
        ["1", "2", "y" * (MAX_ID_BYTES + 1)],
        ["x" * (MAX_ID_BYTES + 1)],
        ["1" * (MAX_ID_BYTES + 1)],
        ["7" * 5000],  # more digits than Python makes a number of
        [f"{number:x}!" for number in range(MAX_HASHES + 1)],
        [*map(str, range(MAX_HASHES + 1)), "x"],
    ],
    ids=lambda event_ids: f"{len(event_ids)} ids, the last {event_ids[-1][:9]!r}",
)
def test_ids_that_do_not_tell_events_apart_call_for_a_replay(note, event_ids):
    ids = note(*event_ids)
    assert ids.resume_id() is None
    assert ids.state is IdState.USELESS
    ids.note(b"new")
    assert ids.resume_id() is None


def test_ids_that_are_told_apart_are_as_many_as_the_bound_says():
    assert noted_at_once(*[f"{number:x}!" for number in range(MAX_HASHES)]).resume_id() is not None
    assert noted_at_once(*map(str, range(MAX_HASHES - 1)), "x").resume_id() == b"x"


def test_a_series_may_be_longer_than_that():
    ids = noted_at_once(*map(str, range(MAX_HASHES * 2)))
    assert ids.state is IdState.COUNTING
    assert ids.resume_id() == str(MAX_HASHES * 2 - 1).encode()


@pytest.mark.parametrize("event_id", ["\x01", "a\x1f", "\x7f", "a ", " a", "\t"])
def test_an_id_that_no_header_carries_unchanged_is_not_sent_but_the_next_one_is(event_id):
    ids = noted("first", event_id)
    assert ids.resume_id() is None
    ids.note(b"~ !")
    assert ids.resume_id() == b"~ !"


def test_an_id_that_is_not_utf_8_is_sent_as_a_decoder_reads_it():
    assert noted(b"a\xff").resume_id() == "a\ufffd".encode()


def test_an_event_without_an_id_ends_the_proof_for_good():
    for ids in (noted("1", "2", None, "4"), noted("a", "b", None, "c"), noted(None, "1")):
        assert ids.resume_id() is None


NUMBERS = st.lists(st.integers(0, 99), min_size=1, max_size=12)
OPAQUE = st.lists(st.text("ab1%é", max_size=3), min_size=1, max_size=8)


@given(
    st.one_of(NUMBERS.map(lambda numbers: [str(number) for number in numbers]), OPAQUE), st.text("ab12%é", max_size=3)
)
def test_ids_of_one_read_prove_at_most_what_they_prove_one_by_one(event_ids, next_id):
    one, other = noted(*event_ids), noted_at_once(*event_ids)
    if one.resume_id() is None:
        # Of a series that was read at once only both ends are looked at, and its length.
        assert other.resume_id() is None or other.state is IdState.COUNTING
        return
    if one.state is other.state:
        assert one.resume_id() == other.resume_id()
        assert one.doubt_about(next_id.encode()) == other.doubt_about(next_id.encode())


def test_what_ids_make_us_keep_is_bounded_in_bytes():
    event_ids = [b"%d-" % number + b"x" * (1 << 16) for number in range(64)]
    ids = EventIds()
    tracemalloc.start()
    try:
        for event_id in event_ids:
            ids.note(event_id)
        for number in range(1 << 17):
            ids.note(b"%x." % number)
        assert tracemalloc.get_traced_memory()[0] < 1 << 20
    finally:
        tracemalloc.stop()
    ids = EventIds()
    tracemalloc.start()
    try:
        for number in range(MAX_HASHES):
            ids.note(b"%x." % number)
        assert ids.resume_id() is not None
        assert tracemalloc.get_traced_memory()[0] < 1 << 20
        ids.note(b"one too many")
        assert ids.state is IdState.USELESS
        assert tracemalloc.get_traced_memory()[0] < 1 << 16
    finally:
        tracemalloc.stop()


def test_a_long_series_is_not_made_anew_where_it_ends_and_there_are_too_many_ids_anyway():
    ids = noted_at_once(*map(str, range(MAX_HASHES * 2)))
    assert ids.state is IdState.COUNTING
    tracemalloc.start()
    try:
        ids.note(b"x")
        assert ids.state is IdState.USELESS
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
