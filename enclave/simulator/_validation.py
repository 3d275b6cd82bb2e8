"""From the body of `POST /sessions` to a checked request; every message names the wire field. No I/O.

Unknown fields are accepted and ignored: the product has request features that are not documented.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

from enclave.types import CreateSessionRequest, EgressPolicy, SessionLimits
from enclave.types._json import decode_text

_Positive = Annotated[int, msgspec.Meta(ge=1, le=2**53)]


class _Egress(msgspec.Struct):
    mode: Literal["deny_all", "allowlist"] = "deny_all"
    allow: list[str] = []


class _Body(msgspec.Struct, rename="camel"):
    code: str
    language: Literal["python", "node"] | None = None
    limits: dict[str, Any] | None = None
    egress: _Egress | None = None
    service_bindings: list[str] | None = None
    webhook_url: str | None = None
    labels: dict[str, str] | None = None


_body = msgspec.json.Decoder(_Body)


def parse_request(body: bytes, bindings: Collection[str]) -> CreateSessionRequest:
    """The request in a body.

    Raises:
        ValueError: the body is not JSON or not a request; the message says which field and why.
    """
    try:
        parsed = decode_text(_body, body)
    except msgspec.ValidationError as error:
        raise ValueError(_explain(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"body: not valid JSON: {error}") from None
    if not parsed.code.strip():
        raise ValueError("code: must not be empty")
    _check_bindings(parsed.service_bindings or [], bindings)
    _check_webhook(parsed.webhook_url)
    return CreateSessionRequest(
        code=parsed.code,
        language=parsed.language or "python",
        limits=_limits(parsed.limits or {}),
        egress=_egress(parsed.egress),
        service_bindings=parsed.service_bindings or [],
        webhook_url=parsed.webhook_url,
        labels=parsed.labels or {},
    )


def _explain(message: str) -> str:
    """Of msgspec's "Expected `int` - at `$.limits.pids`": the path first, as in "limits.pids: expected `int`"."""
    missing = re.search(r"missing required field `(\w+)`", message)
    if missing:
        return f"{missing[1]}: required"
    what, _, path = message.partition(" - at ")
    path = path.strip("`").removeprefix("$").removeprefix(".").replace("[...]", "[]")
    return f"{path or 'body'}: {what[0].lower()}{what[1:]}"


def _limits(sent: dict[str, Any]) -> SessionLimits:
    names = {wire: name for name, wire in SessionLimits.wire_names().items()}
    known: dict[str, Any] = {}
    for wire in names.keys() & sent.keys():
        try:
            known[names[wire]] = msgspec.convert(sent[wire], _Positive | None)
        except msgspec.ValidationError as error:
            raise ValueError(_explain(f"{error} - at `$.limits.{wire}`")) from None
    return SessionLimits(**known, extra={wire: value for wire, value in sent.items() if wire not in names})


def _egress(parsed: _Egress | None) -> EgressPolicy:
    if parsed is None:
        return EgressPolicy.deny_all()
    if parsed.mode == "deny_all" and parsed.allow:
        raise ValueError('egress.allow: must be empty when egress.mode is "deny_all"')
    for index, cidr in enumerate(parsed.allow):
        try:
            ipaddress.ip_network(cidr)
        except ValueError as error:
            raise ValueError(f"egress.allow[{index}]: not a network in CIDR form: {error}") from None
    return EgressPolicy(parsed.mode, tuple(parsed.allow))


def _check_bindings(asked: list[str], bindings: Collection[str]) -> None:
    for index, name in enumerate(asked):
        if name not in bindings:
            known = ", ".join(sorted(bindings)) or "none"
            raise ValueError(f"serviceBindings[{index}]: unknown service {name!r}; this server has: {known}")


def _check_webhook(url: str | None) -> None:
    if url is None:
        return
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not url.isascii() or any(char <= " " for char in url):
        raise ValueError("webhookUrl: expected an absolute http or https URL")
