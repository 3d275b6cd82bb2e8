"""A test may freeze the clock with freezegun: the simulator then lives at that time."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]


@pytest.mark.parametrize("options", ["", ", real_asyncio=True"])
def test_sessions_run_at_the_time_that_a_test_has_set(run_tests, options) -> None:
    pytest.importorskip("freezegun")
    run = run_tests(f"""
        import pytest
        from freezegun import freeze_time
        from enclave import StdoutFrame

        @pytest.mark.anyio
        @pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
        async def test_it(enclave_simulator, enclave_client):
            with freeze_time("2026-01-02 03:04:05"{options}):
                enclave_simulator.script([StdoutFrame("a")], result=7)
                session = await enclave_client.run("x")
                assert (await session.result(int)).value == 7
                seen = await session.refresh()
                times = [seen.created_at, seen.started_at, seen.finished_at]
                times += [event.ts for event in await session.audit()]
                assert {{str(time) for time in times}} == {{"2026-01-02 03:04:05+00:00"}}
    """)
    run.assert_outcomes(passed=2)
