"""HTTP/1.1 to one origin, on plain sockets, with httptools (llhttp) as the parser.

`_transport.py` is the front. `_request.py` turns a request into bytes and `_parser.py` turns bytes into a response head
and body, with `_callbacks.py` for what llhttp tells, all without I/O. `_dial.py` makes a connection: `_resolver.py`
finds addresses, `_race.py` connects to one of them, `_socket_stream.py` on trio and `_asyncio_stream.py` on asyncio
carry the bytes, and `_tls.py` is on top for https. `_stream.py` says what these three have in common. On trio
`_reactor.py` has one task wait for the sockets of many. `_connection.py` sends and receives on one connection.
`_exchange.py` does one request and the head of its response, `_body.py` is what the caller reads the rest from.
`_pool.py` knows who owns which connection, and `_origin.py` says where they lead.

What holds throughout: a connection is either idle in the pool or owned by exactly one response. State changes are
synchronous, the close of a socket included, so a cancellation, or two, strands nothing.

It sends what the SDK sends: one method, headers and at most a body in memory. It is no general HTTP client.
"""

from __future__ import annotations

from ._dial import default_ssl_context
from ._transport import OriginTransport

__all__ = ["OriginTransport", "default_ssl_context"]
