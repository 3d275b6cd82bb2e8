"""The recorded frames of one session. Any number of readers follow them by index.

A reader owns an integer and no queue, so a slow reader, or one that vanished, costs the session nothing.
"""

from __future__ import annotations

from ._wakeup import Wakeup

FRAME_OVERHEAD_BYTES = 64
"""What keeping one frame costs besides its text. It is counted, so that many tiny frames are bounded too."""


class FrameLog:
    """Append-only and bounded, until it is closed. Each frame is the JSON of one document."""

    def __init__(self, max_output_bytes: int) -> None:
        self.max_output_bytes = max_output_bytes
        """How much output is recorded. Other frames are few, and always recorded."""
        self.closed = False
        self.size_bytes = 0
        """What all of its frames cost."""
        self._frames: list[bytes] = []
        self._output_bytes = 0
        self._grown = Wakeup()

    def __len__(self) -> int:
        return len(self._frames)

    def append(self, frame: bytes) -> None:
        """Record a frame that counts towards no bound. After `close` this does nothing."""
        if not self.closed:
            self._frames.append(frame)
            self.size_bytes += len(frame) + FRAME_OVERHEAD_BYTES
            self._grown.wake()

    def append_output(self, frame: bytes) -> bool:
        """Record a frame of output. Returns False, with nothing recorded, where it would exceed the bound."""
        cost = len(frame) + FRAME_OVERHEAD_BYTES
        if self._output_bytes + cost > self.max_output_bytes:
            return False
        self._output_bytes += cost
        self.append(frame)
        return True

    def close(self) -> None:
        """No frame follows. Readers that have them all are done."""
        self.closed = True
        self._grown.wake()

    def read(self, index: int, *, max_bytes: int, max_frames: int) -> list[bytes]:
        """Frames from `index` on, at least one if there is one."""
        batch: list[bytes] = []
        size = 0
        while index < len(self._frames) and len(batch) < max_frames and size < max_bytes:
            frame = self._frames[index]
            batch.append(frame)
            size += len(frame)
            index += 1
        return batch

    async def wait_beyond(self, index: int) -> None:
        """Wait until there is a frame at `index`, or the log is closed."""
        while index >= len(self._frames) and not self.closed:
            await self._grown.wait()
