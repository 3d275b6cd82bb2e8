"""The methods of an async class, as blocking ones: parameters, types and documentation stand there and nowhere else.

A type checker takes the signature from the method that is passed in, overloads included. `help()` shows that method's
documentation in the words of the blocking client.
"""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, Generic, NoReturn, ParamSpec, TypeVar

from ._driver import Driver
from ._words import in_blocking_words

A = TypeVar("A")
B = TypeVar("B")
F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
T = TypeVar("T")


class Blocking(Generic[A]):
    """Holds an object of the async client's, and where the calls of its methods go."""

    def __init__(self, target: A, driver: Driver) -> None:
        self._async = target
        self._driver = driver

    def __repr__(self) -> str:
        target: object = getattr(self, "_async", None)  # a traceback out of __init__ may show one without it
        return f"<{type(self).__name__} unfinished>" if target is None else in_blocking_words(repr(target))

    def __reduce__(self) -> NoReturn:
        try:
            pickle.dumps(self._async)
        except TypeError as error:
            reason = in_blocking_words(str(error))
        else:
            reason = f"a {type(self).__name__} cannot be pickled"
        raise TypeError(reason)


def parts_of(holder: Blocking[A]) -> tuple[A, Driver]:
    """What a blocking object holds: for the methods that are made here."""
    return holder._async, holder._driver  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - one of us


def blocking(method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[Any, P], T]:
    """The same method, which waits."""

    @like(method)
    def call(self: Blocking[Any], /, *args: P.args, **kwargs: P.kwargs) -> T:
        target, driver = parts_of(self)
        return driver.call(method(target, *args, **kwargs))

    return call


def blocking_to(
    kind: Callable[[A, Driver], B],
    method: Callable[Concatenate[Any, P], Awaitable[A]],
    undo: Callable[[B], Awaitable[None]],
) -> Callable[Concatenate[Any, P], B]:
    """The same method, which waits and gives one of the blocking classes. `undo` is for a value that nobody got."""

    @like(method)
    def call(self: Blocking[Any], /, *args: P.args, **kwargs: P.kwargs) -> B:
        target, driver = parts_of(self)

        async def made() -> B:
            # On the loop: a thread that is interrupted between getting a value and wrapping it would lose it.
            return kind(await method(target, *args, **kwargs), driver)

        return driver.call(made(), undo)

    return call


def giving(
    kind: Callable[[A, Driver], B], method: Callable[Concatenate[Any, P], A]
) -> Callable[Concatenate[Any, P], B]:
    """The same method, which waits for nothing and gives one of the blocking classes."""

    @like(method)
    def call(self: Blocking[Any], /, *args: P.args, **kwargs: P.kwargs) -> B:
        target, driver = parts_of(self)
        return kind(method(target, *args, **kwargs), driver)

    return call


def like(original: object) -> Callable[[F], F]:
    """Give a function the signature and the documentation of an async one, or of a property."""
    source: Any = original.fget if isinstance(original, property) else original

    def described(function: F) -> F:
        # Not `functools.wraps`, for what unwraps a function would take this one for the coroutine function behind it.
        signature = inspect.signature(source)
        target: Any = function
        target.__signature__ = signature.replace(
            parameters=[
                parameter.replace(annotation=_translated(parameter.annotation))
                for parameter in signature.parameters.values()
            ],
            return_annotation=_translated(signature.return_annotation),
        )
        target.__name__ = in_blocking_words(source.__name__)
        target.__qualname__ = in_blocking_words(source.__qualname__)
        target.__doc__ = None if source.__doc__ is None else in_blocking_words(source.__doc__)
        return function

    return described


def _translated(annotation: Any) -> Any:
    return in_blocking_words(annotation) if isinstance(annotation, str) else annotation
