"""Whom the client trusts over TLS: certificates, their names, and where the authorities come from."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading

import anyio
import httpx
import pytest

from enclave import (
    CertificateError,
    ConfigurationError,
    ConnectError,
    EnclaveClient,
    RetryPolicy,
)
from tests.support import PATIENCE_SECONDS
from tests.support.messages import OK
from tests.support.origin import assert_whole, client_of, pool_of
from tests.support.wire import answering, serve

pytestmark = pytest.mark.anyio


async def test_an_untrusted_certificate_is_refused_with_its_reason(server_tls):
    async with (
        serve(answering(OK), tls=server_tls, name="localhost") as server,
        client_of(server, ssl_context=ssl.create_default_context) as client,
    ):
        with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(CertificateError, match="local issuer certificate"):
            await client.get("/")
        assert not pool_of(client).open
        assert_whole(client)


async def get(client: EnclaveClient) -> None:
    await client.get("s-1")


async def create(client: EnclaveClient) -> None:
    await client.run("pass")


async def stream(client: EnclaveClient) -> None:
    async with client.stream("s-1"):
        raise AssertionError("no stream can stand")


@pytest.mark.parametrize("call", [get, create, stream])
@pytest.mark.parametrize("stock", [False, True], ids=["own transport", "httpx's transport"])
@pytest.mark.parametrize(
    "case",
    [
        ("localhost", False, "unable to get local issuer certificate"),
        ("elsewhere.example", True, "Hostname mismatch"),
    ],
    ids=["unknown authority", "another name"],
)
async def test_a_refused_certificate_is_final_and_the_error_names_cause_and_fix(authority, trusting, call, stock, case):
    name, trusts, reason = case
    handshakes = []
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.sni_callback = lambda _, asked_for, __: handshakes.append(asked_for)
    authority.issue_cert(name).configure_cert(tls)
    context = trusting() if trusts else ssl.create_default_context()
    how = {"transport": httpx.AsyncHTTPTransport(verify=context)} if stock else {"ssl_context": context}
    async with (
        serve(answering(OK), tls=tls, name="localhost") as server,
        EnclaveClient(server.origin, retry=RetryPolicy(wait_seconds=0), **how) as client,
    ):
        with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(CertificateError, match=reason) as caught:
            await call(client)
    assert handshakes == ["localhost"]
    assert caught.value.retries == 0
    assert "SSL_CERT_FILE" in str(caught.value)
    assert "ssl_context=" in str(caught.value)
    assert isinstance(caught.value, ConnectError)
    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


async def test_a_certificate_for_another_name_is_refused(authority, trusting):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("elsewhere.example").configure_cert(context)
    async with (
        serve(answering(OK), tls=context, name="localhost") as server,
        client_of(server, ssl_context=trusting) as client,
    ):
        with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(CertificateError, match="Hostname mismatch"):
            await client.get("/")


async def test_the_context_is_built_once_by_a_worker_thread_when_first_needed(server_tls, trusting):
    threads = []

    def build() -> ssl.SSLContext:
        threads.append(threading.current_thread())
        return trusting()

    async with (
        serve(answering(OK), tls=server_tls, name="localhost") as server,
        client_of(server, ssl_context=build) as client,
    ):
        assert threads == []
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(client.get, "/")
    assert len(threads) == 1
    assert threads[0] is not threading.current_thread()


def never() -> ssl.SSLContext:
    raise AssertionError("no TLS context is needed for http")


async def test_plain_http_builds_no_context():
    async with serve(answering(OK)) as server, client_of(server, ssl_context=never) as client:
        assert (await client.get("/")).content == b"hello"


async def test_a_context_that_cannot_be_built_is_a_connect_error():
    def build() -> ssl.SSLContext:
        return ssl.create_default_context(cafile="/nonexistent/ca.pem")

    async with client_of("https://localhost:1", ssl_context=build) as client:
        with pytest.raises(ConnectError, match="FileNotFoundError"):
            await client.get()


SSL_CERT_FILE_PROGRAM = """
import sys, anyio
from enclave import EnclaveClient

async def main():
    async with EnclaveClient(sys.argv[1]) as client:
        print((await client.health()).ok)

anyio.run(main)
"""


async def test_the_environment_may_name_the_trusted_certificates(authority, server_tls, tmp_path):
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    health = b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"ok":true}'
    async with serve(answering(health), tls=server_tls, name="localhost") as server:
        with anyio.fail_after(PATIENCE_SECONDS):
            process = await anyio.run_process(
                [sys.executable, "-c", SSL_CERT_FILE_PROGRAM, server.origin],
                env={"SSL_CERT_FILE": str(bundle)},
                stderr=subprocess.STDOUT,
            )
    assert process.stdout.strip() == b"True"


# Not uvloop, which looks names up past the socket module.
@pytest.mark.parametrize(
    "anyio_backend",
    [pytest.param(("asyncio", {"debug": True}), id="asyncio"), pytest.param(("trio", {}), id="trio")],
    indirect=True,
)
async def test_a_name_with_a_dot_at_its_end_verifies(server_tls, trusting, monkeypatch):
    names = []
    look_up = socket.getaddrinfo

    def without_dns(host, *args, **kwargs):
        return look_up("127.0.0.1" if host in ("localhost.", b"localhost.") else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", without_dns)
    server_tls.sni_callback = lambda _, name, __: names.append(name)
    async with (
        serve(answering(OK), tls=server_tls, name="localhost.") as server,
        client_of(server, ssl_context=trusting) as client,
    ):
        assert (await client.get()).content == b"hello"
    assert names == ["localhost"]


@pytest.mark.parametrize("content", [None, "garbage"])
async def test_a_file_of_authorities_that_cannot_be_read_is_named_and_not_tried_again(monkeypatch, tmp_path, content):
    bundle = tmp_path / "authorities.pem"
    if content is not None:
        bundle.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    async with EnclaveClient("https://localhost:1") as client:
        with (
            anyio.fail_after(PATIENCE_SECONDS),
            pytest.raises(ConfigurationError, match=r"SSL_CERT_FILE=.*authorities\.pem") as caught,
        ):
            await client.health()
    assert caught.value.retries == 0
