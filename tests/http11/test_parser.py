"""The parser alone: bytes in, head and body out, the same at every split."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave import APIConnectionError, EnclaveError, ResponseTooLargeError
from enclave.transport.http11._callbacks import Callbacks, ResponseHead
from enclave.transport.http11._parser import ResponseParser

OK = b"HTTP/1.1 200 OK\r\n"
LIMIT = 4096
CALLBACKS = Callbacks(max_header_bytes=LIMIT)  # one for all, as the responses of an event loop have it


class Outcome:
    """What a parser makes of some reads."""

    def __init__(self, reads: Iterable[bytes] = (), *, eof: bool = False, callbacks: Callbacks = CALLBACKS) -> None:
        self.parser = ResponseParser(callbacks)
        self.body = b""
        self.error: EnclaveError | None = None
        for read in reads:
            self.take(read)
        if eof and self.error is None and not self.complete:
            with self.noting_errors():
                self.parser.feed_eof()

    def take(self, read: bytes) -> None:
        """Another read, unless the response has ended."""
        if self.error is None and not self.complete:
            with self.noting_errors():
                self.body += self.parser.feed(read)
                self.parser.check()

    @contextmanager
    def noting_errors(self) -> Iterator[None]:
        try:
            yield
        except EnclaveError as error:
            self.error = error

    @property
    def head(self) -> ResponseHead | None:
        return self.parser.head

    @property
    def complete(self) -> bool:
        return self.parser.complete

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Outcome)
        return self._key() == other._key()

    __hash__ = None

    def _key(self) -> tuple[object, ...]:
        error = self.error and (type(self.error), str(self.error))
        return self.head, self.body, self.complete, error


WELL_FORMED = {
    "content-length": OK + b"Content-Length: 5\r\n\r\nhello",
    "empty": OK + b"Content-Length: 0\r\n\r\n",
    "chunked": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;ext=1\r\n!\r\n0\r\n\r\n",
    "trailers": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nDigest: x\r\nOther: y\r\n\r\n",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    + OK
    + b"Content-Length: 5\r\n\r\nhello",
    "equal-lengths": OK + b"Content-Length: 5\r\nServer: x\r\ncontent-length:5 \r\n\r\nhello",
    "list-of-lengths": OK + b"Content-Length: 5, 5\r\n\r\nhello",
    "lists-of-lengths": OK + b"Content-Length: 5\r\nContent-Length: 5 ,5\r\n\r\nhello",
    "equal-lengths-after-interim": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    + OK
    + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "no-content": b"HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n",
    "not-modified": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n",
    "no-reason": b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx",
    "empty-value": OK + b"Empty:\r\nContent-Length: 1\r\nPadded: \t x \t \r\n\r\nx",
}
TO_THE_END = {
    "http/1.0": b"HTTP/1.0 200 OK\r\nServer: x\r\n\r\nhello\r\n\r\nworld",
    "close": OK + b"Connection: close\r\n\r\nhello",
    "other-coding": OK + b"Transfer-Encoding: gzip\r\n\r\nhello",
}
MALFORMED = {
    "garbage": b"SSH-2.0-OpenSSH_9.6\r\n",
    "both-framings": OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    "both-framings-reversed": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    "two-lengths": OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxy",
    "two-lengths-in-a-list": OK + b"Content-Length: 1, 2\r\n\r\nxy",
    "equal-lengths-and-another": OK + b"Content-Length: 1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxy",
    "equal-lengths-that-are-none": OK + b"Content-Length: +1\r\nContent-Length: +1\r\n\r\nx",
    "list-with-a-gap": OK + b"Content-Length: 1,,1\r\n\r\nx",
    "folded-list": OK + b"Content-Length: 1,\r\n 1\r\n\r\nx",
    "equal-lengths-beside-chunks": OK
    + b"Content-Length: 1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    "chunks-beside-equal-lengths": OK
    + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    "negative-length": OK + b"Content-Length: -1\r\n\r\n",
    "length-overflow": OK + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "chunk-size": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    "chunk-overflow": OK + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    "chunk-end": OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n",
    "space-in-name": OK + b"A B: c\r\n\r\n",
    "nul-in-value": OK + b"A: \0\r\n\r\n",
    "folded": OK + b"A: b\r\n c\r\n\r\n",
    "bare-lf": b"HTTP/1.1 200 OK\nContent-Length: 1\n\nx",
    "upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "upgrade-unannounced": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "http/2": b"HTTP/2.0 200 OK\r\nContent-Length: 1\r\n\r\nx",
    "status": b"HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n",
}
FOLLOWED = {
    "followed-" + name: wire + OK + b"Content-Length: 4\r\n\r\nevil" for name, wire in (WELL_FORMED | MALFORMED).items()
}
EVERYTHING = FOLLOWED | WELL_FORMED | TO_THE_END | MALFORMED


@st.composite
def splits(draw):
    wire = EVERYTHING[draw(st.sampled_from(sorted(EVERYTHING)))]
    cuts = sorted(draw(st.sets(st.integers(1, len(wire) - 1), max_size=8)))
    return [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]


@given(splits())
def test_a_response_means_the_same_at_every_split(reads):
    assert Outcome(reads, eof=True) == Outcome([b"".join(reads)], eof=True)


@pytest.mark.parametrize("name", EVERYTHING)
def test_a_response_means_the_same_byte_by_byte(name):
    wire = EVERYTHING[name]
    bytewise = [wire[i : i + 1] for i in range(len(wire))]
    assert Outcome(bytewise, eof=True) == Outcome([wire], eof=True)


@given(st.lists(splits(), min_size=2, max_size=4), st.randoms(use_true_random=False))
def test_responses_that_come_in_turns_do_not_mix(responses, chance):
    """One event loop's parsers share what llhttp calls back."""
    turns = [number for number, reads in enumerate(responses) for _ in reads]
    chance.shuffle(turns)
    outcomes = [Outcome() for _ in responses]
    waiting = [iter(reads) for reads in responses]
    for number in turns:
        outcomes[number].take(next(waiting[number]))
    assert outcomes == [Outcome(reads) for reads in responses]


@pytest.mark.parametrize("name", WELL_FORMED)
def test_a_framed_response_ends_by_itself_and_leaves_the_connection_reusable(name):
    outcome = Outcome([WELL_FORMED[name]])
    assert outcome.error is None
    assert outcome.complete
    assert outcome.parser.reusable


@pytest.mark.parametrize("name", WELL_FORMED)
def test_every_truncation_of_a_framed_response_is_an_error(name):
    wire = WELL_FORMED[name]
    for length in range(len(wire)):
        outcome = Outcome([wire[:length]] if length else [], eof=True)
        assert outcome.error is not None, wire[:length]
        assert str(outcome.error)
        assert not outcome.parser.reusable


@pytest.mark.parametrize("name", TO_THE_END)
def test_an_unframed_body_ends_with_the_connection_which_is_not_reused(name):
    wire = TO_THE_END[name]
    assert not Outcome([wire]).complete
    outcome = Outcome([wire], eof=True)
    assert outcome.error is None
    assert outcome.complete
    assert outcome.body == wire.partition(b"\r\n\r\n")[2]
    assert not outcome.parser.reusable


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_not_http_is_refused_with_a_reason(name):
    outcome = Outcome([MALFORMED[name]])
    assert type(outcome.error) is APIConnectionError
    assert len(str(outcome.error)) > 20
    assert not outcome.parser.reusable


def test_body_bytes_before_a_malformed_chunk_are_delivered_and_then_the_error():
    parser = ResponseParser(CALLBACKS)
    assert parser.feed(MALFORMED["chunk-size"]) == b"hello"
    with pytest.raises(APIConnectionError, match=r"body is not HTTP/1\.1"):
        parser.check()


def test_the_chunks_of_one_read_come_as_one_object():
    parser = ResponseParser(CALLBACKS)
    parser.feed(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    assert parser.feed(b"1\r\na\r\n2\r\nbc\r\n1\r\n") == b"abc"
    assert parser.feed(b"d") == b"d"
    assert parser.feed(b"\r\n0\r\n\r\n") == b""
    assert parser.complete


def test_the_final_head_is_given_as_sent():
    head = Outcome([WELL_FORMED["interim"]]).head
    assert head == (200, b"OK", b"HTTP/1.1", [(b"Content-Length", b"5")])
    assert Outcome([WELL_FORMED["no-reason"]]).head[1] == b""
    assert (b"Padded", b"x") in Outcome([WELL_FORMED["empty-value"]]).head.headers


@pytest.mark.parametrize(
    "rest", [b"x", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"\0"]
)
@pytest.mark.parametrize("name", WELL_FORMED)
def test_bytes_after_the_end_of_a_response_spoil_the_connection_but_not_the_response(name, rest):
    whole, more = Outcome([WELL_FORMED[name]]), Outcome([WELL_FORMED[name] + rest])
    assert more == whole
    assert more.complete
    assert not more.parser.reusable


@pytest.mark.parametrize(
    ("version", "headers", "reusable"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"Connection: Keep-Alive, Close\r\n", False),
        (b"1.1", b"Connection: close\r\nConnection: keep-alive\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: keep-alive\r\n", True),
    ],
)
def test_keep_alive_follows_version_and_connection_header(version, headers, reusable):
    outcome = Outcome([b"HTTP/" + version + b" 200 OK\r\nContent-Length: 1\r\n" + headers + b"\r\nx"])
    assert outcome.complete
    assert outcome.parser.reusable is reusable


@pytest.mark.parametrize(
    ("value", "seconds"), [(b"timeout=5", 5), (b"max=100, Timeout = 72", 72), (b"max=100", None), (b"timeout=x", None)]
)
def test_the_idle_time_a_server_promises_is_read(value, seconds):
    outcome = Outcome([OK + b"Content-Length: 0\r\nKeep-Alive: " + value + b"\r\n\r\n"])
    assert outcome.parser.keep_alive_seconds == seconds


@pytest.mark.parametrize("size", [1, 100, 1000])
@pytest.mark.parametrize(
    ("start", "more", "part"),
    [
        (OK, b"A: b\r\n", "header"),
        (OK + b"A: ", b"bbbb", "header"),
        (OK, b"bbbb", "header"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", "header"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n", "trailer"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nA: ", b"bbbb", "trailer"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n1;", b"bbbb", "trailer"),
    ],
)
def test_sections_without_end_are_cut_off_with_their_own_error(start, more, part, size):
    wire = start + more * (2 * LIMIT // len(more))
    outcome = Outcome([wire[i : i + size] for i in range(0, len(wire), size)])
    assert type(outcome.error) is ResponseTooLargeError
    assert f"{part} section exceeds max_header_bytes={LIMIT}" in str(outcome.error)


def test_a_whole_header_section_in_one_read_is_bounded_too():
    wire = OK + b"A: b\r\n" * LIMIT + b"Content-Length: 0\r\n\r\n"
    assert type(Outcome([wire]).error) is ResponseTooLargeError
    assert Outcome([wire], callbacks=Callbacks(max_header_bytes=len(wire) + LIMIT * 6)).error is None


def test_a_long_body_is_not_taken_for_a_long_header_section():
    body = b"x" * (3 * LIMIT)
    chunk = b"%x\r\n%b\r\n" % (len(body), body)
    wire = OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n"
    for size in (1, 7, LIMIT, len(wire)):
        outcome = Outcome([wire[i : i + size] for i in range(0, len(wire), size)])
        assert outcome.error is None
        assert outcome.body == body


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        (b"", "closed the connection without a response"),
        (b"HTTP/1.1 2", "within the response head, after 10 bytes"),
        (OK + b"Content-Length: 9\r\n\r\nhello", "incomplete body, 5 of 9 bytes received"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel", "incomplete body, 3 bytes received"),
    ],
)
def test_a_premature_end_says_what_was_received(wire, message):
    assert message in str(Outcome([wire] if wire else [], eof=True).error)


def test_a_parser_with_a_response_in_progress_is_part_of_no_reference_cycle():
    while gc.collect():  # what the finalizers of an earlier test's garbage leave is garbage too
        pass
    gc.disable()
    try:
        parser = ResponseParser(CALLBACKS)
        parser.feed(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel")
        del parser
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_parser_whose_head_was_taken_keeps_none_of_its_headers():
    parser = ResponseParser(Callbacks(max_header_bytes=1 << 20))
    tracemalloc.start()
    try:
        parser.feed(OK + b"X-Long: " + b"x" * (1 << 19) + b"\r\nContent-Length: 5\r\n\r\nhel")
        assert parser.take_head() is not None
        assert tracemalloc.get_traced_memory()[0] < 1 << 16
        assert parser.feed(b"lo") == b"lo"
    finally:
        tracemalloc.stop()
