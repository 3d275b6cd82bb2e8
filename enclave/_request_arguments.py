"""What `run` and `session` are called with, to a `CreateSessionRequest`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from .types import CreateSessionRequest, SessionFields, SessionLimits
from .types._encode import wire_names

_FIELDS = CreateSessionRequest.__struct_fields__
_WIRE_NAMES = wire_names(CreateSessionRequest) | {"extra": "extra"}


def as_request(request: CreateSessionRequest | str | None, fields: SessionFields) -> CreateSessionRequest:
    """A request from what callers may pass: one, or source text and fields. Raises as `CreateSessionRequest` does."""
    given: dict[str, Any] = cast("dict[str, Any]", fields)
    _check_field_names(given)
    if isinstance(request, CreateSessionRequest):
        # Not `structs.replace`: in older releases of msgspec it makes a request that was not checked.
        return CreateSessionRequest(**{**msgspec.structs.asdict(request), **given}) if given else request
    if isinstance(request, str):
        if "code" in given:
            raise TypeError("code: given twice, as the first argument and by name. Leave one of them out")
        given = {**given, "code": request}
    elif request is not None:
        raise TypeError(f"request: expected source text or a CreateSessionRequest, got {type(request).__name__}")
    if "code" not in given:
        raise TypeError("code: missing. Pass the source text to run")
    return CreateSessionRequest(**given)


def _check_field_names(fields: dict[str, Any]) -> None:
    for name in fields:
        if name not in _FIELDS:
            raise TypeError(f"{name}: not a field of CreateSessionRequest ({', '.join(_FIELDS)}). {_advice(name)}")


def _advice(name: str) -> str:
    """What to write instead of a name that is no field's."""
    if name.startswith("timeout"):
        return (
            "limits=SessionLimits(wall_clock_ms=...) bounds the run, and the server keeps it. Timeout(total=...) "
            "bounds a request of the client's. In async code, anyio.fail_after(seconds) bounds any block"
        )
    limit = _meant(name, SessionLimits.wire_names())
    field = _meant(name, _WIRE_NAMES)
    if limit is not None and name in (limit, SessionLimits.wire_names()[limit]):
        return f"It is a limit. Pass limits=SessionLimits({limit}=...)"
    if field is not None:
        return f"Did you mean {field}?"
    if limit is not None:
        return f"Did you mean limits=SessionLimits({limit}=...)?"
    return "Send a field that the SDK has no name for with extra={'wireName': value}"


def _meant(name: str, known: Mapping[str, str]) -> str | None:
    """The name nearest to one that is not known, by how it is called in Python or on the wire. None if none is near."""
    import difflib  # noqa: PLC0415 - only a mistake needs it

    python_names = {wire_name: python_name for python_name, wire_name in known.items()} | {each: each for each in known}
    whole = difflib.get_close_matches(name, python_names, n=1)
    begun = [each for each in python_names if len(name) > 1 and each.startswith(name)]
    return python_names[(whole or begun)[0]] if whole or begun else None
