"""What is left on the control plane after something of Ray's was killed: no session, whatever it was."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from tests.support.drivers import wait_until

GONE_SECONDS = 30.0
RAYS_OWN_SECONDS = 120.0
"""Ray's own processes may outlive a killed driver by a minute."""
ROWS = 60


def each_row_once(rows: list[dict]) -> bool:
    return sorted(row["id"] for row in rows) == list(range(ROWS))


def test_a_run_that_is_left_alone_leaves_no_session_and_no_process(plane, driver):
    plane.will_run(ROWS, seconds=0.2)
    run = driver("batch")
    rows = run.says("rows")
    run.ends()
    assert each_row_once(rows)
    assert {row["verdict"] for row in rows} == {"succeeded"}
    assert (plane.created, plane.live) == (ROWS, 0)
    wait_until("no process is left", lambda: not run.processes(), RAYS_OWN_SECONDS)


def test_a_worker_killed_in_mid_batch_leaves_nothing_and_every_row_comes_once(plane, driver, record_property):
    plane.will_run(10, hold=True)
    plane.will_run(500, seconds=0.1)
    run = driver("batch")
    wait_until("sessions run", lambda: plane.phases["running"] >= 10)
    first = {session.id for session in plane.sessions()}
    run.processes("ray::MapWorker")[0].kill()
    record_property(
        "gone after seconds",
        wait_until("the dead worker's sessions are gone", lambda: plane.are_gone(first), GONE_SECONDS),
    )
    rows = run.says("rows")
    run.ends()
    assert each_row_once(rows)
    assert {row["verdict"] for row in rows} == {"succeeded"}
    assert plane.live == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_driver_that_is_killed_leaves_no_session(plane, driver, record_property, number):
    plane.will_run(500, hold=True)
    run = driver("batch")
    wait_until("sessions run", lambda: plane.phases["running"] >= 10)
    os.kill(run.process.pid, number)
    record_property("gone after seconds", wait_until("they are gone", lambda: plane.live == 0, GONE_SECONDS))
    created = plane.created
    run.process.wait(60)
    wait_until("no process is left", lambda: not run.processes(), RAYS_OWN_SECONDS)
    assert (plane.created, plane.live) == (created, 0)


def test_a_watcher_that_is_killed_costs_a_run_nothing(plane, driver):
    plane.will_run(ROWS)
    run = driver("unwatched")
    assert run.says("opened")
    for watcher in run.processes("enclave.ray._watcher"):
        watcher.kill()
    run.go_on()
    assert each_row_once(run.says("rows"))
    run.ends()
    assert plane.live == 0


def test_a_node_that_dies_leaves_nothing_and_every_row_comes_once(plane, driver, record_property):
    plane.will_run(10, hold=True)
    plane.will_run(500, seconds=0.1)
    nodes = driver("nodes")
    run = driver("work", address=nodes.says("address"))
    raylet = nodes.says("raylet")
    wait_until("sessions run", lambda: plane.phases["running"] >= 10)
    nodes.go_on()
    assert nodes.says("added")  # where the work goes on
    psutil.Process(raylet).kill()
    first = {session.id for session in plane.sessions()}
    record_property(
        "gone after seconds",
        wait_until("the dead node's sessions are gone", lambda: plane.are_gone(first), GONE_SECONDS),
    )
    rows = run.says("rows")
    run.ends()
    assert each_row_once(rows)
    assert plane.live == 0


def test_a_driver_that_is_killed_on_a_cluster_leaves_no_session(plane, driver, record_property):
    plane.will_run(500, hold=True)
    nodes = driver("nodes")
    run = driver("batch", address=nodes.says("address"))
    wait_until("sessions run", lambda: plane.phases["running"] >= 10)
    for watcher in run.processes("enclave.ray._watcher"):
        watcher.kill()  # so that the reaper on the other node is what is left
    run.process.kill()
    record_property("gone after seconds", wait_until("they are gone", lambda: plane.live == 0, GONE_SECONDS))


def test_ray_cancel_tears_the_session_down_and_the_end_of_the_run_the_others(plane, driver):
    plane.will_run(2, hold=True)
    run = driver("cancel")
    for calls in (1, 2):
        assert run.says("asked") == calls
        wait_until("sessions run", lambda calls=calls: plane.phases["running"] == calls)
        run.go_on()
    assert "Cancelled" in run.says("cancelled")
    wait_until("one session is gone", lambda: plane.live == 1, GONE_SECONDS)
    run.go_on()
    assert "the run has ended" in run.says("ended")
    run.ends()
    assert plane.live == 0


def test_ray_shutdown_with_sessions_under_way_leaves_none(plane, driver):
    plane.will_run(10, hold=True)
    run = driver("shutdown")
    wait_until("sessions run", lambda: plane.phases["running"] == 10)
    run.go_on()
    assert run.says("left")
    run.ends()
    assert plane.live == 0
    wait_until("no process is left", lambda: not run.processes(), RAYS_OWN_SECONDS)


def test_a_control_plane_that_is_away_for_ten_seconds_costs_no_row(plane, driver):
    plane.will_run(500, seconds=1)
    run = driver("batch")
    wait_until("sessions run", lambda: plane.phases["running"] >= 10)
    plane.go_away()
    time.sleep(10)
    plane.come_back()
    rows = run.says("rows")
    run.ends()
    assert each_row_once(rows)
    assert {row["verdict"] for row in rows} <= {"succeeded", "infrastructure"}
    assert plane.live == 0


def test_sessions_carry_the_limit_and_the_labels_and_faults_are_columns(plane, driver):
    plane.will_run(10)
    run = driver("limits")
    assert "ENCLAVE_API_KEY" in run.says("refused")
    assert "ENCLAVE_API_KEY" in run.says("refused")
    assert run.says("outcomes") == ["Completed", "Completed", "Errored"]
    assert run.says("plain") is True
    rows = run.says("rows")
    run.ends()
    assert [row["verdict"] for row in rows] == ["succeeded", "client", "succeeded"]
    assert rows[1]["error"] == "LookupError: no such program: ?"
    assert [row["value"] for row in rows] == ["7", None, "7"]
    sessions = plane.sessions()
    assert {session.limits.wall_clock_ms for session in sessions} == {50_000, 1_000}
    assert all(session.labels["purpose"] == "test" for session in sessions)
    assert len({session.labels["enclave-sdk.ray.run"] for session in sessions}) == 1
