"""Servers that resume streams in right and wrong ways: a consumer sees one history of the session, or an error.

`may_go_wrong_silently` marks the faults that no client can know of. docs/reliability.md lists the same. And where
a consumer did see a history that is none, without an error, the bytes have to be those that a right server could send.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

import anyio
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enclave import EnclaveClient, EndFrame, RetryPolicy, StdoutFrame, StreamInterrupted
from tests.support import PATIENCE_SECONDS
from tests.support.scripted_transport import ScriptedTransport, sse

Frame = tuple[str, str]  # kind and data

Ids = Callable[[int, int], str | None]  # the id of an event by its index, on a connection that began at another one

COUNTING: dict[str, Ids] = {
    "numbers": lambda index, _: str(index),
    "padded": lambda index, _: f"{index:04}",
    "tens": lambda index, _: str(1000 + 10 * index),
    "falling": lambda index, _: str(500 - index),
    "prefixed": lambda index, _: f"s-{index}",
    "not ascii": lambda index, _: f"é{index}",
}
OPAQUE: dict[str, Ids] = {
    "hashes": lambda index, _: hashlib.sha256(b"%d" % index).hexdigest()[:12] + "x",
    "offsets": lambda index, _: str(index * index * 37),
}
USELESS: dict[str, Ids] = {
    "none": lambda index, _: None,
    "only some": lambda index, _: str(index) if index % 3 else None,
    "not the first": lambda index, _: str(index) if index else None,
    "not sendable": lambda index, _: f"{index} ",
    "too long": lambda index, _: f"{index}" + "x" * 2000,
}
AMBIGUOUS: dict[str, Ids] = {
    "all the same": lambda index, _: "x",
    "a cycle": lambda index, _: "abc"[index % 3],
    "new on each connection": lambda index, start: str(index - start),
}
IDS = {**COUNTING, **OPAQUE, **USELESS, **AMBIGUOUS}

RECOVERS = ["follows", "ignores the id", "repeats the last", "goes back"]
"""What ends well: either the server is right, or it is found out, and right when asked for a replay."""
CHANGES = ["changes one", "is shorter", "swaps two", "repeats one", "drops one"]
"""A later connection is of another history. Whoever goes on by id does not see the part that is behind."""
WRONG = ["leaves some out", "goes on anywhere"]
SERVERS = [*RECOVERS, *CHANGES, *WRONG]


def may_go_wrong_silently(ids: str, server: str) -> bool:
    """What no client can know of a connection that goes on after an id: what the docs list, and nothing else."""
    if ids in AMBIGUOUS:
        return True  # before an id comes twice, it looks like any other
    return server in CHANGES or (server in WRONG and ids in OPAQUE)


@dataclass
class Server:
    """Answers as its name says, and cuts one connection after another."""

    frames: list[Frame]
    ids: str
    name: str
    cuts: list[int]
    sizes: list[int]
    choice: int

    def __post_init__(self) -> None:
        self.histories: list[list[Frame]] = []
        self.connections: list[tuple[str | None, list[tuple[str | None, Frame]]]] = []
        self.frames_before_going_on: int | None = None
        self.sent = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        history = self._history() if self.histories else [*self.frames]
        history.append(("end", ""))
        self.histories.append(history)
        last = dict(request.headers.raw).get(b"Last-Event-ID")
        start = 0 if last is None else self._start(last.decode(), len(history))
        if last is not None and self.frames_before_going_on is None:
            self.frames_before_going_on = self.sent
        blocks = [self._block(frame, index, start) for index, frame in enumerate(history)][start:]
        body = b"".join(blocks)
        if len(self.histories) <= len(self.cuts):
            body = body[: self.cuts[len(self.histories) - 1] % (len(body) + 1)]
        whole = sum(body.startswith(b"".join(blocks[: n + 1])) for n in range(len(blocks)))
        events = [(IDS[self.ids](index, start), frame) for index, frame in enumerate(history)][start : start + whole]
        self.connections.append((None if last is None else last.decode(), events))
        if last is None:
            self.sent = max(self.sent, whole)
        return sse(*self._pieces(body))

    def _history(self) -> list[Frame]:
        frames, at = [*self.frames], self.choice % len(self.frames)
        match self.name:
            case "changes one":
                frames[at] = ("stdout", f"changed {len(self.histories)}")
            case "is shorter":
                del frames[at:]
            case "swaps two":
                frames[at : at + 2] = reversed(frames[at : at + 2])
            case "repeats one":
                frames.insert(at, frames[at])
            case "drops one":
                del frames[at]
            case _:
                pass
        return frames

    def _start(self, last: str, count: int) -> int:
        known = [index for index in range(count) if IDS[self.ids](index, 0) == last]
        start = known[-1] + 1 if known else 0
        match self.name:
            case "ignores the id":
                return 0
            case "repeats the last":
                return max(0, start - 1)
            case "goes back":
                return max(0, start - 1 - self.choice)
            case "leaves some out":
                return start + 1 + self.choice % 3
            case "goes on anywhere":
                return self.choice % count
            case _:
                return start

    def _block(self, frame: Frame, index: int, start: int) -> bytes:
        kind, data = frame
        document = {"kind": kind} if kind == "end" else {"kind": kind, "data": data}
        event_id = IDS[self.ids](index, start)
        lines = [] if event_id is None else [f"id: {event_id}"]
        return "\n".join([*lines, f"data: {json.dumps(document)}", "", ""]).encode()

    def _pieces(self, body: bytes) -> list[bytes]:
        pieces = []
        for size in self.sizes:
            pieces.append(body[:size])
            body = body[size:]
        return [piece for piece in (*pieces, body) if piece]


def may_be_right(server: Server, got: list[Frame]) -> bool:
    """Whether a server whose session is what the consumer got could have sent exactly these events."""
    ids: list[str | None] = [None] * len(got)
    for number, (last, events) in enumerate(server.connections):
        starts = [0, *(place + 1 for place, known in enumerate(ids) if last is not None and known == last)]
        for start in reversed(starts):
            places = range(start, start + len(events))
            if [frame for _, frame in events] == got[start : start + len(events)] and all(
                ids[place] in (None, event_id) for place, (event_id, _) in zip(places, events, strict=True)
            ):
                for place, (event_id, _) in zip(places, events, strict=True):
                    ids[place] = event_id
                break
        else:
            was_doubted = last is not None and [each for each, _ in server.connections[number + 1 :]][:1] == [None]
            if not was_doubted:
                return False
    return True


async def consume(server: Server) -> tuple[list[Frame], StreamInterrupted | None]:
    retry = RetryPolicy(attempts=len(server.cuts) + 2, wait_seconds=0)
    transport = ScriptedTransport(server)
    got: list[Frame] = []
    with anyio.fail_after(PATIENCE_SECONDS):
        async with EnclaveClient("http://127.0.0.1:1", transport=transport, retry=retry) as client:
            async with client.stream("s-1") as frames:
                try:
                    async for frame in frames:
                        assert isinstance(frame, StdoutFrame | EndFrame)
                        got.append((frame.kind, frame.data if isinstance(frame, StdoutFrame) else ""))
                except StreamInterrupted as error:
                    return got, error
    return got, None


TEXTS = st.sampled_from(["same", "same", *"abcdefgh"])
FRAMES = st.lists(TEXTS.map(lambda text: ("stdout", text)), min_size=1, max_size=12)


@st.composite
def servers(draw: st.DrawFn) -> Server:
    frames = draw(FRAMES)
    if draw(st.booleans()):
        frames = [(kind, f"{text} {index}") for index, (kind, text) in enumerate(frames)]
    return Server(
        frames,
        ids=draw(st.sampled_from(sorted(IDS))),
        name=draw(st.sampled_from(SERVERS)),
        cuts=draw(st.lists(st.integers(0, 800), max_size=5)),
        sizes=draw(st.lists(st.integers(1, 300), max_size=5)),
        choice=draw(st.integers(0, 20)),
    )


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=400)
@given(server=servers())
def test_whatever_the_server_does_one_history_explains_all_frames_or_there_is_an_error(
    backend: str, server: Server
) -> None:
    got, error = anyio.run(consume, server, backend=backend)
    if server.name in RECOVERS and server.ids not in AMBIGUOUS:
        assert (got, error) == (server.histories[0], None)
    if error is not None:
        assert error.delivered == len(got)
    sure = got
    if may_go_wrong_silently(server.ids, server.name) and server.frames_before_going_on is not None:
        sure = got[: server.frames_before_going_on]  # up to the first time that the server was asked to go on
    explanations = [history for history in server.histories if history[: len(sure)] == sure]
    assert explanations
    if sure is got and error is None:
        assert got in explanations
    if error is None and got not in server.histories:
        assert may_be_right(server, got)
