"""Checks of arguments. Each names the argument. A wrong type is a TypeError, and a wrong value a ValueError."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from http import HTTPMethod
from typing import TypeVar, cast

T = TypeVar("T")

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PLAIN_PATH = re.compile(r"[\w/-]+")
_HEADER_TEXT = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def seconds(name: str, value: object) -> float:
    """A time in seconds, from 0. Infinity and NaN are none."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a number of seconds, got {value!r}")
    if not 0 <= value < math.inf:
        raise ValueError(f"{name}: must be a number of seconds from 0, got {value}")
    return float(value)


def whole(name: str, value: object) -> int:
    """A whole number of any size."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a whole number, got {value!r}")
    return value


def count(name: str, value: object) -> int:
    """A whole number from 0."""
    if whole(name, value) < 0:
        raise ValueError(f"{name}: must not be negative, got {value}")
    return whole(name, value)


def flag(name: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return value


def text(name: str, value: object) -> str:
    """A text."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a text, got {value!r}")
    return value


def octets(name: str, value: object) -> bytes:
    """Bytes."""
    if not isinstance(value, bytes):
        raise TypeError(f"{name}: expected bytes, got {value!r}")
    return value


def function(name: str, value: object) -> None:
    """Something that can be called."""
    if not callable(value):
        raise TypeError(f"{name}: expected a function, got {value!r}")


def instance(name: str, value: object, kind: type[T]) -> T:
    """An object of a class of ours."""
    if not isinstance(value, kind):
        raise TypeError(f"{name}: expected {kind.__name__}(...), got {value!r}")
    return value


def texts(name: str, values: object) -> list[str]:
    """Several texts. One alone is none of these, although it can be iterated over."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"{name}: expected a list of texts, got {values!r}")
    return [text(name, value) for value in cast("Iterable[object]", values)]


def texts_by_name(name: str, values: object) -> dict[str, str]:
    """A dict from text to text."""
    if not isinstance(values, Mapping):
        raise TypeError(f"{name}: expected a dict, got {values!r}")
    pairs = cast("Mapping[object, object]", values).items()
    return {text(name, key): text(f"{name}[{key!r}]", value) for key, value in pairs}


def headers(values: object) -> dict[str, str]:
    """Names and values of header fields that can be sent. The names come in lower case."""
    fields = texts_by_name("headers", values)
    for name, value in fields.items():
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"headers: {name!r} is no name of a header")
        if not _HEADER_TEXT.fullmatch(value):
            raise ValueError(f"headers[{name!r}]: {value!r} cannot be sent in a header")
    return {name.lower(): value for name, value in fields.items()}


def method(name: str, value: object) -> None:
    """The method of a request, in any case."""
    if text(name, value).upper() not in HTTPMethod.__members__:
        raise ValueError(f"{name}: expected one of {', '.join(HTTPMethod)}, got {value!r}")


def path(name: str, value: object) -> None:
    """A regular expression that the path of a request can match."""
    pattern = text(name, value)
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{name}: {pattern!r} is no regular expression: {error}") from None
    if not pattern or pattern[0].isalnum():  # and not one like ".*/stream"
        raise ValueError(f"{name}: must begin with '/', as every path does, got {pattern!r}")
    if "/*" in pattern:
        raise ValueError(
            f"{name}: {pattern!r} is a regular expression, in which '/*' stands for any number of slashes. "
            "Write '/[^/]+' for one part of a path, or '/.*' for all that follows"
        )


def stream_path(name: str, pattern: str) -> None:
    """A `path` that a stream can have."""
    if _PLAIN_PATH.fullmatch(pattern) and not pattern.endswith("/stream"):
        raise ValueError(f"{name}: expected the path of a stream, '/sessions/<id>/stream', got {pattern!r}")
