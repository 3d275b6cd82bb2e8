"""Taking the client's own credential out of what a server says: some echo the request that they refuse. Without I/O."""

from __future__ import annotations

from typing import Any

import msgspec

from ._credential import Credential, Secret

MASK = "***"


def redacted(text: str, credential: Credential | None) -> str:
    """The text with `MASK` in the place of the credential."""
    for secret in _sent(credential):
        text = text.replace(str(secret.reveal()), MASK)
    return text


def redacted_json(document: Any, credential: Credential | None) -> Any:
    """The same for decoded JSON: in every string and every name of it."""
    # By way of the text: a document may be nested deeper than a Python function can call itself. Encoded anew, the
    # credential has one spelling, whatever escapes the server wrote it with.
    for secret in _sent(credential):
        document = msgspec.json.decode(msgspec.json.encode(document).replace(_as_json(secret), MASK.encode()))
    return document


def _sent(credential: Credential | None) -> tuple[Secret, ...]:
    return () if credential is None else credential.sent


def _as_json(secret: Secret) -> bytes:
    return msgspec.json.encode(str(secret.reveal()))[1:-1]
