"""JSON text as an untrusted server that is written in JavaScript sends it, and its repair."""

from __future__ import annotations

import codecs
import re
from typing import TypeVar

import msgspec

T = TypeVar("T")

# Escapes of half a surrogate pair, in a document without escaped backslashes: there, each backslash begins an escape.
_LONE_SURROGATE = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD])[c-fC-F][0-9a-fA-F]{2})"
)
_REPLACEMENT = rb"\\ufffd"  # a template: one backslash
_PAIR_BYTES = len(rb"\ud83d\ude00")
_ESCAPED_BACKSLASH = rb"\\"
_STAND_IN = b"\xff\xfe"  # as long, and never part of UTF-8
_CHUNK_BYTES = 256 * 1024


def repair_text(document: bytes) -> bytes:
    """The same JSON without a BOM, and with U+FFFD for invalid UTF-8 and for a lone surrogate's escape.

    JavaScript cuts strings between the halves of a pair, and workloads print any bytes. Neither may lose a document.
    """
    document = _as_utf8(document.removeprefix(codecs.BOM_UTF8))
    masked = document.replace(_ESCAPED_BACKSLASH, _STAND_IN)
    # A hostile document can be nothing but escapes. A constant replacement costs no Python call for each of them, and
    # a chunk at a time keeps the pieces that `sub` collects small.
    repaired = b"".join(_repaired_chunk(masked, start) for start in range(0, len(masked), _CHUNK_BYTES))
    return repaired if masked is document else repaired.replace(_STAND_IN, _ESCAPED_BACKSLASH)


def _repaired_chunk(masked: bytes, start: int) -> bytes:
    # U+FFFD is written with as many bytes as it replaces, so positions stay. Whether a half is alone shows within a
    # pair's length of it.
    margin = min(start, _PAIR_BYTES)
    window = masked[start - margin : start + _CHUNK_BYTES + _PAIR_BYTES]
    return _LONE_SURROGATE.sub(_REPLACEMENT, window)[margin : margin + _CHUNK_BYTES]


def _as_utf8(document: bytes) -> bytes:
    """The document, or a copy of it in which U+FFFD stands for what is not UTF-8."""
    # In chunks: one emoji would make a str of the whole four times as large as the document.
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(document), _CHUNK_BYTES):
            decoder.decode(document[start : start + _CHUNK_BYTES])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return document.decode("utf-8", "replace").encode()
    return document


class NestedTooDeeplyError(msgspec.DecodeError):
    """The JSON is nested deeper than the decoder can follow."""


def decode_text(decoder: msgspec.json.Decoder[T], document: bytes) -> T:
    """Decode, and where that fails decode the repaired text.

    Raises:
        msgspec.DecodeError: the document is not JSON, or (as ValidationError) not of the decoder's type.
    """
    try:
        return decoder.decode(document)
    except msgspec.ValidationError:
        # Validation can fail before the text does (a lone surrogate further on), but a repaired text cannot mend it.
        raise
    except RecursionError:
        raise NestedTooDeeplyError("JSON is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        repaired = repair_text(document)
        if repaired == document:
            raise
        return decoder.decode(repaired)
