"""Which connection goes on exactly where the last one stood, and which only may: the states of a stream's history."""

from __future__ import annotations

import tracemalloc

import pytest

from enclave._streams._history import FOLLOWING, PROVING, REPLAYING, History, HistoryMismatch, UnprovenContinuation

A, B, C, D = [b'{"kind":"stdout","data":"%b"}' % letter for letter in (b"a", b"b", b"c", b"d")]


def history_of(*events: tuple[bytes, bytes | None]) -> History:
    history = History()
    for data, event_id in events:
        assert history.admit(data, b"", event_id)
    return history


def resumed(*events: tuple[bytes, bytes | None]) -> History:
    history = history_of(*events)
    assert history.resume_id() is not None
    history.connected(asked_to_go_on=True)
    assert history.state is PROVING
    return history


def test_a_first_connection_gives_new_events() -> None:
    history = History()
    assert history.wants_single_event
    assert history.resume_id() is None
    history.connected(asked_to_go_on=False)
    assert history.state is FOLLOWING
    assert history.admit(A, b"", b"1")
    assert not history.wants_single_event
    assert history.count == 1


def test_the_next_event_proves_that_a_connection_goes_on() -> None:
    history = resumed((A, b"1"), (B, b"2"))
    assert history.wants_single_event
    assert history.admit(C, b"", b"3")
    assert history.state is FOLLOWING
    assert history.count == 3


def test_the_first_event_again_begins_a_replay() -> None:
    history = resumed((A, b"1"), (B, b"2"))
    assert not history.admit(A, b"", b"1")
    assert history.state is REPLAYING
    assert not history.admit(B, b"", b"2")
    assert history.state is FOLLOWING
    assert history.admit(C, b"", b"3")
    assert history.resume_id() == b"3"


@pytest.mark.parametrize(
    ("data", "event_id", "says"),
    [
        (A, b"2", "'2', and '3' is the next"),
        (C, b"1", "'1', and '3' is the next"),
        (C, b"4", "'4', and '3' is the next"),
        (C, None, "one without an id"),
        (B, b"3", "data of an earlier event under another id"),
        (A, b"3", "data of an earlier event under another id"),
    ],
)
def test_another_event_is_a_doubt_and_the_ids_are_not_trusted_again(data, event_id, says) -> None:
    history = resumed((A, b"1"), (B, b"2"))
    with pytest.raises(UnprovenContinuation, match=says):
        history.admit(data, b"", event_id)
    assert history.count == 2
    assert history.resume_id() is None
    history.connected(asked_to_go_on=False)
    assert [history.admit(data, b"", None) for data in (A, B, C)] == [False, False, True]
    assert history.resume_id() is None


def test_a_connection_that_broke_before_its_first_event_changes_nothing() -> None:
    history = resumed((A, b"1"))
    history.connected(asked_to_go_on=True)
    assert history.state is PROVING
    assert history.resume_id() == b"1"
    history.connected(asked_to_go_on=False)
    assert history.is_replaying


@pytest.mark.parametrize("replay", [(A, C, B), (B, A, C), (A, A, B, C), (A, C, D), (A, B, D)])
def test_a_replay_with_events_changed_swapped_repeated_or_left_out_is_refused(replay) -> None:
    history = history_of((A, None), (B, None), (C, None))
    history.connected(asked_to_go_on=False)
    with pytest.raises(HistoryMismatch, match="differs from the frames received before"):
        for data in replay:
            history.admit(data, b"", None)


def test_an_end_within_a_replay_says_how_much_of_it_there_was() -> None:
    history = history_of((A, None), (B, None), (C, None))
    history.connected(asked_to_go_on=False)
    history.admit(A, b"", None)
    with pytest.raises(HistoryMismatch, match="has 1 of the 3 frames received before"):
        history.refuse_end()


@pytest.mark.parametrize("goes_on", [[(C, b"2")], [(C, b"2"), None], [None]], ids=["another", "and ends", "ends"])
def test_a_replay_that_nobody_asked_for_and_that_is_none_is_a_doubt(goes_on) -> None:
    # A server that numbers the events of each connection from 1, and whose next event has the data of the first one.
    history = resumed((A, b"1"), (B, b"2"))
    with pytest.raises(UnprovenContinuation):
        for event in [(A, b"1"), *goes_on]:
            if event is None:
                history.refuse_end()
            history.admit(event[0], b"", event[1])
    assert history.count == 2
    assert history.resume_id() is None
    history.connected(asked_to_go_on=False)
    assert [history.admit(data, b"", event_id) for data, event_id in [(A, b"1"), (B, b"2"), (A, b"3")]] == [0, 0, 1]


def test_the_boundaries_of_events_count() -> None:
    history = history_of((b"12", None), (b"3", None))
    history.connected(asked_to_go_on=False)
    with pytest.raises(HistoryMismatch):
        for data in (b"1", b"23"):
            history.admit(data, b"", None)


def test_the_name_of_an_event_counts_where_it_is_the_kind() -> None:
    history = history_of((b"{}", None))
    history.connected(asked_to_go_on=False)
    with pytest.raises(HistoryMismatch):
        history.admit(b"{}", b"stdout", None)
    history = history_of((A, None))
    history.connected(asked_to_go_on=False)
    assert not history.admit(A, b"stdout", None)


def test_an_id_without_an_event_counts_but_not_within_a_replay() -> None:
    history = history_of((A, b"1"))
    history.note_id(b"1b")
    assert history.resume_id() == b"1b"
    history.connected(asked_to_go_on=False)
    history.note_id(b"0")
    history.admit(A, b"", b"1")
    assert history.resume_id() == b"1b"


def test_a_history_without_ids_or_with_distrusted_ones_is_resumed_by_a_replay() -> None:
    assert history_of((A, None)).resume_id() is None
    history = history_of((A, b"1"))
    assert history.resume_id() == b"1"
    history.distrust_ids()
    assert history.resume_id() is None
    assert history.admit(B, b"", b"2")
    assert history.resume_id() is None


def test_ids_of_any_length_are_not_kept() -> None:
    tracemalloc.start()
    try:
        history = history_of(*((b"%d" % number, b"%d" % number + b"x" * (1 << 20)) for number in range(3)))
        assert tracemalloc.get_traced_memory()[0] < 1 << 16
    finally:
        tracemalloc.stop()
    assert history.resume_id() is None
