"""Which transport carries a client's requests: our own, a proxy's, or the one that the caller passed."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from enclave.errors import ConfigurationError

from ._messages import Request, Response, Transport
from ._per_loop import PerLoop
from ._proxies import Proxy, proxy_for
from ._settings import Settings
from .http11 import OriginTransport, default_ssl_context
from .http11._transport import DEFAULT_KEEPALIVE_SECONDS, DEFAULT_MAX_CONNECTIONS

if TYPE_CHECKING:
    import httpx


class Transports:
    """Makes a transport in each event loop in which one is needed, and closes it.

    A connection belongs to its event loop. So a client that is used in several of them, one after the other or at once
    in several threads, has connections of its own in each.
    """

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport | OriginTransport | None) -> None:
        self._given = None if transport is None else _adapted(settings, transport)
        self._made: PerLoop[Transport] = PerLoop(lambda: _make(settings))
        self.closed = False

    async def send(self, request: Request) -> Response:
        """Send a request and give its response, body unread."""
        transport = self._given or self._made.current()
        return await transport.send(request)

    def close_idle(self) -> None:
        """Close what our own transport keeps in this event loop for later requests."""
        transport = self._given or self._made.existing()
        if isinstance(transport, OriginTransport):
            transport.close_idle()

    async def aclose(self) -> None:
        """Close the transport of this event loop. Harmless when called twice. No loop sends requests after that."""
        self.closed = True
        transport = self._given or self._made.pop()
        if transport is not None:
            await transport.aclose()


def _make(settings: Settings) -> Transport:
    proxy = proxy_for(settings.base_url)
    if proxy is not None:
        return _proxied(settings, proxy)
    given = settings.ssl_context
    # A function, since loading the authorities takes a tenth of a second, and plain HTTP needs none.
    return OriginTransport(settings.base_url, ssl_context=default_ssl_context if given is None else lambda: given)


def _adapted(settings: Settings, transport: httpx.AsyncBaseTransport | OriginTransport) -> Transport:
    if isinstance(transport, OriginTransport):  # the fixtures of the pytest plugin pass one
        return transport
    from ._httpx_transport import HttpxTransport  # noqa: PLC0415 - brings in httpx, which is slow to load

    return HttpxTransport(_origin_of(settings.base_url), transport, transport)


def _proxied(settings: Settings, proxy: Proxy) -> Transport:
    import httpx  # noqa: PLC0415 - slow to load, and only a proxy needs it

    from ._httpx_transport import HttpxTransport  # noqa: PLC0415

    verify = settings.ssl_context or default_ssl_context()
    # httpx's pool looks at each connection for each request, so a bound for streams would make many of them slow.
    bounds = (DEFAULT_MAX_CONNECTIONS, DEFAULT_MAX_CONNECTIONS), (None, 0)
    try:
        for_requests, for_streams = (
            httpx.AsyncHTTPTransport(
                verify=verify,
                proxy=str(proxy.url.reveal()),
                limits=httpx.Limits(
                    max_connections=most, max_keepalive_connections=kept, keepalive_expiry=DEFAULT_KEEPALIVE_SECONDS
                ),
            )
            for most, kept in bounds
        )
    except (ValueError, ImportError) as error:  # an unknown scheme, or SOCKS without the package for it
        reason = str(error)
    else:
        through = f"through the proxy {proxy.shown}"
        return HttpxTransport(_origin_of(settings.base_url), for_requests, for_streams, through=through)
    raise ConfigurationError(f"{proxy.variable}: the proxy cannot be used: {reason}")


def _origin_of(base_url: str) -> str:
    parts = urlsplit(base_url)
    return urlunsplit((parts.scheme, parts.netloc, "", "", ""))
