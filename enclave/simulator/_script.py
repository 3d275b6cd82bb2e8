"""Scripted workloads: what a session plays instead of running code. Imports anyio and the types."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import anyio
import msgspec

from enclave.types import StreamFrame, UnknownFrame

ScriptStep = StreamFrame | Mapping[str, Any] | bytes | str | float | int
"""A frame (a type of `enclave.types`, a dict, or JSON text sent as it is), or a pause in seconds."""

NO_RESULT: Any = msgspec.UNSET
"""No call of ``enclave.result``; None is a result."""


class Script:
    """One scripted run. With `hold` it stays running after its frames until `release`, and takes more by `push`.

    Like all of `Simulator`, not thread-safe: call these in the event loop that it is served in. What the pytest fixture
    `enclave_simulator` gives out may be called from any thread.
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
        self.result = result
        self.exit_code = exit_code
        self.kill_reason = kill_reason
        self.delay_seconds = delay_seconds
        self.raw = raw
        self.session_id: str | None = None
        """The session that plays it, once one does."""
        self._steps = deque(_encode(step) for step in frames)
        self._held = hold
        self._changed: anyio.Event | None = None

    def push(self, *frames: ScriptStep) -> None:
        """Add frames to a script that holds.

        Raises:
            RuntimeError: the script does not hold, or was released.
        """
        if not self._held:
            raise RuntimeError("push: this script does not hold; make it with hold=True and push before release()")
        self._steps.extend(_encode(step) for step in frames)
        self._wake()

    def release(self) -> None:
        """Let the run end once its frames are played."""
        self._held = False
        self._wake()

    async def next_step(self) -> bytes | float | None:
        """The next frame or pause; None at the end. Waits while the script holds."""
        while not self._steps and self._held:
            self._changed = anyio.Event()
            await self._changed.wait()
        return self._steps.popleft() if self._steps else None

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()


def _encode(step: ScriptStep) -> bytes | float:
    if isinstance(step, (bool, bytearray)):
        raise TypeError(f"frames: expected a frame, its JSON, or a pause in seconds, got {step!r}")
    if isinstance(step, (int, float)):
        return float(step)
    if isinstance(step, bytes):
        return step
    if isinstance(step, str):
        return step.encode()
    if isinstance(step, UnknownFrame):
        return step.raw
    return msgspec.json.encode(step) if isinstance(step, Mapping) else step.to_json()
