"""The value that a response's body decodes to. Without I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from enclave.errors import MalformedResponseError, excerpt

T = TypeVar("T")


def decoded(decode: Callable[[bytes], T], body: bytes, operation: str) -> T:
    """Decode the body of a successful response.

    Raises:
        MalformedResponseError: it is not what the route promises; the message says where, and shows its start.
    """
    try:
        return decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = str(error)
    shown = f"it starts with: {excerpt(body)}" if body else "it is empty"
    raise MalformedResponseError(f"{operation}: the response's body is not what the route promises: {reason}; {shown}")
