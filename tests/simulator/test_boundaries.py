"""The table "what gets past it" in docs/simulator.md: each row is shown to be closed, or to be open as it says.

What a workload may do depends on the machine. Root gives it a user id of its own, unless the interpreter is there for
root alone. So some tests first ask which user a workload is.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import psutil
import pytest

from enclave import EnclaveClient
from enclave.simulator import Bounds, Simulator
from enclave.simulator._workplace import Workplace

pytestmark = pytest.mark.anyio

NAMESPACES = pytest.mark.parametrize("namespaces", [True, False], ids=["namespaces", "plain"])
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
MEMORY = {
    "a memfd": "import os\nfile = os.memfd_create('x')\nfor _ in range(300): os.write(file, bytes(1 << 20))",
    "shared memory": "file = open('/dev/shm/x', 'wb')\nfor _ in range(300): file.write(bytes(1 << 20))",
    "files in shared memory": """
for n in range(300):
    with open(f'/dev/shm/{n}', 'wb') as file: file.write(bytes(1 << 20))""",
    "a segment": """
import ctypes
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
segment = libc.shmget(0, 300 << 20, 0o1600)
address = libc.shmat(segment, None, 0)
ctypes.memset(address, 1, 300 << 20)
libc.shmdt(ctypes.c_void_p(address))""",
}


async def is_own_user(api) -> bool:
    """Whether workloads have a user id of their own."""
    run = await api.run("import os; print(os.geteuid())")
    return int(run.output()) != os.geteuid()


def in_shared_memory() -> set[Path]:
    """Without what another test leaves there for a moment."""
    return {path for path in Path("/dev/shm").iterdir() if not path.name.startswith("past-")}


def taken(path: Path) -> int:
    """The number in a file, which is removed."""
    number = int(path.read_text())
    path.unlink()
    return number


@contextmanager
def listening(path: str) -> Iterator[None]:
    """A local socket that every user may connect to."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        try:
            Path(path).chmod(0o777)
            listener.listen()
            yield
        finally:
            Path(path).unlink()


def isolation_of(run) -> dict[str, bool]:
    return run.audit[1]["detail"]["isolation"]


@pytest.mark.parametrize("kind", MEMORY)
async def test_memory_that_no_process_has_mapped_counts_and_is_given_back(serving, kind):
    before = in_shared_memory()
    async with serving() as api:
        # The file system is full a little above the limit, and that may come before the memory is measured.
        code = f"try:\n{textwrap.indent(MEMORY[kind], '    ')}\nexcept OSError: pass\nimport time; time.sleep(60)"
        run = await api.run(code, limits={"memoryMb": 64})
        if not isolation_of(run)["proc"]:
            pytest.skip("needs a mount namespace")
        assert run.session["killReason"] == "memory_exceeded"
        assert in_shared_memory() <= before


@pytest.mark.parametrize("kind", ["shared memory", "a segment"])
async def test_shared_memory_that_no_process_has_mapped_gets_past_without_namespaces(serving, kind):
    code = MEMORY[kind].replace("/dev/shm/x", f"/dev/shm/past-{os.getpid()}").replace("300", "60")
    with shared_memory_removed() as left:
        async with serving(namespaces=False) as api:
            run = await api.run(f"{code}\nimport time; time.sleep(0.3)", limits={"memoryMb": 1024})
            if kind == "shared memory":  # a segment counts as long as a process has it mapped
                assert run.audit[2]["detail"]["peakMemoryMb"] < 60, run.output("stderr")
            assert bool(left()) != await is_own_user(api)


@contextmanager
def shared_memory_removed() -> Iterator[Callable[[], set[str]]]:
    """Tells what has been left in shared memory since, and removes it in the end."""

    def present() -> set[str]:
        lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
        return {f"segment {line.split()[1]}" for line in lines} | {
            str(path) for path in Path("/dev/shm").glob(f"past-{os.getpid()}")
        }

    before = present()
    try:
        yield lambda: present() - before
    finally:
        for each in present() - before:
            if each.startswith("segment "):
                subprocess.run(["ipcrm", "--shmem-id", each.split()[1]], check=True)
            else:
                Path(each).unlink()


async def test_memory_that_is_a_file_and_mapped_is_counted_once(serving):
    code = """
import mmap, os, time
file = os.memfd_create("x")
os.ftruncate(file, 60 << 20)
memory = mmap.mmap(file, 60 << 20)
for start in range(0, 60 << 20, 1 << 20): memory[start : start + (1 << 20)] = bytes(1 << 20)
time.sleep(0.3)
"""
    async with serving() as api:
        run = await api.run(code, limits={"memoryMb": 100})
        assert run.phase == "succeeded", run.session
        assert run.audit[2]["detail"]["peakMemoryMb"] > 60


@pytest.mark.parametrize(
    "code",
    [
        "file = open('x', 'wb', 0)\nwhile True: file.write(bytes(100_000))",
        "import os\nn = 0\nwhile True:\n    n += 1\n    os.makedirs(f'{n % 7}/{n}')\n    os.mknod(f'{n % 7}/{n}/x')",
    ],
    ids=["a large file", "many small ones"],
)
async def test_a_program_that_fills_the_disk_is_killed(serving, nothing_left, code):
    async with serving(bounds=Bounds(max_disk_bytes=4_000_000)) as api:
        run = await api.run(code)
        assert run.session["killReason"] == "disk_exceeded"
        nothing_left(run.id)


async def test_a_program_that_keeps_to_the_bound_on_files_is_left_alone(serving):
    code = "for n in range(50):\n    with open('x', 'wb') as file: file.write(bytes(1_000_000))"
    async with serving(bounds=Bounds(max_disk_bytes=20_000_000)) as api:
        assert (await api.run(code)).phase == "succeeded"


async def test_files_outside_of_the_directory_get_past_the_bound(serving):
    path = Path(tempfile.gettempdir()) / f"past-{os.getpid()}"
    code = f"import time\nwith open({str(path)!r}, 'wb') as file: file.write(bytes(3_000_000))\ntime.sleep(0.3)"
    async with serving(bounds=Bounds(max_disk_bytes=1_000_000)) as api:
        try:
            assert (await api.run(code)).phase == "succeeded"
            assert path.stat().st_size == 3_000_000
        finally:
            path.unlink()


async def test_a_file_of_this_user_gets_past_unless_workloads_are_another_one(serving, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "secret").chmod(0o600)
    async with serving() as api:
        run = await api.run(f"print(open({str(tmp_path / 'secret')!r}).read())")
        assert ("secret\n" in run.output()) != await is_own_user(api)


@NAMESPACES
async def test_the_servers_environment_gets_past_only_without_namespaces_and_without_root(
    serving, monkeypatch, namespaces
):
    code = """
for pid in PIDS:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file: print(b"PATH" in file.read())
    except OSError as error:
        print(type(error).__name__)
"""
    async with serving(namespaces=namespaces) as api:
        run = await api.run(code.replace("PIDS", f"[{os.getpid()}]"))
        isolated = isolation_of(run)["proc"]
        if not isolated:
            assert run.output() == ("PermissionError\n" if os.geteuid() == 0 else "True\n")
        else:
            assert run.output() in ("FileNotFoundError\n", "False\n")


@NAMESPACES
async def test_no_capability_is_left(serving, namespaces):
    if os.geteuid() != 0 and not namespaces:
        pytest.skip("a user who has none")
    code = """
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print([status[name].strip() for name in ("CapEff", "CapPrm", "CapBnd", "NoNewPrivs")])
"""
    async with serving(namespaces=namespaces) as api:
        assert (await api.run(code)).output() == f"{[*['0' * 16] * 3, '1']}\n"


@NAMESPACES
async def test_another_workload_can_be_killed_only_without_namespaces_and_as_the_same_user(serving, namespaces):
    async with serving(namespaces=namespaces) as api:
        first = await api.create("import os, time; print(os.getpid(), flush=True); time.sleep(600)")
        with anyio.fail_after(30):
            async with api.open_stream(first["id"]) as frames:
                while (await anext(frames))["kind"] != "stdout":
                    pass
                (pid,) = [process.pid for process in psutil.process_iter() if _runs(process, first["id"])]
                run = await api.run(f"import os\ntry: os.kill({pid}, 0); print('through')\nexcept OSError: print('no')")
        is_safe = isolation_of(run)["pid"] or await is_own_user(api)
        assert run.output() == ("no\n" if is_safe else "through\n")
        await api.http.delete(f"/sessions/{first['id']}")


def _runs(process, session_id) -> bool:
    try:
        return process.environ().get("ENCLAVE_SESSION_ID") == session_id
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


async def test_a_daemon_without_its_environment_gets_past_only_without_namespaces_and_as_the_same_user(serving):
    code = """
import os, signal, subprocess
supervisor = open(f"/proc/{os.getppid()}/stat").read().rpartition(")")[2].split()[1]
daemon = subprocess.Popen(["sleep", "60"], env={}, start_new_session=True, stdout=subprocess.DEVNULL)
with open(PATH, "w") as file: file.write(str(daemon.pid))
try: os.kill(int(supervisor), signal.SIGKILL)
except PermissionError: pass
"""
    path = Path(tempfile.gettempdir(), f"daemon-{os.getpid()}")
    async with serving(namespaces=False) as api:
        is_own = await is_own_user(api)
        await api.run(code.replace("PATH", repr(str(path))))
        daemon = taken(path)
        try:
            assert psutil.pid_exists(daemon) != is_own
        finally:
            if psutil.pid_exists(daemon):
                os.kill(daemon, signal.SIGKILL)


@pytest.mark.parametrize("language", ["python", "node"])
@pytest.mark.parametrize(
    ("namespaces", "egress"),
    [(True, {"mode": "allowlist", "allow": ["198.51.100.0/24"]}), (False, {"mode": "deny_all"})],
    ids=["allowlist", "denied and plain"],
)
async def test_a_child_process_gets_past_unseen_under_an_allowlist_and_without_namespaces(
    serving, language, namespaces, egress
):
    check = "import socket; socket.create_connection(('127.0.0.1', PORT)); print('through')"
    python = (
        f"import subprocess, sys\nprint(subprocess.check_output([sys.executable, '-c', {check!r}], text=True), end='')"
    )
    node = (
        f"console.log(require('child_process').execFileSync({sys.executable!r}, ['-c', {check!r}]).toString().trim())"
    )
    async with serving(namespaces=namespaces) as api:
        code = (python if language == "python" else node).replace("PORT", str(api.http.base_url.port))
        run = await api.run(code, language=language, egress=egress)
        assert (run.output(), run.egress()) == ("through\n", []), run.output("stderr")


async def test_a_program_that_changes_the_hook_itself_gets_past_it(serving):
    code = """
import socket
enclave.result.__globals__["Egress"]._permits = lambda *_: True
socket.create_connection(("127.0.0.1", PORT))
print("through")
"""
    async with serving() as api:
        code = code.replace("PORT", str(api.http.base_url.port))
        run = await api.run(code, egress={"mode": "allowlist", "allow": ["198.51.100.0/24"]})
        assert run.output() == "through\n", run.output("stderr")


@ROOT
@pytest.mark.parametrize("egress", ["deny_all", "allowlist"])
async def test_sockets_in_run_are_out_of_reach_of_a_child_process_too_if_everything_is_denied(serving, egress):
    path = f"/run/past-{os.getpid()}"
    check = f"import socket; socket.socket(socket.AF_UNIX).connect({path!r}); print('through')"
    code = f"import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', {check!r}], capture_output=True))"
    with listening(path):
        async with serving() as api:
            policy = {"mode": egress} | ({"allow": ["198.51.100.0/24"]} if egress == "allowlist" else {})
            run = await api.run(code, egress=policy)
    closed = isolation_of(run)["proc"] and egress == "deny_all"
    assert ("FileNotFoundError" in run.output(), "through\\n" in run.output()) == (closed, not closed)


AS_ROOT = """
import json, os, sys
import anyio
from enclave import EnclaveClient, SessionLimits
from enclave.simulator import Simulator

PEEK = '''
import os
def attempt(what, *args):
    try: what(*args)
    except OSError as error: return type(error).__name__
    return "through"
open("/dev/stdout", "w").write("by its name ")
open("own", "w").write("own")
enclave.result([os.getuid(), os.getgroups(), attempt(open, f"/proc/{SERVER}/environ"), attempt(os.kill, SERVER, 0),
    attempt(os.kill, os.getppid(), 0), attempt(os.setuid, 0), os.listdir()])
'''
SHARED = '''
import time
for n in range(300):
    with open(f"/dev/shm/{SERVER}-{n}", "wb") as file: file.write(bytes(1 << 20))
time.sleep(60)
'''

async def main():
    async with Simulator(namespaces=False).serve() as sim, EnclaveClient(sim.base_url, api_key=sim.api_key) as client:
        for code in (PEEK, PEEK, SHARED):
            limits = SessionLimits(memory_mb=64)
            async with client.session(code.replace("SERVER", str(os.getpid())), limits=limits) as session:
                result = await session.result()
                print(json.dumps([result.value, result.stdout, result.stderr, result.kill_reason]))
        print(json.dumps([name for name in os.listdir("/dev/shm") if name.startswith(f"{os.getpid()}-")]))

anyio.run(main)
"""
# The interpreter of this run may be there for root alone. Within a mount namespace that is changed for the test only.
UNCOVER = """
set -e
home="$1"; shift
keep=$(mktemp -d)
mount --bind "$home" "$keep"
mount -t tmpfs -o mode=755 none /root
mkdir -p "$home"
mount --bind "$keep" "$home"
exec "$@"
"""


@ROOT
def test_root_gives_each_workload_a_user_of_its_own_who_reaches_nothing_else():
    command = [sys.executable, "-c", AS_ROOT]
    home = Path(sys.base_prefix).resolve()
    if home.is_relative_to("/root"):
        if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
            pytest.skip("needs a mount namespace")
        command = ["unshare", "-m", "sh", "-c", UNCOVER, "sh", str(home), *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    first, second, shared, left = map(json.loads, done.stdout.splitlines())
    for value, stdout, stderr, _ in (first, second):
        assert (stdout, stderr) == ("by its name ", "")
        assert value[1:6] == [[], *["PermissionError"] * 4]
        assert sorted(value[6]) == ["main.py", "own"]
    assert len({0, first[0][0], second[0][0]}) == 3
    assert (shared[3], left) == ("memory_exceeded", [])


async def test_what_a_killed_simulator_left_is_cleared_by_the_next_one_and_nothing_else():
    killed = Workplace()
    (killed.path / "directory").mkdir()
    environment = {"ENCLAVE_SESSION_ID": f"{killed.prefix}-1"}
    others = {"ENCLAVE_SESSION_ID": "s-000000-1"}
    async with (
        Simulator().serve() as living,
        await anyio.open_process(["sleep", "60"], env=environment) as daemon,
        await anyio.open_process(["sleep", "60"], env=others) as other,
    ):
        assert killed.path.exists()  # it has its lock still
        killed.unlock()  # as the kernel does for the dead
        async with Simulator().serve():
            with anyio.fail_after(20):
                assert await daemon.wait() == -signal.SIGKILL
        assert not killed.path.exists()
        assert not killed.path.with_suffix(".lock").exists()
        assert other.returncode is None
        other.kill()
        async with EnclaveClient(living.base_url, api_key=living.api_key) as client:
            assert (await client.map(["enclave.result(1)"]))[0].verdict == "succeeded"
