"""The fixtures serve every kind of test: on anyio's, pytest-asyncio's and pytest-trio's loops, and on none."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

SCRIPTED = """
    import anyio, pytest
    from enclave import StderrFrame, StdoutFrame

    {mark}
    async def test_of_a_service(enclave_simulator, enclave_client):
        script = enclave_simulator.script([StdoutFrame("a"), StderrFrame("b")], result={{"total": 3}}, hold=True)
        with anyio.fail_after(60):
            async with enclave_client.session("never run", labels={{"for": "test"}}) as session:
                assert enclave_simulator.running_sessions == [session.id]
                async with session.stream() as frames:
                    script.push(StdoutFrame("c"))
                    script.release()
                    shown = [frame.data async for frame in frames if frame.kind in ("stdout", "stderr")]
                assert shown == ["a", "b", "c"]
                assert (await session.result()).value == {{"total": 3}}
        assert script.session_id == session.id
        assert enclave_simulator.running_sessions == []
        assert enclave_simulator.phases == {{session.id: "torn_down"}}
        assert [request.method for request in enclave_simulator.requests] == ["POST", "GET", "GET", "DELETE"]

    {mark}
    async def test_of_real_code_and_faults(enclave_simulator, enclave_client):
        fault = enclave_simulator.faults.respond(503, path="/sessions", retry_after=0)
        with anyio.fail_after(60):
            async with enclave_client.session("enclave.result(6 * 7)") as session:
                assert (await session.result(int)).value == 42
            await enclave_simulator.until(lambda simulator: simulator.unreclaimed_sessions == 0)
        assert (enclave_simulator.faults.armed, fault.hits) == ([], 1)

    {mark}
    async def test_that_fails_in_the_middle_of_a_stream(enclave_simulator, enclave_client):
        enclave_simulator.script([StdoutFrame("a")], hold=True)
        with anyio.fail_after(60):
            async with enclave_client.session("x") as session, session.stream() as frames:
                async for frame in frames:
                    assert frame.kind != "stdout", "as intended"
"""


def test_anyios_plugin_runs_them_on_asyncio_and_on_trio(run_tests, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONDEVMODE", "1")  # asyncio's debug mode, and warnings of every resource not closed
    run = run_tests(SCRIPTED.format(mark="@pytest.mark.anyio"), own_process=True)
    run.assert_outcomes(passed=4, failed=2)
    assert str(run.stdout).count("AssertionError: as intended") >= 2


@pytest.mark.parametrize(("mode", "mark"), [("strict", "@pytest.mark.asyncio"), ("auto", "")])
def test_pytest_asyncio_runs_them(run_tests, mode, mark) -> None:
    pytest.importorskip("pytest_asyncio")
    options = (f"--asyncio-mode={mode}", "-o", "asyncio_default_fixture_loop_scope=function")
    run = run_tests(SCRIPTED.format(mark=mark), *options, own_process=True, plugins=("asyncio",))
    run.assert_outcomes(passed=2, failed=1)
    run.stdout.fnmatch_lines(["*AssertionError: as intended*"])


def test_pytest_trio_runs_them(run_tests) -> None:
    pytest.importorskip("pytest_trio")
    run = run_tests(SCRIPTED.format(mark="@pytest.mark.trio"), own_process=True, plugins=("trio",))
    run.assert_outcomes(passed=2, failed=1)
    run.stdout.fnmatch_lines(["*AssertionError: as intended*"])


FIXTURES = """
    import pytest{more}
    from enclave import StdoutFrame

    @{fixture}
    async def session(enclave_simulator, enclave_client):
        enclave_simulator.script([StdoutFrame("a")], result=7)
        async with enclave_client.session("x") as session:
            yield session

    @{fixture}
    async def frames(session):
        async with session.stream() as frames:
            yield frames

    {mark}
    async def test_of_a_session(session):
        assert (await session.result(int)).value == 7

    {mark}
    async def test_of_a_stream(frames):
        assert [frame.kind async for frame in frames][-1] == "end"
"""


@pytest.mark.parametrize(("plugin", "passing"), [("anyio", 4), ("trio", 2)])
def test_a_fixture_may_yield_a_session_and_a_stream(run_tests, plugin, passing) -> None:
    source = FIXTURES.format(more="", fixture="pytest.fixture", mark=f"@pytest.mark.{plugin}")
    run_tests(source, own_process=True, plugins=(plugin,)).assert_outcomes(passed=passing)


def test_with_pytest_asyncio_a_fixture_may_yield_a_session(run_tests) -> None:
    source = FIXTURES.format(more=", pytest_asyncio", fixture="pytest_asyncio.fixture", mark="@pytest.mark.asyncio")
    options = ("-o", "asyncio_default_fixture_loop_scope=function", "-k", "test_of_a_session")
    run_tests(source, *options, own_process=True, plugins=("asyncio",)).assert_outcomes(passed=1, deselected=1)


def test_a_synchronous_test_uses_them_with_loops_of_its_own(run_tests) -> None:
    run = run_tests("""
        import anyio, pytest

        def test_of_a_command(enclave_simulator, enclave_client):
            async def main():
                async with enclave_client.session("x") as session:
                    return (await session.result(str)).value

            for backend in ("asyncio", "trio"):
                enclave_simulator.script(result=backend)
                assert anyio.run(main, backend=backend) == backend
            enclave_simulator.wait_until(lambda simulator: simulator.unreclaimed_sessions == 0)
            with pytest.raises(TimeoutError):
                enclave_simulator.wait_until(lambda simulator: simulator.open_streams > 0, seconds=0.01)
    """)
    run.assert_outcomes(passed=1)


def test_waiting_for_the_simulator_can_be_cancelled_and_leaves_both_usable(run_tests) -> None:
    run = run_tests("""
        import anyio, pytest
        from enclave import NotFoundError

        @pytest.mark.anyio
        async def test_impatient(enclave_simulator, enclave_client):
            with anyio.fail_after(60):
                with anyio.move_on_after(0.01) as scope:
                    await enclave_simulator.until(lambda simulator: False)
                assert scope.cancelled_caught
                with pytest.raises(NotFoundError):
                    await enclave_client.get("s-none")
                await enclave_simulator.until(lambda simulator: simulator.open_streams == 0)
    """)
    run.assert_outcomes(passed=2)
