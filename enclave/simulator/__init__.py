"""An embedded control plane that runs code for real: for first steps, for tests, and for tests of clients.

Convenient, NOT a security boundary: workloads run as your user on your machine. It serves on loopback only, unless told
otherwise explicitly. Made for Linux. On macOS neither memory nor process counts are enforced, and a daemon that a
workload leaves can outlive it. There is no Windows version. Needs the extra `enclave-sdk[simulator]`.

    async with Simulator().serve() as sim:
        ...  # sim.base_url, sim.api_key

    with SyncSimulator() as sim:  # for scripts and notebooks
        ...

_simulator.py      Simulator: keys, scripts, faults, `serve()`
_sync.py           SyncSimulator: the same from a thread of its own
_wakeup.py         what those wait on who wait for a change
_remote.py         an object's methods, called on the event loop that it belongs to
_checks.py         checks of arguments
_settings.py       Bounds, and all else that a simulator is made with
_control_plane.py  the routes, and where faults meet requests
_auth.py           API keys, JWTs, roles and scopes
_validation.py     the body of POST /sessions
_session.py        one session: phases, trail, frames, result, and how its stream ends
_log.py            recorded frames that any number of readers follow
_sse.py            streams: heartbeats, resumption, faults inside a stream
_framing.py        how a frame is written as an event
_faults.py         faults on request
_differences.py    answers and frames of a server that differs from the documented one
_script.py         scripted workloads
_told.py           how a scripted run ends, by what its own frames say
_fleet.py          all sessions and their tasks
_workload.py       one run of real code, seen from the event loop
_supervisor/       the process between simulator and workload: limits, isolation, leaving nothing behind
_runners/          what runs inside the sandbox, before the user's code
_output.py         a workload's bytes to text and reports
_share.py          how much of the event loop's time a workload's output may take
_limits.py         defaults, maxima, budgets
_webhook.py        the POST on completion
_serving.py        the `async with` that owns every task
_server.py         HTTP/1.1 on anyio

Nothing here imports the client. Only `enclave.types` is shared.
"""

import sys

try:
    from ._control_plane import RecordedRequest
    from ._differences import Difference
    from ._faults import Fault, Faults
    from ._framing import Framing
    from ._script import Script
    from ._server import log_requests
    from ._settings import Bounds
    from ._simulator import Simulator
    from ._sync import SyncSimulator
except ModuleNotFoundError as error:
    if error.name != "h11":
        raise
    missing = "the simulator needs an extra (h11 is missing): pip install 'enclave-sdk[simulator]'"
    # Python imports this package before it runs its `__main__`, and calls the program "-m" until then.
    if sys.argv[0] == "-m":
        sys.exit(f"enclave.simulator: {missing}")
    raise ModuleNotFoundError(missing, name=error.name) from None

__all__ = [
    "Bounds",
    "Difference",
    "Fault",
    "Faults",
    "Framing",
    "RecordedRequest",
    "Script",
    "Simulator",
    "SyncSimulator",
    "log_requests",
]
