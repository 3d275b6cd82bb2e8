"""`enclave logs`: what a session has printed so far, or until it ends."""

from __future__ import annotations

import anyio

from enclave import EnclaveClient, FrameBatches, StreamFrame

from ._connect import attached
from ._frames import FrameWriter, write_as_json
from ._output import Screen

# Nothing in a stream marks where the past ends and the present begins. A pause this long does; and of a workload that
# never pauses this much is shown.
IDLE_SECONDS = 1.0
BUSY_SECONDS = 10.0


async def logs(enclave: EnclaveClient, session_id: str, *, follow: bool, json: bool, screen: Screen) -> int:
    """Show a session's output from its start. Without `follow`, a session that still runs is not waited for."""
    session = attached(enclave, session_id)
    follow = follow or (await session.refresh()).has_ended
    writer = FrameWriter(screen)
    async with session.stream() as frames:
        batches = frames.batches()
        pause = float("inf") if follow else IDLE_SECONDS
        until = float("inf") if follow else anyio.current_time() + BUSY_SECONDS
        while (batch := await _next(batches, pause)) and anyio.current_time() < until:
            await (write_as_json(screen, batch) if json else writer.write(batch))
    await writer.end()
    if batch != []:
        await screen.warn(f"session {session_id} goes on; see the rest with --follow")
    return 0


async def _next(batches: FrameBatches, pause_seconds: float) -> list[StreamFrame] | None:
    """The next frames; an empty list at the end of the stream, None at a pause."""
    with anyio.move_on_after(pause_seconds):
        return await anext(batches, list[StreamFrame]())
    return None
