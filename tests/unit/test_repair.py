"""JSON text that JavaScript cut in the middle of a character, and its repair."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import bounds
from enclave.types import _json
from enclave.types._json import repair_text

PIECES = st.sampled_from(
    [
        *(rb"\\", rb"\"", rb"\n", rb"\u0041", b"x", "é😀".encode()),
        *(rb"\ud83d", rb"\uDE00", rb"\uDBFF", rb"\udfff", b"ud83d"),
        *(b"\xff", b"\xf0\x9f"),
    ]
)


def repaired(text: str) -> str:
    """What the standard library reads, which keeps lone surrogates, with U+FFFD in their place."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@given(st.lists(PIECES), st.integers(1, 40))
def test_only_what_is_no_text_is_replaced(pieces, chunk_bytes):
    document = b'["' + b"".join(pieces) + b'"]'
    (expected,) = json.loads(document.decode("utf-8", "replace"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_json, "_CHUNK_BYTES", chunk_bytes)
        (got,) = json.loads(repair_text(document).decode())
    assert got == repaired(expected)


def test_text_without_a_fault_is_not_changed():
    document = rb'{"data":"\ud83d\ude00 \\ud83d \n"}' + "é".encode()
    assert repair_text(document) == document
    assert repair_text(b'{"data":"plain"}') == b'{"data":"plain"}'


def test_a_bom_is_left_out():
    assert repair_text(b'\xef\xbb\xbf{"id":"s-1"}') == b'{"id":"s-1"}'


@pytest.mark.parametrize("piece", [rb"\n", rb"\\", rb"\ud83d\ude00", rb"\ud83d", rb"ab\udc00"])
def test_a_text_of_nothing_but_escapes_costs_few_copies_of_it(piece):
    document = b'{"data":"' + piece * (2**20 // len(piece)) + rb'\ud83d"}'
    tracemalloc.start()
    try:
        assert repair_text(document).endswith('\ufffd"}'.encode())
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 12 * len(document)


def test_what_is_kept_of_long_ids_and_what_a_repair_takes_are_bounded():
    assert bounds.kept_of_long_ids(2**16) < 2**18
    for name, piece in bounds.TEXTS.items():
        sound, repaired = (bounds.event(piece, 2**20, is_broken=is_broken) for is_broken in (False, True))
        assert bounds.decode(sound) == bounds.decode(repaired) == 1, name
        assert bounds.peak_of(repaired) < bounds.TARGET_RATIO * bounds.peak_of(sound), name
