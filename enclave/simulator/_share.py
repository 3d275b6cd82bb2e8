"""How much of the event loop's time the output of one workload may take. Pure: no I/O, no clock.

Output is taken in slices, and after some of them comes a pause, so a workload that floods leaves most of the time to
others. What a slice costs depends on what is in it: a line that only looks like a report costs a hundred times as much
as a line of text. So slices that took long are followed by shorter ones.
"""

from __future__ import annotations

MAX_SLICE_BYTES = 8192
MIN_SLICE_BYTES = 256
FREE_SECONDS = 0.0005
READ_SECONDS = 0.0001
"""What a read itself costs the event loop, which cannot be measured where it is made."""
PAUSE_FACTOR = 3


class Share:
    """The share of one workload."""

    def __init__(self) -> None:
        self.slice_bytes = MAX_SLICE_BYTES
        """How long the next slice should be."""
        self._busy_seconds = 0.0
        """How long the event loop was kept busy since the last pause. Many cheap slices add up."""

    def read(self) -> None:
        """Count a read."""
        self._busy_seconds += READ_SECONDS

    def took(self, seconds: float) -> float:
        """Count a slice. Gives how long to pause now, in seconds, or 0."""
        if seconds > FREE_SECONDS:
            self.slice_bytes = max(MIN_SLICE_BYTES, self.slice_bytes // 2)
        else:
            self.slice_bytes = min(MAX_SLICE_BYTES, self.slice_bytes * 2)
        self._busy_seconds += seconds
        if self._busy_seconds <= FREE_SECONDS:
            return 0.0
        pause_seconds, self._busy_seconds = self._busy_seconds * PAUSE_FACTOR, 0.0
        return pause_seconds
