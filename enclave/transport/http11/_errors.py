"""The one boundary: which httpx exception stands for which exception of anyio, ssl, httptools and the OS. No I/O."""

from __future__ import annotations

import ssl
from typing import Literal, cast

import anyio
import httptools
import httpx

Phase = Literal["connect", "write", "read"]
Mapped = type[httpx.TransportError]

_LOCAL = httpx.LocalProtocolError
_REMOTE = httpx.RemoteProtocolError
_BROKEN: tuple[Mapped, Mapped, Mapped] = (httpx.ConnectError, httpx.WriteError, httpx.ReadError)

ERROR_MAP: tuple[tuple[type[Exception], tuple[Mapped, Mapped, Mapped]], ...] = (
    (anyio.BusyResourceError, (_LOCAL, _LOCAL, _LOCAL)),  # two tasks read one response
    (anyio.EndOfStream, (httpx.ConnectError, httpx.WriteError, _REMOTE)),
    (anyio.BrokenResourceError, _BROKEN),
    (anyio.ClosedResourceError, _BROKEN),  # closed by another task, or with the transport
    (httptools.HttpParserError, (_REMOTE, _REMOTE, _REMOTE)),
    (httptools.HttpParserUpgrade, (_REMOTE, _REMOTE, _REMOTE)),
    (ssl.SSLError, _BROKEN),
    (TimeoutError, (httpx.ConnectTimeout, httpx.WriteTimeout, httpx.ReadTimeout)),  # the kernel's, ETIMEDOUT
    (OSError, _BROKEN),
    (ValueError, _BROKEN),  # a host name that neither IDNA nor TLS can carry
)
"""Most specific first; for each class what it means while connecting, writing and reading."""

FOREIGN: tuple[type[Exception], ...] = tuple(foreign for foreign, _ in ERROR_MAP)
"""What to catch around a call into anyio."""

_PHASES: tuple[Phase, ...] = ("connect", "write", "read")
_DOING = {
    "connect": "cannot connect to {}",
    "write": "the connection to {} broke while the request was sent",
    "read": "the connection to {} broke while the response was read",
}


def translate(error: Exception, phase: Phase, peer: str) -> httpx.TransportError:
    """The httpx exception for a foreign one; `error` is an instance of a class in `FOREIGN`."""
    for foreign, meanings in ERROR_MAP:
        if isinstance(error, foreign):
            return meanings[_PHASES.index(phase)](f"{_DOING[phase].format(peer)}: {describe(error)}")
    raise TypeError(f"{type(error).__name__} is not in ERROR_MAP") from error


def describe(error: BaseException) -> str:
    """What happened, in words: anyio's own exceptions are often empty, and their cause says it."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return "; ".join(dict.fromkeys(describe(each) for each in group.exceptions))
    if error.__cause__ is not None:
        return describe(error.__cause__)
    name = type(error).__name__
    text = str(error)
    return f"{name}: {text}" if text else name
