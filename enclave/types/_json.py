"""JSON text as an untrusted server that is written in JavaScript sends it, and its repair."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

T = TypeVar("T")

# Scans escapes from left to right, so that the backslash of `\\` never starts another one. A surrogate pair is kept
# whole; a surrogate that is not part of a pair is the only thing ever replaced.
_ESCAPE = re.compile(
    rb"\\(?:(u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)


def _keep_or_replace(match: re.Match[bytes]) -> bytes:
    return rb"\ufffd" if match[2] else match[0]


def repair_text(document: bytes) -> bytes:
    """The same JSON with invalid UTF-8 and lone surrogate escapes replaced by U+FFFD, and nothing else changed.

    JavaScript cuts strings between the halves of a pair, and workloads print any bytes; neither may lose a document.
    """
    document = document.decode("utf-8", "replace").encode()
    return _ESCAPE.sub(_keep_or_replace, document) if rb"\u" in document else document


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
        raise msgspec.DecodeError("JSON is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        repaired = repair_text(document)
        if repaired == document:
            raise
        return decoder.decode(repaired)
