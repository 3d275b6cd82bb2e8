"""What `run` and `session` are called with, to a `CreateSessionRequest`."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from .types import CreateSessionRequest, SessionFields


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
    known = CreateSessionRequest.__struct_fields__
    for name in fields:
        if name not in known:
            raise TypeError(
                f"{name}: not a field of CreateSessionRequest ({', '.join(known)}). "
                "Send a field that the SDK has no name for with extra={'wireName': value}"
            )
