from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enclave.cli._text import VisibleText, json_line, one_line

HOSTILE = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))] + list(
    "\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufff9\ufffa\ufffb"
)
TEXT = st.text(st.one_of(st.sampled_from(HOSTILE), st.characters(exclude_categories=["Cs"])))


def visible(*pieces: str) -> str:
    text = VisibleText()
    return "".join(map(text.feed, pieces)) + text.end()


@given(TEXT)
def test_no_character_that_a_terminal_acts_on_is_left_but_line_ends_and_tabs(text: str) -> None:
    assert not set(visible(text).replace("\r\n", "\n")) & (set(HOSTILE) - {"\n", "\t"})


@given(st.lists(TEXT))
def test_text_in_pieces_is_shown_as_in_one(pieces: list[str]) -> None:
    assert visible(*pieces) == visible("".join(pieces))


@given(TEXT)
def test_one_line_is_one_line_without_control_characters(text: str) -> None:
    assert not set(one_line(text)) & set(HOSTILE)


@settings(max_examples=50)
@given(st.recursive(TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner)))
def test_json_on_a_line_says_the_same_without_control_characters(value: object) -> None:
    line = json_line(value)
    assert line.endswith("\n")
    safe = line[:-1]
    assert json.loads(safe) == value
    assert not set(safe) & set(HOSTILE)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\r\n", "plain\ttext\r\n"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b2J", r"\x9b2J"),
        ("user\u202egnp.exe", r"user\u202egnp.exe"),
        ("100%\rhacked", r"100%\rhacked"),
        ("a\b", r"a\x08"),
        ("naïve 日本 👩‍👩‍👧", "naïve 日本 👩‍👩‍👧"),
    ],
)
def test_control_sequences_are_shown(text: str, shown: str) -> None:
    assert visible(text) == shown
