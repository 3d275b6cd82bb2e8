"""How a scripted run ends by what its own frames say. A recorded stream tells its result, its phase and its reason.

Only what is needed is read, and leniently: a recording may be of another server, and a script malformed on purpose.
"""

from __future__ import annotations

import msgspec

from enclave.types import SessionPhase, StderrFrame, StdoutFrame
from enclave.types._json import decode_text


class ToldResult(msgspec.Struct, kw_only=True, rename="camel"):
    """What a result frame says."""

    exit_code: int | None = None
    json: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    stdout: str | None = None
    stderr: str | None = None


class _ResultFrame(msgspec.Struct, tag_field="kind", tag="result"):
    result: ToldResult


class _PhaseFrame(msgspec.Struct, tag_field="kind", tag="phase", rename="camel"):
    phase: SessionPhase
    kill_reason: str | None = None


_Frame = StdoutFrame | StderrFrame | _ResultFrame | _PhaseFrame
_frames: msgspec.json.Decoder[_Frame] = msgspec.json.Decoder(_Frame)


class Told:
    """Takes the frames of a script, and remembers what they say of its end."""

    def __init__(self) -> None:
        self.phase: SessionPhase | None = None
        """The last terminal phase, where torn_down replaces no other."""
        self.kill_reason: str | None = None
        self.result: ToldResult | None = None
        """Of the last result frame."""

    def take(self, frame: bytes) -> StdoutFrame | StderrFrame | None:
        """Note what a frame says, and give it back if it is output."""
        try:
            played = decode_text(_frames, frame)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None  # a frame of another kind, or one that is malformed on purpose
        match played:
            case _ResultFrame(result=result):
                self.result = result
            case _PhaseFrame(phase=phase, kill_reason=kill_reason):
                self.kill_reason = kill_reason or self.kill_reason
                if phase.is_terminal and (self.phase is None or phase is not SessionPhase.TORN_DOWN):
                    self.phase = phase
            case output:
                return output
        return None

    @property
    def texts(self) -> dict[str, str]:
        """What the result has of ``stdout`` and ``stderr``."""
        if self.result is None:
            return {}
        texts = {"stdout": self.result.stdout, "stderr": self.result.stderr}
        return {name: text for name, text in texts.items() if text is not None}

    @property
    def is_torn_down(self) -> bool:
        """Whether the run was torn down before there was a result."""
        return self.phase is SessionPhase.TORN_DOWN and self.result is None

    @property
    def exit_code(self) -> int | None:
        """That of the result. None where there is none though a phase tells how the run ended, else 0."""
        exit_code = None if self.result is None else self.result.exit_code
        return 0 if exit_code is None and self.outcome is None else exit_code

    @property
    def outcome(self) -> SessionPhase | None:
        """How the run ended, if a phase says so."""
        return None if self.phase is SessionPhase.TORN_DOWN else self.phase
