"""Proxies from the environment, as a shell sets them."""

from __future__ import annotations

import sys

import anyio
import pytest

from enclave import ConfigurationError, ConnectError, EnclaveClient
from enclave.transport._proxies import proxy_for
from tests.support import PATIENCE_SECONDS
from tests.support.messages import SSE, event, response
from tests.support.plane import ControlPlane, stalling
from tests.support.rendering import everything_of
from tests.support.wire import refused_port


async def test_a_proxy_may_be_given_without_a_scheme_as_curl_takes_it(
    server: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers(response({"ok": True}))
    monkeypatch.setenv("HTTP_PROXY", server.base_url.removeprefix("http://"))
    async with EnclaveClient("http://plane.test:8088", retry=None) as client:
        with anyio.fail_after(PATIENCE_SECONDS):
            assert (await client.health()).ok
    assert [request.target for request in server.requests] == ["http://plane.test:8088/healthz"]


@pytest.mark.parametrize("proxy", ["ftp://user:sekrit@127.0.0.1:9", "socks5://user:sekrit@127.0.0.1:9"])
async def test_a_proxy_that_cannot_be_used_is_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)  # not installed
    monkeypatch.setenv("ALL_PROXY", proxy)
    async with EnclaveClient("http://plane.test:8088", retry=None) as client:
        with pytest.raises(ConfigurationError) as raised:
            await client.health()
    assert "proxy" in str(raised.value)
    assert "sekrit" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "no_proxy", "is_direct"),
    [
        ("http://enclave.internal:8088", "enclave.internal:8088", True),
        ("http://enclave.internal:8088", "enclave.internal", True),
        ("http://enclave.internal:8088", ".internal", True),
        ("http://enclave.internal:8088", "internal.", True),
        ("http://enclave.internal:8088", "*.internal", True),
        ("http://enclave.internal:8088", "other, *", True),
        ("http://enclave.internal:8088", "enclave.internal:9999", False),
        ("http://enclave.internal:8088", "nternal", False),
        ("http://enclave.internal.:8088", "enclave.internal", True),
        ("http://ENCLAVE.internal:8088", "enclave.INTERNAL", True),
        ("http://10.1.2.3:8088", "10.1.2.3:8088", True),
        ("http://10.1.2.3:8088", "10.0.0.0/8", True),
        ("http://10.1.2.3:8088", "10.2.0.0/16", False),
        ("http://[fd00::1]:8088", "fd00::1", True),
        ("http://[fd00::1]:8088", "[fd00::1]", True),
        ("http://[fd00::1]:8088", "[fd00::1]:8088", True),
        ("http://[fd00::1]:8088", "[fd00::1]:1", False),
        ("http://[fd00::5]:8088", "fd00::/8", True),
        ("http://enclave.internal", "enclave.internal:80", True),
        ("https://enclave.internal", "enclave.internal:443", True),
        ("http://enclave.internal:8088", "", False),
    ],
)
def test_what_no_proxy_names_is_reached_directly(monkeypatch, url, no_proxy, is_direct):
    monkeypatch.setenv("ALL_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (proxy_for(url) is None) is is_direct


@pytest.mark.parametrize("url", ["http://plane.test:8088", "https://plane.test", "http://10.1.2.3:8088"])
def test_where_the_environment_names_no_proxy_the_systems_settings_count_and_they_may_name_none(monkeypatch, url):
    monkeypatch.setattr("urllib.request.getproxies", dict)
    assert proxy_for(url) is None
    monkeypatch.setattr("urllib.request.getproxies", lambda: {url.partition(":")[0]: "http://proxy.test:3128"})
    found = proxy_for(url)
    assert found is not None
    assert (found.variable, found.shown) == ("the system's settings", "http://proxy.test:3128")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://localhost.:1", "http://a.localhost", "http://[::1]:1"])
def test_this_machine_is_never_reached_through_a_proxy(monkeypatch, url):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:3128")
    assert proxy_for(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "socks9://user:hunter2@127.0.0.1:1",
        "http://user:hunter2@[bad",
        "http://user:hunter2@127.0.0.1:99999",
        "http://us er:hunter2@127.0.0.1:1",
        "http://user:hunter2@",
        "http://user:hunter2@host:port",
    ],
)
async def test_an_unusable_proxy_is_named_by_its_variable_and_shows_no_password(monkeypatch, url):
    monkeypatch.setenv("HTTP_PROXY", url)
    async with EnclaveClient("http://plane.test:8088", retry=None) as client:
        with pytest.raises(ConfigurationError, match="HTTP_PROXY: the proxy cannot be used") as raised:
            await client.health()
    raised.value.__traceback__ = raised.value.__traceback__.tb_next  # without the frame of this test, which has the URL
    assert "hunter2" not in everything_of(raised.value)


async def test_an_error_through_a_proxy_names_the_proxy(monkeypatch):
    with refused_port() as port:
        monkeypatch.setenv("HTTP_PROXY", f"http://user:hunter2@127.0.0.1:{port}")
        async with EnclaveClient("http://plane.test:8088", retry=None) as client:
            with pytest.raises(ConnectError, match=rf"through the proxy http://127\.0\.0\.1:{port}: ") as raised:
                await client.health()
    raised.value.__traceback__ = raised.value.__traceback__.tb_next
    assert "hunter2" not in everything_of(raised.value)


async def test_closing_a_client_closes_a_stream_through_a_proxy(server: ControlPlane, monkeypatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.base_url)
    server.answers(stalling(SSE, event("a")))
    client = EnclaveClient("http://plane.test:8088", retry=None)
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client.stream("s-1") as frames:
            await anext(frames)
            await client.aclose()
            while server.open_connections:
                await anyio.lowlevel.checkpoint()
