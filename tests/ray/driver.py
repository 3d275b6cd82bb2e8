"""Drivers of runs, as programs of their own: `python driver.py CASE`. They print lines of JSON. Tests kill them."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import ray
import ray.data
from ray.cluster_utils import Cluster

import enclave.ray
from enclave import CreateSessionRequest, SessionLimits

ROWS = 60
QUIET_SECONDS = 3.0


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def start() -> None:
    if "RAY_ADDRESS" in os.environ:
        ray.init(log_to_driver=False)
    else:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)


def opened() -> Any:
    return enclave.ray.run({"purpose": "test"}, wall_clock_ms=50_000, quiet_seconds=QUIET_SECONDS)


def to_request(row: dict[str, Any]) -> CreateSessionRequest:
    return CreateSessionRequest(code=f"row {row['id']}", labels={"row": str(row["id"])})


def graded(run: enclave.ray.Run, *, actors: int = 1, **resources: Any) -> Any:
    return ray.data.range(ROWS, override_num_blocks=6).map_batches(
        enclave.ray.RunCode,
        fn_constructor_args=(run,),
        fn_constructor_kwargs={"request": to_request, "max_concurrency": 10, "type": int},
        batch_size=10,
        compute=ray.data.ActorPoolStrategy(
            size=actors, max_concurrent_calls_per_actor=2, enable_true_multi_threading=True
        ),
        **resources,
    )


def report(rows: list[dict[str, Any]]) -> None:
    say(rows=[{name: row[name] for name in ("id", "verdict", "error", "session_id")} for row in rows])


def batch() -> None:
    """All rows, and what they became."""
    start()
    with opened() as run:
        report(graded(run).take_all())


def nodes() -> None:
    """No driver, but a cluster of two nodes for one. A line of its input adds a third node, and its end is the end."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1, resources={"work": 10})
    cluster.wait_for_nodes()
    say(address=cluster.address)
    say(raylet=next(each.process.pid for each in second.all_processes["raylet"]))
    if sys.stdin.readline():
        cluster.add_node(num_cpus=1, resources={"work": 10})
        say(added=True)
        sys.stdin.read()
    cluster.shutdown()


def unwatched() -> None:
    """All rows, while somebody kills the watcher."""
    start()
    with opened() as run:
        say(opened=True)
        sys.stdin.readline()
        report(graded(run).take_all())


def work() -> None:
    """All rows, on nodes that are there for work."""
    start()
    with opened() as run:
        report(graded(run, resources={"work": 1}).take_all())


def shutdown() -> None:
    """`ray.shutdown` with sessions under way."""
    start()
    with opened() as run:
        actor = enclave.ray.SandboxActor.remote(run)
        refs = [actor.run.remote("x") for _ in range(10)]
        say(asked=len(refs))
        sys.stdin.readline()
        ray.shutdown()
    say(left=True)


def cancel() -> None:
    """`ray.cancel` of one of two calls, then the end of the run with one under way."""
    start()
    with opened() as run:
        actor = enclave.ray.SandboxActor.remote(run)
        cancelled = actor.run.remote("cancelled")  # the first call begins what the actor needs for all
        say(asked=1)
        sys.stdin.readline()
        kept = actor.run.remote("kept")
        say(asked=2)
        sys.stdin.readline()
        ray.cancel(cancelled)
        try:
            ray.get(cancelled)
        except ray.exceptions.RayError as error:
            say(cancelled=type(error).__name__)
        sys.stdin.readline()
    started = time.monotonic()
    try:
        ray.get(kept)
    except ray.exceptions.RayError as error:
        say(ended=str(error), seconds=time.monotonic() - started)


def limits() -> None:
    """Which limits and labels sessions get, what comes back, and what is refused."""
    start()
    for credential in ("ek_test_secret", b"ek_test_secret"):
        try:
            with enclave.ray.run(wall_clock_ms=1, credential=credential):
                pass
        except TypeError as error:
            say(refused=str(error))
    with opened() as run:
        actor = enclave.ray.SandboxActor.remote(run)
        short = CreateSessionRequest(code="x", limits=SessionLimits(wall_clock_ms=1_000))
        outcomes = ray.get([actor.run.remote("x", type=int), actor.run.remote(short), actor.run.remote("x", type=str)])
        say(outcomes=[type(each).__name__ for each in outcomes], verdicts=[str(each.verdict) for each in outcomes])

        try:
            ray.get(actor.run.remote("x", type=object()))
        except TypeError as error:
            say(plain=not isinstance(error, ExceptionGroup))

        def broken(row: dict[str, Any]) -> str:
            if row["id"] == 1:
                raise LookupError("no such program: \ud83d")
            return "x"

        table = ray.data.range(3).map_batches(
            enclave.ray.RunCode,
            fn_constructor_args=(run,),
            fn_constructor_kwargs={"request": broken},
            compute=ray.data.ActorPoolStrategy(size=1),
        )
        say(rows=sorted(table.take_all(), key=lambda row: row["id"]))


if __name__ == "__main__":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    globals()[sys.argv[1]]()
