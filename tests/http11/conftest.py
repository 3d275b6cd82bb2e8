"""Leaves no socket behind: every test here ends with as many open sockets as it began with.

These tests run on uvloop too: what reads from a socket there is not asyncio's.
"""

from __future__ import annotations

import ssl
from typing import Any

import pytest
import trustme

from tests.support.loops import ASYNCIO, TRIO, UVLOOP
from tests.support.origin import open_sockets


@pytest.fixture(params=[ASYNCIO, TRIO, UVLOOP])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(autouse=True)
def no_socket_is_left_open(request: pytest.FixtureRequest):
    before = open_sockets()
    yield
    if "anyio_backend" in request.fixturenames:
        assert open_sockets() <= before


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2", "http/1.1"])
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def trusting(authority: trustme.CA):
    def build() -> ssl.SSLContext:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        return context

    return build
