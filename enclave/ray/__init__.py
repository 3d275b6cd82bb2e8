"""Sessions on a Ray cluster: Ray schedules, this package runs sessions and leaves none behind (extra `ray`).

::

    with enclave.ray.run({"job": "grading"}, wall_clock_ms=60_000) as run:
        table = dataset.map_batches(enclave.ray.RunCode, fn_constructor_args=(run,), compute=...)

The modules:

_labels.py    the labels that say which run and which worker a session belongs to
_sweeping.py  tear down by these labels until nothing shows up any more. Without Ray
_watcher.py   the process that sweeps when the driver is gone. Without Ray
_ending.py    actors of Ray's: the lifeline that dies with the driver, and the reaper that outlives it
_run.py       `run`: the block on the driver
_worker.py    what an actor has: a client, and an eye on the lifeline
_run_code.py  `RunCode`, for `Dataset.map_batches`
_sandbox.py   `SandboxActor`, for one request at a time

::

    driver ── run() ──┬── lifeline (actor, owned by the driver) <── awaited by every worker and by the reaper
                      ├── watcher (process at the end of a pipe)
                      └── reaper (detached actor on another node, where there is one)

When the driver leaves its block or dies, the lifeline dies. Every worker then cancels what it runs and refuses more.
What is left is swept by label: by the driver, or by the watcher and the reaper once the driver is gone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._run import Run, run
    from ._run_code import RunCode
    from ._sandbox import SandboxActor

__all__ = ["Run", "RunCode", "SandboxActor", "run"]

# The watcher is a process of this package that must not load Ray, which takes a third of a second and 50 MB.
_LOADED_WHEN_USED = {"Run": "_run", "RunCode": "_run_code", "SandboxActor": "_sandbox", "run": "_run"}


def __getattr__(name: str) -> Any:
    if name not in _LOADED_WHEN_USED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_LOADED_WHEN_USED[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__]
