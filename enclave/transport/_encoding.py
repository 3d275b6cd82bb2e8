"""Undoing a ``Content-Encoding`` we did not ask for, in pieces, so that a bomb cannot outgrow a bound. Without I/O."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from enclave.errors import MalformedResponseError, excerpt

_MAX_PIECE_BYTES = 64 * 1024
_WBITS = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
_NO_CODINGS = frozenset({"", "identity", "none", "utf-8"})
"""What servers say of a body that is not compressed. The last two are mistakes that are often made."""
_MAX_BARREN_BYTES = 64 * 1024
"""How much compressed data may give nothing, before it is no longer read on."""
_MAX_NAME_CHARS = 16
"""A longer name is not shown. It is no coding, and a server may have echoed a credential there."""
_GZIP_MAGIC = b"\x1f"  # its first byte: the second may come with the next read


class Inflater:
    """Decompresses gzip or deflate in pieces of at most 64 KiB.

    Raises:
        MalformedResponseError: another encoding, or data that is not of this one.
    """

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding.strip().lower()
        self._wbits = _WBITS.get(self._encoding)
        self._inflater = zlib.decompressobj(self._wbits or zlib.MAX_WBITS)
        self._barren_bytes = 0  # since something last came out

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The decompressed pieces of the next bytes. Nothing is decompressed before it is asked for."""
        if self._wbits is None:
            name = excerpt(self._encoding) if len(self._encoding) <= _MAX_NAME_CHARS else "of a long name"
            raise MalformedResponseError(f"content-encoding {name} was not asked for and is not understood")
        # What comes out is bounded by the reader. This bounds what goes in and gives nothing.
        self._barren_bytes += len(data)
        while data:
            if self._barren_bytes > _MAX_BARREN_BYTES + len(data):
                raise MalformedResponseError(f"more than {_MAX_BARREN_BYTES} bytes of {self._encoding} hold nothing")
            if self._inflater.eof:
                if not data.startswith(_GZIP_MAGIC):
                    return  # padding
                # gzip may go on with another member, and servers that concatenate files do so.
                self._inflater = zlib.decompressobj(self._wbits)
            try:
                piece = self._inflater.decompress(data, _MAX_PIECE_BYTES)
            except zlib.error as error:
                raise MalformedResponseError(f"the body is not {self._encoding}: {error}") from None
            data = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail
            if piece:
                self._barren_bytes = len(data)
                yield piece


def inflater_for(content_encoding: str | None) -> Inflater | None:
    """The inflater that a ``Content-Encoding`` header asks for, or None if there is nothing to undo."""
    codings = [coding.strip().lower() for coding in (content_encoding or "").split(",")]
    undone = [coding for coding in codings if coding not in _NO_CODINGS]
    return Inflater(", ".join(undone)) if undone else None
