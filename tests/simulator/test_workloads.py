"""Real Python and Node programs: what they see, what they print, what they return."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time

import anyio
import pytest

from enclave.simulator import Bounds
from tests.support import PATIENCE_SECONDS

pytestmark = pytest.mark.anyio

TRACEBACK = """Traceback (most recent call last):
  File "main.py", line 4, in <module>
    outer()
  File "main.py", line 3, in outer
    raise ValueError("no")
ValueError: no
"""


async def test_python_output_comes_line_by_line_as_printed(serving):
    async with serving() as api:
        run = await api.run("import sys\nfor n in range(3): print(n)\nprint('err', file=sys.stderr)")
        assert [frame["data"] for frame in run.frames if frame["kind"] == "stdout"] == ["0\n", "1\n", "2\n"]
        assert run.result == {
            "exitCode": 0,
            "stdout": "0\n1\n2\n",
            "stderr": "err\n",
            "durationMs": run.result["durationMs"],
        }
        assert run.result["durationMs"] > 0


async def test_output_arrives_while_the_program_still_runs(serving):
    async with serving() as api:
        code = "import time, sys\nprint('now')\nsys.stdout.write('half')\ntime.sleep(60)"
        session = await api.create(code)
        with anyio.fail_after(PATIENCE_SECONDS):
            async with api.open_stream(session["id"]) as frames:
                output = [frame["data"] async for frame in _until(frames, "half") if frame["kind"] == "stdout"]
        assert "".join(output) == "now\nhalf"
        assert api.sim.phases[session["id"]] == "running"


async def test_progress_that_never_pauses_and_ends_no_line_is_seen_while_it_goes_on(serving):
    async with serving() as api:
        session = await api.create("import sys, time\nwhile True: sys.stdout.write('.'); time.sleep(0.01)")
        with anyio.fail_after(PATIENCE_SECONDS):
            async with api.open_stream(session["id"]) as frames:
                while not (frame := await anext(frames)).get("data"):
                    pass
        assert set(frame["data"]) == {"."}
        assert api.sim.phases[session["id"]] == "running"


class _until:  # noqa: N801 - reads as a function
    def __init__(self, frames, text):
        self.frames, self.text, self.done = frames, text, False

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self.done:
            raise StopAsyncIteration
        frame = await anext(self.frames)
        self.done = frame.get("data") == self.text
        return frame


VALUES = [{"answer": 285}, [1, "ü", None], None, True, 1.5, "\ud83d", 2**80, {"x": [{}] * 50}]


async def test_python_returns_any_json(serving):
    async def check(api, value):
        run = await api.run(f"import json\nenclave.result(json.loads({json.dumps(json.dumps(value))}))")
        assert run.phase == "succeeded", run.output("stderr")
        assert run.result["json"] == ("\ufffd" if value == "\ud83d" else value)
        assert run.output() == ""

    async with serving() as api, anyio.create_task_group() as group:
        for value in VALUES:
            group.start_soon(check, api, value)


async def test_a_language_that_the_machine_lacks_is_refused(serving, monkeypatch):
    async with serving() as api:
        monkeypatch.setenv("PATH", "/nowhere")
        response = await api.http.post("/sessions", json={"code": "1", "language": "node"})
        assert response.status_code == 400
        assert response.json()["message"] == "language: node is not installed on this machine"


async def test_the_last_result_counts_and_a_failure_keeps_it(serving):
    async with serving() as api:
        run = await api.run("enclave.result(1)\nenclave.result(2)\nraise SystemExit(7)")
        assert (run.phase, run.result["exitCode"], run.result["json"]) == ("failed", 7, 2)


async def test_a_value_that_is_not_json_is_the_programs_own_error(serving):
    async with serving() as api:
        run = await api.run("enclave.result({1, 2})")
        assert run.result["exitCode"] == 1
        assert "TypeError: Object of type set is not JSON serializable" in run.output("stderr")
        run = await api.run("enclave.result(float('nan'))")
        assert "ValueError" in run.output("stderr")


async def test_a_python_traceback_shows_the_program_and_nothing_else(serving):
    async with serving() as api:
        run = await api.run('# main\ndef outer():\n    raise ValueError("no")\nouter()')
        assert run.phase == "failed"
        assert run.result["exitCode"] == 1
        # Python 3.13 underlines more than its predecessors.
        assert re.sub(r"^ *[~^]+\n", "", run.output("stderr"), flags=re.MULTILINE) == TRACEBACK
        run = await api.run("x = (")
        assert run.output("stderr").startswith('  File "main.py", line 1\n    x = (\n')


async def test_javascript_passed_as_python_fails_with_a_traceback_that_points_at_the_place(serving):
    async with serving() as api:
        run = await api.run('print("hi"); enclave.result({ ok: true })')
        assert (run.output(), run.result["exitCode"]) == ("hi\n", 1)
        lines = run.output("stderr").splitlines()
        assert lines[1:3] == ['  File "main.py", line 1, in <module>', '    print("hi"); enclave.result({ ok: true })']
        assert lines[-1].startswith("NameError: name 'ok' is not defined")


@pytest.mark.parametrize(
    ("code", "exit_code", "stderr"),
    [
        ("raise SystemExit", 0, ""),
        ("import sys; sys.exit('bye')", 1, "bye\n"),
        ("import os; os._exit(9)", 9, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 139, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", 143, ""),
    ],
)
async def test_the_exit_code_is_the_programs_own(serving, code, exit_code, stderr):
    async with serving() as api:
        run = await api.run(code)
        assert run.result["exitCode"] == exit_code
        assert run.output("stderr") == stderr
        assert run.phase == ("failed" if exit_code else "succeeded")


async def test_a_python_program_is_main_in_a_scrubbed_environment_of_its_own(serving, monkeypatch, nothing_left):
    monkeypatch.setenv("ENCLAVE_API_KEY", "ek_secret_secret")
    code = """
import atexit, os, sys
assert __name__ == "__main__" and sys.modules["__main__"].__dict__ is globals()
import enclave as imported
assert imported is enclave
open("made-here", "w").close()
atexit.register(lambda: print("at exit"))
enclave.result({
    "argv": sys.argv, "env": dict(os.environ), "cwd": os.getcwd(), "files": sorted(os.listdir()),
    "stdin": sys.stdin.read(), "fds": sorted(os.listdir("/proc/self/fd")), "sid": os.getsid(0) == os.getpid(),
})
"""
    async with serving(service_bindings={"db-1": "http://127.0.0.1:1", "x": "http://x"}) as api:
        run = await api.run(code, serviceBindings=["db-1"])
        assert run.phase == "succeeded", run.output("stderr")
        seen = run.result["json"]
        assert seen["argv"] == ["main.py"]
        assert seen["cwd"] == seen["env"]["HOME"] == seen["env"]["TMPDIR"]
        assert seen["files"] == ["made-here", "main.py"]
        assert seen["stdin"] == ""
        assert seen["sid"] is True
        assert seen["env"]["ENCLAVE_SESSION_ID"] == run.id
        assert seen["env"]["ENCLAVE_SVC_DB_1"] == "http://127.0.0.1:1"
        assert sorted(seen["env"]) == ["ENCLAVE_SESSION_ID", "ENCLAVE_SVC_DB_1", "HOME", "LANG", "PATH", "TMPDIR"]
        assert len(seen["fds"]) == 4  # three, and the one that lists them
        assert run.output() == "at exit\n"
        nothing_left(run.id)


async def test_invalid_utf8_becomes_replacement_characters_and_nothing_is_lost(serving):
    async with serving() as api:
        code = r"import os; os.write(1, b'a\xff\xe2\x82'); os.write(1, b'\xac\xe2\x82'); os.write(2, b'\xe4\n')"
        run = await api.run(code)
        assert run.output() == "a\ufffd\u20ac\ufffd"
        assert run.output("stderr") == "\ufffd\n"


async def test_a_long_line_comes_in_bounded_pieces(serving):
    async with serving() as api:
        run = await api.run("print('\u00fc' * 400_000)")
        pieces = [frame["data"] for frame in run.frames if frame["kind"] == "stdout"]
        assert "".join(pieces) == "\u00fc" * 400_000 + "\n"
        assert max(map(len, pieces)) <= 65_536
        assert len(pieces) > 1


async def test_a_forged_report_counts_and_does_not_show(serving):
    async with serving() as api:
        code = """
print('__ENCLAVE__ {"t":"egress","host":"forged.example","ok":true}')
print('__ENCLAVE__ {"t":"result","json":"forged"}')
print('__ENCLAVE__ {"t":"unknown"}')
print('__ENCLAVE__ not json')
print('a __ENCLAVE__ {"t":"result","json":1}')
"""
        run = await api.run(code)
        assert run.result["json"] == "forged"
        assert run.egress() == [("egress_allowed", "forged.example")]
        assert run.output() == '__ENCLAVE__ not json\na __ENCLAVE__ {"t":"result","json":1}\n'


async def test_a_report_does_not_break_a_half_printed_line(serving):
    async with serving() as api:
        run = await api.run("print('half', end='')\nenclave.result(1)\nprint(' whole')")
        assert run.output() == "half whole\n"
        assert run.result["json"] == 1


async def test_a_report_beyond_the_bound_is_dropped_with_a_notice(serving):
    async with serving() as api:
        run = await api.run("enclave.result('x' * 5_000_000)\nprint('after')")
        assert "json" not in run.result
        assert run.output() == "after\n"
        assert (
            run.output("stderr")
            == "[enclave simulator] a report of the workload was too large or too deep and was dropped\n"
        )


async def test_a_result_nested_too_deep_is_dropped_and_harms_no_other_session(serving):
    forge = """print('__ENCLAVE__ {"t":"result","json":' + '[' * %d + ']' * %d + '}')"""
    async with serving() as api:
        deep, fitting = await api.run(forge % (975, 975)), await api.run(forge % (100, 100))
        assert "json" not in deep.result
        assert re.fullmatch(r"\[enclave simulator\] a re.* was dropped\n", deep.output("stderr"))
        assert deep.output() == ""
        listed = (await api.http.get("/sessions")).json()
        assert [session["id"] for session in listed] == [fitting.id, deep.id]
        assert json.dumps(listed[0]["result"]["json"]) == "[" * 100 + "]" * 100


@pytest.mark.parametrize("digits", [1000, 5000])
async def test_a_number_of_very_many_digits_is_dropped_and_never_shows_in_the_output(serving, digits):
    number = "1" * digits
    async with serving() as api:
        run = await api.run(f"""print('__ENCLAVE__ {{"t":"result","json":{number}}}')""")
        assert run.output() == ""
        if digits == 1000:
            assert run.result["json"] == int(number)
        else:
            assert "json" not in run.result
            assert "a number of more than 1000 digits" in run.output("stderr")


async def test_a_number_that_no_float_holds_is_dropped_and_the_result_says_so(serving):
    async with serving() as api:
        run = await api.run("""print('__ENCLAVE__ {"t":"result","json":{"a":1e999999}}')""")
        assert "json" not in run.result
        assert run.result["stderr"] == run.output("stderr")
        assert run.result["stderr"] == "[enclave simulator] a result with a number that is out of range was dropped\n"


async def test_reports_with_bytes_that_are_no_text_harm_no_answer(serving):
    code = r"""
import os
os.write(1, b'__ENCLAVE__ {"t":"egress","host":"\xff.example","ok":false}\n')
os.write(1, b'__ENCLAVE__ {"t":"egress","host":{"\xff":1},"ok":false}\n')
os.write(1, b'__ENCLAVE__ {"t":"result","json":"\xfe"}\n')
"""
    async with serving() as api:
        run = await api.run(code)
        assert run.phase == "succeeded"
        assert run.egress() == [("egress_denied", "\ufffd.example"), ("egress_denied", '{"\ufffd":1}')]
        assert run.result["json"] == "\ufffd"
        for path in ("/sessions", f"/sessions/{run.id}/result", f"/sessions/{run.id}/audit"):
            assert (await api.http.get(path)).content.decode()


async def test_output_says_when_it_was_printed(serving):
    async with serving() as api:
        run = await api.run("import sys; print('out'); print('err', file=sys.stderr)")
        times = [frame["ts"] for frame in run.frames if frame["kind"] in ("phase", "stdout", "stderr")]
        assert len(times) == 5
        assert times == sorted(times)


@pytest.mark.parametrize(
    "code",
    [
        "# coding: latin-1\nprint('\u00e9')",
        "#!/usr/bin/env python\n# -*- coding: cp1252 -*-\nprint('\u00e9')",
        "# coding: utf-8\nprint('\u00e9')",
        "\ufeff# coding: utf-8\nprint('\u00e9')",
        "\ufeffprint('\u00e9')",
    ],
)
async def test_a_program_means_what_it_says_whatever_encoding_it_names(serving, code):
    async with serving() as api:
        run = await api.run(code)
        assert (run.output(), run.output("stderr")) == ("\u00e9\n", "")


@pytest.mark.parametrize("cookie", ["nonsense", "latin-1"])
async def test_an_encoding_that_cannot_be_right_is_the_programs_own_problem(serving, cookie):
    async with serving() as api:
        run = await api.run(f"# coding: {cookie}\nprint('\u20ac')")
        assert run.phase == ("failed" if cookie == "nonsense" else "succeeded")
        assert ("unknown encoding" in run.output("stderr")) == (cookie == "nonsense")


async def test_library_paths_reach_the_workload_because_its_python_may_need_them(serving, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")
    async with serving() as api:
        run = await api.run("import os; enclave.result(os.environ['LD_LIBRARY_PATH'])")
        assert run.result["json"] == "/nowhere"


LAUNCHER = "int Py_BytesMain(int, char **); int main(int argc, char **argv) { return Py_BytesMain(argc, argv); }"


@pytest.mark.skipif(not sysconfig.get_config_var("Py_ENABLE_SHARED"), reason="this Python has no library of its own")
@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler")
def test_a_python_that_finds_its_library_by_a_path_alone_runs_workloads(tmp_path):
    libraries, version = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("LDVERSION")
    (tmp_path / "launcher.c").write_text(LAUNCHER)
    compile_it = ["gcc", "-o", "python", "launcher.c", f"-L{libraries}", f"-lpython{version}"]
    subprocess.run(compile_it, cwd=tmp_path, check=True)
    program = """
import anyio
from enclave import EnclaveClient
from enclave.simulator import Simulator

async def main():
    async with Simulator().serve() as sim, EnclaveClient(sim.base_url, api_key=sim.api_key) as client:
        async with client.session("enclave.result(6 * 7)") as session:
            print((await session.result(int)).value)

anyio.run(main)
"""
    environment = {
        "LD_LIBRARY_PATH": libraries,
        "PYTHONHOME": sys.base_prefix,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PATH": os.environ["PATH"],
    }
    command = [tmp_path / "python", "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("42\n", "")


async def test_egress_entries_are_bounded(serving):
    async with serving() as api:
        run = await api.run("""for _ in range(3000): print('__ENCLAVE__ {"t":"egress","host":"h","ok":false}')""")
        assert run.trail.count("egress_denied") == 1000
        assert run.trail.count("egress_entries_dropped") == 1


async def test_node_runs_common_js_with_a_natural_main(serving, nothing_left):
    code = """
const path = require('node:path');
console.log(require.main === module, path.basename(__filename), process.argv.length);
console.error('err');
enclave.result({ answer: 285, env: Object.keys(process.env).sort(), half: '\\ud83d' });
process.exitCode = 3;
"""
    async with serving() as api:
        run = await api.run(code, language="node")
        assert run.output() == "true main.js 2\n"
        assert run.output("stderr") == "err\n"
        assert run.result["json"]["half"] == "\ufffd"
        assert run.result["json"]["env"] == ["ENCLAVE_SESSION_ID", "HOME", "LANG", "PATH", "TMPDIR"]
        assert (run.phase, run.result["exitCode"]) == ("failed", 3)
        nothing_left(run.id)


async def test_node_runs_es_modules_with_top_level_await(serving):
    code = """
import os from 'node:os';
const value = await Promise.resolve(os.EOL);
console.log(typeof require('node:fs').readFileSync);
enclave.result(value);
"""
    async with serving() as api:
        run = await api.run(code, language="node")
        assert run.phase == "succeeded", run.output("stderr")
        assert run.output() == "function\n"
        assert run.result["json"] == "\n"


@pytest.mark.parametrize("code", ["throw new Error('no')", "await Promise.reject(new Error('no'))", "let x = ;"])
async def test_a_failing_node_program_fails_with_its_own_stack(serving, code):
    async with serving() as api:
        run = await api.run(code, language="node")
        assert (run.phase, run.result["exitCode"]) == ("failed", 1)
        assert "Error" in run.output("stderr")
        assert "node_runner" not in run.output("stderr").partition("Error")[0]


async def test_node_returns_null_for_undefined_and_a_large_value_whole(serving):
    async with serving() as api:
        run = await api.run("enclave.result(undefined)", language="node")
        assert run.result["json"] is None
        run = await api.run("console.log('x'); enclave.result('y'.repeat(3_000_000))", language="node")
        assert run.result["json"] == "y" * 3_000_000
        assert run.output() == "x\n"


@pytest.mark.parametrize(
    "unit",
    [
        b"\n",
        b"y",
        b"y\n",
        b"\0",
        b"\r",
        b"\xff\n",
        b"__ENCLAVE__ \n",
        b"\0__ENCLAVE__ {\n",
        b'__ENCLAVE__ {"t":"egress"}\n',
    ],
    ids=repr,
)
async def test_a_flood_leaves_most_of_the_event_loops_time_to_others(serving, unit):
    # What is recorded of it is read in this process too, so that is little.
    async with serving(bounds=Bounds(max_log_bytes=100_000)) as api:
        cpu, wall = time.process_time(), time.perf_counter()
        run = await api.run(
            f"import os\nblock = {unit!r} * 5000\nwhile True: os.write(1, block)", limits={"wallClockMs": 500}
        )
        share = (time.process_time() - cpu) / (time.perf_counter() - wall)
        assert run.session["killReason"] == "wall_clock_exceeded"
        assert share < 0.5  # on a machine that is busy with other things it is still less
