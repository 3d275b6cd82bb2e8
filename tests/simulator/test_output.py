"""A workload's bytes to text and reports: however they are cut, nothing is lost and nothing is made up."""

from __future__ import annotations

import json
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave.simulator._output import (
    LINE_START_SECONDS,
    MAX_PIECE_BYTES,
    MAX_REPORT_BYTES,
    MAX_SINGLE_LINES,
    LineStarts,
    OutputDecoder,
    OversizedReport,
    Report,
    problem_of,
)
from enclave.simulator._share import FREE_SECONDS, MAX_SLICE_BYTES, PAUSE_FACTOR, Share

fragments = st.sampled_from(
    [
        b"plain\n",
        b"half",
        b"\n",
        b"\r\n",
        b"\0",
        b"__ENCLAVE__ ",
        b'__ENCLAVE__ {"t":"x","json":1}\n',
        b'\0__ENCLAVE__ {"t":"y","json":2}\n',
        b"__ENCL",
        b"\0__EN",
        b"\xff",
        "ü€😀".encode(),
        b"{",
    ]
)


def decode(data, cuts=(), *, flush_between=False, reports=True):
    decoder = OutputDecoder(reports=reports)
    pieces = []
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        pieces += decoder.feed(data[start:end])
        if flush_between:
            pieces += decoder.flush()
    pieces += decoder.flush(final=True)
    text = "".join(piece for piece in pieces if isinstance(piece, str))
    return text, [msgspec.json.decode(piece.json) for piece in pieces if isinstance(piece, Report)]


@given(st.lists(fragments, max_size=12).map(b"".join), st.data(), st.booleans())
def test_cuts_and_flushes_change_neither_text_nor_reports(data, draw, flush_between):
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=6)))
    assert decode(data, cuts, flush_between=flush_between) == decode(data)


@given(st.binary(max_size=200), st.data())
def test_without_reports_every_byte_is_text(data, draw):
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=6)))
    assert decode(data, cuts, flush_between=True, reports=False) == (data.decode("utf-8", "replace"), [])


def test_a_partial_line_is_given_out_by_a_flush_and_a_partial_report_is_not():
    decoder = OutputDecoder(reports=True)
    assert decoder.feed(b"half") == []
    assert decoder.flush() == ["half"]
    assert decoder.feed(b"\n__ENCLAVE__ {") == ["\n"]
    assert decoder.flush() == []
    assert decoder.feed(b"}\n") == [Report()]


def test_the_start_of_a_line_waits_for_its_end_and_then_comes_although_more_is_written():
    starts = LineStarts()
    assert (starts.deadline, starts.due(1e9)) == (math.inf, [])
    starts.note("stdout", b"half", is_open=True, now=10.0)
    starts.note("stderr", b"other", is_open=True, now=10.1)
    starts.note("stdout", b".", is_open=True, now=10.2)
    assert starts.deadline == pytest.approx(10.0 + LINE_START_SECONDS)
    assert starts.due(10.0 + LINE_START_SECONDS / 2) == []
    assert starts.due(10.05 + LINE_START_SECONDS) == ["stdout"]
    assert starts.due(10.05 + LINE_START_SECONDS) == []
    assert starts.deadline == pytest.approx(10.1 + LINE_START_SECONDS)
    starts.note("stdout", b".", is_open=True, now=20.0)
    assert sorted(starts.due(30.0)) == ["stderr", "stdout"]


def test_a_line_that_is_complete_waits_no_longer_and_the_next_one_has_its_own_time():
    starts = LineStarts()
    starts.note("stdout", b"one", is_open=True, now=10.0)
    starts.note("stdout", b"\n", is_open=False, now=10.2)
    assert starts.deadline == math.inf
    starts.note("stdout", b"two", is_open=True, now=10.3)
    starts.note("stdout", b"\nthree", is_open=True, now=10.4)
    assert starts.deadline == pytest.approx(10.4 + LINE_START_SECONDS)


@pytest.mark.parametrize("flush_between", [False, True])
@pytest.mark.parametrize("prefix", [b"__ENCLAVE__ ", b"text\0__ENCLAVE__ "])
def test_a_report_is_bounded_and_the_line_after_it_is_text(prefix, flush_between):
    decoder = OutputDecoder(reports=True)
    pieces = decoder.feed(prefix)
    for _ in range(MAX_REPORT_BYTES // 50_000 + 2):
        pieces += decoder.feed(b"x" * 50_000)
        if flush_between:
            pieces += decoder.flush()
        assert len(decoder._pending) <= MAX_REPORT_BYTES + MAX_PIECE_BYTES
    pieces += decoder.feed(b"\nafter\n")
    assert [piece for piece in pieces if not isinstance(piece, str)] == [OversizedReport()]
    assert "".join(piece for piece in pieces if isinstance(piece, str)) in ("after\n", "textafter\n")


def test_a_line_without_end_is_bounded_and_scanned_once():
    decoder = OutputDecoder(reports=True)
    total = 0
    for _ in range(2000):
        pieces = decoder.feed(b"y" * 4096)
        assert all(len(piece) <= MAX_PIECE_BYTES for piece in pieces)
        total += sum(map(len, pieces))
        assert len(decoder._pending) <= MAX_PIECE_BYTES + 4096
    assert total + len(decoder._pending) == 2000 * 4096


def test_of_lines_that_come_at_once_few_are_pieces_of_their_own_and_none_is_lost():
    flood = b"y\n" * 16_384
    pieces = OutputDecoder(reports=True).feed(flood)
    assert pieces[:3] == ["y\n"] * 3
    assert len(pieces) <= MAX_SINGLE_LINES + 1
    assert "".join(pieces) == flood.decode()


def test_reports_are_found_between_the_lines_of_a_flood():
    report = b'__ENCLAVE__ {"json":1}\n'
    lines = b"y\n" * 1000
    text, reports = decode(report + lines + report + lines + b"half\0" + report)
    assert (text, reports) == ("y\n" * 2000 + "half", [1, 1, 1])


def test_a_muted_decoder_gives_out_reports_alone():
    decoder = OutputDecoder(reports=True)
    decoder.muted = True
    pieces = decoder.feed(b"text\nhalf\0__ENCLAVE__ {}\nlong" + b"x" * 200_000)
    assert [*pieces, *decoder.flush(final=True)] == [Report()]


keys = st.text(alphabet='[{"\\', max_size=3)
nested = st.recursive(
    st.none() | st.text(alphabet='[]{}"\\a', max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=20,
)


def depth(value):
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(nested, st.integers(90, 100))
def test_how_deep_json_is_nested_is_told_whatever_its_strings_hold(value, more):
    document = b"[" * more + json.dumps(value).encode() + b"]" * more
    assert problem_of(document) == ("more than 100 levels" if depth(value) + more > 100 else None)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ("D", None),
        ("D1", "a number of more than 1000 digits"),
        ('{"a":[-1.D]}', "a number of more than 1000 digits"),
        ('"DD"', None),
        ('{"DD\\\\":"\\"DD"}', None),
        ("[D,D,D]", None),
    ],
)
def test_a_number_is_bounded_and_a_text_of_digits_is_not(document, problem):
    assert json.loads(document.replace("D", "1"))
    assert problem_of(document.replace("D", "1" * 1000).encode()) == problem


@pytest.mark.parametrize(
    "number", ["1e309", "-1E+400", "123456e305", "1" * 300 + "e20", "1" * 400 + ".5", '[0,{"a":2e999999}]']
)
def test_a_number_that_no_float_holds_is_refused(number):
    assert problem_of(number.encode()) == "a number that is out of range"


@pytest.mark.parametrize("number", ["1e308", "1E-999", "0e5000", "1" * 400, '"1e999"', '["\\ud83d",1e99]'])
def test_a_number_that_a_float_or_an_integer_holds_is_kept(number):
    assert problem_of(number.encode()) is None


def test_a_report_that_no_decoder_can_take_is_dropped_and_is_no_text():
    decoder = OutputDecoder(reports=True)
    assert decoder.feed(b'__ENCLAVE__ {"json":' + b"[" * 99_999 + b"]" * 99_999 + b"}\n") == [OversizedReport()]


def test_a_report_that_is_no_text_stays_a_report_and_becomes_text():
    line = b'\0__ENCLAVE__ {"t":"result","json":{"\xff":"\xfe\xed\xa0\x80"}}\n'
    assert decode(line) == ("", [{"\ufffd": "\ufffd" * 4}])


def test_a_report_may_hold_a_lone_surrogate():
    line = b"__ENCLAVE__ " + json.dumps({"t": "result", "json": "\ud83d"}).encode() + b"\n"
    assert decode(line) == ("", ["\ufffd"])


def test_slices_that_took_long_are_followed_by_shorter_ones_and_by_a_pause():
    share = Share()
    sizes = []
    for _ in range(8):
        sizes.append(share.slice_bytes)
        assert share.took(FREE_SECONDS * 2) == pytest.approx(FREE_SECONDS * 2 * PAUSE_FACTOR)
    assert sizes == [8192, 4096, 2048, 1024, 512, 256, 256, 256]
    share.took(0)
    assert share.slice_bytes == 512


def test_many_cheap_slices_and_reads_add_up_to_a_pause():
    share = Share()
    pauses = [share.took(FREE_SECONDS / 4) for _ in range(10)]
    assert [pause > 0 for pause in pauses] == [False, False, False, False, True] * 2
    assert sum(pauses) == pytest.approx(2.5 * FREE_SECONDS * PAUSE_FACTOR)
    for _ in range(6):
        share.read()
    assert share.took(0) > 0
    assert share.slice_bytes == MAX_SLICE_BYTES
