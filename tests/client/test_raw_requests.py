"""`request()`, for routes without a method, and what says the right form to those who forget ``async with``."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from enclave import AuthenticationError, EnclaveClient, ServerError, UsageError
from tests.support.messages import response
from tests.support.plane import ControlPlane


async def test_the_raw_json_of_a_route_comes_with_the_clients_credential(server: ControlPlane, client: EnclaveClient):
    server.answers(response({"id": "fl-1", "members": [1.5]}, 201), response(b"", 204), response([]))
    assert await client.request("post", "/fleets?size=2", json={"a": None}) == {"id": "fl-1", "members": [1.5]}
    assert await client.request("DELETE", "/fleets/fl-1") is None
    assert await client.request("GET", "/fleets", json=None) == []
    first, second, third = server.requests
    assert (first.method, first.target, first.json) == ("POST", "/fleets?size=2", {"a": None})
    assert first.headers["authorization"] == "Bearer ek_test_secret"
    assert (second.method, second.body) == ("DELETE", b"")
    assert third.body == b"null"


async def test_errors_and_retries_are_those_of_every_call(server: ControlPlane, client: EnclaveClient):
    server.answers(response({}, 502), response({"ok": 1}))
    assert await client.request("GET", "/fleets") == {"ok": 1}
    server.answers(response({}, 503), response({"ok": 2}))
    assert await client.request("POST", "/fleets") == {"ok": 2}
    for method in ("POST", "PATCH"):
        server.answers(response({}, 502))
        with pytest.raises(ServerError):
            await client.request(method, "/fleets")
    server.answers(response({}, 401))
    with pytest.raises(AuthenticationError):
        await client.request("PUT", "/fleets")


@pytest.mark.parametrize(
    ("arguments", "error", "names"),
    [
        (("GET", "fleets"), ValueError, "path"),
        (("GET", ""), ValueError, "path"),
        (("GET", "http://elsewhere.test/x"), ValueError, "path"),
        (("GET", "//elsewhere.test/x"), ValueError, "path"),
        (("GET", "/\\elsewhere.test/x"), ValueError, "path"),
        (("GET", "/fleets/../sessions"), ValueError, "path"),
        (("GET", "/fleets/%2E%2e/sessions"), ValueError, "path"),
        (("GET", "/fleets/./x"), ValueError, "path"),
        (("GET", "/fleets\r\nHost: x"), ValueError, "path"),
        (("GET", "/fl ets"), ValueError, "path"),
        (("GET", "/flé"), ValueError, "path"),
        (("GET", "/fleets#x"), ValueError, "path"),
        (("GET", 5), TypeError, "path"),
        (("FETCH", "/fleets"), ValueError, "method"),
        ((None, "/fleets"), TypeError, "method"),
    ],
)
async def test_what_could_leave_the_control_plane_is_refused(
    server: ControlPlane, client: EnclaveClient, arguments: Any, error: type[Exception], names: str
):
    with pytest.raises(error, match=names):
        await client.request(*arguments)
    assert server.requests == []


async def test_a_body_that_json_cannot_express_is_refused(server: ControlPlane, client: EnclaveClient):
    with pytest.raises(TypeError, match="json"):
        await client.request("POST", "/fleets", json=object())
    assert server.requests == []


async def test_a_session_that_was_not_entered_shows_the_right_form(server: ControlPlane, client: EnclaveClient):
    form = r"async with enclave\.session\(\.\.\.\) as session"
    block = client.session("x")
    with pytest.raises(UsageError, match=form):
        await block
    with pytest.raises(UsageError, match=form):
        aiter(block)
    with pytest.raises(UsageError, match=form), block:
        pass
    for name in ("id", "phase", "last_seen", "stream", "result", "audit", "teardown", "refresh"):
        with pytest.raises(UsageError, match=form):
            getattr(block, name)
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = block.no_such_thing
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del block
    assert server.requests == []


async def test_a_fan_out_that_was_not_entered_shows_the_right_form(client: EnclaveClient):
    outcomes = client.fan_out(["x"])
    form = r"async with enclave\.fan_out\(\.\.\.\) as outcomes"
    with pytest.raises(UsageError, match=form):
        await outcomes
    with pytest.raises(UsageError, match=form):
        await anext(outcomes)
    with pytest.raises(UsageError, match=form), outcomes:
        pass
    assert repr(outcomes).startswith("<FanOut new")
