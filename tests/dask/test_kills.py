"""What is left on the control plane after something of Dask's was killed: no session, whatever it was."""

from __future__ import annotations

import os
import signal

from tests.support.drivers import Driver, wait_until

GONE_SECONDS = 30.0
ROWS = 60
AT_ONCE = 20
"""Two workers, each with a partition of ten rows."""


def each_row_once(rows: list[dict]) -> bool:
    return sorted(row["id"] for row in rows) == list(range(ROWS))


def workers(run: Driver) -> list:
    """The processes of the two workers, oldest first. Others of Dask's are the nannies' helpers."""
    return sorted(run.processes("from multiprocessing.spawn"), key=lambda process: process.create_time())


def test_a_run_that_is_left_alone_leaves_no_session_and_no_process(plane, driver):
    plane.will_run(ROWS, seconds=0.2)
    run = driver("batch")
    rows = run.says("rows")
    run.ends()
    assert each_row_once(rows)
    assert {row["verdict"] for row in rows} == {"succeeded"}
    assert (plane.created, plane.live) == (ROWS, 0)
    wait_until("no process is left", lambda: not run.processes())


def test_a_worker_killed_in_mid_partition_leaves_nothing_and_every_row_comes_once(plane, driver, record_property):
    plane.will_run(AT_ONCE, hold=True)
    plane.will_run(500, seconds=0.1)
    run = driver("batch")
    wait_until("sessions run", lambda: plane.phases["running"] == AT_ONCE)
    parts: dict[str, set[str]] = {}
    for session in plane.sessions():
        parts.setdefault(session.labels["dask-part"], set()).add(session.id)
    workers(run)[-1].kill()
    record_property(
        "gone after seconds",
        wait_until("those of one partition are gone", lambda: any(map(plane.are_gone, parts.values())), GONE_SECONDS),
    )
    assert plane.phases["running"] >= AT_ONCE // 2  # the other worker goes on, so the run has not ended
    plane.let_go()
    rows = run.says("rows")
    run.ends()
    assert each_row_once(rows)
    assert {row["verdict"] for row in rows} == {"succeeded"}
    assert plane.created == ROWS + AT_ONCE // 2  # those of the dead worker's partition, once more
    assert plane.live == 0


def test_a_partition_that_costs_too_many_workers_is_given_up_loudly(plane, driver):
    plane.will_run(500, hold=True)
    run = driver("batch", DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0")
    wait_until("sessions run", lambda: plane.phases["running"] == AT_ONCE)
    workers(run)[-1].kill()
    assert run.says("error") == "KilledWorker"
    assert run.process.wait(GONE_SECONDS) != 0
    assert plane.live == 0


def test_a_driver_that_is_interrupted_leaves_no_session(plane, driver, record_property):
    plane.will_run(500, hold=True)
    run = driver("batch")
    wait_until("sessions run", lambda: plane.phases["running"] == AT_ONCE)
    os.kill(run.process.pid, signal.SIGINT)
    record_property("gone after seconds", wait_until("they are gone", lambda: plane.live == 0, GONE_SECONDS))
    assert run.says("error") == "KeyboardInterrupt"
    created = plane.created
    run.process.wait(GONE_SECONDS)
    wait_until("no process is left", lambda: not run.processes())
    assert (plane.created, plane.live) == (created, 0)


def test_sessions_of_a_killed_driver_end_with_their_wall_clock_limit(plane, driver, record_property):
    run = driver("endless")
    wait_until("sessions run", lambda: plane.phases["running"] == AT_ONCE)
    run.process.kill()
    wait_until("no process is left", lambda: not run.processes(), GONE_SECONDS)
    record_property(
        "ended after seconds", wait_until("they have ended", lambda: not plane.phases["running"], GONE_SECONDS)
    )
    assert plane.created == AT_ONCE


def test_a_driver_that_is_killed_leaves_the_cluster_to_finish_what_runs_and_begin_nothing(plane, driver):
    plane.will_run(500, hold=True)
    cluster = driver("cluster")
    run = driver("batch", DASK_ADDRESS=cluster.says("address"))
    wait_until("sessions run", lambda: plane.phases["running"] == AT_ONCE)
    run.process.kill()
    run.process.wait()
    plane.let_go()
    wait_until("they are gone", lambda: plane.live == 0, GONE_SECONDS)
    cluster.process.stdin.close()
    cluster.ends()
    assert (plane.created, plane.live) == (AT_ONCE, 0)
