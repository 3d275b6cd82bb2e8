"""The routes of the control plane: credentials, orgs, validation, errors."""

from __future__ import annotations

import base64
import hmac
import json
import logging
import time
from types import SimpleNamespace

import anyio
import pytest

from enclave.simulator import Bounds, _auth
from tests.support import PATIENCE_SECONDS

pytestmark = pytest.mark.anyio


def bearer(credential: str) -> dict[str, str]:
    return {"authorization": f"Bearer {credential}"}


async def test_health_needs_no_credential(serving):
    async with serving() as api:
        response = await api.http.get("/healthz", headers={"authorization": ""})
        assert response.json() == {"ok": True, "backend": "simulator", "backendHealthy": True}


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ek_nobody_secret", "Basic dXNlcjpwYXNz", "Bearer not.a.token", "Bearer a.b", "Bearer é"],
)
async def test_a_request_without_a_good_credential_is_answered_401(serving, authorization):
    async with serving() as api:
        response = await api.http.get("/sessions", headers={"authorization": authorization.encode()})
        assert response.status_code == 401
        assert response.json()["error"] == "Unauthorized"
        assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("length", [8192, 8193])
async def test_a_credential_beyond_the_bound_is_not_even_looked_at(serving, length):
    async with serving() as api:
        response = await api.http.get("/sessions", headers=bearer("x" * length))
        assert response.status_code == 401
        assert ("malformed Authorization" in response.json()["message"]) == (length > 8192)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
async def test_the_scheme_is_of_any_case_and_any_number_of_blanks_follows_it(serving, scheme):
    async with serving() as api:
        response = await api.http.get("/sessions", headers={"authorization": f"{scheme} {api.sim.api_key}"})
        assert response.status_code == 200


async def test_every_session_route_needs_a_credential(serving):
    async with serving() as api:
        routes = [
            ("POST", "/sessions"),
            ("GET", "/sessions"),
            ("GET", "/sessions/s-1"),
            ("DELETE", "/sessions/s-1"),
            *[("GET", f"/sessions/s-1/{name}") for name in ("result", "audit", "stream")],
        ]
        for method, path in routes:
            response = await api.http.request(method, path, headers={"authorization": ""})
            assert response.status_code == 401, (method, path)


async def test_a_viewer_may_read_and_never_write(serving):
    async with serving() as api:
        session = await api.create()
        scopes = ["sessions:read", "sessions:write"]
        viewer = bearer(api.sim.add_api_key(role="viewer", scopes=scopes))
        assert (await api.http.get("/sessions", headers=viewer)).status_code == 200
        assert (await api.http.post("/sessions", headers=viewer, json={"code": "pass"})).status_code == 403
        assert (await api.http.delete(f"/sessions/{session['id']}", headers=viewer)).status_code == 403


async def test_scopes_bound_what_a_role_may_do(serving):
    async with serving() as api:
        writer = bearer(api.sim.add_api_key(role="owner", scopes=["sessions:write"]))
        response = await api.http.post("/sessions", headers=writer, json={"code": "pass"})
        assert response.status_code == 201
        refused = await api.http.get("/sessions", headers=writer)
        assert refused.status_code == 403
        assert "sessions:read" in refused.json()["message"]


async def test_another_org_never_learns_that_a_session_exists(serving):
    async with serving() as api:
        session = await api.create()
        stranger = bearer(api.sim.add_api_key(org_id=api.sim.org_ids[1], role="owner"))
        for path in ("", "/result", "/audit", "/stream"):
            response = await api.http.get(f"/sessions/{session['id']}{path}", headers=stranger)
            absent = await api.http.get(f"/sessions/s-none{path}", headers=stranger)
            assert response.status_code == absent.status_code == 404
            assert response.json()["message"] == absent.json()["message"].replace("s-none", session["id"])
        assert (await api.http.delete(f"/sessions/{session['id']}", headers=stranger)).status_code == 404
        assert (await api.http.get("/sessions", headers=stranger)).json() == []


async def test_a_user_token_is_a_credential_until_it_expires(serving, monkeypatch):
    async with serving() as api:
        monkeypatch.setattr(_auth, "time", SimpleNamespace(time=lambda: now))
        now = 1_000_000.5
        token = api.sim.issue_token(user_id="user-7", role="developer", lifetime_seconds=10)
        now += 9.25
        created = await api.http.post("/sessions", headers=bearer(token), json={"code": "pass"})
        assert created.json()["createdBy"] == "user-7"
        now += 0.25
        response = await api.http.get("/sessions", headers=bearer(token))
        assert response.status_code == 401
        assert "expired" in response.json()["message"]


async def test_a_token_has_the_documented_claims_and_its_role_gives_its_scopes(serving):
    async with serving() as api:
        token = api.sim.issue_token(user_id="user-7", role="viewer")
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        assert claims.keys() == {"sub", "email", "orgId", "role", "exp"}
        assert (claims["sub"], claims["orgId"], claims["role"]) == ("user-7", api.sim.org_id, "viewer")
        assert claims["email"] == "user-7@example.com"
        assert (await api.http.get("/sessions", headers=bearer(token))).status_code == 200
        assert (await api.http.post("/sessions", headers=bearer(token), json={"code": "pass"})).status_code == 403


async def test_a_session_that_a_key_created_names_the_keys_id(serving):
    async with serving(api_key="ek_ci_secret") as api:
        assert (await api.create())["createdBy"] == "ci"


async def test_a_token_must_be_signed_with_hs256_by_this_server(serving):
    async with serving() as api, serving() as other:
        head, claims, signature = api.sim.issue_token().split(".")
        unsigned = base64.urlsafe_b64encode(json.dumps({"alg": "none"}).encode()).rstrip(b"=").decode()
        flipped = ("B" if signature[0] == "A" else "A") + signature[1:]
        for token in (
            f"{unsigned}.{claims}.",
            f"{unsigned}.{claims}.{signature}",
            f"{head}.{claims}.{flipped}",
            f"{head}.{claims}.",
            other.sim.issue_token(),
        ):
            assert (await api.http.get("/sessions", headers=bearer(token))).status_code == 401


def signed(secret: str, **claims: object) -> str:
    """A token made by somebody who knows the secret."""
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    text = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    signature = base64.urlsafe_b64encode(hmac.digest(secret.encode(), text, "sha256")).rstrip(b"=")
    return (text + b"." + signature).decode()


async def test_a_token_of_the_right_secret_is_good_for_an_org_and_a_role_of_this_server_alone(serving):
    async with serving(jwt_secret="shared", org_ids=["one", "two"]) as api:
        good = {"sub": "u", "orgId": "two", "role": "viewer", "exp": time.time() + 60}
        assert (await api.http.get("/sessions", headers=bearer(signed("shared", **good)))).status_code == 200
        for odd, message in (
            ({"orgId": "three"}, "token names an unknown org or role"),
            ({"role": "guest"}, "token names an unknown org or role"),
            ({"exp": None}, "malformed token"),
            ({"sub": 5}, "malformed token"),
        ):
            response = await api.http.get("/sessions", headers=bearer(signed("shared", **good | odd)))
            assert (response.status_code, response.json()["message"]) == (401, message)


async def test_a_credential_can_be_had_for_each_org_and_for_no_other(serving):
    async with serving(org_ids=["one", "two"]) as api:
        for org_id in ("one", "two"):
            token = api.sim.issue_token(org_id=org_id, role="developer")
            key = api.sim.add_api_key(org_id=org_id, role="developer")
            for credential in (token, key):
                response = await api.http.post("/sessions", headers=bearer(credential), json={"code": "pass"})
                assert response.json()["orgId"] == org_id
        for make in (api.sim.issue_token, api.sim.add_api_key):
            with pytest.raises(ValueError, match="org_id: expected one of one, two, got 'three'"):
                make(org_id="three", role="developer")
            with pytest.raises(ValueError, match="role: expected one of owner, admin, developer, viewer, got 'guest'"):
                make(org_id="one", role="guest")


async def test_sessions_are_listed_newest_first_without_their_output(serving):
    async with serving() as api:
        runs = [await api.run("print('x')") for _ in range(3)]
        listed = (await api.http.get("/sessions")).json()
        assert [session["id"] for session in listed] == [run.id for run in reversed(runs)]
        assert listed[0]["result"]["exitCode"] == 0
        assert "stdout" not in listed[0]["result"]


async def test_a_session_shows_effective_limits_policy_and_labels(serving):
    async with serving() as api:
        session = await api.create(limits={"memoryMb": 128, "gpus": 1}, labels={"team": "a"}, unknown={"x": 1})
        assert session["limits"] == {"cpuMillis": 1000, "memoryMb": 128, "wallClockMs": 30000, "pids": 64, "gpus": 1}
        assert session["egress"] == {"mode": "deny_all", "allow": []}
        assert session["labels"] == {"team": "a"}
        assert session["language"] == "python"
        assert session["orgId"] == api.sim.org_id
        assert session["backend"] == "simulator"
        assert not {"startedAt", "finishedAt", "killReason", "result"} & session.keys()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "code: required"),
        ({"code": ""}, "code: must not be empty"),
        ({"code": 1}, "code: expected `str`, got `int`"),
        ({"code": "x", "language": "ruby"}, "language: expected python or node, got 'ruby'"),
        ({"code": "x", "limits": {"memoryMb": 0}}, "limits.memoryMb: must be positive, got 0"),
        ({"code": "x", "limits": {"memoryMb": "1"}}, "limits.memoryMb: expected `int | null`, got `str`"),
        ({"code": "x", "limits": {"pids": 10**6}}, "limits.pids: must be at most 1024, got 1000000"),
        ({"code": "x", "labels": {"a": 1}}, "labels[]: expected `str`, got `int`"),
        ({"code": "x", "labels": []}, "labels: expected `object | null`, got `array`"),
        ({"code": "x", "egress": {"mode": "open"}}, "egress.mode: expected deny_all or allowlist, got 'open'"),
        ({"code": "x", "egress": {"mode": "allowlist", "allow": ["10.0.0.1/8"]}}, "egress.allow[0]: "),
        ({"code": "x", "egress": {"mode": "allowlist", "allow": ["host"]}}, "egress.allow[0]: "),
        (
            {"code": "x", "egress": {"mode": "deny_all", "allow": ["10.0.0.0/8"]}},
            'egress.allow: mode "deny_all" takes no networks',
        ),
        ({"code": "x", "serviceBindings": ["db"]}, "serviceBindings[0]: unknown service 'db', this server has: none"),
        *[
            ({"code": "x", "webhookUrl": url}, "webhookUrl: expected an absolute http or https URL")
            for url in (
                *(
                    "ftp://x",
                    "//x",
                    "http://",
                    "http:///x",
                    "http://:80/",
                    "http://x:0/",
                    "http://x:65536/",
                    "http://[/",
                ),
                *("http://x/\u00e9", "http://x/ y", "http://x/\x1f", " http://x/"),
            )
        ],
        ([], "body: expected `object`, got `array`"),
    ],
)
async def test_an_invalid_request_is_refused_by_a_message_that_names_the_field(serving, body, message):
    async with serving() as api:
        response = await api.http.post("/sessions", json=body)
        assert response.status_code == 400
        answer = response.json()
        assert answer["statusCode"] == 400
        assert answer["error"] == "Bad Request"
        assert answer["code"] == "invalid_request"
        assert answer["message"].startswith(message)
        assert api.sim.phases == {}


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"code": "x"} trailing'])
async def test_a_body_that_is_not_json_is_refused(serving, body):
    async with serving() as api:
        response = await api.http.post("/sessions", content=body)
        assert response.status_code == 400
        assert response.json()["message"].startswith("body: not valid JSON")


async def test_optional_fields_may_be_null(serving):
    async with serving() as api:
        names = ("language", "limits", "egress", "serviceBindings", "webhookUrl", "labels")
        session = await api.create(**dict.fromkeys(names))
        assert session["language"] == "python"


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_beyond_the_bound_is_answered_413(serving, chunked):
    async def parts():
        for _ in range(64):
            yield b" " * 65_536

    async with serving(bounds=Bounds(max_body_bytes=1024)) as api:
        content = parts() if chunked else b" " * 4_194_304
        response = await api.http.post("/sessions", content=content)
        assert response.status_code == 413
        assert "1024 bytes" in response.json()["message"]
        assert (await api.http.get("/sessions")).status_code == 200


async def test_unknown_routes_and_methods_have_the_same_shape_of_error(serving):
    async with serving() as api:
        missing = await api.http.get("/nowhere")
        assert missing.json() == {"statusCode": 404, "error": "Not Found", "message": "Route GET:/nowhere not found"}
        refused = await api.http.put("/sessions")
        assert refused.status_code == 405
        assert refused.json()["error"] == "Method Not Allowed"


async def test_every_response_has_a_request_id_of_its_own(serving):
    async with serving() as api:
        api.sim.faults.respond(503, path="/healthz")
        paths = ("/healthz", "/healthz", "/sessions", "/nowhere", "/sessions/s-1")
        ids = [(await api.http.get(path)).headers["x-request-id"] for path in paths]
        assert len(set(ids)) == len(ids)


async def test_a_request_that_is_not_http_is_answered_400(serving):
    async with serving() as api:
        url = api.http.base_url
        async with await anyio.connect_tcp(url.host, url.port) as stream:
            await stream.send(b"NONSENSE\r\n\r\n")
            with anyio.fail_after(PATIENCE_SECONDS):
                answer = await stream.receive()
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"x-request-id: req-" in answer


async def test_the_result_is_409_until_the_session_is_terminal(serving):
    async with serving() as api:
        script = api.sim.script(result=1, hold=True)
        session = await api.create()
        early = await api.http.get(f"/sessions/{session['id']}/result")
        assert early.status_code == 409
        assert early.json()["code"] == "result_not_ready"
        script.release()
        await api.frames(session["id"])
        late = await api.http.get(f"/sessions/{session['id']}/result")
        assert late.status_code == 200
        assert late.json()["json"] == 1


async def test_a_session_torn_down_early_has_no_result_and_says_so(serving):
    async with serving() as api:
        api.sim.script(hold=True)
        session = await api.create()
        path = f"/sessions/{session['id']}"
        for _ in range(2):
            response = await api.http.delete(path)
            assert response.status_code == 204
            assert response.content == b""
        answer = (await api.http.get(f"{path}/result")).json()
        assert answer["statusCode"] == 409
        assert answer["code"] == "session_torn_down"
        document = (await api.http.get(path)).json()
        assert document["phase"] == "torn_down"
        assert "result" not in document
        trail = [entry["type"] for entry in (await api.http.get(f"{path}/audit")).json()]
        assert trail == ["session_created", "sandbox_started", "session_torn_down"]


async def test_a_session_torn_down_after_it_finished_keeps_its_outcome(serving):
    async with serving() as api:
        api.sim.script(result=[1], kill_reason="memory_exceeded")
        run = await api.run("pass")
        for _ in range(2):
            assert (await api.http.delete(f"/sessions/{run.id}")).status_code == 204
        document = (await api.http.get(f"/sessions/{run.id}")).json()
        assert document["phase"] == "torn_down"
        assert document["killReason"] == "memory_exceeded"
        assert document["result"]["exitCode"] is None
        assert (await api.http.get(f"/sessions/{run.id}/result")).status_code == 200
        assert await api.frames(run.id) == run.frames


async def test_only_so_many_finished_sessions_are_kept_and_torn_down_ones_go_first(serving):
    async with serving(bounds=Bounds(max_retained_sessions=2)) as api:
        for _ in range(3):
            api.sim.script()
        first, second = await api.run("pass"), await api.run("pass")
        await api.http.delete(f"/sessions/{second.id}")
        third = await api.run("pass")
        assert list(api.sim.phases) == [first.id, third.id]


async def test_finished_sessions_are_kept_only_while_their_logs_fit(serving):
    async with serving(bounds=Bounds(max_retained_bytes=20_000)) as api:
        for _ in range(3):
            api.sim.script([b"x" * 15_000])
        runs = [await api.create() for _ in range(3)]
        await api.sim.until(lambda sim: sim.unreclaimed_sessions == 0)
        assert list(api.sim.phases) == [runs[2]["id"]]


async def test_a_full_queue_is_answered_429_with_a_time_to_wait(serving):
    async with serving(bounds=Bounds(max_running=1, max_pending=1)) as api:
        scripts = [api.sim.script(hold=True) for _ in range(2)]
        sessions = [await api.create() for _ in scripts]
        response = await api.http.post("/sessions", json={"code": "pass"})
        assert response.status_code == 429
        assert response.headers["retry-after"] == "1"
        await api.sim.until(lambda sim: list(sim.phases.values()) == ["running", "pending"])
        scripts[0].release()
        await api.frames(sessions[0]["id"])
        await api.sim.until(lambda sim: list(sim.phases.values()) == ["succeeded", "running"])


async def test_no_credential_shows_in_a_repr_a_log_or_a_recorded_request(serving, caplog):
    caplog.set_level(logging.DEBUG)
    async with serving() as api:
        sim = api.sim
        token = sim.issue_token()
        await api.http.get("/sessions", headers=bearer(token))
        await api.http.get("/sessions", headers=bearer("ek_wrong_topsecret"))
        shown = repr(sim) + repr(list(sim.requests)) + repr(sim.faults) + repr(sim._authority) + repr(vars(sim).keys())
        shown += "".join(record.getMessage() for record in caplog.records if record.name.startswith("enclave"))
        for secret in (sim.api_key, sim.api_key.split("_", 2)[2], token, "topsecret"):
            assert secret not in shown
        assert sim.requests[0].path == "/sessions"
        assert "authorization" not in sim.requests[0].headers
