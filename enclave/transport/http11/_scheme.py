"""Telling whether a server that hangs up on plain HTTP speaks TLS, so that the error can name the remedy."""

from __future__ import annotations

import ssl
from contextlib import suppress

from enclave.errors import EnclaveError
from enclave.transport._time_limit import TimeLimit

from ._connection import Connection

SPEAKS_TLS = "the server speaks TLS here: write https in the base URL"
_ANSWER_SECONDS = 2.0
_TLS_RECORDS = (b"\x15", b"\x16")  # an alert, and a part of a handshake


async def speaks_tls(connection: Connection) -> bool:
    """Whether the server answers the beginning of a handshake with a record of TLS. False if it does not answer."""
    # Nothing is sent over this connection but the beginning of a handshake, so there is nobody to verify.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    hello = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), hello).do_handshake()
    try:
        with TimeLimit(_ANSWER_SECONDS, "no answer came"):
            await connection.send(memoryview(hello.read()))
            answer = await connection.receive()
    except EnclaveError:
        return False
    return answer[:1] in _TLS_RECORDS
