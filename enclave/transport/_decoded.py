"""The value that a response's body decodes to. Without I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from enclave.errors import MalformedResponseError, decoding_problem, excerpt

from ._credential import Credential
from ._redact import redacted

T = TypeVar("T")

_SHOWN_BYTES = 64 * 1024


def decoded(decode: Callable[[bytes], T], body: bytes, operation: str, credential: Credential | None) -> T:
    """Decode the body of a successful response.

    Raises:
        MalformedResponseError: it is not what the route promises. The message says where, and shows the start of the
            body without the `credential`, which a server may have echoed.
    """
    try:
        return decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = redacted(decoding_problem(error), credential)
    said = redacted(body[:_SHOWN_BYTES].decode("utf-8", "replace"), credential)
    shown = f"starts with: {excerpt(said)}" if body else "is empty"
    malformed = MalformedResponseError(f"the response's body is not what the route promises: {reason}. It {shown}")
    malformed.operation = operation
    del body  # a traceback may show local variables, and the server may have echoed the credential
    raise malformed
