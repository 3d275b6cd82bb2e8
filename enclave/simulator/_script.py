"""Scripted workloads: what a session plays instead of running code. Imports anyio and the types."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import anyio
import msgspec

from enclave.types import KillReason, KnownFrame, StreamFrame, UnknownFrame
from enclave.types._json import decode_text

ScriptStep = StreamFrame | Mapping[str, Any] | bytes | str | float | int
"""A frame (a type of `enclave.types`, a dict, or its JSON), bytes that are sent as they are, or a pause in seconds."""


class _AnyFrame(msgspec.Struct):
    kind: str


_any_frame = msgspec.json.Decoder(_AnyFrame)


class Script:
    """One scripted run. With `hold` it keeps running after its frames until `release`, and takes more by `push`.

    Like all of `Simulator` it is not thread-safe: call its methods in the event loop that the simulator is served in.
    What the pytest fixture `enclave_simulator` gives out may be called from any thread.
    """

    def __init__(
        self,
        frames: Iterable[ScriptStep],
        *,
        result: Any,
        exit_code: int,
        kill_reason: str | None,
        delay_seconds: float,
        raw: bool,
        hold: bool,
    ) -> None:
        if isinstance(frames, (str, bytes, Mapping)):
            raise TypeError(f"frames: expected a list of frames, got {frames!r}")
        if not isinstance(exit_code, int) or isinstance(exit_code, bool):
            raise TypeError(f"exit_code: expected a whole number, got {exit_code!r}")
        # A KillReason of the caller's own making stands for one that a later server may know.
        if kill_reason is not None and not (isinstance(kill_reason, KillReason) or KillReason(kill_reason).is_known):
            known = ", ".join(KillReason)
            raise ValueError(f"kill_reason: expected one of {known}, or a KillReason(...), got {kill_reason!r}")
        self.result = _as_json(result)
        """The JSON of the value that the run returns."""
        self.exit_code = exit_code
        self.kill_reason = kill_reason
        self.delay_seconds = _seconds("delay_seconds", delay_seconds)
        self.raw = raw
        self.session_id: str | None = None
        """The session that plays it, once one does."""
        self._steps: deque[bytes | float] = deque()
        self._add(frames)
        self._held = hold
        self._changed: anyio.Event | None = None

    def push(self, *frames: ScriptStep) -> None:
        """Add frames to a script that holds.

        Raises:
            RuntimeError: the script does not hold, or was released.
        """
        if not self._held:
            raise RuntimeError("push: this script does not hold, so make it with hold=True and push before release()")
        self._add(frames)
        self._wake()

    def release(self) -> None:
        """Let the run end once its frames are played."""
        self._held = False
        self._wake()

    async def next_step(self) -> bytes | float | None:
        """The next frame or pause, or None at the end. It waits while the script holds."""
        # `push` and `release` both wake this up, and only one of them brings a step.
        while not self._steps and self._held:
            self._changed = anyio.Event()
            await self._changed.wait()
        return self._steps.popleft() if self._steps else None

    def _add(self, frames: Iterable[ScriptStep]) -> None:
        # All frames are encoded before one is added, so that a wrong one adds none.
        steps = [_encode(f"frames[{index}]", step) for index, step in enumerate(frames)]
        self._steps.extend(steps)

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()


def _encode(name: str, step: ScriptStep) -> bytes | float:
    if isinstance(step, (int, float)):
        return _seconds(name, step)
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
    try:
        return msgspec.json.encode(step) if isinstance(step, Mapping) else step.to_json()
    except TypeError as error:
        raise TypeError(f"{name}: JSON cannot express it: {error}") from None


def _is_frame(text: bytes) -> bool:
    try:
        decode_text(_any_frame, text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def _seconds(name: str, value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a number of seconds, got {value!r}")
    if not 0 <= value < math.inf:
        raise ValueError(f"{name}: must be a number of seconds from 0, got {value}")
    return float(value)


def _as_json(result: Any) -> Any:
    if result is msgspec.UNSET:
        return result
    try:
        return msgspec.Raw(msgspec.json.encode(result))
    except (TypeError, ValueError) as error:
        raise TypeError(f"result: JSON cannot express it: {error}") from None
