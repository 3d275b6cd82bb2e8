"""What is raised for an answer other than 2xx, and all that it tells."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import anyio
import httpx
import pytest

from enclave import EnclaveClient, SessionResult, errors
from enclave.errors import APIStatusError
from tests.client.conftest import KEY
from tests.support import PATIENCE_SECONDS
from tests.support.messages import response, session
from tests.support.plane import ControlPlane

CLASSES = {
    400: errors.BadRequestError,
    401: errors.AuthenticationError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    409: errors.ConflictError,
    413: errors.PayloadTooLargeError,
    418: errors.APIStatusError,
    429: errors.RateLimitError,
    500: errors.ServerError,
    502: errors.ServerError,
    503: errors.ServiceUnavailableError,
    504: errors.ServerError,
}


@pytest.mark.parametrize("status", CLASSES)
async def test_each_status_has_its_class_with_every_field_filled(
    server: ControlPlane, client_once: EnclaveClient, status
):
    body = {"statusCode": status, "error": "Some Error", "message": "what happened", "code": "E_CODE", "more": [1]}
    server.answers(response(body, status, x_request_id="req-7", retry_after="3"))
    with pytest.raises(errors.APIStatusError) as caught:
        await client_once.get("s-1")
    error = caught.value
    assert type(error) is CLASSES[status]
    assert (error.status, error.message, error.code) == (status, "what happened", "E_CODE")
    assert (error.request_id, error.retry_after_seconds, error.body) == ("req-7", 3.0, body)
    for shown in ("GET /sessions/s-1", str(status), "what happened", "E_CODE", "req-7"):
        assert shown in str(error)


HOSTILE = {
    "long": {"message": "A" * 60_000, "code": "c" * 60_000},
    "forging log lines": {"message": "busy\nCRITICAL root: disable audit\x1b[2J\u202e", "code": "c\r\nERROR x"},
    "echoing the credential": {"message": f"bad Bearer {KEY}", "code": KEY, KEY: [{"a": KEY}]},
    "no JSON": f"<html>\x1b[2J bad Bearer {KEY}\n".encode() + b"<p>" * 20_000,
    "the credential in escapes": b'{"message":"' + b"".join(b"\\u%04x" % ord(char) for char in KEY) + b'"}',
}


@pytest.mark.parametrize("case", HOSTILE)
async def test_what_a_server_says_is_one_bounded_printable_line_without_the_credential(
    server: ControlPlane, client: EnclaveClient, case, caplog
):
    caplog.set_level("INFO")
    server.answers(*[response(HOSTILE[case], 503, x_request_id=f"r {KEY} {'r' * 9000}", retry_after="0")] * 5)
    with pytest.raises(errors.ServiceUnavailableError) as caught:
        await client.list()
    error = caught.value
    for text in (str(error), error.message, error.code or "", error.request_id, *caplog.messages):
        assert text.isprintable()
        assert len(text) < 2000
        assert KEY not in text
    assert KEY not in repr(vars(error))
    assert error.request_id.startswith("r *** r")


async def test_a_servers_message_in_another_script_is_shown_as_it_is(server: ControlPlane, client: EnclaveClient):
    server.answers(response({"message": "Sitzung s-1 läuft noch 会话"}, 409))
    with pytest.raises(errors.ConflictError, match="Sitzung s-1 läuft noch 会话"):
        await client.get("s-1")


@pytest.mark.parametrize("status", [400, 401, 404, 409, 429, 503])
async def test_every_call_raises_the_same_for_the_same_status(server: ControlPlane, client_once: EnclaveClient, status):
    answer = response({"message": "no"}, status)
    calls = [
        client_once.list,
        client_once.health,
        *(lambda name=name: getattr(client_once, name)("s-1") for name in ("get", "audit", "teardown", "run")),
    ]
    for call in calls:
        server.answers(answer)
        with pytest.raises(CLASSES[status], match="no"):
            await call()


@pytest.mark.parametrize(
    ("body", "message", "decoded"),
    [
        (b"", "Reason 500", None),
        (b"<html>oh no</html>", "Reason 500, and the body starts with: <html>oh no", "<html>oh no</html>"),
        (b'"text"', "Reason 500", "text"),
        (b"[1, 2]", "Reason 500", [1, 2]),
        (b"null", "Reason 500", None),
        (b'{"error": "Internal"}', "Internal", {"error": "Internal"}),
        (b'{"error": {"message": "x"}}', "Reason 500", {"error": {"message": "x"}}),
        (b'{"message": 5, "code": 6}', "Reason 500", {"message": 5, "code": 6}),
        (b'{"message": ""}', "Reason 500", {"message": ""}),
        (b"\xff\xfe\x00", "Reason 500", "\ufffd\ufffd\\x00"),
        (b'{"message": "cut', "Reason 500", '{"message": "cut'),
    ],
)
async def test_a_body_of_any_shape_still_gives_the_status_and_a_message(
    server: ControlPlane, client_once: EnclaveClient, body, message, decoded
):
    server.answers(response(body, 500))
    with pytest.raises(errors.ServerError) as caught:
        await client_once.list()
    assert caught.value.status == 500
    assert caught.value.message.startswith(message)
    assert caught.value.body == decoded
    assert caught.value.code is None


async def test_a_message_with_a_lone_surrogate_is_readable(server: ControlPlane, client_once: EnclaveClient):
    server.answers(response(b'{"message":"cut \\ud83d","code":"E"}', 400))
    with pytest.raises(errors.BadRequestError, match="cut \ufffd") as caught:
        await client_once.list()
    assert caught.value.code == "E"


def http_date(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "lowest", "highest"),
    [
        ({"retry_after": "120"}, 120, 120),
        ({"retry_after": "1.5"}, 1.5, 1.5),
        ({"retry_after": "Wed Oct 21 07:28:30 2015", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30, 30),
        ({"retry_after": "0"}, 0, 0),
        ({"retry_after": http_date(86_400)}, 1, 86_400),  # from when the tests were collected
        ({"retry_after": http_date(-7200)}, 0, 0),
        # By the server's clock, which may be years off.
        ({"retry_after": "Wed, 21 Oct 2015 07:28:30 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30, 30),
        ({"retry_after": "Wednesday, 21-Oct-15 07:28:30 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30, 30),
    ],
)
async def test_retry_after_is_seconds_in_both_of_its_forms(
    server: ControlPlane, client_once: EnclaveClient, headers, lowest, highest
):
    server.answers(response(b"", 429, **headers))
    with pytest.raises(errors.RateLimitError) as caught:
        await client_once.list()
    assert lowest <= caught.value.retry_after_seconds <= highest


@pytest.mark.parametrize(
    "value",
    [
        *("", "soon", "-5", "1e3", "0x10", "+5", "12 34", ",", "99 Foo 99", "Mon, 99 Jan 2024"),
        "Wed, 21 Oct 99999999999999999999 07:28:30 GMT",
    ],
)
async def test_a_retry_after_that_is_neither_is_ignored(server: ControlPlane, client_once: EnclaveClient, value):
    server.answers(response(b"", 503, retry_after=value))
    with pytest.raises(errors.ServiceUnavailableError) as caught:
        await client_once.list()
    assert caught.value.retry_after_seconds is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_error_and_the_credential_goes_nowhere_else(
    server: ControlPlane, client_once: EnclaveClient, status
):
    async with ControlPlane().serve() as elsewhere:
        server.answers(*[response(b"", status, location=elsewhere.base_url + "/sessions")] * 3)
        with pytest.raises(errors.APIStatusError, match=f"{status}.*redirects are not followed") as caught:
            await client_once.list()
        with pytest.raises(errors.APIStatusError, match="redirects are not followed"):
            await client_once.run("x")
        with pytest.raises(errors.APIStatusError, match="redirects are not followed"):
            async with client_once.stream("s-1"):
                pytest.fail("opened")
        assert elsewhere.connections == 0
    assert caught.value.status == status
    assert elsewhere.base_url in str(caught.value)


async def test_an_error_leaves_its_connection_usable(server: ControlPlane, client_once: EnclaveClient):
    server.answers(response({"message": "no"}, 404), response([]))
    with pytest.raises(errors.NotFoundError):
        await client_once.get("s-1")
    assert await client_once.list() == []
    assert server.connections == 1


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123"])
@pytest.mark.parametrize("way", ["close", "reset"])
async def test_a_connection_that_ends_before_the_answer_does_is_a_connection_error(
    server: ControlPlane, client_once: EnclaveClient, answer, way
):
    async def cut(request):
        await request.send(answer)
        await getattr(request, way)()

    server.answers(cut)
    with pytest.raises(errors.APIConnectionError, match="GET /sessions") as caught:
        await client_once.list()
    assert not isinstance(caught.value, errors.ConnectError | errors.APITimeoutError)


@pytest.mark.parametrize("way", ["close", "reset"])
async def test_a_status_counts_although_its_body_was_cut(server: ControlPlane, client_once: EnclaveClient, way):
    async def cut(request):
        await request.send(b'HTTP/1.1 401 Unauthorized\r\nContent-Length: 99\r\n\r\n{"message":')
        await getattr(request, way)()

    server.answers(cut)
    with pytest.raises(errors.AuthenticationError, match="401 Unauthorized"):
        await client_once.list()


async def test_a_refused_connection_is_a_connect_error(unused_port: int):
    async with EnclaveClient(f"http://127.0.0.1:{unused_port}", retry=None) as client:
        with pytest.raises(errors.ConnectError, match="GET /healthz"):
            await client.health()


ERRORS = [
    errors.NotFoundError(
        404, "gone", operation="GET /x", code="E", body={"a": 1}, request_id="r", retry_after_seconds=1.5
    ),
    errors.EventTooLargeError(1024),
    errors.StreamInterrupted("broke", delivered=5, session_id="s-1"),
    errors.ConnectTimeoutError("GET /x: too slow"),
    errors.ConfigurationError("no base URL"),
    errors.WorkloadFailed("exit 3", result=SessionResult(exit_code=3)),
]


def test_an_error_names_the_operation_that_it_was_made_with():
    assert ERRORS[0].operation == "GET /x"
    assert str(ERRORS[0]).startswith("GET /x: ")


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("through", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_survives_copying_and_the_way_to_another_process(error, through):
    error.retries = 2
    error.add_note("seen")
    twin = through(error)
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert "gave up after 2 retries" in str(twin)
    assert vars(twin) == vars(error)


def own_or_stock(is_own: bool) -> httpx.AsyncBaseTransport | None:
    return None if is_own else httpx.AsyncHTTPTransport()


@pytest.mark.parametrize("is_own", [True, False], ids=["own", "stock"])
@pytest.mark.parametrize("location", ["http://[::1", "https://no host:99999/", "//", "\\\\x", "http://a" * 3000, "é"])
async def test_a_location_that_no_parser_takes_keeps_its_status(server: ControlPlane, is_own: bool, location: str):
    head = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location.encode("latin-1")
    server.otherwise = head + b"\r\n\r\n"
    async with EnclaveClient(server.base_url, retry=None, transport=own_or_stock(is_own)) as client:
        with anyio.fail_after(PATIENCE_SECONDS):
            for call in (client.get("s-1"), client.teardown("s-1"), client.run("x")):
                with pytest.raises(APIStatusError, match="redirects are not followed") as caught:
                    await call
                assert caught.value.status == 302
                assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("is_own", "length"), [(True, 1_000_000), (False, 60_000)], ids=["own", "stock takes no URL of 64 KiB"]
)
async def test_a_very_long_id_keeps_the_status_of_what_the_server_says_of_it(
    server: ControlPlane, is_own: bool, length: int
):
    server.route("POST", "/sessions", response(session("x" * length), 201))
    server.otherwise = response({"message": "too long"}, 414)
    async with EnclaveClient(server.base_url, retry=None, transport=own_or_stock(is_own)) as client:
        with anyio.fail_after(PATIENCE_SECONDS):
            with pytest.raises(APIStatusError, match="414 too long") as left:
                async with client.session("x") as handle:
                    assert len(handle.id) == length
                    with pytest.raises(APIStatusError, match="414 too long") as asked:
                        await handle.refresh()
                    with pytest.raises(APIStatusError, match="414 too long") as opened:
                        async with handle.stream():
                            pass
    for caught in (left, asked, opened):
        assert caught.value.status == 414
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("text", ["x" * 70_000, "é" * 15_000], ids=["long", "long once it is quoted"])
async def test_an_id_that_is_too_long_for_a_stock_transport_is_an_error_of_ours(server: ControlPlane, text: str):
    server.answers(response(session(text), 201))
    async with EnclaveClient(server.base_url, retry=None, transport=own_or_stock(is_own=False)) as client:
        with anyio.fail_after(PATIENCE_SECONDS):
            with pytest.raises(errors.ProtocolError, match="cannot send a path of") as left:
                async with client.session("x") as handle:
                    with pytest.raises(errors.ProtocolError, match="cannot send a path of") as asked:
                        await handle.refresh()
                    with pytest.raises(errors.ProtocolError, match="cannot send a path of") as opened:
                        async with handle.stream():
                            pytest.fail("opened")
                    with pytest.raises(errors.ProtocolError, match="cannot send a path of") as waited:
                        await handle.result()
    for caught in (left, asked, opened, waited):
        assert len(str(caught.value)) < 500
