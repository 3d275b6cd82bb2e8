"""The table "what gets past it" in docs/simulator.md: each row is shown to be closed, or to be open as it says.

What a workload may do depends on the machine. Root gives it a user id of its own, unless the interpreter is there for
root alone. So some tests first ask which user a workload is. Memory and disk are in test_boundaries_of_memory.py.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import psutil
import pytest

from enclave import EnclaveClient
from enclave.simulator import Simulator
from enclave.simulator._workplace import Workplace, clear_abandoned
from tests.support import PATIENCE_SECONDS

pytestmark = pytest.mark.anyio

NAMESPACES = pytest.mark.parametrize("namespaces", [True, False], ids=["namespaces", "plain"])
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


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


async def test_a_file_of_this_user_gets_past_unless_workloads_are_another_one(serving, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "secret").chmod(0o600)
    async with serving() as api:
        run = await api.run(f"print(open({str(tmp_path / 'secret')!r}).read())")
        assert ("secret\n" in run.output()) != await api.gives_users()


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
        isolated = run.isolation["proc"]
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


KILL = """
import os
for pid in PIDS:
    try: os.kill(pid, 0)
    except OSError: print("no")
    else: print("through")
"""


@NAMESPACES
async def test_another_workload_can_be_killed_only_without_namespaces_and_as_the_same_user(serving, namespaces):
    async with serving(namespaces=namespaces) as api:
        first = await api.create("import os, time; print(os.getpid(), flush=True); time.sleep(600)")
        with anyio.fail_after(PATIENCE_SECONDS):
            async with api.open_stream(first["id"]) as frames:
                while (await anext(frames))["kind"] != "stdout":
                    pass
                (pid,) = [process.pid for process in psutil.process_iter() if _runs(process, first["id"])]
                run = await api.run(KILL.replace("PIDS", f"({pid}, {os.getpid()})"))
        is_safe = run.isolation["pid"] or await api.gives_users()
        assert run.output() == ("no\n" if is_safe else "through\n") * 2
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
        is_own = await api.gives_users()
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


@pytest.mark.parametrize("namespaces", [True, False], ids=["allowlist", "denied and plain"])
async def test_native_code_gets_past_unseen_under_an_allowlist_and_without_namespaces(serving, namespaces):
    code = """
import ctypes, struct
libc = ctypes.CDLL(None)
address = struct.pack("=H", 2) + struct.pack("!H4s8x", PORT, bytes([127, 0, 0, 1]))
print(libc.connect(libc.socket(2, 1, 0), address, len(address)))
"""
    egress = {"mode": "allowlist", "allow": ["198.51.100.0/24"]} if namespaces else {"mode": "deny_all"}
    async with serving(namespaces=namespaces) as api:
        run = await api.run(code.replace("PORT", str(api.http.base_url.port)), egress=egress)
        assert (run.output(), run.egress()) == ("0\n", []), run.output("stderr")


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


@pytest.mark.parametrize("egress", ["deny_all", "allowlist"])
@pytest.mark.parametrize("parent", [pytest.param("/run", marks=ROOT), tempfile.gettempdir()])
async def test_sockets_in_run_are_out_of_reach_of_a_child_process_too_if_everything_is_denied(serving, egress, parent):
    path = f"{parent}/past-{os.getpid()}"
    check = f"import socket; socket.socket(socket.AF_UNIX).connect({path!r}); print('through')"
    code = f"import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', {check!r}], capture_output=True))"
    with listening(path):
        async with serving() as api:
            policy = {"mode": egress} | ({"allow": ["198.51.100.0/24"]} if egress == "allowlist" else {})
            run = await api.run(code, egress=policy)
    closed = run.isolation["proc"] and egress == "deny_all" and parent == "/run"
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
DEEP = '''
import os, time
os.makedirs(f"/dev/shm/{SERVER}-d/d")
for n in range(300):
    with open(f"/dev/shm/{SERVER}-d/d/{n}", "wb") as file: file.write(bytes(1 << 20))
time.sleep(60)
'''
REMOVED = '''
import os, time
file = open(f"/dev/shm/{SERVER}-r", "wb")
os.unlink(file.name)
for n in range(300): file.write(bytes(1 << 20))
time.sleep(60)
'''

async def main():
    async with Simulator(namespaces=False).serve() as sim, EnclaveClient(sim.base_url, api_key=sim.api_key) as client:
        for code in (PEEK, PEEK, SHARED, DEEP, REMOVED):
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
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE_SECONDS, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    first, second, *shared, left = map(json.loads, done.stdout.splitlines())
    for value, stdout, stderr, _ in (first, second):
        assert (stdout, stderr) == ("by its name ", "")
        assert value[1:6] == [[], *["PermissionError"] * 4]
        assert sorted(value[6]) == ["main.py", "own"]
    assert len({0, first[0][0], second[0][0]}) == 3
    assert [reason for *_, reason in shared] == ["memory_exceeded"] * 3
    assert left == []


@ROOT
@pytest.mark.parametrize("has_key", [True, False])
async def test_another_user_of_this_machine_gets_in_with_a_key(serving, has_key):
    ask = r'''exec 3<>"/dev/tcp/127.0.0.1/$1"
printf 'GET /sessions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n' "$2" >&3
read -r answer <&3; echo "$UID $answer"'''
    async with serving() as api:
        key = api.sim.api_key if has_key else "ek_other_guess"
        command = ["bash", "-c", ask, "bash", str(api.http.base_url.port), key]
        done = await anyio.run_process(command, user=65_534, group=65_534, cwd="/")
    assert done.stdout.split()[:3] == [b"65534", b"HTTP/1.1", b"200" if has_key else b"401"]


def test_a_lock_that_another_simulator_cleared_away_is_made_again(monkeypatch):
    flock = fcntl.flock

    def late(file: int, how: int) -> None:
        """Between making the file and locking it, another simulator starts and takes it for one of the dead."""
        monkeypatch.setattr(fcntl, "flock", flock)
        clear_abandoned()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    place = Workplace()
    try:
        assert place.path.with_suffix(".lock").exists()
        clear_abandoned()
        assert place.path.is_dir()
    finally:
        place.close()
    assert not place.path.with_suffix(".lock").exists()


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
            with anyio.fail_after(PATIENCE_SECONDS):
                assert await daemon.wait() == -signal.SIGKILL
                # A simulator of another process may be at it, which has killed first and now removes.
                while killed.path.exists() or killed.path.with_suffix(".lock").exists():
                    await anyio.lowlevel.checkpoint()
        assert other.returncode is None
        other.kill()
        async with EnclaveClient(living.base_url, api_key=living.api_key) as client:
            assert (await client.map(["enclave.result(1)"]))[0].verdict == "succeeded"
