"""The blocking client has the names, signatures and documentation of the async one, and no others."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from enclave import (
    EnclaveClient,
    FanOut,
    FrameBatches,
    FrameStream,
    SessionHandle,
    SyncEnclaveClient,
    SyncFanOut,
    SyncFrameBatches,
    SyncFrameStream,
    SyncSessionHandle,
)

PAIRS = {
    EnclaveClient: SyncEnclaveClient,
    SessionHandle: SyncSessionHandle,
    FrameStream: SyncFrameStream,
    FrameBatches: SyncFrameBatches,
    FanOut: SyncFanOut,
}
# Attributes that the async classes set in themselves.
ATTRIBUTES: dict[Any, set[str]] = {EnclaveClient: {"base_url"}, SessionHandle: {"id"}, FrameStream: {"session_id"}}
RENAMED = {
    "aclose": "close",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
}
PROTOCOL = {*RENAMED.values(), "__init__"}
# What is said of these is said otherwise for threads.
OWN_WORDS = {"close", "__exit__", "__iter__", "__init__"}


def names(cls: type) -> set[str]:
    found = {name for each in cls.__mro__ for name in vars(each)}
    named = {RENAMED.get(name, name) for name in found}
    return {name for name in named if not name.startswith("_") or name in PROTOCOL} | ATTRIBUTES.get(cls, set())


def methods() -> list[Any]:
    return [
        pytest.param(original, mirror, name, id=f"{mirror.__name__}.{RENAMED.get(name, name)}")
        for original, mirror in PAIRS.items()
        for name, value in vars(original).items()
        if callable(value) and (not name.startswith("_") or name in RENAMED)
    ]


def expected(text: object) -> object:
    """How a text or an annotation of the async client reads here. The client has its own idea of that."""
    if not isinstance(text, str):
        return text
    text = text.replace("AbstractAsync", "Abstract").replace("an async context", "a context")
    text = text.replace("async with", "with").replace("async for", "for").replace("await ", "")
    text = text.replace("`aclose`", "`close`").replace("any task", "any thread").replace("__anext__", "__next__")
    return re.sub(r"\b(EnclaveClient|SessionHandle|FrameStream|FrameBatches|FanOut)\b", r"Sync\1", text)


def described(method: Any, translate: Any) -> list[object]:
    signature = inspect.signature(method)
    parameters = [
        (name, parameter.kind, parameter.default, translate(parameter.annotation))
        for name, parameter in signature.parameters.items()
        if name != "self"
    ]
    return [*parameters, translate(signature.return_annotation)]


@pytest.mark.parametrize(("original", "mirror"), PAIRS.items(), ids=lambda cls: cls.__name__)
def test_a_class_has_the_names_of_its_async_one(original: type, mirror: type) -> None:
    assert names(mirror) == names(original)


@pytest.mark.parametrize(("original", "mirror", "name"), methods())
def test_a_method_has_the_parameters_of_its_async_one(original: type, mirror: type, name: str) -> None:
    method = getattr(mirror, RENAMED.get(name, name))
    assert described(method, lambda text: text) == described(getattr(original, name), expected)
    assert not inspect.iscoroutinefunction(method)


@pytest.mark.parametrize(("original", "mirror", "name"), methods())
def test_a_method_has_the_documentation_of_its_async_one(original: type, mirror: type, name: str) -> None:
    here = RENAMED.get(name, name)
    if here not in OWN_WORDS:
        assert getattr(mirror, here).__doc__ == expected(getattr(original, name).__doc__)
        assert getattr(mirror, here).__qualname__ == f"{mirror.__name__}.{here}"


def test_the_client_is_made_with_the_arguments_of_the_async_one() -> None:
    assert described(SyncEnclaveClient, lambda text: text) == described(EnclaveClient, expected)


@pytest.mark.parametrize(("original", "mirror"), PAIRS.items(), ids=lambda cls: cls.__name__)
def test_a_property_has_the_documentation_of_its_async_one(original: type, mirror: type) -> None:
    for name, value in vars(original).items():
        if isinstance(value, property) and not name.startswith("_"):
            assert inspect.getdoc(getattr(mirror, name)) == expected(inspect.getdoc(value))


@pytest.mark.parametrize("mirror", PAIRS.values(), ids=lambda cls: cls.__name__)
def test_no_documentation_speaks_of_coroutines(mirror: Any) -> None:
    texts = [mirror.__doc__, *(inspect.getdoc(value) for value in vars(mirror).values())]
    for text in filter(None, texts):
        assert not re.search(r"\bawait\b|\basync (with|for)\b|\baclose\b", text), text
