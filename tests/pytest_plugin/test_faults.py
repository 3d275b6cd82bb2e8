"""Every documented fault and difference works through the fixtures, and costs a test no time."""

from __future__ import annotations

pytest_plugins = ["pytester"]


def test_every_fault_of_a_request_can_be_armed_through_the_fixture(run_tests) -> None:
    run = run_tests("""
        import anyio, pytest
        from enclave import EnclaveError

        CREATE = {"method": "POST", "path": "/sessions"}

        ARM = {
            "respond": lambda faults: faults.respond(500, **CREATE),
            "respond late": lambda faults: faults.respond(504, when="after", **CREATE),
            "refuse": lambda faults: faults.refuse(**CREATE),
            "lose_response": lambda faults: faults.lose_response(after_bytes=3, **CREATE),
            "delay": lambda faults: faults.delay(0, when="after", **CREATE),
            "rewrite": lambda faults: faults.rewrite(lambda session: session, **CREATE),
        }

        @pytest.mark.parametrize("name", ARM)
        @pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
        @pytest.mark.anyio
        async def test_it(enclave_simulator, enclave_client, name):
            fault = ARM[name](enclave_simulator.faults)
            enclave_simulator.script()
            enclave_simulator.script()
            with anyio.fail_after(60):
                try:
                    await enclave_client.run("x")
                except EnclaveError:
                    assert name not in ("delay", "rewrite")
            assert fault.hits == 1
    """)
    run.assert_outcomes(passed=12)


def test_every_fault_of_a_stream_and_every_difference_can_be_armed_through_the_fixture(run_tests) -> None:
    run = run_tests("""
        from typing import get_args
        from enclave.simulator import Difference

        def test_it(enclave_simulator):
            faults = enclave_simulator.faults
            armed = [
                faults.drop_stream(after_frames=1, after_bytes=2, reset=True, also=True),
                faults.end_stream(after_frames=1),
                faults.stall_stream(seconds=0.1),
                faults.inject(b": hello\\n\\n", path="/.*"),
            ]
            assert faults.armed == armed
            faults.differ(*get_args(Difference), times=2)
            assert len(faults.armed) == 4 + len(get_args(Difference))
            faults.clear()
            assert faults.armed == []
    """)
    run.assert_outcomes(passed=1)


def test_the_fixtures_client_does_not_wait_between_retries(run_tests) -> None:
    run = run_tests("""
        import pytest
        from enclave import RateLimitError

        pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])]

        @pytest.fixture(autouse=True)
        def no_waiting(monkeypatch):
            import anyio

            sleep = anyio.sleep

            async def refuse(seconds):
                assert seconds == 0, f"the client waits {seconds} s"
                await sleep(0)

            monkeypatch.setattr("anyio.sleep", refuse)

        async def test_after_errors(enclave_simulator, enclave_client):
            enclave_simulator.faults.respond(503, times=2, retry_after=30)
            enclave_simulator.faults.refuse(times=2)
            assert (await enclave_client.health()).ok
            assert len(enclave_simulator.requests) == 5

        async def test_after_too_many(enclave_simulator, enclave_client):
            enclave_simulator.faults.respond(429, times=None)
            with pytest.raises(RateLimitError):
                await enclave_client.list()
    """)
    run.assert_outcomes(passed=4)
