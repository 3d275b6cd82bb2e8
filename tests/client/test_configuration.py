"""What a client can be made from, and what it says when it cannot."""

from __future__ import annotations

import inspect
import warnings

import anyio
import pytest

from enclave import (
    ConfigurationError,
    ConnectError,
    EnclaveClient,
    InsecureTransportWarning,
    RetryPolicy,
    SyncEnclaveClient,
    Timeout,
    UsageError,
)
from tests.support import PATIENCE_SECONDS
from tests.support.messages import response, session
from tests.support.plane import ControlPlane

HEALTH = response({"ok": True})


class Theirs(SyncEnclaveClient):
    """A class of a caller's, which does nothing of its own when it is made."""


def test_the_base_url_comes_from_the_environment_and_an_argument_wins(monkeypatch):
    monkeypatch.setenv("ENCLAVE_BASE_URL", "http://127.0.0.1:1111")
    assert EnclaveClient().base_url == "http://127.0.0.1:1111"
    assert EnclaveClient("http://127.0.0.1:2222/").base_url == "http://127.0.0.1:2222"


@pytest.mark.parametrize("environment", [None, ""])
def test_a_missing_base_url_is_an_error_that_names_both_ways_to_give_one(monkeypatch, environment):
    if environment is not None:
        monkeypatch.setenv("ENCLAVE_BASE_URL", environment)
    with pytest.raises(ConfigurationError, match=r"base_url=.*ENCLAVE_BASE_URL"):
        EnclaveClient()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8088",
        "localhost",
        "ftp://host",
        "http://",
        "http://host:99999",
        "http://host:port",
        "http://[::1",
        "http://ho st",
        " http://host",
        "http://host\n",
        "http://host\x00",
        "http://host/?a=b",
        "http://host/?",
        "http://host/#a",
        "http://host#",
        5,
        b"http://host",
        "http://xn--ü",
        "http://" + "ü" * 70,
    ],
)
def test_a_base_url_that_cannot_be_one_is_refused_by_name(url):
    with pytest.raises(ConfigurationError, match="base_url"):
        EnclaveClient(url)


def test_a_bad_base_url_of_the_environment_is_blamed_on_the_environment(monkeypatch):
    monkeypatch.setenv("ENCLAVE_BASE_URL", "host:8088")
    with pytest.raises(ConfigurationError, match="ENCLAVE_BASE_URL"):
        EnclaveClient()


@pytest.mark.parametrize("url", ["http://user:hunter2@host", "http://user:hunter2/x@host", "ftp://user:hunter2@host"])
def test_a_base_url_with_a_password_is_refused_without_showing_it(url):
    with pytest.raises(ConfigurationError, match="user name or password") as caught:
        EnclaveClient(url)
    assert "hunter2" not in str(caught.value)


def test_a_base_url_may_have_a_name_of_any_script():
    assert EnclaveClient("http://bücher.example").base_url == "http://bücher.example"


def test_what_is_wrong_with_a_base_url_is_shown_where_no_password_is_in_it():
    with pytest.raises(ConfigurationError, match="base_url: expected http://host or https://host, got 'ftp://host'"):
        EnclaveClient("ftp://host")


@pytest.mark.parametrize("name", ["api_key", "token"])
@pytest.mark.parametrize("secret", ["abc\n", "a bc", "a\x00bc", "a\tbc", "abcé", "ab\x7fc", "abc…", "\x1b[0mabc"])
def test_a_credential_that_no_header_can_carry_is_refused_without_showing_any_of_it(name, secret):
    with pytest.raises(ConfigurationError, match=f"{name}: character") as caught:
        EnclaveClient("http://127.0.0.1:1", **{name: secret})
    shown = str(caught.value) + repr(caught.value)
    assert "abc" not in shown
    assert not any(char in shown for char in "\n\x00\té…\x7f\x1b")


@pytest.mark.parametrize("name", ["api_key", "token"])
def test_an_empty_credential_is_refused_rather_than_sent(name):
    with pytest.raises(ConfigurationError, match="Leave it out"):
        EnclaveClient("http://127.0.0.1:1", **{name: ""})


def test_a_credential_of_the_environment_is_checked_as_well(monkeypatch):
    monkeypatch.setenv("ENCLAVE_API_KEY", "ek_a_b\n")
    with pytest.raises(ConfigurationError, match="ENCLAVE_API_KEY"):
        EnclaveClient("http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("environment", "arguments", "sent"),
    [
        ({}, {}, None),
        ({}, {"api_key": "k", "token": "t"}, "Bearer k"),
        ({}, {"token": "t"}, "Bearer t"),
        ({"ENCLAVE_API_KEY": "ek", "ENCLAVE_TOKEN": "et"}, {}, "Bearer ek"),
        ({"ENCLAVE_TOKEN": "et"}, {}, "Bearer et"),
        ({"ENCLAVE_API_KEY": "ek"}, {"token": "t"}, "Bearer t"),
        ({"ENCLAVE_API_KEY": "ek"}, {"api_key": "k"}, "Bearer k"),
        ({"ENCLAVE_API_KEY": "", "ENCLAVE_TOKEN": ""}, {}, None),
    ],
)
async def test_which_credential_is_sent(server: ControlPlane, monkeypatch, environment, arguments, sent):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    server.answers(response([]))
    async with EnclaveClient(server.base_url, **arguments) as client:
        assert await client.list() == []
    assert server.requests[0].headers.get("authorization") == sent


@pytest.mark.parametrize("opens_stream", [False, True])
async def test_a_token_that_comes_after_the_client_was_closed_is_not_sent(server: ControlPlane, opens_stream: bool):
    asked, closed = anyio.Event(), anyio.Event()

    async def token() -> str:
        asked.set()
        await closed.wait()
        return "late"

    client = EnclaveClient(server.base_url, token=token)

    async def close() -> None:
        await asked.wait()
        await client.aclose()
        closed.set()

    with anyio.fail_after(PATIENCE_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(close)
            with pytest.raises(UsageError, match="closed"):
                await (client.result("s-1") if opens_stream else client.list())
    assert server.requests == []


async def test_a_token_callable_is_asked_before_each_request(server: ControlPlane):
    tokens = iter(["t1", "t2"])

    async def token() -> str:
        await anyio.lowlevel.checkpoint()
        return next(tokens)

    server.answers(response([]), response([]))
    async with EnclaveClient(server.base_url, token=token) as client:
        await client.list()
        await client.list()
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer t1", "Bearer t2"]


@pytest.mark.parametrize("token", ["", "a b", "a\nb", None])
async def test_a_token_callable_that_gives_no_token_is_a_clear_error(server: ControlPlane, token):
    async def bad() -> str:
        return token

    async with EnclaveClient(server.base_url, token=bad) as client:
        with pytest.raises(ConfigurationError, match="token"):
            await client.list()
    assert server.requests == []


async def test_what_a_token_callable_raises_reaches_the_caller_as_it_is(server: ControlPlane):
    async def broken() -> str:
        raise LookupError("vault is sealed")

    async with EnclaveClient(server.base_url, token=broken) as client:
        with pytest.raises(LookupError, match="vault is sealed"):
            await client.list()
        with pytest.raises(LookupError, match="vault is sealed"):
            async with client.stream("s-1"):
                pytest.fail("opened")


@pytest.mark.parametrize("kind", [EnclaveClient, SyncEnclaveClient, Theirs])
@pytest.mark.parametrize("proxy", [None, "http://proxy.example:3128", "https://proxy.example:3128"])
@pytest.mark.parametrize("url", ["http://example.org", "http://10.0.0.1:8088", "http://[2001:db8::1]"])
def test_a_credential_over_plain_http_to_another_machine_warns_once_at_the_callers_line(monkeypatch, url, proxy, kind):
    if proxy is not None:  # which reads what passes through it, and so does whoever is behind it
        monkeypatch.setenv("HTTP_PROXY", proxy)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        line = inspect.currentframe().f_lineno + 1
        kind(url, api_key="ek_a_topsecret")
    assert [warning.category for warning in caught] == [InsecureTransportWarning]
    assert (caught[0].filename, caught[0].lineno) == (__file__, line)
    assert "topsecret" not in str(caught[0].message)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org",
        "http://localhost",
        "http://LOCALHOST",
        "http://127.0.0.1",
        "http://127.1.2.3",
        "http://[::1]",
    ],
)
@pytest.mark.parametrize("proxy", [None, "http://proxy.example:3128"])
def test_https_and_loopback_do_not_warn(monkeypatch, url, proxy):
    if proxy is not None:
        monkeypatch.setenv("ALL_PROXY", proxy)
    assert EnclaveClient(url, api_key="k").base_url == url  # a warning would be an error


def test_no_credential_means_no_warning():
    assert EnclaveClient("http://example.org").base_url == "http://example.org"


@pytest.mark.parametrize("value", [0, -1, "5", float("nan"), True])
@pytest.mark.parametrize(
    "name", ["connect", "read", "write", "acquire", "stream_idle", "stream_end", "teardown", "recover_create"]
)
def test_a_timeout_that_is_no_positive_number_is_refused_by_name(name, value):
    with pytest.raises(ConfigurationError, match=f"timeout.{name}"):
        Timeout(**{name: value})


def test_a_credential_may_hold_every_printable_character_but_the_blank():
    EnclaveClient("http://127.0.0.1:1", api_key="".join(map(chr, range(ord(" ") + 1, 0x7F))))
    for bad in (" ", "\x7f"):
        with pytest.raises(ConfigurationError, match="api_key: character 1 is"):
            EnclaveClient("http://127.0.0.1:1", api_key=f"a{bad}")


@pytest.mark.parametrize("name", ["teardown", "recover_create"])
def test_work_that_must_end_has_a_deadline(name):
    with pytest.raises(ConfigurationError, match=f"timeout.{name}"):
        Timeout(**{name: None})


def test_the_defaults_are_those_that_the_documentation_states():
    seconds = {"connect": 10, "read": 60, "write": 60, "acquire": 60, "total": 300, "stream_idle": 300, "stream_end": 5}
    assert Timeout() == Timeout(**seconds, teardown=30, recover_create=10)
    assert RetryPolicy() == RetryPolicy(
        attempts=5, total_seconds=60, wait_seconds=0.5, max_wait_seconds=15, jitter=0.5, max_retry_after_seconds=60
    )


def test_one_number_is_the_timeout_of_requests_and_leaves_streams_alone():
    timeout = Timeout(2.5)
    assert (timeout.connect, timeout.read, timeout.write, timeout.acquire) == (2.5, 2.5, 2.5, 2.5)
    assert timeout.stream_idle == Timeout().stream_idle


@pytest.mark.parametrize("timeout", ["5", -1, 0])
def test_a_client_refuses_a_timeout_that_is_none(timeout):
    with pytest.raises(ConfigurationError, match="timeout"):
        EnclaveClient("http://127.0.0.1:1", timeout=timeout)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attempts", 0),
        ("attempts", 1.5),
        ("attempts", "3"),
        ("attempts", True),
        ("jitter", False),
        ("wait_seconds", True),
        ("jitter", 2),
        ("jitter", -0.1),
        ("retry_lost_creates", 1),
        ("jitter", "0.5"),
        ("total_seconds", -1),
        ("total_seconds", "60"),
        ("wait_seconds", -1),
        ("wait_seconds", None),
        ("max_wait_seconds", float("nan")),
        ("max_retry_after_seconds", "a"),
    ],
)
def test_a_retry_policy_that_makes_no_sense_is_refused_by_name(name, value):
    with pytest.raises(ConfigurationError, match=f"retry.{name}"):
        RetryPolicy(**{name: value})


@pytest.mark.parametrize("name", ["max_event_bytes", "max_response_bytes", "max_buffered_bytes"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "1", True])
def test_a_bound_that_is_no_positive_number_of_bytes_is_refused_by_name(name, value):
    with pytest.raises(ConfigurationError, match=name):
        EnclaveClient("http://127.0.0.1:1", **{name: value})


IMPORT_TIME_CLIENTS = [EnclaveClient("http://127.0.0.1:9", retry=None) for _ in range(2)]


async def test_a_client_made_outside_any_event_loop_is_used_inside_one():
    client = IMPORT_TIME_CLIENTS.pop()
    with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(ConnectError, match="GET /healthz"):
        await client.health()
    await client.aclose()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_client_made_before_the_loop_works_on_either(backend):
    client = EnclaveClient("http://127.0.0.1:9", retry=None)

    async def main() -> bool:
        async with ControlPlane().serve() as server:
            server.answers(HEALTH)
            made_here = EnclaveClient(server.base_url)
            async with client, made_here:
                return (await made_here.health()).ok

    assert anyio.run(main, backend=backend)


async def test_a_closed_client_says_so_on_every_call(server: ControlPlane):
    async with EnclaveClient(server.base_url) as client:
        pass
    handle = client.attach("s-1")

    async def open_stream() -> None:
        async with client.stream("s-1"):
            pass

    async def open_session() -> None:
        async with client.session("code"):
            pass

    async def fan_out() -> None:
        async with client.fan_out(["code"]) as outcomes:
            [outcome async for outcome in outcomes]

    calls = [
        *(lambda name=name: getattr(client, name)("s-1") for name in ("get", "result", "audit", "teardown", "run")),
        *(lambda name=name: getattr(handle, name)() for name in ("refresh", "result", "audit", "teardown")),
        *(client.list, client.health, client.__aenter__, open_stream, open_session, fan_out),
        lambda: client.map(["code"]),
    ]
    for call in calls:
        with pytest.raises(UsageError, match="closed"):
            await call()
    assert server.connections == 0
    assert "closed" in repr(client)


async def test_closing_twice_is_harmless(server: ControlPlane):
    server.answers(HEALTH)
    client = EnclaveClient(server.base_url)
    await client.health()
    await client.aclose()
    await client.aclose()
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(client.aclose)
        task_group.start_soon(client.aclose)


async def test_a_client_is_shared_between_tasks(server: ControlPlane):
    server.route("GET", "/sessions/s-1", response(session()))
    async with EnclaveClient(server.base_url) as client, anyio.create_task_group() as task_group:
        for _ in range(30):
            task_group.start_soon(client.get, "s-1")
    assert len(server.requests) == 30


async def test_a_base_url_with_a_path_keeps_it(server: ControlPlane):
    server.answers(response([]))
    async with EnclaveClient(server.base_url + "/api/v2/") as client:
        await client.list()
    assert server.requests[0].target == "/api/v2/sessions"


def test_a_repr_shows_where_the_client_points_and_no_credential():
    shown = repr(EnclaveClient("http://127.0.0.1:1", api_key="ek_a_topsecret"))
    assert "http://127.0.0.1:1" in shown
    assert "topsecret" not in shown


def test_a_timeout_of_one_number_takes_overrides_by_name():
    timeout = Timeout(5, connect=60, stream_idle=None)
    assert (timeout.connect, timeout.read, timeout.write, timeout.acquire) == (60, 5, 5, 5)
    assert (timeout.stream_idle, timeout.teardown) == (None, Timeout().teardown)
    assert Timeout(None).read is None
    assert Timeout(5) == Timeout(connect=5, read=5, write=5, acquire=5)


@pytest.mark.parametrize("retry", [5, 0, False, "twice", RetryPolicy])
def test_a_client_refuses_what_is_no_retry_policy_when_it_is_made(retry):
    with pytest.raises(ConfigurationError, match="retry: expected a RetryPolicy or None"):
        EnclaveClient("http://127.0.0.1:1", retry=retry)
    with pytest.raises(ConfigurationError, match="retry: expected a RetryPolicy or None"):
        EnclaveClient("http://127.0.0.1:1").with_options(retry=retry)


@pytest.mark.parametrize("error", [ConnectionRefusedError(111, "vault"), TimeoutError("vault"), OSError("vault")])
async def test_an_error_of_the_network_in_a_token_callable_is_not_taken_for_one_of_ours(server: ControlPlane, error):
    asked = 0

    async def token() -> str:
        nonlocal asked
        asked += 1
        raise error

    async with EnclaveClient(server.base_url, token=token) as client:
        for number, call in enumerate(
            (client.list, lambda: client.run("x"), client.attach("s-1").stream().__aenter__), 1
        ):
            with pytest.raises(type(error)) as caught:
                await call()
            assert caught.value is error
            assert asked == number
    assert server.requests == []
