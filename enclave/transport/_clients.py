"""The httpx clients behind `Http`: our own transport where it serves, another where a proxy or the caller asks."""

from __future__ import annotations

import ssl
import urllib.request
from urllib.parse import urlsplit

import httpx
from anyio.lowlevel import EventLoopToken, current_token

from enclave.errors import ConfigurationError

from ._settings import Settings
from .http11 import OriginTransport, default_ssl_context

_REQUEST_CONNECTIONS = 100
_KEEPALIVE_SECONDS = 4.0  # common servers drop an idle connection after 5; a POST must not be what finds out


class Clients:
    """Makes each httpx client when it is first needed in an event loop, and closes those it made.

    Streams and requests never share a pool: a hundred open streams would leave no connection for a request. Our own
    transport sees to that by itself and serves both; httpx's gets two clients.
    """

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport | None) -> None:
        self._settings = settings
        self._given = transport
        self._requests: httpx.AsyncClient | None = None
        self._streams: httpx.AsyncClient | None = None
        self._own: OriginTransport | None = None  # what serves both of them, where neither a proxy nor the caller does
        self._loop: EventLoopToken | None = None
        self.closed = False

    async def send(self, request: httpx.Request, *, is_stream: bool) -> httpx.Response:
        """Send a request and give its response, body unread. Raises as httpx does.

        A stream on our own transport goes past httpx's client, which has nothing to add and costs as much as the rest
        of opening one.
        """
        self._forget_other_loop()
        if not is_stream:
            return await _send(self._for_requests(), request)
        client = self._for_streams()
        own = self._own
        return await (_send(client, request) if own is None else own.handle_async_request(request))

    async def aclose(self) -> None:
        """Close the clients; harmless when called twice."""
        self.closed = True
        self._forget_other_loop()
        clients = {id(client): client for client in (self._requests, self._streams) if client}
        for client in clients.values():
            await client.aclose()

    def _for_requests(self) -> httpx.AsyncClient:
        if self._requests is None:
            self._requests = self._make()
        return self._requests

    def _for_streams(self) -> httpx.AsyncClient:
        if self._streams is None:
            self._streams = self._make_proxied(streams=True) if self._takes_proxy() else self._for_requests()
        return self._streams

    def _forget_other_loop(self) -> None:
        """Drop what was made in an event loop before this one: connections do not outlive their loop."""
        loop = current_token()
        if self._loop is not None and self._loop != loop and self._given is None:
            self._requests = self._streams = self._own = None
        self._loop = loop

    def _takes_proxy(self) -> bool:
        return self._given is None and _proxy_for(self._settings.base_url) is not None

    def _make(self) -> httpx.AsyncClient:
        if self._given is not None:
            return httpx.AsyncClient(transport=self._given, trust_env=False)
        if self._takes_proxy():
            return self._make_proxied(streams=False)
        given = self._settings.ssl_context
        self._own = OriginTransport(
            httpx.URL(self._settings.base_url),
            max_connections=_REQUEST_CONNECTIONS,
            keepalive_seconds=_KEEPALIVE_SECONDS,
            ssl_context=None if given is None else lambda: given,
        )
        return httpx.AsyncClient(transport=self._own, trust_env=False)

    def _make_proxied(self, *, streams: bool) -> httpx.AsyncClient:
        limits = httpx.Limits(
            max_connections=None if streams else _REQUEST_CONNECTIONS,
            max_keepalive_connections=0 if streams else _REQUEST_CONNECTIONS,
            keepalive_expiry=_KEEPALIVE_SECONDS,
        )
        verify: ssl.SSLContext = self._settings.ssl_context or default_ssl_context()
        proxy = _proxy_for(self._settings.base_url)
        try:
            return httpx.AsyncClient(proxy=proxy, limits=limits, verify=verify, trust_env=False)
        except (ValueError, ImportError) as error:  # an unknown scheme, or SOCKS without the package for it
            reason = str(error)
        raise ConfigurationError(f"the environment's proxy for {self._settings.base_url} cannot be used: {reason}")


async def _send(client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    return await client.send(request, auth=None, stream=True, follow_redirects=False)


def _proxy_for(base_url: str) -> str | None:
    """The proxy that the environment (``HTTPS_PROXY``, ``NO_PROXY`` and so on) names for the control plane."""
    parts = urlsplit(base_url)
    if parts.hostname is None or urllib.request.proxy_bypass(parts.hostname):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy
