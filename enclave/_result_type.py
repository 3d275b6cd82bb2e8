"""From the body of a result to a `SessionResult` whose value is of the type that the caller asked for. Without I/O.

msgspec decodes most types by itself. Those that it does not know are refused here, before anything runs. Pydantic's
models are the exception: they are recognised by their method ``model_validate``, and Pydantic is no dependency.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, TypeVar, cast, get_args

import msgspec
import msgspec.inspect

from .errors import ResultTypeError, decoding_problem
from .types import SessionResult
from .types._lenient import LenientDecoder

T = TypeVar("T")
Decode = Callable[[bytes], SessionResult[T]]

_NO_VALUE = "the program did not call enclave.result(...), or gave it None"
_untyped = LenientDecoder(SessionResult[Any])


def result_decoder(type_: Any) -> Decode[Any]:
    """A function from the body of a result to a ``SessionResult[type_]``.

    Raises:
        TypeError: nothing can be decoded into `type_`.
    """
    if type_ is Any or type_ is object:
        return _untyped.decode
    try:
        return _cached_decoder(type_)
    except TypeError:
        # It cannot be hashed, as some types with metadata. Or it is refused, and is so once more.
        return _decoder(type_)


def _decoder(type_: Any) -> Decode[Any]:
    try:
        info = msgspec.inspect.type_info(type_)
        unknown = list(_unknown_classes(info, set()))
        decoder = LenientDecoder(SessionResult[type_])
    except TypeError as error:
        raise TypeError(f"type: no result can be decoded into {_name(type_)}: {error}") from None
    for cls in unknown:
        if not callable(getattr(cls, "model_validate", None)):
            where = "" if cls is type_ else f", which is in {_name(type_)}"
            raise TypeError(
                f"type: no result can be decoded into {_name(cls)}{where}. Use a Struct, a dataclass, a TypedDict, "
                "a Pydantic model, or built-in types"
            )
    if unknown:
        return lambda body: _decode(_untyped.decode, type_, body, convert=_convert_with_models)
    return lambda body: _decode(decoder.decode, type_, body)


_cached_decoder = lru_cache(maxsize=256)(_decoder)


def _unknown_classes(info: object, seen: set[int]) -> Iterator[Any]:
    """The classes in a type that msgspec leaves to its caller. `seen` is for types that contain themselves."""
    if isinstance(info, msgspec.inspect.CustomType):
        if info.cls is not object:
            yield info.cls
    elif isinstance(info, tuple):
        for member in cast(tuple[object, ...], info):
            yield from _unknown_classes(member, seen)
    elif isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field) and id(info) not in seen:
        seen.add(id(info))
        for name in info.__struct_fields__:
            yield from _unknown_classes(getattr(info, name), seen)


def _decode(
    decode: Decode[Any],
    type_: Any,
    body: bytes,
    *,
    convert: Callable[[SessionResult[Any], Any], SessionResult[Any]] | None = None,
) -> SessionResult[Any]:
    try:
        result = decode(body)
        if convert is not None and (result.value is not None or result.exit_code == 0):
            result = convert(result, type_)
        elif result.value is None and result.exit_code == 0:
            msgspec.convert(None, type_)  # a value that was left out must be one the type allows for
    except msgspec.ValidationError as error:
        reason = decoding_problem(error)
    else:
        return result
    untyped = _untyped.decode(body)  # raises where the fault is not the value's
    if untyped.value is None and untyped.exit_code != 0:
        # A workload that failed or was killed rarely has a value. How it ended is what the caller must see.
        return untyped
    problem = _NO_VALUE if untyped.value is None else _in_python(reason)
    raise ResultTypeError(f"the workload's result does not fit {_name(type_)}: {problem}", result=untyped)


def _in_python(reason: str) -> str:
    """What msgspec says of a value, with the place as the caller finds it: on the wire the field is called ``json``."""
    what, at, path = reason.rpartition(" - at `$.json")
    return f"{what} - at `value{path}" if at else f"{reason} - at `value`"


def _convert_with_models(result: SessionResult[Any], type_: Any) -> SessionResult[Any]:
    try:
        value = msgspec.convert(result.value, type_, dec_hook=_validate, str_keys=True)
    except msgspec.ValidationError as error:
        reason, *steps = str(error).split(" - at `$")
        # The path inside the model came first, and the path to the model was added behind it.
        path = "".join(step.removesuffix("`") for step in reversed(steps))
        raise msgspec.ValidationError(f"{reason} - at `$.json{path}`") from None
    return msgspec.structs.replace(result, value=value)


def _validate(model: Any, value: object) -> Any:
    try:
        return model.model_validate(value)
    except ValueError as error:
        problems: Any = getattr(error, "errors", None)
        if not callable(problems):
            raise
        first: Any = cast(Any, problems)()[0]
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
    raise ValueError(f"{first['msg']} - at `${path}`")


def _name(type_: Any) -> str:
    return type_.__qualname__ if isinstance(type_, type) and not get_args(type_) else str(type_)
