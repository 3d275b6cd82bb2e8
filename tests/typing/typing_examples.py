"""Checked by mypy and pyright, never run: what callers see of the SDK's types.

A `type: ignore` stands where both must refuse the line. Both call one that is not needed an error.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, TypedDict, assert_never, assert_type

import httpx
import msgspec

from enclave import (
    AuditEvent,
    AuditFrame,
    Completed,
    CreateSessionRequest,
    EgressPolicy,
    EnclaveClient,
    EndFrame,
    Errored,
    FanOut,
    FrameStream,
    Health,
    KillReason,
    Observer,
    Outcome,
    PhaseFrame,
    RequestObservation,
    ResultFrame,
    RetryPolicy,
    Session,
    SessionFields,
    SessionHandle,
    SessionLimits,
    SessionPhase,
    SessionResult,
    StderrFrame,
    StdoutFrame,
    StreamFrame,
    SyncEnclaveClient,
    SyncFanOut,
    SyncFrameStream,
    SyncSessionHandle,
    Timeout,
    UnknownFrame,
    Verdict,
    WorkloadError,
    WorkloadKilled,
)
from enclave.opentelemetry import OpenTelemetryObserver
from enclave.simulator import SyncSimulator


class Answer(msgspec.Struct):
    answer: int


@dataclass
class AnswerData:
    answer: int


class AnswerDict(TypedDict):
    answer: int


async def token() -> str:
    return "jwt"


async def configuring(transport: httpx.AsyncBaseTransport) -> None:
    EnclaveClient()
    EnclaveClient("http://127.0.0.1:8088", api_key="ek_a_b", timeout=5, retry=None)
    EnclaveClient(token=token, transport=transport, timeout=Timeout(read=None), retry=RetryPolicy(attempts=2))
    EnclaveClient(token="jwt", timeout=None)
    async with EnclaveClient() as client:
        assert_type(client, EnclaveClient)
        assert_type(client.base_url, str)


async def sessions(client: EnclaveClient) -> None:
    assert_type(await client.run("code", language="node", egress=EgressPolicy.deny_all()), SessionHandle)
    assert_type(await client.run(CreateSessionRequest(code="x", limits=SessionLimits(pids=4))), SessionHandle)
    await client.run("x", langauge="node")  # type: ignore[call-arg]
    await client.run("x", labels={"n": 1})  # type: ignore[dict-item]
    client.session("x", limits={"pids": 1})  # type: ignore[arg-type]
    fields: SessionFields = {"language": "node", "labels": {"team": "a"}}
    async with client.session("x", **fields) as handle:
        assert_type(handle, SessionHandle)
    async with client.session(code="x") as handle:
        assert_type(handle, SessionHandle)
        assert_type(handle.id, str)
        assert_type(handle.last_seen, Session | None)
        assert_type(handle.phase, SessionPhase | None)
        assert_type(await handle.refresh(), Session)
    assert_type(client.attach("s-1"), SessionHandle)
    assert_type(await client.get("s-1"), Session)
    assert_type(await client.list(), list[Session])
    assert_type(await client.audit("s-1"), list[AuditEvent])
    assert_type(await client.health(), Health)


async def results(client: EnclaveClient, handle: SessionHandle) -> None:
    assert_type(await handle.result(Answer), SessionResult[Answer])
    assert_type((await handle.result(Answer)).value, Answer)
    assert_type(await handle.result(AnswerData), SessionResult[AnswerData])
    assert_type(await handle.result(AnswerDict), SessionResult[AnswerDict])
    assert_type(await handle.result(list[Answer]), SessionResult[list[Answer]])
    assert_type(await handle.result(int), SessionResult[int])
    assert_type(await handle.result(), SessionResult[Any])
    assert_type(await client.result("s-1", Answer), SessionResult[Answer])
    assert_type(await client.result("s-1"), SessionResult[Any])
    result = await handle.result(Answer)
    assert_type(result.raise_for_exit(), SessionResult[Answer])
    assert_type(result.exit_code, int | None)
    assert_type(result.kill_reason, KillReason | None)


def blocking(client: SyncEnclaveClient, requests: Iterator[CreateSessionRequest]) -> None:
    SyncEnclaveClient("http://127.0.0.1:8088", api_key="ek_a_b", timeout=5, retry=None, token=token)
    SyncEnclaveClient(api_kee="x")  # type: ignore[call-arg]
    with SyncEnclaveClient() as entered:
        assert_type(entered, SyncEnclaveClient)
        assert_type(entered.base_url, str)
    assert_type(client.with_options(timeout=5), SyncEnclaveClient)
    assert_type(client.run("code", language="node", egress=EgressPolicy.deny_all()), SyncSessionHandle)
    client.run("x", langauge="node")  # type: ignore[call-arg]
    with client.session(code="x") as handle:
        assert_type(handle, SyncSessionHandle)
        assert_type(handle.id, str)
        assert_type(handle.phase, SessionPhase | None)
        assert_type(handle.refresh(), Session)
        assert_type(handle.result(Answer), SessionResult[Answer])
        assert_type(handle.result(), SessionResult[Any])
        assert_type(handle.stream(), SyncFrameStream)
    assert_type(client.attach("s-1"), SyncSessionHandle)
    assert_type(client.get("s-1"), Session)
    assert_type(client.list(), list[Session])
    assert_type(client.audit("s-1"), list[AuditEvent])
    assert_type(client.health(), Health)
    assert_type(client.result("s-1", Answer), SessionResult[Answer])
    assert_type(client.result("s-1"), SessionResult[Any])
    with client.stream("s-1") as frames:
        for frame in frames:
            assert_type(frame, StreamFrame)
        for batch in frames.batches():
            assert_type(batch, list[StreamFrame])
        assert_type(frames.resumes, int)
    assert_type(client.fan_out(["a"]), SyncFanOut[Any])
    with client.fan_out(requests, type=Answer, max_concurrency=4, fail_fast=True) as outcomes:
        assert_type(outcomes.total, int | None)
        for outcome in outcomes:
            assert_type(outcome, Outcome[Answer])
    assert_type(client.map(requests, type=list[int]), list[Outcome[list[int]]])
    assert_type(client.map(["a"]), list[Outcome[Any]])
    with SyncSimulator(api_key="ek_a_b") as simulator:
        assert_type(simulator, SyncSimulator)
        assert_type(simulator.add_api_key(role="viewer"), str)
        simulator.script(hold=True).release()
    SyncSimulator(api_kee="x")  # type: ignore[call-arg]


def kind_of(frame: StreamFrame) -> str:
    match frame:
        case PhaseFrame(phase=phase):
            return phase.value
        case StdoutFrame(data=data) | StderrFrame(data=data):
            return data
        case AuditFrame(event=event):
            return event.type.value if event.type else ""
        case ResultFrame(result=result):
            assert_type(result, SessionResult[Any])
            return str(result.exit_code)
        case EndFrame():
            return "end"
        case UnknownFrame(kind=kind, raw=raw, problem=problem):
            assert_type(raw, bytes)
            assert_type(problem, str | None)
            return kind
        case _:
            assert_never(frame)


def by_kind(frame: StreamFrame) -> str:
    if isinstance(frame, UnknownFrame):
        return frame.kind
    if frame.kind == "stdout":
        assert_type(frame, StdoutFrame)
    elif frame.kind == "result":
        assert_type(frame, ResultFrame)
    elif frame.kind == "phase":
        assert_type(frame, PhaseFrame)
    elif frame.kind == "end":
        assert_type(frame, EndFrame)
    elif frame.kind == "stderr":
        assert_type(frame, StderrFrame)
    else:
        assert_type(frame, AuditFrame)
    return frame.kind


async def streams(client: EnclaveClient, handle: SessionHandle) -> None:
    assert_type(client.stream("s-1"), FrameStream)
    async with handle.stream() as frames:
        assert_type(frames, FrameStream)
        async for frame in frames:
            assert_type(frame, StreamFrame)
        async for batch in frames.batches():
            assert_type(batch, list[StreamFrame])
        assert_type(frames.resumes, int)
        frames.cancel()


async def fan_outs(client: EnclaveClient, requests: AsyncIterator[CreateSessionRequest]) -> None:
    assert_type(client.fan_out(["a"]), FanOut[Any])
    assert_type(client.fan_out(requests, type=Answer, max_concurrency=4), FanOut[Answer])
    async with client.fan_out(["a", CreateSessionRequest(code="b")], type=Answer, fail_fast=True) as outcomes:
        async for outcome in outcomes:
            assert_type(outcome, Outcome[Answer])
            assert_type(outcome.verdict, Verdict)
            assert_type(outcome.session_id, str | None)
            grade(outcome)
    assert_type(await client.map(requests, type=list[int]), list[Outcome[list[int]]])
    assert_type(await client.map(["a"]), list[Outcome[Any]])
    assert_type(await client.map(["a"], type=int, creates_per_second=2.5), list[Outcome[int]])
    assert_type(client.fan_out(["a"], creates_per_second=10).total, int | None)


def grade(outcome: Outcome[Answer]) -> int | None:
    match outcome:
        case Completed(verdict=Verdict.SUCCEEDED, result=result):
            assert_type(result, SessionResult[Answer])
            return result.value.answer
        case Completed(result=r, teardown_error=error):
            assert_type(r, SessionResult[Answer])
            assert_type(error, Exception | None)
        case Errored(error=error):
            assert_type(error, Exception)
        case _:
            assert_never(outcome)
    if isinstance(outcome, Completed):
        assert_type(outcome.result, SessionResult[Answer])
        assert_type(outcome.session_id, str)
    else:
        assert_type(outcome, Errored)
    return None


class Counted(RequestObservation):
    def ended(self, error: BaseException | None) -> None:
        assert_type(error, BaseException | None)


class Counter(Observer):
    def request(self, method: str, route: str, *, url: str, session_id: str | None) -> Counted:
        return Counted()


def observers() -> None:
    EnclaveClient(observer=Counter())
    EnclaveClient(observer=OpenTelemetryObserver(propagate=False))
    EnclaveClient(observer=None)


def failures(error: WorkloadKilled) -> None:
    assert_type(error.kill_reason, KillReason | None)
    assert_type(error.result, SessionResult[Any])


def any_workload_failure(error: WorkloadError) -> None:
    assert_type(error.result, SessionResult[Any] | None)
