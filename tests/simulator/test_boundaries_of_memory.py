"""Memory and disk in the table "what gets past it" of docs/simulator.md: what is counted, and what gets past."""

from __future__ import annotations

import os
import subprocess
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from enclave.simulator import Bounds

pytestmark = pytest.mark.anyio

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


def in_shared_memory() -> set[Path]:
    """Without what another test leaves there for a moment."""
    return {path for path in Path("/dev/shm").iterdir() if not path.name.startswith("past-")}


@pytest.mark.parametrize("kind", MEMORY)
async def test_memory_that_no_process_has_mapped_counts_and_is_given_back(serving, kind):
    before = in_shared_memory()
    async with serving() as api:
        # The file system is full a little above the limit, and that may come before the memory is measured.
        code = f"try:\n{textwrap.indent(MEMORY[kind], '    ')}\nexcept OSError: pass\nimport time; time.sleep(60)"
        run = await api.run(code, limits={"memoryMb": 64})
        if not run.isolation["proc"]:
            pytest.skip("needs a mount namespace")
        assert run.session["killReason"] == "memory_exceeded"
        assert in_shared_memory() <= before


@pytest.mark.parametrize("kind", ["shared memory", "a segment"])
async def test_shared_memory_that_no_process_has_mapped_gets_past_without_namespaces(serving, kind):
    code = MEMORY[kind].replace("/dev/shm/x", f"/dev/shm/past-{os.getpid()}").replace("300", "60")
    code = code.replace("shmget(0, ", f"shmget({os.getpid()}, ")
    with shared_memory_removed() as left:
        async with serving(namespaces=False) as api:
            run = await api.run(f"{code}\nimport time; time.sleep(0.3)", limits={"memoryMb": 1024})
            if kind == "shared memory":  # a segment counts as long as a process has it mapped
                assert run.audit[2]["detail"]["peakMemoryMb"] < 60, run.output("stderr")
            assert bool(left()) != await api.gives_users()


@contextmanager
def shared_memory_removed() -> Iterator[Callable[[], set[str]]]:
    """Tells what has been left in shared memory since, and removes it in the end.

    A file or a segment of this test has this process's number for a name or a key. Others are of tests beside this one.
    """

    def present() -> set[str]:
        lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
        return {f"segment {line.split()[1]}" for line in lines if line.split()[0] == str(os.getpid())} | {
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


async def test_memory_that_is_on_its_way_between_processes_gets_past(serving):
    code = """
import array, os, socket, time
left, right = socket.socketpair()
for _ in range(10):
    file = os.memfd_create("x")
    for _ in range(10): os.write(file, bytes(1 << 20))
    left.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))])
    os.close(file)
time.sleep(0.3)
"""
    async with serving() as api:
        run = await api.run(code, limits={"memoryMb": 64})
        assert (run.phase, run.output("stderr")) == ("succeeded", "")


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
        "import time\nfile = open('x', 'wb', 0)\nfile.write(bytes(8_000_000))\ntime.sleep(60)",
        "import os\nn = 0\nwhile True:\n    n += 1\n    os.makedirs(f'{n % 7}/{n}')\n    os.mknod(f'{n % 7}/{n}/x')",
        "import os, time\nfile = open('x', 'wb', 0)\nos.unlink('x')\nfile.write(bytes(8_000_000))\ntime.sleep(60)",
    ],
    ids=["a large file", "many small ones", "a file that was removed"],
)
async def test_a_program_that_fills_the_disk_is_killed(serving, nothing_left, code):
    async with serving(bounds=Bounds(max_disk_bytes=4_000_000)) as api:
        run = await api.run(code)
        assert run.session["killReason"] == "disk_exceeded"
        nothing_left(run.id)


PEAKS = {
    "memory": "import os\nfile = os.memfd_create('x')\nos.write(file, bytes(16 << 20))\nos.close(file)",
    "processes": "import os\nfor _ in range(6):\n    if os.fork() == 0: os._exit(0)\nfor _ in range(6): os.wait()",
    "disk": "import os\nwith open('x', 'wb') as file: file.write(bytes(2 << 20))\nos.unlink('x')",
}


@pytest.mark.parametrize("kind", PEAKS)
async def test_a_short_peak_gets_past_between_two_looks(serving, kind):
    async with serving(bounds=Bounds(max_disk_bytes=1 << 20)) as api:
        for _ in range(30):  # the one or other is seen
            run = await api.run(PEAKS[kind], limits={"memoryMb": 24, "pids": 3})
            if run.phase == "succeeded":
                return
    pytest.fail(f"every peak was seen: {run.session['killReason']}")


async def test_a_program_that_keeps_to_the_bound_on_files_is_left_alone(serving):
    code = "for n in range(50):\n    with open('x', 'wb') as file: file.write(bytes(1_000_000))"
    async with serving(bounds=Bounds(max_disk_bytes=20_000_000)) as api:
        assert (await api.run(code)).phase == "succeeded"


async def test_files_outside_of_the_directory_get_past_the_bound(serving):
    path = Path(tempfile.gettempdir()) / f"past-{os.getpid()}"
    code = f"""
import time
with open({str(path)!r}, "wb") as file:
    file.write(bytes(3_000_000))
    file.flush()
    try: os.pwrite(file.fileno(), b"x", 1 << 30)
    except OSError as error: print(error.errno == errno.EFBIG)
time.sleep(0.3)
"""
    async with serving(bounds=Bounds(max_disk_bytes=1_000_000)) as api:
        try:
            run = await api.run(f"import errno, os, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN){code}")
            assert (run.phase, run.output()) == ("succeeded", "True\n"), run.output("stderr")
            assert path.stat().st_size == 3_000_000
        finally:
            path.unlink()
