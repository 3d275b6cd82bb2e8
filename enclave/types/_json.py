"""JSON text as an untrusted server that is written in JavaScript sends it, and its repair."""

from __future__ import annotations

import codecs
import re
from typing import TypeVar

import msgspec

T = TypeVar("T")

# Escapes of half a surrogate pair, in a document without escaped backslashes: there, each backslash begins an escape.
_HEX = rb"[0-9a-fA-F]"
_LONE_SURROGATE = re.compile(
    rb"\\u[dD](?:[89abAB]%(h)b%(h)b(?!\\u[dD][c-fC-F]%(h)b%(h)b)"
    rb"|(?<!\\u[dD][89abAB]%(h)b%(h)b\\u[dD])[c-fC-F]%(h)b%(h)b)" % {b"h": _HEX}
)
_PAIR = re.compile(rb"\\u[dD][89abAB]..\\u[dD][c-fC-F]", re.DOTALL)
_REPLACEMENT = "\ufffd".encode()  # no escape, for msgspec copies a string that has any
_ESCAPE_BYTES = len(rb"\ud83d")
_ESCAPED_BACKSLASH = rb"\\"
_STAND_IN = b"\xff\xfe"  # as long, and never part of UTF-8
_CHUNK_BYTES = 256 * 1024

_text = msgspec.json.Decoder(str)
# To look for lone surrogates alone, whatever else no JSON string may hold is taken out of the way.
_AS_TEXT = bytes(ord("_") if byte < ord(" ") or byte == ord('"') or byte > 0x7E else byte for byte in range(256))  # noqa: PLR2004 - ASCII
_WITHOUT_STAND_INS = bytes(ord("\\") if byte in _STAND_IN else byte for byte in range(256))


def repair_text(document: bytes) -> bytes | bytearray:
    """The same JSON without a BOM, and with U+FFFD for invalid UTF-8 and for a lone surrogate's escape.

    JavaScript cuts strings between the halves of a pair, and workloads print any bytes. Neither may lose a document.
    """
    document = _as_utf8(document.removeprefix(codecs.BOM_UTF8))
    masked = document.replace(_ESCAPED_BACKSLASH, _STAND_IN)
    # U+FFFD is shorter than what it replaces, so the document is written over in place. A hostile document can be
    # nothing but escapes, so the copies are few and the chunks small.
    repaired: bytearray | None = None
    start = written = 0
    while start < len(masked):
        end = _end_of_chunk(masked, start)
        chunk = masked[start:end]
        if not _is_sound(chunk):
            if repaired is None:
                repaired, written = bytearray(document), start
            chunk = _LONE_SURROGATE.sub(_REPLACEMENT, chunk)
        if repaired is not None:
            repaired[written : written + len(chunk)] = chunk.translate(_WITHOUT_STAND_INS)
            written += len(chunk)
        start = end
    if repaired is None:
        return document
    del repaired[written:]
    return repaired


def _end_of_chunk(masked: bytes, start: int) -> int:
    """Where no escape is cut, nor a pair of them."""
    end = start + _CHUNK_BYTES
    last = masked.rfind(b"\\", max(start, end - _ESCAPE_BYTES + 1), end)
    if last >= 0:
        end = max(end, last + (_ESCAPE_BYTES if masked.startswith(b"u", last + 1) else 2))
    if end - start >= _ESCAPE_BYTES and _PAIR.match(masked, end - _ESCAPE_BYTES):
        end += _ESCAPE_BYTES
    return min(end, len(masked))


def _is_sound(chunk: bytes) -> bool:
    """Whether no half of a pair is alone in a chunk. It takes a fraction of the time of looking for one.

    For that the chunk is made one JSON string, whatever it is a part of.
    """
    if b"\\ud" not in chunk and b"\\uD" not in chunk:
        return True
    try:
        _text.decode(b'"%b"' % chunk.replace(rb"\"", b"__").translate(_AS_TEXT))
    except msgspec.DecodeError:
        return False
    return True


def _as_utf8(document: bytes) -> bytes:
    """The document, or a copy of it in which U+FFFD stands for what is not UTF-8."""
    if document.isascii():
        return document
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
