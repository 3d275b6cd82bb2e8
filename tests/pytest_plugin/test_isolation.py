"""Every test gets a control plane of its own, and nothing of it outlives the test."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

LEAK = """
    import pytest

    {mark}
    @pytest.mark.anyio
    @pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
    async def test_forgetful(enclave_simulator, enclave_client):
        enclave_simulator.script(hold=True)
        await enclave_client.run("never run")

    @pytest.mark.anyio
    async def test_tidy(enclave_simulator, enclave_client):
        async with enclave_client.session("enclave.result(1)") as session:
            assert (await session.result()).value == 1
"""


def test_faults_scripts_sessions_and_requests_end_with_their_test(run_tests) -> None:
    run = run_tests("""
        import pytest

        pytestmark = pytest.mark.anyio

        @pytest.mark.parametrize("round", [1, 2])
        async def test_untidy(round, enclave_simulator, enclave_client):
            assert (enclave_simulator.requests, enclave_simulator.phases) == ([], {})
            assert enclave_simulator.faults.armed == []
            async with enclave_client.session("enclave.result('real')") as session:
                assert (await session.result(str)).value == "real"
            enclave_simulator.script(result="scripted")
            enclave_simulator.faults.respond(500, times=1000)
    """)
    run.assert_outcomes(passed=4)


def test_a_workload_that_a_test_leaves_running_is_killed_when_the_test_has_ended(run_tests) -> None:
    run = run_tests(
        """
        import pathlib, psutil, anyio, pytest

        @pytest.mark.anyio
        async def test_forgetful(enclave_simulator, enclave_client):
            with anyio.fail_after(60):
                session = await enclave_client.run("print('up', flush=True)\\nimport time\\ntime.sleep(600)")
                async with session.stream() as frames:
                    async for frame in frames:
                        if frame.kind == "stdout":
                            break
            with open("ids", "a") as file:
                print(session.id, file=file)

        def test_afterwards():
            ids = pathlib.Path("ids").read_text().split()
            assert len(ids) == 2
            for process in psutil.Process().children(recursive=True):
                try:
                    assert process.environ().get("ENCLAVE_SESSION_ID") not in ids
                except (psutil.NoSuchProcess, psutil.ZombieProcess):
                    pass
        """
    )
    run.assert_outcomes(passed=3)


@pytest.mark.parametrize(
    ("mark", "arguments", "outcomes"),
    [
        ("", (), {"passed": 4}),
        ("", ("-o", "enclave_leaked_sessions=fail"), {"passed": 4, "errors": 2}),
        ("", ("-o", "enclave_leaked_sessions=warn", "-W", "default"), {"passed": 4, "warnings": 2}),
        ("@pytest.mark.enclave_simulator(leaked_sessions='fail')", (), {"passed": 4, "errors": 2}),
        (
            "@pytest.mark.enclave_simulator(leaked_sessions='ignore')",
            ("-o", "enclave_leaked_sessions=fail"),
            {"passed": 4},
        ),
    ],
    ids=["ignored by default", "failing", "warning", "failing by marker", "ignored by marker"],
)
def test_sessions_left_running_are_reported_as_asked(run_tests, mark, arguments, outcomes) -> None:
    run = run_tests(LEAK.format(mark=mark), *arguments)
    run.assert_outcomes(**outcomes)
    reported = "errors" in outcomes or "warnings" in outcomes
    assert ("test_forgetful[asyncio] left sessions running: s-" in str(run.stdout)) is reported
    assert "test_tidy[asyncio] left" not in str(run.stdout)


def test_the_marker_configures_the_simulator_and_the_nearest_one_counts_most(run_tests) -> None:
    run = run_tests("""
        import pytest
        from enclave import BadRequestError, PayloadTooLargeError, SessionLimits
        from enclave.simulator import Bounds, Framing

        pytestmark = [
            pytest.mark.anyio,
            pytest.mark.enclave_simulator(bounds=Bounds(max_body_bytes=200), service_bindings={"db": "http://127.0.0.1:1"}),
        ]

        @pytest.mark.parametrize("anyio_backend", ["asyncio"])
        class TestOptions:
            async def test_of_the_module(self, enclave_simulator, enclave_client):
                enclave_simulator.script()
                async with enclave_client.session("x", service_bindings=["db"]):
                    pass
                with pytest.raises(PayloadTooLargeError):
                    await enclave_client.run("x" * 200)

            @pytest.mark.enclave_simulator(bounds=Bounds(max_body_bytes=1000), api_key="ek_test_secret")
            async def test_of_the_test(self, enclave_simulator, enclave_client):
                assert enclave_simulator.api_key == "ek_test_secret"
                enclave_simulator.framing = Framing(ids=False)
                assert not enclave_simulator.framing.ids
                enclave_simulator.script()
                async with enclave_client.session("x" * 200, service_bindings=["db"]) as session:
                    await session.result()
    """)
    run.assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("leaked_sessions='maybe'", "expected one of ignore, warn, fail, got 'maybe'"),
        ("'fail'", "takes keyword arguments only"),
        ("max_runing=1", "unexpected keyword argument 'max_runing'"),
    ],
)
def test_a_marker_that_cannot_be_meant_is_an_error_that_says_so(run_tests, marker, message) -> None:
    run = run_tests(f"""
        import pytest

        @pytest.mark.enclave_simulator({marker})
        def test_it(enclave_simulator):
            raise AssertionError("not reached")
    """)
    run.assert_outcomes(errors=1)
    assert message in str(run.stdout)


def test_an_option_that_cannot_be_meant_is_an_error_that_says_so(run_tests) -> None:
    run = run_tests("def test_it(): pass", "-o", "enclave_leaked_sessions=maybe")
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    assert "enclave_leaked_sessions: expected one of ignore, warn, fail, got 'maybe'" in str(run.stderr)


def test_no_credential_shows_when_a_test_fails(run_tests) -> None:
    run = run_tests(
        """
        import pytest

        @pytest.mark.enclave_simulator(api_key="ek_test_hunter2")
        @pytest.mark.anyio
        @pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
        async def test_it(enclave_simulator, enclave_client):
            enclave_simulator.faults.respond(500, path="/sessions", times=9)
            await enclave_client.run("x")
        """,
        "--showlocals",
    )
    run.assert_outcomes(failed=2)
    shown = str(run.stdout).replace('@pytest.mark.enclave_simulator(api_key="ek_test_hunter2")', "")
    assert "ServerError" in shown
    assert "hunter2" not in shown
