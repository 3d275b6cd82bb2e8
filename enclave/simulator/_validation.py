"""From the body of ``POST /sessions`` to a checked request. Every message names the field as the wire does. No I/O.

The fields, their names and their types are those of `enclave.types`. Unknown fields are accepted and have no effect,
because the product has request features that are not documented.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

import msgspec

from enclave.types import CreateSessionRequest, EgressPolicy, SessionLimits
from enclave.types._encode import EXTRA, wire_names
from enclave.types._json import decode_text

LANGUAGES = ("python", "node")
EGRESS_MODES = ("deny_all", "allowlist")

_object = msgspec.json.Decoder(dict[str, Any])
_WIRE_NAMES = wire_names(CreateSessionRequest) | wire_names(SessionLimits) | wire_names(EgressPolicy)


def parse_request(body: bytes, services: Collection[str]) -> CreateSessionRequest:
    """The request in a body. Its language and its egress policy are set.

    Raises:
        ValueError: the body is not JSON or not a request. The message says which field and why.
    """
    try:
        document = decode_text(_object, body)
        if isinstance(document.get("limits"), dict):
            document["limits"] = _with_extra(SessionLimits, document["limits"])
        request = msgspec.convert(_with_extra(CreateSessionRequest, document), CreateSessionRequest)
    except msgspec.ValidationError as error:
        raise ValueError(_explain(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"body: not valid JSON: {error}") from None
    # Both are filled in, so that the session shows what is in force.
    request = msgspec.structs.replace(
        request, language=request.language or LANGUAGES[0], egress=request.egress or EgressPolicy.deny_all()
    )
    if not request.code.strip():
        raise ValueError("code: must not be empty")
    _check_choice("language", request.language, LANGUAGES)
    _check_choice("egress.mode", request.egress.mode if request.egress else None, EGRESS_MODES)
    _check_bindings(request.service_bindings or (), services)
    _check_webhook(request.webhook_url)
    return request


def _with_extra(struct: type[msgspec.Struct], document: dict[str, Any]) -> dict[str, Any]:
    """The document with all fields that `struct` does not know moved into its field `extra`."""
    names = set(wire_names(struct).values())
    known = {name: value for name, value in document.items() if name in names}
    return known | {EXTRA: {name: document[name] for name in document.keys() - names}}


def _explain(message: str) -> str:
    """The message with the path of the field first, and with the names of the wire.

    msgspec says "Expected `int`, got `str` - at `$.limits.pids`", and the types' own checks say "limits.memory_mb: must
    be positive". They become "limits.pids: expected `int`, got `str`" and "limits.memoryMb: must be positive".
    """
    missing = re.search(r"missing required field `(\w+)`", message)
    if missing:
        return f"{missing[1]}: required"
    if message.startswith("Expected "):
        what, _, path = message.partition(" - at ")
        path = path.strip("`").removeprefix("$").removeprefix(".").replace("[...]", "[]")
        return f"{path or 'body'}: {what[0].lower()}{what[1:]}"
    path, colon, what = message.partition(":")
    return re.sub(r"\w+", lambda name: _WIRE_NAMES.get(name[0], name[0]), path) + colon + what


def _check_choice(name: str, value: str | None, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}: expected {' or '.join(choices)}, got {value!r}")


def _check_bindings(asked: Collection[str], services: Collection[str]) -> None:
    for index, name in enumerate(asked):
        if name not in services:
            known = ", ".join(sorted(services)) or "none"
            where = f"{_WIRE_NAMES['service_bindings']}[{index}]"
            raise ValueError(f"{where}: unknown service {name!r}, this server has: {known}")


def _check_webhook(url: str | None) -> None:
    if url is None:
        return
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not url.isascii() or any(char <= " " for char in url):
        raise ValueError(f"{_WIRE_NAMES['webhook_url']}: expected an absolute http or https URL")
