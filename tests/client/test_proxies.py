"""Proxies from the environment, as a shell sets them."""

from __future__ import annotations

import sys

import anyio
import pytest

from enclave import ConfigurationError, EnclaveClient
from tests.support.messages import response
from tests.support.plane import ControlPlane


async def test_a_proxy_may_be_given_without_a_scheme_as_curl_takes_it(
    server: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers(response({"ok": True}))
    monkeypatch.setenv("HTTP_PROXY", server.base_url.removeprefix("http://"))
    async with EnclaveClient("http://plane.test:8088", retry=None) as client:
        with anyio.fail_after(5):
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
