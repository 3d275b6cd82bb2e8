"""A response that tells its length more than once, always the same. Without I/O.

RFC 9112 (6.3) takes such a list of equal lengths for one, and llhttp refuses it. So where llhttp complains of a length,
the head is read here, and is parsed once more with one length in it.
"""

from __future__ import annotations

_END = b"\r\n\r\n"
_INTERIM = b" 1"  # behind the protocol's version: 100 Continue, 103 Early Hints


class HeadBytes:
    """The bytes of a response up to the end of its head, as they come."""

    __slots__ = ("_bytes", "_head_start", "_seen")

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._head_start = 0  # behind the interim heads
        self._seen = 0  # up to here there is no other end of a head

    def add(self, data: bytes) -> None:
        """Take the next bytes."""
        self._bytes += data

    @property
    def is_tls(self) -> bool:
        """Whether this is no HTTP but a record of TLS: the alert to a client that did not begin a handshake."""
        return self._bytes.startswith(b"\x15\x03")

    @property
    def is_whole(self) -> bool:
        """Whether the final head is there. To be asked again and again costs no more than to be asked once."""
        while (end := self._bytes.find(_END, self._seen)) >= 0:
            status = self._bytes.find(b" ", self._head_start)
            if not self._bytes.startswith(_INTERIM, status):
                self._seen = end
                return True
            self._head_start = self._seen = end + len(_END)
        self._seen = max(self._seen, len(self._bytes) - len(_END) + 1)
        return False

    def with_one_length(self) -> bytes | None:
        """All bytes, with equal lengths joined. None if there are not several, or they differ, or chunks tell it too.

        Only for a whole head.
        """
        head = bytes(self._bytes[self._head_start : self._seen])
        lines: list[bytes] = []
        lengths: list[bytes] = []
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"transfer-encoding":
                return None  # two ways to tell where the body ends, which is how requests are smuggled
            if name.lower() != b"content-length":
                lines.append(line)
            elif not lengths:
                lengths += (each.strip(b" \t") for each in value.split(b","))
                lines.append(b"Content-Length: " + lengths[0])
            else:
                lengths += (each.strip(b" \t") for each in value.split(b","))
        if len(lengths) < 2 or len(set(lengths)) > 1 or not lengths[0].isdigit():  # noqa: PLR2004 - several
            return None
        return b"".join((self._bytes[: self._head_start], b"\r\n".join(lines), self._bytes[self._seen :]))
