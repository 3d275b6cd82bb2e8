"""A throwaway authority, certificates of its making, and contexts that trust it."""

from __future__ import annotations

import ssl
from functools import cache

import trustme


@cache
def authority() -> trustme.CA:
    return trustme.CA()


def server_tls(*names: str) -> ssl.SSLContext:
    """What a server of these names serves with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(*(names or ("localhost", "127.0.0.1"))).configure_cert(context)
    return context


def trusting() -> ssl.SSLContext:
    """What a client trusts such a server with."""
    context = ssl.create_default_context()
    authority().configure_trust(context)
    return context
