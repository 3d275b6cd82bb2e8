"""What is timed. A job takes its parameters and gives numbers; the same code runs every Python contender.

Wall time is what a user waits for; CPU time (user and system, all threads of this process) is what a machine pays, and
the one of the two that a busy machine disturbs least.
"""

from __future__ import annotations

import gc
import http.client
import importlib
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import anyio
import psutil

from benchmarks.source._wire import CLOSING_FRAMES, characters

from . import Contender
from ._base import Adapter, Client

READ_BYTES = 64 * 1024
"""How the in-memory body is cut: what asyncio and trio read at most from a socket by default."""
DECODE_ROUNDS = 5
WARM_REQUESTS = 20
SOCKETS_SECONDS = 10.0
"""How long a cancelled client may take to close its sockets."""
POLL_SECONDS = 0.02
BEAT_SECONDS = 0.005
FULL_COLLECTION = 2
"""The generation in which `gc` looks at all objects."""

Measured = dict[str, float | int | bool]


class WrongResultError(Exception):
    """A contender did not deliver what the source sent: its time means nothing."""


def expect(what: str, expected: int, got: int) -> None:
    if expected != got:
        raise WrongResultError(f"{what}: expected {expected}, got {got}")


class Clock:
    """Wall and CPU seconds since it was made."""

    def __init__(self) -> None:
        gc.collect()
        self._wall = time.perf_counter()
        self._cpu = time.process_time()

    def stop(self) -> Measured:
        return {"wall": time.perf_counter() - self._wall, "cpu": time.process_time() - self._cpu}


def fetch(base_url: str, path: str) -> bytes:
    """A request of the harness itself, outside of what is timed."""
    url = urlsplit(base_url)
    connect = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = connect(url.netloc)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def open_sockets(base_url: str) -> int:
    """How many clients' sockets the source holds."""
    return int(json.loads(fetch(base_url, "/control/sockets"))["open"])


@dataclass(frozen=True)
class Setting:
    """A contender's client, and the source it is connected to."""

    client: Client
    base_url: str


def decode(adapter: Adapter, variant: str, base_url: str, session_id: str, frames: int) -> Measured:
    """Decode a body in memory; the best of some rounds."""
    body = fetch(base_url, f"/sessions/{session_id}/stream")
    reads = [body[start : start + READ_BYTES] for start in range(0, len(body), READ_BYTES)]
    run = adapter.decoder(variant)
    rounds: list[Measured] = []
    for _ in range(DECODE_ROUNDS):
        clock = Clock()
        got = run(reads)
        rounds.append(clock.stop())
        expect("frames", frames + CLOSING_FRAMES, got)
    return {key: min(one[key] for one in rounds) for key in ("wall", "cpu")} | {"frames": frames, "bytes": len(body)}


async def stream(setting: Setting, *, session_id: str, frames: int, warm_id: str, warm_frames: int) -> Measured:
    """Read one stream to its end, after a shorter one that warms up and is checked to the last character."""
    if hasattr(setting.client, "characters"):
        expect("characters", characters(warm_frames), await setting.client.characters(warm_id))
    expect("frames", warm_frames + CLOSING_FRAMES, await setting.client.read(warm_id))
    clock = Clock()
    got = await setting.client.read(session_id)
    measured = clock.stop()
    expect("frames", frames + CLOSING_FRAMES, got)
    return measured | {"frames": frames}


async def many(setting: Setting, *, session_id: str, streams: int, frames: int, warm_id: str) -> Measured:
    """Read so many streams at once to their ends."""
    counts: list[int] = []

    async def one() -> None:
        counts.append(await setting.client.read(session_id))

    await setting.client.read(warm_id)
    clock = Clock()
    async with anyio.create_task_group() as tasks:
        for _ in range(streams):
            tasks.start_soon(one)
    measured = clock.stop()
    expect("streams", streams, len(counts))
    expect("frames", streams * (frames + CLOSING_FRAMES), sum(counts))
    return measured | {"streams": streams}


class _Held:
    """Idle streams of a task group, opened in steps."""

    def __init__(self, client: Client, tasks: anyio.abc.TaskGroup, session_id: str) -> None:
        self._client, self._tasks, self._session_id = client, tasks, session_id
        self.open = 0

    async def grow_to(self, streams: int) -> None:
        reached = anyio.Event()

        def opened() -> None:
            self.open += 1
            if self.open == streams:
                reached.set()

        for _ in range(streams - self.open):
            self._tasks.start_soon(self._client.hold, self._session_id, opened)
        await reached.wait()


async def idle(setting: Setting, *, session_id: str, small: int, large: int) -> Measured:
    """Resident memory per stream that is open and silent: the slope between two numbers of streams."""
    process = psutil.Process()
    async with anyio.create_task_group() as tasks:
        held = _Held(setting.client, tasks, session_id)
        sizes = []
        for streams in (small, large):
            await held.grow_to(streams)
            gc.collect()
            sizes.append(process.memory_info().rss)
        sockets = open_sockets(setting.base_url)
        tasks.cancel_scope.cancel()
    expect("open sockets", large, sockets)
    return {"bytes_per_stream": (sizes[1] - sizes[0]) / (large - small), "rss": sizes[1]}


class _Heart:
    """Beats on the event loop, and notes by how much a beat was late at most.

    A full collection of Python's garbage collector looks at every object of the process, and nothing else runs
    meanwhile. So it also notes how late a beat was at most without the time of full collections.
    """

    def __init__(self) -> None:
        self.latest = self.latest_without_collections = 0.0
        self._collected = 0.0
        self._collecting_since = 0.0

    def note_collection(self, phase: str, info: dict[str, int]) -> None:
        if info["generation"] < FULL_COLLECTION:
            return
        if phase == "start":
            self._collecting_since = time.perf_counter()
        else:
            self._collected += time.perf_counter() - self._collecting_since

    async def beat(self) -> None:
        while True:
            collected = self._collected
            due = time.perf_counter() + BEAT_SECONDS
            await anyio.sleep(BEAT_SECONDS)
            late = time.perf_counter() - due
            self.latest = max(self.latest, late)
            own = late - (self._collected - collected)
            self.latest_without_collections = max(self.latest_without_collections, own)


async def opening(setting: Setting, *, session_id: str, streams: int) -> Measured:
    """Open so many streams at the same moment, and watch how long the event loop was busy without a pause."""
    async with anyio.create_task_group() as tasks:  # the first stream also loads the authorities
        await _Held(setting.client, tasks, session_id).grow_to(1)
        tasks.cancel_scope.cancel()
    heart = _Heart()
    async with anyio.create_task_group() as tasks:
        clock = Clock()
        gc.callbacks.append(heart.note_collection)
        tasks.start_soon(heart.beat)
        await anyio.sleep(2 * BEAT_SECONDS)
        await _Held(setting.client, tasks, session_id).grow_to(streams)
        measured = clock.stop()
        stalls = {"stall": heart.latest, "stall_without_collections": heart.latest_without_collections}
        gc.callbacks.remove(heart.note_collection)
        expect("open sockets", streams, open_sockets(setting.base_url))
        tasks.cancel_scope.cancel()
    return measured | {"streams": streams} | stalls


async def requests(setting: Setting, *, session_id: str, count: int) -> Measured:
    """So many requests issued at once."""
    done = 0

    async def one() -> None:
        nonlocal done
        await setting.client.get(session_id)
        done += 1

    for _ in range(WARM_REQUESTS):
        await setting.client.get(session_id)
    clock = Clock()
    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(one)
    measured = clock.stop()
    expect("requests", count, done)
    return measured | {"requests": count}


async def cancel(setting: Setting, *, session_id: str, streams: int) -> Measured:
    """Cancel so many open streams at once, and watch the source until it has seen every socket close."""
    async with anyio.create_task_group() as tasks:
        await _Held(setting.client, tasks, session_id).grow_to(streams)
        expect("open sockets", streams, open_sockets(setting.base_url))
        clock = Clock()
        tasks.cancel_scope.cancel()
    # Some clients close their sockets only after their tasks have ended. That belongs to the price.
    deadline = time.monotonic() + SOCKETS_SECONDS
    while (left := open_sockets(setting.base_url)) and time.monotonic() < deadline:  # noqa: ASYNC110 - not our process
        await anyio.sleep(POLL_SECONDS)
    return clock.stop() | {"streams": streams, "sockets_left": left}


async def fan_out(setting: Setting, *, count: int, max_concurrency: int, best_seconds: float) -> Measured:
    """So many sessions against a server with a quota, which then says how many creates it has refused."""
    clock = Clock()
    succeeded = await setting.client.fan_out(count, max_concurrency)
    measured = clock.stop()
    expect("sessions that succeeded", count, succeeded)
    creates = json.loads(fetch(setting.base_url, "/control/creates"))
    expect("sessions created", count, creates["created"])
    return measured | {"sessions": count, "refused": creates["refused"], "best": best_seconds}


JOBS: dict[str, Callable[..., Awaitable[Measured]]] = {
    "stream": stream,
    "many": many,
    "idle": idle,
    "opening": opening,
    "requests": requests,
    "cancel": cancel,
    "fan_out": fan_out,
}


def run(contender: Contender, base_url: str, job: str, parameters: dict[str, Any]) -> Measured:
    """Run one job on the contender's own loop."""
    adapter: Adapter = importlib.import_module(f"{__package__}.{contender.adapter}")
    if job == "decode":
        return decode(adapter, contender.variant, base_url, **parameters)
    if job == "blocking":
        return adapter.compare(base_url, **parameters)
    connections = parameters.pop("connections", None)

    async def main() -> Measured:
        async with adapter.connect(base_url, contender.variant, connections) as client:
            return await JOBS[job](Setting(client, base_url), **parameters)

    backend = "trio" if contender.loop == "trio" else "asyncio"
    options = {"use_uvloop": True} if contender.loop == "uvloop" else {}
    return anyio.run(main, backend=backend, backend_options=options)
