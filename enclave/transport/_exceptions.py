"""The one boundary at which the exceptions of anyio, ssl, httpx and the system become ours.

It runs along the calls into those libraries: connecting, sending and receiving in `http11/`, and the adapter for httpx
transports. Nothing above it sees a foreign exception, except from code of the caller's own (a token callable, or a
fault in a transport), which passes through as it is.
"""

from __future__ import annotations

import ssl
from collections.abc import Generator, Sequence
from typing import NoReturn, cast

import anyio

from enclave.errors import (
    APIConnectionError,
    APITimeoutError,
    CertificateError,
    ConfigurationError,
    ConnectError,
    ConnectTimeoutError,
    EnclaveError,
    UsageError,
)

Row = tuple[type[Exception], type[EnclaveError], type[EnclaveError]]

EXCEPTION_MAP: Sequence[Row] = (
    (ssl.SSLCertVerificationError, CertificateError, CertificateError),
    (anyio.BusyResourceError, UsageError, UsageError),
    (anyio.EndOfStream, ConnectError, APIConnectionError),
    (anyio.IncompleteRead, ConnectError, APIConnectionError),
    (anyio.BrokenResourceError, ConnectError, APIConnectionError),
    (anyio.ClosedResourceError, ConnectError, APIConnectionError),
    (TimeoutError, ConnectTimeoutError, APITimeoutError),  # the kernel's ETIMEDOUT, and those of caller's transports
    (OSError, ConnectError, APIConnectionError),  # ssl.SSLError and socket.gaierror among them
)
"""What each foreign exception means while a connection is made, and after that. Most specific first."""

FOREIGN: tuple[type[Exception], ...] = tuple(foreign for foreign, _, _ in EXCEPTION_MAP)
"""What to catch around a call into anyio."""

# What OpenSSL says, from its release 3.0 on, where the answer to a handshake is not a record of TLS.
_NO_TLS_AT_ALL = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST"})


def mapped(
    error: Exception, doing: str, *, connecting: bool, rows: Sequence[Row] = EXCEPTION_MAP
) -> EnclaveError | None:
    """Our error for a foreign one, or None for one that is no failure of the network, such as a bug in a transport.

    It holds no traceback and no exception of another library. Its cause is the system's error at the root, bare, for
    that has the error number and no secrets.
    """
    for foreign, while_connecting, later in rows:
        if isinstance(error, foreign) and not isinstance(error, EnclaveError):  # some of ours are a TimeoutError too
            text = describe(error)
            cause = _bare_cause(error)
            cls = while_connecting if connecting else later
            ours: EnclaveError = cls(f"{doing}: {text}" if doing else text)
            if isinstance(cause, ssl.SSLCertVerificationError):
                ours = CertificateError(_describe_refused_certificate(cause))
            elif connecting and isinstance(cause, ssl.SSLError) and getattr(cause, "reason", "") in _NO_TLS_AT_ALL:
                ours = ConfigurationError(f"{doing}: the server does not speak TLS here: write http in the base URL")
            ours.__cause__ = cause
            return ours
    return None


def raise_mapped(error: Exception, doing: str, *, connecting: bool, rows: Sequence[Row] = EXCEPTION_MAP) -> NoReturn:
    """Raise what `mapped` gives for the exception that the caller is handling, or that one where it gives None."""
    ours = mapped(error, doing, connecting=connecting, rows=rows)
    if ours is None:
        raise error
    try:
        raise ours
    finally:
        # Python has just set this to the foreign exception, whose frames hold headers, and those the credential.
        ours.__context__ = None


def describe(error: BaseException) -> str:
    """What happened, in words. The exceptions of anyio and httpx are often empty, and their cause says it."""
    best = error
    for link in _chain(error):
        if isinstance(link, BaseExceptionGroup):
            group = cast("BaseExceptionGroup[BaseException]", link)
            return "; ".join(dict.fromkeys(describe(each) for each in group.exceptions))
        best = link if str(link) else best
    name, text = type(best).__name__, str(best)
    return f"{text} ({name})" if text else name


def _chain(error: BaseException) -> Generator[BaseException]:
    """The exception, its cause, the cause of that, and so on, down to the system's error.

    httpcore's pool raises ``from None``, so a context counts although it is suppressed. That of a system's error does
    not: where it has one, that is how our own waiting works, such as `BlockingIOError`.
    """
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if isinstance(link, OSError) else link.__context__)


def _describe_refused_certificate(error: ssl.SSLCertVerificationError) -> str:
    reason = getattr(error, "verify_message", "") or str(error) or type(error).__name__
    return (
        f"the server's certificate is not trusted: {reason.rstrip('.')}. "
        "For an authority of your own set SSL_CERT_FILE or pass ssl_context=, to a transport of your own verify="
    )


def _bare_cause(error: BaseException) -> OSError | None:
    for link in _chain(error):
        if isinstance(link, OSError):
            link.__cause__ = link.__context__ = None
            return link.with_traceback(None)
    return None
