"""The one boundary at which httpx's, anyio's and the system's exceptions become ours.

What crosses it carries no traceback and no request: the frames below hold headers, and headers hold the credential.
"""

from __future__ import annotations

import ssl
from collections.abc import Generator
from contextlib import contextmanager

import anyio
import httpx

from enclave import errors
from enclave.errors import EnclaveError

from .http11 import HeadersTooLarge

# Most specific first: the first match counts.
EXCEPTION_MAP: tuple[tuple[type[Exception], type[EnclaveError]], ...] = (
    (HeadersTooLarge, errors.ResponseTooLargeError),
    (httpx.ConnectTimeout, errors.ConnectTimeoutError),
    (httpx.PoolTimeout, errors.ConnectTimeoutError),
    (httpx.TimeoutException, errors.APITimeoutError),
    (httpx.ConnectError, errors.ConnectError),
    (httpx.ProxyError, errors.ConnectError),
    (httpx.UnsupportedProtocol, errors.ConfigurationError),
    (httpx.LocalProtocolError, errors.UsageError),
    (httpx.InvalidURL, errors.ConfigurationError),
    (httpx.DecodingError, errors.MalformedResponseError),
    (httpx.TooManyRedirects, errors.ProtocolError),
    (httpx.CookieConflict, errors.ProtocolError),
    (httpx.HTTPError, errors.APIConnectionError),
    (httpx.StreamError, errors.APIConnectionError),
    (anyio.BrokenResourceError, errors.APIConnectionError),
    (anyio.ClosedResourceError, errors.APIConnectionError),
    (anyio.BusyResourceError, errors.APIConnectionError),
    (anyio.IncompleteRead, errors.APIConnectionError),
    (anyio.EndOfStream, errors.APIConnectionError),
    (TimeoutError, errors.APITimeoutError),
    (OSError, errors.APIConnectionError),
)


def mapped(exception: Exception, operation: str) -> EnclaveError | None:
    """Our error for a foreign exception; None for one that is no failure of the transport, such as a caller's bug."""
    for foreign, ours in EXCEPTION_MAP:
        if isinstance(exception, foreign):
            cause = _bare_cause(exception)
            error: EnclaveError = ours(f"{operation}: {_describe(exception)}")
            if isinstance(cause, ssl.SSLCertVerificationError):
                error = errors.CertificateError(f"{operation}: {_describe_refused_certificate(cause)}")
            error.__cause__ = cause
            return error
    return None


@contextmanager
def transport_errors(operation: str) -> Generator[None]:
    """Raise what the block raises as ours; `operation` (method and path) begins the message."""
    error: EnclaveError | None = None
    try:
        yield
    except EnclaveError:
        raise
    except Exception as exception:
        error = mapped(exception, operation)
        if error is None:
            raise
    if error is not None:
        try:
            raise error
        finally:
            # The foreign exception, and with it its request, would ride along: the `with` statement is handling it.
            error.__context__ = None


@contextmanager
def time_limit(seconds: float | None, what: str) -> Generator[None]:
    """Like `anyio.fail_after`, with a message."""
    with anyio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise TimeoutError(f"{what} within {seconds:g} s")


def _describe(exception: Exception) -> str:
    text = str(exception)
    name = type(exception).__name__
    return f"{text} ({name})" if text else f"{name} without a message"


def _describe_refused_certificate(error: ssl.SSLCertVerificationError) -> str:
    reason = getattr(error, "verify_message", "") or str(error) or type(error).__name__
    return (
        f"the server's certificate is not trusted: {reason.rstrip('.')}; "
        "for an authority of your own set SSL_CERT_FILE or pass ssl_context=, to a transport of your own verify="
    )


def _bare_cause(exception: BaseException) -> OSError | None:
    """The system's error at the root, without its frames: what helps, and holds no secret."""
    seen: set[int] = set()
    link: BaseException | None = exception
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        if isinstance(link, OSError):
            link.__cause__ = link.__context__ = None
            return link.with_traceback(None)
        link = link.__cause__ or link.__context__
    return None
