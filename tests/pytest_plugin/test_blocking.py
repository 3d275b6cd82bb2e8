"""`sync_enclave_client` in tests that run no event loop."""

from __future__ import annotations

pytest_plugins = ["pytester"]


def test_a_synchronous_test_has_a_client_of_its_simulator(run_tests) -> None:
    run_tests("""
        import threading
        import pytest
        from enclave import ServiceUnavailableError, StdoutFrame, SyncEnclaveClient

        BEFORE = set(threading.enumerate())  # those of tests around this one

        def test_a_submission(enclave_simulator, sync_enclave_client: SyncEnclaveClient):
            enclave_simulator.script([StdoutFrame("hello")], result=42)
            with sync_enclave_client.session("x") as session:
                assert session.result(int).value == 42

        def test_retries_take_no_time(enclave_simulator, sync_enclave_client: SyncEnclaveClient):
            enclave_simulator.faults.respond(503, retry_after=3600)
            assert sync_enclave_client.list() == []

        def test_no_thread_is_left():
            assert "enclave" not in [thread.name for thread in set(threading.enumerate()) - BEFORE]
        """).assert_outcomes(passed=3)
