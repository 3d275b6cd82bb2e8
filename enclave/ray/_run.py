"""`run`: the block on the driver that all sessions of a run belong to."""

from __future__ import annotations

import subprocess
import sys
import threading
import uuid
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import anyio
import msgspec
import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from enclave import CreateSessionRequest, EnclaveClient, SessionLimits, UsageError

from ._access import Access, Credential
from ._ending import LifelineActor, LifelineName, ReaperActor
from ._labels import RUN
from ._sweeping import sweep_once, sweep_until_quiet
from ._watcher import DONE, Order

_STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Run:
    """What a block of `run` gives, to be passed on to `RunCode` and `SandboxActor`.

    It holds no secret, so Ray may pickle and store it.
    """

    labels: Mapping[str, str]
    """On every session of the run. One of them is unique to the run."""
    wall_clock_ms: int
    """The most that a session may run, in milliseconds. It ends sessions that nobody is left to sweep."""
    quiet_seconds: float
    """How long no session of the run may have shown up, in seconds, before a sweep is complete."""
    access: Access = field(repr=False)
    lifeline: LifelineName = field(repr=False)

    def bounded(self, request: CreateSessionRequest | str) -> CreateSessionRequest:
        """The request with the run's wall-clock limit, unless its own is shorter.

        Raises:
            TypeError: it is neither source text nor a `CreateSessionRequest`.
        """
        if isinstance(request, str):
            request = CreateSessionRequest(code=request)
        if not isinstance(request, CreateSessionRequest):
            raise TypeError(f"request: expected source text or a CreateSessionRequest, got {type(request).__name__}")
        limits = request.limits or SessionLimits()
        own = limits.wall_clock_ms
        if own is not None and own <= self.wall_clock_ms:
            return request
        limits = msgspec.structs.replace(limits, wall_clock_ms=self.wall_clock_ms)
        return msgspec.structs.replace(request, limits=limits)


@contextmanager
def run(
    labels: Mapping[str, str] | None = None,
    *,
    wall_clock_ms: int,
    quiet_seconds: float = 10.0,
    base_url: str | None = None,
    credential: Credential | None = None,
) -> Generator[Run]:
    """Run sessions on Ray in a block on the driver, and leave none behind, however the block or the driver ends.

    ::

        ray.init()
        with enclave.ray.run({"team": "evals"}, wall_clock_ms=60_000) as run:
            rows.map_batches(enclave.ray.RunCode, fn_constructor_args=(run,), ...).write_parquet(...)

    Leaving the block stops the work first: every worker of the run cancels what it runs and refuses more. Then the
    sessions with the run's label are swept until none has shown up for `quiet_seconds`. If an exception leaves the
    block, one pass is made, and the rest is left to a process of its own, so that Ctrl-C does not hang.

    Args:
        labels: for every session of the run, beside one that is unique to it.
        wall_clock_ms: the most that a session may run, in milliseconds. It ends sessions that nobody is left to sweep,
            as when the driver's machine and the cluster die together.
        quiet_seconds: how long no session of the run may have shown up before a sweep is complete. Choose it longer
            than the control plane takes to create a session.
        base_url: the control plane. By default each process takes it from its own ``ENCLAVE_BASE_URL``.
        credential: gives the API key in each process that needs it. By default that is ``ENCLAVE_API_KEY`` of its
            environment. A key never travels through Ray.

    Raises:
        UsageError: Ray is not initialised.
        TypeError, ValueError: an argument cannot be used. The message names it.
        EnclaveError: the sweep failed. A process of its own goes on trying.
        TimeoutError: sessions of the run kept showing up for two minutes. A process of its own goes on trying.
    """
    access = Access(base_url, credential)
    _check(wall_clock_ms, quiet_seconds)
    if not ray.is_initialized():
        raise UsageError("Ray is not initialised. Call ray.init() first")
    unique = {RUN: uuid.uuid4().hex}
    EnclaveClient(base_url, api_key=access.key(), labels=labels)  # a mistake in one of these shows here
    with _watched(access, unique, quiet_seconds) as swept:
        name = LifelineName(f"enclave-lifeline-{unique[RUN]}", ray.get_runtime_context().namespace)
        lifeline = LifelineActor.options(name=name.name).remote()
        try:
            ray.get(lifeline.ready.remote())
            _start_reaper(access, unique, quiet_seconds, name)
            yield Run({**(labels or {}), **unique}, wall_clock_ms, quiet_seconds, access, name)
        except BaseException as error:
            _stop_work(lifeline)
            _sweep_as_far_as_possible(access, unique, error)
            raise
        _stop_work(lifeline)
        _in_own_loop(access, lambda client: sweep_until_quiet(client, unique, quiet_seconds))
        swept()


def _check(wall_clock_ms: int, quiet_seconds: float) -> None:
    if not isinstance(wall_clock_ms, int) or isinstance(wall_clock_ms, bool):
        raise TypeError(f"wall_clock_ms: expected a whole number of milliseconds, got {type(wall_clock_ms).__name__}")
    if wall_clock_ms < 1:
        raise ValueError(f"wall_clock_ms: expected a whole number from 1, got {wall_clock_ms}")
    if not isinstance(quiet_seconds, int | float) or isinstance(quiet_seconds, bool):
        raise TypeError(f"quiet_seconds: expected a number of seconds, got {type(quiet_seconds).__name__}")
    if not quiet_seconds >= 0:
        raise ValueError(f"quiet_seconds: expected a number of seconds from 0, got {quiet_seconds}")


@contextmanager
def _watched(access: Access, labels: dict[str, str], quiet_seconds: float) -> Generator[Callable[[], None]]:
    """Keep a watcher process for the length of the block. Gives what tells it that there is nothing left to do."""
    watcher = subprocess.Popen(
        [sys.executable, "-m", "enclave.ray._watcher"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    pipe = watcher.stdin
    assert pipe is not None  # noqa: S101 - for type checkers
    # The key goes through the pipe, where no other process can read it, and not through Ray or a command line.
    pipe.write(msgspec.json.encode(Order(labels, quiet_seconds, access.base_url, access.key())) + b"\n")
    pipe.flush()

    def swept() -> None:
        # A watcher that somebody has killed is no fault of the run's, for the driver itself has swept.
        with suppress(BrokenPipeError, subprocess.TimeoutExpired):
            pipe.write(DONE)
            pipe.flush()
            watcher.wait(_STOP_SECONDS)

    try:
        yield swept
    finally:
        with suppress(BrokenPipeError):  # of what could not be written above
            pipe.close()
        if watcher.poll() is None:
            # It sweeps on by itself. Somebody has to collect its exit status, and nobody should wait for that here.
            threading.Thread(target=watcher.wait, name="enclave-watcher", daemon=True).start()


def _start_reaper(access: Access, labels: dict[str, str], quiet_seconds: float, lifeline: LifelineName) -> None:
    here = ray.get_runtime_context().get_node_id()
    others = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    if not others:
        return
    reaper = ReaperActor.options(
        name=f"enclave-reaper-{labels[RUN]}",
        lifetime="detached",
        scheduling_strategy=NodeAffinitySchedulingStrategy(others[0], soft=True),
    ).remote(access, labels, quiet_seconds, lifeline)
    ray.get(reaper.ready.remote())


def _stop_work(lifeline: ray.ActorHandle) -> None:
    # Asked first, for after `ray.shutdown` a call of Ray's would start it again.
    if not ray.is_initialized():
        return
    try:
        ray.get(lifeline.end.remote(), timeout=_STOP_SECONDS)
    except ray.exceptions.RayError:
        ray.kill(lifeline, no_restart=True)  # which ends the waits as well


def _sweep_as_far_as_possible(access: Access, labels: dict[str, str], error: BaseException) -> None:
    try:
        _in_own_loop(access, lambda client: sweep_once(client, labels))
    except Exception as failure:  # noqa: BLE001 - the body's own exception goes on, and the watcher sweeps
        error.add_note(f"sweeping the run's sessions failed, and is left to the watcher: {failure}")


def _in_own_loop(access: Access, sweep: Callable[[EnclaveClient], Awaitable[object]]) -> None:
    """Run a sweep to its end, in a thread of its own: the driver may be in an event loop, as in a notebook."""
    failures: list[Exception] = []

    async def main() -> None:
        async with access.client() as client:
            await sweep(client)

    def thread() -> None:
        try:
            anyio.run(main)
        except Exception as error:  # noqa: BLE001 - raised below, in the caller's thread
            failures.append(error)

    running = threading.Thread(target=thread, name="enclave-sweep", daemon=True)
    running.start()
    running.join()
    for failure in failures:
        raise failure
