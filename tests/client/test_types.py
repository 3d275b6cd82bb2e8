"""The types on their own: open enumerations, copies, and results decoded into a caller's type."""

from __future__ import annotations

import copy
import pickle
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict, get_type_hints

import msgspec
import pytest

from enclave import (
    AuditEvent,
    AuditFrame,
    CreateSessionRequest,
    EgressPolicy,
    EnclaveClient,
    EndFrame,
    KillReason,
    MalformedResponseError,
    PhaseFrame,
    ResultFrame,
    ResultTypeError,
    Session,
    SessionFields,
    SessionLimits,
    SessionPhase,
    SessionResult,
    StdoutFrame,
    UnknownFrame,
    WorkloadFailed,
    WorkloadKilled,
)
from tests.support.messages import response, session
from tests.support.plane import ControlPlane, Request


class Answer(msgspec.Struct):
    answer: int


@dataclass
class AnswerData:
    answer: int


class AnswerDict(TypedDict):
    answer: int


def test_an_unknown_member_of_an_enumeration_is_a_readable_string():
    phase = SessionPhase("hibernating")
    assert phase == "hibernating"
    assert f"{phase}" == "hibernating"
    assert phase.name == phase.value == "hibernating"
    assert not phase.is_known
    assert not phase.is_terminal
    assert {phase: 1}["hibernating"] == 1
    assert phase == SessionPhase("hibernating")
    assert phase not in list(SessionPhase)
    with pytest.raises(ValueError, match="5"):
        SessionPhase(5)


@pytest.mark.parametrize("member", [*SessionPhase, *KillReason], ids=str)
def test_a_known_member_is_known_and_a_singleton(member):
    assert member.is_known
    assert type(member)(member.value) is member


def test_the_fields_that_run_and_session_take_by_name_are_those_of_a_request():
    fields = {field.name: field.type for field in msgspec.structs.fields(CreateSessionRequest)}
    assert get_type_hints(SessionFields) == fields


def test_the_last_four_phases_are_terminal():
    assert [phase.value for phase in SessionPhase if phase.is_terminal] == [
        "succeeded",
        "failed",
        "killed",
        "torn_down",
    ]


RESULT = SessionResult[Any](exit_code=0, value={"a": [1]}, kill_reason=KillReason("new"))
VALUES = [
    SessionPhase("new"),
    SessionPhase.RUNNING,
    CreateSessionRequest(code="x", limits=SessionLimits(pids=1), egress=EgressPolicy.deny_all(), extra={"a": 1}),
    Session(id="s-1", phase=SessionPhase("new"), kill_reason=KillReason("newer"), result=RESULT),
    RESULT,
    PhaseFrame(SessionPhase("new")),
    StdoutFrame("x"),
    AuditFrame(AuditEvent(type="new")),
    ResultFrame(RESULT),
    EndFrame(),
    UnknownFrame("x", b"{}"),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("through", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_value_survives_copying_and_the_way_to_another_process(value, through):
    twin = through(value)
    assert type(twin) is type(value)
    assert twin == value
    assert repr(twin) == repr(value)


def answer_with(server: ControlPlane, *bodies: bytes | Any) -> None:
    """What the server gives for the result of a session that has ended, one after the other."""
    left = deque(bodies)

    async def answer(request: Request) -> None:
        await request.send(response(left.popleft()))

    server.route("GET", "/sessions/s-1/result", answer)
    server.route("GET", "/sessions/s-1", response(session(phase="torn_down")))


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        (Answer, {"answer": 285, "more": 1}, Answer(285)),
        (AnswerData, {"answer": 285}, AnswerData(285)),
        (AnswerDict, {"answer": 285}, {"answer": 285}),
        (int, 285, 285),
        (str, "x\u2028", "x\u2028"),
        (list[Answer], [{"answer": 1}], [Answer(1)]),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (tuple[int, str], [1, "a"], (1, "a")),
        (Answer | None, None, None),
        (Answer | None, {"answer": 1}, Answer(1)),
        (None, None, None),
        (type(None), None, None),
        (Literal["a", "b"], "a", "a"),
        (Annotated[int, msgspec.Meta(ge=1)], 5, 5),
        (SessionPhase, "succeeded", SessionPhase.SUCCEEDED),
        (bytes, "aGk=", b"hi"),
        (Any, {"a": [None, 1.5]}, {"a": [None, 1.5]}),
        (object, {"a": 1}, {"a": 1}),
        (msgspec.Raw, {"a": 1}, msgspec.Raw(b'{"a": 1}')),
    ],
)
async def test_a_value_is_decoded_into_the_type_asked_for(
    server: ControlPlane, client: EnclaveClient, type_, value, expected
):
    answer_with(server, {"exitCode": 0, "json": value, "stdout": "hi\n", "durationMs": 1.5, "unknown": 1})
    result = await client.result("s-1", type_)
    assert result.value == expected
    assert type(result.value) is type(expected)
    assert (result.exit_code, result.stdout, result.stderr, result.duration_ms) == (0, "hi\n", None, 1.5)
    assert result.raise_for_exit() is result


@pytest.mark.parametrize(
    ("type_", "value", "says"),
    [
        (Answer, {"answer": "285"}, r"Answer: Expected `int`, got `str` - at `value\.answer`"),
        (Answer, {}, r"missing required field `answer` - at `value`"),
        (Answer, [1], r"Expected `object`, got `array` - at `value`"),
        (list[Answer], [{"answer": 1}, {"answer": None}], r"\[1\]\.answer"),
        (list[Answer], {}, r"list\[.*Answer\]: Expected `array`"),
        (AnswerData, {}, "AnswerData"),
        (AnswerDict, {}, "AnswerDict"),
        (Literal["a", "b"], "c", "Invalid enum value 'c'"),
        (Annotated[int, msgspec.Meta(ge=1)], 0, ">= 1"),
        (int, None, r"fit int: the program did not call enclave\.result\(\.\.\.\), or gave it None"),
    ],
)
async def test_a_value_that_does_not_fit_names_the_path_and_is_not_lost(
    server: ControlPlane, client: EnclaveClient, type_, value, says
):
    answer_with(server, {"exitCode": 0, "json": value, "stdout": "kept"})
    with pytest.raises(ResultTypeError, match=says) as caught:
        await client.result("s-1", type_)
    assert caught.value.result == SessionResult(exit_code=0, value=value, stdout="kept")
    assert pickle.loads(pickle.dumps(caught.value)).result == caught.value.result


async def test_a_value_left_out_is_none_where_the_type_allows_it_and_an_error_where_not(
    server: ControlPlane, client: EnclaveClient
):
    answer_with(server, *[{"exitCode": 0}] * 4)
    assert (await client.result("s-1")).value is None
    assert (await client.result("s-1", Answer | None)).value is None
    with pytest.raises(ResultTypeError, match=r"the program did not call enclave\.result\(\.\.\.\), or gave it None"):
        await client.result("s-1", Answer)
    with pytest.raises(ResultTypeError, match=r"the program did not call enclave\.result\(\.\.\.\), or gave it None"):
        await client.result("s-1", int)


@pytest.mark.parametrize("document", [{"exitCode": 3}, {"exitCode": 3, "json": None}])
async def test_a_failed_workload_without_a_value_is_a_result_of_any_type(
    server: ControlPlane, client: EnclaveClient, document
):
    answer_with(server, document)
    result = await client.result("s-1", Answer)
    assert (result.exit_code, result.value) == (3, None)


async def test_a_failed_workload_with_a_value_that_does_not_fit_is_a_misfit(
    server: ControlPlane, client: EnclaveClient
):
    answer_with(server, {"exitCode": 3, "json": "partial"})
    with pytest.raises(ResultTypeError) as caught:
        await client.result("s-1", Answer)
    assert caught.value.result.exit_code == 3
    assert caught.value.result.value == "partial"


class Plain: ...


class Holder(msgspec.Struct):
    plain: list[Plain]


async def test_a_type_that_cannot_be_decoded_into_shows_before_anything_is_sent(
    server: ControlPlane, client: EnclaveClient
):
    unusable = {
        "Plain": (Plain, list[Plain], dict[str, Plain | None], Holder),
        "Answer": (int | Answer | AnswerData, "Answer", Answer(5)),
        "complex": (complex,),
        "Counter": (Counter,),
        "Callable": (Callable,),
        "EnclaveClient": (EnclaveClient(server.base_url),),
    }
    for name, types in unusable.items():
        for type_ in types:
            for call in (client.result, client.attach("s-1").result):
                with pytest.raises(TypeError, match=name):
                    await call(*([] if call.__self__ is not client else ["s-1"]), type=type_)
            with pytest.raises(TypeError, match=name):
                client.fan_out(["x"], type=type_)
            with pytest.raises(TypeError, match=name):
                await client.map(["x"], type=type_)
    assert server.requests == []


@pytest.mark.parametrize("body", [[], "x", b"{", b""])
async def test_a_result_that_is_none_is_the_servers_fault_not_the_values(
    server: ControlPlane, client: EnclaveClient, body
):
    answer_with(server, body, body)
    for type_ in (Any, Answer):
        with pytest.raises(MalformedResponseError, match="GET /sessions/s-1/result"):
            await client.result("s-1", type_)


async def test_text_that_was_cut_in_a_result_is_repaired_whatever_the_type(server: ControlPlane, client: EnclaveClient):
    answer_with(server, *[b'{"exitCode":0,"json":["x\\ud83d","y\xff"],"stdout":"\\udc00z"}'] * 2)
    for type_ in (Any, list[str]):
        result = await client.result("s-1", type_)
        assert result.value == ["x\ufffd", "y\ufffd"]
        assert result.stdout == "\ufffdz"


def test_raising_for_the_exit_tells_failed_from_killed():
    failed = SessionResult[Any](exit_code=3, value=None, stderr="Traceback\n  boom\nValueError: x\n")
    with pytest.raises(WorkloadFailed, match="exit code 3: ValueError: x") as caught:
        failed.raise_for_exit()
    assert caught.value.exit_code == 3
    assert caught.value.result is failed
    killed = SessionResult[Any](exit_code=None, kill_reason=KillReason.MEMORY_EXCEEDED)
    with pytest.raises(WorkloadKilled, match="memory_exceeded") as killing:
        killed.raise_for_exit()
    assert killing.value.kill_reason is KillReason.MEMORY_EXCEEDED
    with pytest.raises(WorkloadKilled, match="does not say why"):
        SessionResult[Any](exit_code=None).raise_for_exit()


@pytest.mark.parametrize("exit_code", [0, 137, None])
@pytest.mark.parametrize(
    "how", [{"phase": SessionPhase.KILLED}, {"kill_reason": KillReason("new"), "phase": SessionPhase.TORN_DOWN}]
)
def test_the_phase_and_the_reason_say_that_a_workload_was_killed_and_the_exit_code_does_not(exit_code, how):
    killed = SessionResult[Any](exit_code=exit_code, **how)
    assert killed.is_killed
    assert not killed.is_success
    with pytest.raises(WorkloadKilled):
        killed.raise_for_exit()


def test_the_phase_tells_how_a_workload_ended_whose_exit_code_cannot_be_read():
    extra = {"exitCode": "0"}
    assert SessionResult[Any](exit_code=None, phase=SessionPhase.SUCCEEDED, extra=extra).raise_for_exit().extra == extra
    with pytest.raises(WorkloadFailed, match="an exit code that cannot be read: boom"):
        SessionResult[Any](exit_code=None, phase=SessionPhase.FAILED, stderr="boom").raise_for_exit()


def test_a_policy_is_made_by_what_it_means():
    assert EgressPolicy.deny_all() == EgressPolicy() == EgressPolicy("deny_all", ())
    assert EgressPolicy.allowlist("10.0.0.0/8").allow == ("10.0.0.0/8",)
    with pytest.raises(ValueError, match=r"egress\.allow\[1\].*203\.0\.113\.0/24"):
        EgressPolicy.allowlist("10.0.0.0/8", "example.org")
