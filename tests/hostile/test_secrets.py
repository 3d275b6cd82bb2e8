"""No credential shows: in no repr, no log record, no warning, no error with its local variables, no pickle."""

from __future__ import annotations

import gc
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any

import anyio
import httpx
import pytest

from enclave import ConfigurationError, EnclaveClient, EnclaveError, InsecureTransportWarning, Timeout
from tests.support import PATIENCE_SECONDS
from tests.support.messages import SSE, with_body
from tests.support.plane import ControlPlane, Handler, closing, silence
from tests.support.releases import anyio_may_leave_a_socket
from tests.support.rendering import everything_of, linked, surface_of
from tests.support.wire import Peer, Server, in_thread, serve

pytestmark = pytest.mark.anyio

KEY = "ek_7f3a_thekeynobodymaysee"
PARTS = (KEY, "thekeynobodymaysee", "ek_7f3a")
SHORT = Timeout(connect=8, read=0.1, acquire=1, stream_idle=0.1, teardown=0.1, recover_create=0.05)
TLS = ssl.create_default_context()
Client = Callable[..., EnclaveClient]


def shows(text: str) -> list[str]:
    return [part for part in PARTS if part in text]


def own(base_url: str, **options: Any) -> EnclaveClient:
    options = {"retry": None, "timeout": SHORT, **options}
    return EnclaveClient(base_url, api_key=KEY, **options)


def stock(base_url: str, **options: Any) -> EnclaveClient:
    return own(base_url, transport=httpx.AsyncHTTPTransport(verify=TLS), **options)


async def key_source() -> str:
    return KEY


def asking(base_url: str, **options: Any) -> EnclaveClient:
    return EnclaveClient(base_url, token=key_source, **{"retry": None, "timeout": SHORT, **options})


async def get(client: EnclaveClient) -> None:
    await client.get("s-1")


async def stream(client: EnclaveClient) -> None:
    async with client.stream("s-1") as frames:
        async for _ in frames:
            pass


async def run(client: EnclaveClient) -> None:
    await client.run("pass")


async def session(client: EnclaveClient) -> None:
    async with client.session("pass") as session:
        await session.result()


async def fan_out(client: EnclaveClient) -> None:
    async with client.fan_out(["pass"] * 2, fail_fast=True) as outcomes:
        async for _ in outcomes:
            pass


SCRIPTS: dict[str, Handler] = {
    "401": closing(with_body(b'{"message":"no"}', b"HTTP/1.1 401 No\r\n")),
    "500": closing(with_body(b"<html>", b"HTTP/1.1 500 No\r\n")),
    "no JSON": closing(with_body(b"{")),
    "nothing": closing(b""),
    "cut": closing(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"),
    "garbage": closing(b"garbage\r\n\r\n"),
    "big": closing(b"HTTP/1.1 200 OK\r\nx: " + b"x" * 100_000 + b"\r\n\r\n"),
    "hang": silence,
    "stream": closing(SSE + b'data: {"kind":"stdout","data":"x"}\n\ndata: {\n\n'),
    "redirect": closing(b"HTTP/1.1 302 Go\r\nlocation: http://localhost:1/\r\ncontent-length: 0\r\n\r\n"),
}


ECHOES: dict[str, Handler] = {
    "reason": closing(b"HTTP/1.1 418 %b\r\ncontent-length: 0\r\n\r\n" % KEY.encode()),
    "content type": closing(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: %b\r\n\r\n{}" % KEY.encode()),
    "coding": closing(with_body(b"{}", b"HTTP/1.1 200 OK\r\ncontent-encoding: %b\r\n" % KEY.encode())),
    "misfit": closing(with_body(b'[{"id": {"%b": 1}}]' % KEY.encode())),
}


# It leaves its socket to the collector if it is cancelled while it connects, under an older anyio.
STOCK = pytest.param(stock, id="stock", marks=anyio_may_leave_a_socket)


@pytest.fixture(autouse=True)
def _no_socket_for_later_tests(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if anyio_may_leave_a_socket.mark in request.node.iter_markers():
        gc.collect()


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """Every log record so far, as text, with its arguments and whatever exception it carries."""
    names = ("", "enclave", "httpx", "httpcore", "asyncio")
    for name in names:
        caplog.set_level(logging.DEBUG, logger=name)

    def text() -> str:
        shown = [repr(vars(record)) + record.getMessage() for record in caplog.records]
        shown += [everything_of(record.exc_info[1]) for record in caplog.records if record.exc_info]
        return "\n".join(shown)

    return text


async def assert_errors_are_silent(
    scripts: dict[str, Handler], make: Client, call: Callable[[EnclaveClient], Awaitable[None]]
) -> None:
    """Whatever the server does, the call sends the credential and raises an error of ours that does not show it."""
    for name, script in scripts.items():
        with ControlPlane(script).in_thread() as server, anyio.fail_after(PATIENCE_SECONDS):
            async with make(server.base_url) as client:
                error = await error_of(call, client)
                assert isinstance(error, EnclaveError), (name, error)
                assert shows(everything_of(error)) == [], name
                await server.asked()  # the client may have given up before the server saw the request
                assert server.requests[0].headers["authorization"].startswith("Bearer ek_7f3a"), name


@pytest.mark.parametrize("make", [own, STOCK, asking])
@pytest.mark.parametrize("call", [get, stream, fan_out])
async def test_no_error_and_no_log_record_shows_the_credential(
    make: Client, call: Callable[[EnclaveClient], Awaitable[None]], records: Callable[[], str]
) -> None:
    await assert_errors_are_silent(SCRIPTS, make, call)
    assert shows(records()) == []


@pytest.mark.parametrize("make", [own, STOCK])
@pytest.mark.parametrize("call", [get, stream, fan_out])
async def test_no_error_and_no_record_of_ours_shows_a_credential_that_the_server_echoes(
    make: Client, call: Callable[[EnclaveClient], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="enclave")
    await assert_errors_are_silent(ECHOES, make, call)
    # What httpcore logs of a response is not ours.
    assert shows("".join(record.getMessage() for record in caplog.records if record.name.startswith("enclave"))) == []


@pytest.mark.parametrize("make", [own, STOCK])
async def test_no_error_leads_back_to_a_request_or_to_the_frames_that_sent_it(make: Client) -> None:
    for name, script in SCRIPTS.items():
        with ControlPlane(script).in_thread() as server, anyio.fail_after(PATIENCE_SECONDS):
            async with make(server.base_url) as client:
                for call in (get, stream, run):
                    for link in linked(await error_of(call, client)):
                        assert isinstance(link, EnclaveError | OSError), (name, link)
                        assert not hasattr(link, "request"), (name, link)


async def error_of(call: Callable[[EnclaveClient], Awaitable[None]], client: EnclaveClient) -> BaseException:
    """What the call raises, without a local variable of the tests."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - the caller looks at it
        await call(client)
    return caught.value


@pytest.mark.parametrize("make", [own, STOCK, asking])
@pytest.mark.parametrize("base_url", ["http://127.0.0.1:1", "http://nowhere.invalid:1", "https://127.0.0.1:1"])
async def test_a_failing_connection_does_not_show_the_credential(
    make: Client, base_url: str, records: Callable[[], str]
) -> None:
    with pytest.warns(InsecureTransportWarning) if "invalid" in base_url else pytest.MonkeyPatch.context():
        client = make(base_url)
    async with client:
        error = await error_of(get, client)
    assert isinstance(error, EnclaveError)
    assert shows(everything_of(error) + records()) == []


@pytest.mark.parametrize("make", [own, STOCK])
async def test_a_failing_handshake_does_not_show_the_credential(make: Client, records: Callable[[], str]) -> None:
    async def script(peer: Peer, _: Server) -> None:
        await peer.send(b"this is no TLS" * 99)
        await peer.closed_by_client()

    with in_thread(serve(script)) as server, anyio.fail_after(PATIENCE_SECONDS):
        async with make(server.origin.replace("http", "https")) as client:
            for call in (get, stream, run):
                error = await error_of(call, client)
                assert isinstance(error, EnclaveError)
                assert shows(everything_of(error) + records()) == []


@pytest.mark.parametrize("make", [own, STOCK, asking])
@pytest.mark.parametrize("call", [get, stream, fan_out])
async def test_a_cancelled_request_does_not_show_the_credential(
    make: Client, call: Callable[[EnclaveClient], Awaitable[None]], records: Callable[[], str]
) -> None:
    with ControlPlane(silence).in_thread() as server, anyio.fail_after(PATIENCE_SECONDS):
        client = make(server.base_url, timeout=Timeout(teardown=0.1, recover_create=0.05))
        caught: list[BaseException] = []

        async def caller() -> None:
            try:
                await call(client)
            except BaseException as error:
                caught.append(error)
                raise

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(caller)
            await server.asked()
            task_group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await client.aclose()
    assert len(caught) == 1
    assert isinstance(caught[0], anyio.get_cancelled_exc_class())
    assert shows(everything_of(caught[0]) + records()) == []


class BugError(Exception):
    pass


class BuggyTransport(httpx.AsyncHTTPTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise BugError("of the caller's own transport")


async def test_an_error_of_the_callers_transport_passes_through_without_the_credential() -> None:
    async with own("http://127.0.0.1:1", transport=BuggyTransport(verify=TLS)) as client:
        for call in (get, stream, run):
            error = await error_of(call, client)
            assert isinstance(error, BugError)
            assert shows(everything_of(error)) == []


BAD = {"a line end": KEY + "\n", "a space": KEY + " x", "not ASCII": KEY + "é", "a number": (KEY,), "empty": ""}


@pytest.mark.parametrize("how", list(BAD))
async def test_a_bad_credential_is_refused_without_showing_it(how: str) -> None:
    for name in ("api_key", "token"):
        with pytest.raises(ConfigurationError) as caught:
            EnclaveClient("http://127.0.0.1:1", **{name: BAD[how]})
        assert shows(everything_of(caught.value)) == []

    async def bad_source() -> Any:
        return BAD[how]

    async with EnclaveClient("http://127.0.0.1:1", token=bad_source, retry=None) as client:
        for call in (get, stream, run, session, fan_out):
            error = await error_of(call, client)
            assert isinstance(error, ConfigurationError)
            assert shows(everything_of(error)) == []


async def test_bad_other_arguments_do_not_show_the_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCLAVE_API_KEY", KEY)
    bad: list[dict[str, Any]] = [
        {"base_url": "ftp://x"},
        {"base_url": ""},
        {"base_url": "http://127.0.0.1:99999999"},
        {"timeout": -1},
        {"timeout": "soon"},
        {"max_event_bytes": 0},
        {"max_buffered_bytes": -1},
    ]
    for arguments in bad:
        with pytest.raises(ConfigurationError) as caught:
            own(**{"base_url": "http://127.0.0.1:1", **arguments})
        # The outermost frames are the caller's own and show what the caller passed.
        caught.value.__traceback__ = innermost(caught.value)
        assert shows(everything_of(caught.value)) == [], list(arguments)


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param(f"{KEY}@host", id="in its place"),
        pytest.param(f"{KEY}@host:99999", id="with a bad port"),
        pytest.param(f"{KEY}/x@host", id="with a slash"),
        pytest.param(f"{KEY}#x@host", id="with a hash"),
        pytest.param(f"?{KEY}@host", id="with a question mark"),
        pytest.param(f"[{KEY}@host", id="with a bracket"),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "ftp"])
@pytest.mark.parametrize("source", ["argument", "environment"])
def test_a_password_in_the_base_url_does_not_show(
    rest: str, scheme: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENCLAVE_BASE_URL", f"{scheme}://user:{rest}")
    with pytest.raises(ConfigurationError, match="must not hold a user name or password") as caught:
        EnclaveClient() if source == "environment" else EnclaveClient(f"{scheme}://user:{rest}")
    caught.value.__traceback__ = innermost(caught.value)
    assert caught.value.__traceback__ is not None
    assert shows(everything_of(caught.value)) == []


def test_a_base_url_may_hold_an_at_sign_in_its_path() -> None:
    assert EnclaveClient("http://127.0.0.1/@team").base_url == "http://127.0.0.1/@team"


def innermost(error: BaseException) -> TracebackType | None:
    """The frames of the SDK."""
    frames = error.__traceback__
    while frames is not None and "/enclave/" not in frames.tb_frame.f_code.co_filename:
        frames = frames.tb_next
    return frames


async def test_no_public_object_shows_the_credential() -> None:
    good = with_body(b'{"id":"s-1","phase":"running"}')
    with ControlPlane(good).in_thread() as server, anyio.fail_after(PATIENCE_SECONDS):
        for make in (own, stock, asking):
            async with make(server.base_url, timeout=PATIENCE_SECONDS) as client:
                handle = await client.run("pass")
                objects = [
                    client,
                    handle,
                    handle.last_seen,
                    client.stream("s-1"),
                    client.fan_out([]),
                    client._http,
                    client._http.settings,
                    client._http.settings.credential,
                    client._http._transports,
                ]
                for each in objects:
                    assert shows(surface_of(each)) == [], type(each).__name__


async def test_the_warning_about_plain_http_does_not_show_the_credential() -> None:
    with pytest.warns(InsecureTransportWarning) as caught:
        own("http://192.0.2.1")
    assert shows(repr([vars(each) for each in caught])) == []
