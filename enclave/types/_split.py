"""Cutting a JSON object or array into its members, without decoding them and at any depth.

msgspec does this as well, and ten times as fast. But it calls itself for each level, and gives a document up that is
nested deeper than Python's stack. A workload can return such a value, and must not hide the session it is in.
"""

from __future__ import annotations

import re

import msgspec

from ._json import NestedTooDeeplyError, decode_text

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_array: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])
_key = msgspec.json.Decoder(str)

# Each step is a call of Python's. With this many a hostile document costs half a second, and is then given up.
_MAX_STEPS = 500_000

# Possessive quantifiers, so that no text makes a search step back.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_BRACKETS = rb"[\[{]++|[\]}]++"
# On the outermost level each separator counts. Further in, only the next run of brackets does.
_OUTERMOST = re.compile(rb"%s|%s|[,:]" % (_STRING, _BRACKETS), re.DOTALL)
_INSIDE = re.compile(rb'[^\[\]{}"]*+(?:%s[^\[\]{}"]*+)*+(%s)' % (_STRING, _BRACKETS), re.DOTALL)


def split_object(document: bytes) -> dict[str, bytes]:
    """The JSON of each member by its name. Raises as `decode_text` does where the document is no object."""
    try:
        return {name: bytes(raw) for name, raw in decode_text(_object, document).items()}
    except NestedTooDeeplyError:
        pieces = _pieces(document, b"{}")
    if len(pieces) % 2:
        raise msgspec.DecodeError("JSON is malformed: a name without a value")
    names = [decode_text(_key, name) for name in pieces[::2]]
    return dict(zip(names, pieces[1::2], strict=True))


def split_array(document: bytes) -> list[bytes]:
    """The JSON of each item. Raises as `decode_text` does where the document is no array."""
    try:
        return [bytes(raw) for raw in decode_text(_array, document)]
    except NestedTooDeeplyError:
        return _pieces(document, b"[]")


def _pieces(document: bytes, brackets: bytes) -> list[bytes]:
    """What stands between the separators of the outermost level. It need not be JSON."""
    document = document.strip()
    if document[:1] + document[-1:] != brackets:
        raise msgspec.ValidationError(f"Expected JSON between `{brackets.decode()}`")
    ends: list[int] = []
    position, depth = 1, 1
    for _ in range(_MAX_STEPS):
        if depth == 0:
            break
        token = _OUTERMOST.search(document, position) if depth == 1 else _INSIDE.match(document, position)
        if token is None:
            raise msgspec.DecodeError("Input data was truncated")
        position = token.end()
        text = token[token.lastindex or 0]
        if text[0] in b"[{":
            depth += len(text)
        elif text[0] in b"]}":
            depth -= len(text)
        elif text[0] in b",:":
            ends.append(token.start())
    if depth or position != len(document):
        raise NestedTooDeeplyError("JSON is nested too deeply, or goes on after its end")
    starts = [1, *(end + 1 for end in ends)]
    ends.append(len(document) - 1)
    pieces = [document[start:end].strip() for start, end in zip(starts, ends, strict=True)]
    return [] if pieces == [b""] else pieces
