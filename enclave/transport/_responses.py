"""What a response says: the error that its status and body stand for."""

from __future__ import annotations

import re
import time
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, cast

import msgspec

from enclave.errors import (
    STATUS_ERRORS,
    APIConnectionError,
    APIStatusError,
    ProtocolError,
    ServerError,
    excerpt,
)
from enclave.types._json import decode_text

from ._body_reader import read_start
from ._credential import Credential
from ._messages import Body, Response
from ._redact import redacted, redacted_json

_MAX_ERROR_BODY_BYTES = 64 * 1024
_REDIRECTS = range(300, 400)

_SECONDS = re.compile(r"[0-9]+(\.[0-9]*)?")

_json = msgspec.json.Decoder()


async def status_error(response: Response, body: Body, credential: Credential | None) -> APIStatusError:
    """The error for a response whose status is not 2xx."""
    try:
        text = await read_start(body, _MAX_ERROR_BODY_BYTES)
    except (ProtocolError, APIConnectionError):
        text = b""  # cut or garbled, but the status is what matters
    status = response.status
    said, message, code = _explain(text, credential)
    if not message:
        message = _start(response.reason, credential) or "no reason given"
        message += f", and the body starts with: {_start(text, credential)}" if text else ""
    location = response.header(b"location")
    if location is not None and status in _REDIRECTS:
        message += f", and redirects are not followed (to {excerpt(redacted(location, credential))})"
    request_id = response.header(b"x-request-id")
    cls = STATUS_ERRORS.get(status, ServerError if status >= HTTPStatus.INTERNAL_SERVER_ERROR else APIStatusError)
    return cls(
        status,
        message,
        code=code,
        body=said,
        request_id=redacted(request_id, credential) if request_id else None,
        retry_after_seconds=_retry_after(response),
    )


def _explain(text: bytes, credential: Credential | None) -> tuple[Any, str, str | None]:
    """Body, message and code of an error: of the documented shape, of another one, or of none."""
    if not text:
        return None, "", None
    try:
        body = redacted_json(decode_text(_json, text), credential)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _start(text, credential), "", None
    if not isinstance(body, dict):
        return body, "", None
    fields = cast(dict[str, Any], body)
    message = next((value for name in ("message", "error") if isinstance(value := fields.get(name), str) and value), "")
    code = fields.get("code")
    return fields, message, code if isinstance(code, str) else None


def _start(text: bytes, credential: Credential | None) -> str:
    return excerpt(redacted(text.decode("utf-8", "replace"), credential))


def _retry_after(response: Response) -> float | None:
    """Seconds from ``Retry-After``, given as seconds or as a date."""
    value = (response.header(b"retry-after") or "").strip()
    if _SECONDS.fullmatch(value):
        # Nine digits are thirty years, and no policy waits so long. Of a longer number `float` would make infinity.
        return float(value[:9])
    moment = _timestamp(value)
    if moment is None:
        return None
    now = _timestamp(response.header(b"date") or "")  # by the server's clock, where it tells it
    return max(0.0, moment - (time.time() if now is None else now))


def _timestamp(date: str) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
        # The asctime form names no zone. All three forms of HTTP are in UTC.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
