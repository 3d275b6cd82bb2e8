"""HTTP/1.1 to one origin: an `httpx.AsyncBaseTransport` on anyio sockets, with httptools (llhttp) as the parser.

`_transport.py` is the front; `_request.py` turns an httpx request into bytes and `_parser.py` turns bytes into a
response head and body, both without I/O. `_dial.py` makes a connection, from anyio's sockets on trio and from
`_asyncio_stream.py` on asyncio; `_connection.py` sends and receives on one. `_exchange.py` does one request and the
head of its response, `_body.py` is what the caller reads the rest from. `_pool.py` knows who owns which connection,
`_slots.py` bounds how many, `_errors.py` maps foreign exceptions.

What holds throughout: a connection is either idle in the pool or owned by exactly one response. State changes are
synchronous; only the close of a socket is awaited, so a cancellation, or two, strands nothing.

Imports anyio, httpx, httptools, the standard library, and of the rest of the SDK only which loop is running.
"""

from __future__ import annotations

from ._body import ResponseBody, raw_body
from ._dial import default_ssl_context
from ._parser import HeadersTooLarge
from ._transport import STREAM_EXTENSION, OriginTransport

__all__ = [
    "STREAM_EXTENSION",
    "HeadersTooLarge",
    "OriginTransport",
    "ResponseBody",
    "default_ssl_context",
    "raw_body",
]
