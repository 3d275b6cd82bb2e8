"""What cannot be meant by a script is refused at the call, and adds nothing."""

from __future__ import annotations

import json
import math

import msgspec
import pytest

from enclave.simulator import Simulator
from enclave.types import KillReason, StdoutFrame


@pytest.mark.parametrize(
    ("frames", "error", "message"),
    [
        ("hello", TypeError, "expected a list of frames, got 'hello'"),
        (b"hello", TypeError, "expected a list of frames"),
        ({"kind": "end"}, TypeError, "expected a list of frames"),
        (bytearray(b"hello"), TypeError, "expected a list of frames"),
        (memoryview(b"hello"), TypeError, "expected a list of frames"),
        (StdoutFrame("a"), TypeError, "expected a list of frames"),
        (None, TypeError, "expected a list of frames"),
        (["hello\n"], ValueError, r"frames\[0\]: .* write StdoutFrame\('hello.n'\)"),
        ([StdoutFrame("a"), "[]"], ValueError, r"frames\[1\]"),
        ([True], TypeError, r"frames\[0\]: expected a number of seconds"),
        ([-1], ValueError, r"frames\[0\]: must be a number of seconds from 0"),
        ([math.nan], ValueError, r"frames\[0\]"),
        ([math.inf], ValueError, r"frames\[0\]"),
        ([object()], TypeError, r"frames\[0\]: expected a frame"),
        ([{"kind": "stdout", "data": object()}], TypeError, r"frames\[0\]: JSON cannot express"),
        ([{"kind": "stdout", "data": math.nan}], ValueError, r"frames\[0\]: JSON cannot express"),
        ([{"data": "a"}], ValueError, r"frames\[0\]: .* has no kind"),
        ([{"kind": 1}], ValueError, r"frames\[0\]: .* has no kind"),
        ([StdoutFrame], TypeError, r"frames\[0\]: expected a frame"),
        ([None], TypeError, r"frames\[0\]: expected a frame"),
    ],
)
def test_frames(frames, error, message):
    with pytest.raises(error, match=message):
        Simulator().script(frames)


@pytest.mark.parametrize(
    ("option", "error", "message"),
    [
        ({"kill_reason": "memory"}, ValueError, "kill_reason: expected one of cpu_exceeded, memory_exceeded"),
        ({"result": object()}, TypeError, "result: JSON cannot express"),
        ({"result": {"deep": {1, object()}}}, TypeError, "result: JSON cannot express"),
        ({"result": math.nan}, ValueError, "result: JSON cannot express it: nan"),
        ({"result": [1, {"deep": (2.0, -math.inf)}]}, ValueError, "result: JSON cannot express"),
        ({"result": [b"bytes"]}, TypeError, "result: JSON cannot express it: b'bytes' is no text"),
        ({"result": "half an emoji \ud83d"}, ValueError, "result: JSON cannot express"),
        ({"kill_reason": 9}, TypeError, "kill_reason: expected a text"),
        ({"hold": "no"}, TypeError, "hold: expected True or False"),
        ({"raw": 1}, TypeError, "raw: expected True or False"),
        ({"exit_code": 1.0}, TypeError, "exit_code: expected a whole number"),
        ({"exit_code": "1"}, TypeError, "exit_code: expected a whole number"),
        ({"exit_code": True}, TypeError, "exit_code: expected a whole number"),
        ({"delay_seconds": -1}, ValueError, "delay_seconds: must be"),
        ({"delay_seconds": "1"}, TypeError, "delay_seconds: expected a number"),
    ],
)
def test_options(option, error, message):
    with pytest.raises(error, match=message):
        Simulator().script(**option)


def test_a_result_that_holds_itself():
    value = []
    value.append(value)
    with pytest.raises(ValueError, match="result: JSON cannot express"):
        Simulator().script(result=value)


def test_null_is_a_result_and_so_is_a_text_that_says_null():
    for value in (None, ["null", None, 1.5]):
        assert json.loads(bytes(Simulator().script(result=value).result)) == value


@pytest.mark.anyio
async def test_a_refused_push_adds_no_frame_and_a_refused_script_is_not_played(serving):
    async with serving() as api:
        with pytest.raises(ValueError, match="frames"):
            api.sim.script(["no frame"])
        script = api.sim.script(hold=True)
        with pytest.raises(ValueError, match="frames"):
            script.push(StdoutFrame("a"), "no frame")
        script.release()
        run = await api.run("never run")
        assert (run.phase, run.output()) == ("succeeded", "")


@pytest.mark.anyio
async def test_a_scripted_result_may_be_one_that_no_workload_may_report(serving):
    async with serving() as api:
        api.sim.script(result=msgspec.Raw(b"[" * 200 + b"]" * 200))
        run = await api.run("never run")
        assert json.dumps(run.result["json"]) == "[" * 200 + "]" * 200


@pytest.mark.anyio
async def test_a_kill_reason_that_the_sdk_does_not_know_is_given_as_such(serving):
    async with serving() as api:
        api.sim.script(kill_reason=KillReason("disk_exceeded"))
        run = await api.run("never run")
        assert (run.phase, run.session["killReason"]) == ("killed", "disk_exceeded")
