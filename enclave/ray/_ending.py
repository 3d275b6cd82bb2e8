"""What notices the end of a run on the cluster: the lifeline, and the reaper."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

import anyio
import ray

from ._access import Access
from ._sweeping import sweep_until_quiet

logger = logging.getLogger("enclave")


class Lifeline:
    """An actor that the driver owns, so Ray ends it with the driver. Whoever waits for `ended` learns of that.

    It is restarted if its node dies, and the calls that wait are made again, so a dead node is no false alarm.
    """

    def __init__(self) -> None:
        self._ended = anyio.Event()

    async def ready(self) -> None:
        """Once this is answered, the actor runs."""

    async def end(self) -> None:
        """The driver leaves its block."""
        self._ended.set()

    async def ended(self) -> None:
        """Return when the run has ended."""
        await self._ended.wait()


# Every worker of the run has a call waiting, and so has the reaper.
LifelineActor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, max_concurrency=100_000)(Lifeline)


@dataclass(frozen=True)
class LifelineName:
    """Where a lifeline is found. Unlike a handle of an actor it is plain data."""

    name: str
    namespace: str

    def is_gone(self) -> bool:
        """Whether there is no lifeline of this name any more."""
        return self._actor() is None

    def wait(self) -> None:
        """Return when the run has ended, in whatever way. For a thread that has nothing else to do."""
        lifeline = self._actor()
        if lifeline is not None:
            lifeline.ended.remote().future().exception()

    def _actor(self) -> ray.ActorHandle | None:
        try:
            return ray.get_actor(self.name, namespace=self.namespace)
        except ValueError:
            return None


class Reaper:
    """A detached actor on another node than the driver's. It outlives the driver, sweeps, and ends itself."""

    def __init__(self, access: Access, labels: dict[str, str], quiet_seconds: float, lifeline: LifelineName) -> None:
        self._access = access
        self._labels = labels
        self._quiet_seconds = quiet_seconds
        # Here and not in a method, for Ray runs this again when it restarts the actor.
        threading.Thread(target=self._main, args=(lifeline,), name="enclave-reaper", daemon=True).start()

    def ready(self) -> None:
        """Once this is answered, the actor runs."""

    def _main(self, lifeline: LifelineName) -> None:
        lifeline.wait()
        try:
            anyio.run(self._sweep)
        except Exception:
            logger.exception("sessions of the run may be left: %s", self._labels)
        ray.kill(ray.get_runtime_context().current_actor, no_restart=True)

    async def _sweep(self) -> None:
        async with self._access.client() as client:
            await sweep_until_quiet(client, self._labels, self._quiet_seconds)


ReaperActor = ray.remote(num_cpus=0, max_restarts=-1)(Reaper)
