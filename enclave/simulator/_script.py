"""Scripted workloads: what a session plays instead of running code. Imports the types."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec

from enclave.types import KillReason, KnownFrame, StreamFrame, UnknownFrame
from enclave.types._json import decode_text

from . import _checks
from ._wakeup import Wakeup

ScriptStep = StreamFrame | Mapping[str, Any] | bytes | str | float | int
"""A frame (a type of `enclave.types`, a dict, or its JSON), bytes that are sent as they are, or a pause in seconds."""


class _AnyFrame(msgspec.Struct):
    kind: str


_any_frame = msgspec.json.Decoder(_AnyFrame)


class Script:
    """One scripted run. With `hold` it keeps running after its frames until `release`, and takes more by `push`.

    Like all of `Simulator` it is not thread-safe: call its methods in the event loop that the simulator is served in.
    What a `SyncSimulator` or the pytest fixture `enclave_simulator` gives out may be called from any thread.
    """

    def __init__(
        self,
        frames: Iterable[ScriptStep],
        *,
        result: Any,
        exit_code: int | None,
        kill_reason: str | None,
        delay_seconds: float,
        raw: bool,
        hold: bool,
    ) -> None:
        # Bytes of any kind are iterable, and would be pauses.
        if isinstance(frames, (str, bytes, bytearray, memoryview, Mapping)) or not isinstance(frames, Iterable):
            raise TypeError(f"frames: expected a list of frames, got {frames!r}")
        # A KillReason of the caller's own making stands for one that a later server may know.
        if kill_reason is not None and not (
            isinstance(kill_reason, KillReason) or KillReason(_checks.text("kill_reason", kill_reason)).is_known
        ):
            known = ", ".join(KillReason)
            raise ValueError(f"kill_reason: expected one of {known}, or a KillReason(...), got {kill_reason!r}")
        self.result = _as_json(result)
        """The JSON of the value that the run returns."""
        self.exit_code = None if exit_code is None else _checks.whole("exit_code", exit_code)
        self.kill_reason = kill_reason
        self.delay_seconds = _checks.seconds("delay_seconds", delay_seconds)
        self.raw = _checks.flag("raw", raw)
        self.session_id: str | None = None
        """The session that plays it, once one does."""
        self._steps: deque[bytes | float] = deque()
        self._add(frames)
        self._held = _checks.flag("hold", hold)
        self._changed = Wakeup()

    def push(self, *frames: ScriptStep) -> None:
        """Add frames to a script that holds.

        Raises:
            RuntimeError: the script does not hold, or was released.
            TypeError, ValueError: a frame cannot be used, as in `Simulator.script`. None is added then.
        """
        if not self._held:
            raise RuntimeError("push: this script does not hold, so make it with hold=True and push before release()")
        self._add(frames)
        self._changed.wake()

    def release(self) -> None:
        """Let the run end once its frames are played."""
        self._held = False
        self._changed.wake()

    async def next_step(self) -> bytes | float | None:
        """The next frame or pause, or None at the end. It waits while the script holds."""
        # `push` and `release` both wake this up, and only one of them brings a step.
        while not self._steps and self._held:
            await self._changed.wait()
        return self._steps.popleft() if self._steps else None

    def _add(self, frames: Iterable[ScriptStep]) -> None:
        # All frames are encoded before one is added, so that a wrong one adds none.
        steps = [_encode(f"frames[{index}]", step) for index, step in enumerate(frames)]
        self._steps.extend(steps)


def _encode(name: str, step: ScriptStep) -> bytes | float:
    if isinstance(step, (int, float)):
        return _checks.seconds(name, step)
    # A frame that a client could not read goes out as it came in.
    if isinstance(step, UnknownFrame):
        return step.raw
    if isinstance(step, bytes):
        return step
    if isinstance(step, str):
        if not _is_frame(step.encode()):
            raise ValueError(f"{name}: {step!r} is no frame's JSON, write StdoutFrame({step!r}) for output")
        return step.encode()
    if not isinstance(step, (KnownFrame, Mapping)):
        raise TypeError(f"{name}: expected a frame, its JSON, or a pause in seconds, got {step!r}")
    frame = _encoded(name, step) if isinstance(step, Mapping) else step.to_json()
    if not _is_frame(frame):
        raise ValueError(f"{name}: {step!r} has no kind, which every frame has. Bytes are sent as they are")
    return frame


def _is_frame(text: bytes) -> bool:
    try:
        decode_text(_any_frame, text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def _as_json(result: Any) -> Any:
    return result if result is msgspec.UNSET else msgspec.Raw(_encoded("result", result))


def _encoded(name: str, value: Any) -> bytes:
    try:
        document = msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        wrong = TypeError if isinstance(error, TypeError) else ValueError
        raise wrong(f"{name}: JSON cannot express it: {error}") from None
    _check_kept(name, value)
    return document


def _check_kept(name: str, value: Any) -> None:
    """Refuse what would become something else without a word: numbers that are not finite, and bytes."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}: JSON cannot express it: {value!r} is no finite number")
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError(f"{name}: JSON cannot express it: {value!r} is no text")
    if isinstance(value, Mapping):
        value = list(cast("Mapping[str, object]", value).values())
    if isinstance(value, (list, tuple)):
        for inner in cast("list[object]", value):
            _check_kept(name, inner)
