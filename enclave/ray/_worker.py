"""What an actor of a run has: labels of its own, a client, and an eye on the lifeline."""

from __future__ import annotations

import logging
import threading
import uuid
import warnings
from collections.abc import Callable

import anyio
import ray

from enclave import EnclaveClient, WorkInterrupted

from ._labels import ACTOR, INCARNATION
from ._run import Run
from ._sweeping import sweep_until_quiet

logger = logging.getLogger("enclave")


class Worker:
    """One incarnation of an actor. The labels of its sessions tell it from those before."""

    def __init__(self, run: Run) -> None:
        if not isinstance(run, Run):
            raise TypeError(f"run: expected what enclave.ray.run gives, got {type(run).__name__}")
        context = ray.get_runtime_context()
        self.run = run
        self.has_ended = False
        """Whether the run has ended. Then nothing more may be started."""
        self._incarnation = uuid.uuid4().hex
        self._actor = {**run.labels, ACTOR: context.get_actor_id() or "none"}
        with warnings.catch_warnings():  # of Ray's own, which asks itself by a name that it has deprecated
            warnings.simplefilter("ignore", DeprecationWarning)
            self._is_restarted = context.was_current_actor_reconstructed

    def client(self) -> EnclaveClient:
        """A client whose sessions belong to this incarnation."""
        return self.run.access.client({**self._actor, INCARNATION: self._incarnation})

    def watch(self, ended: Callable[[], object]) -> None:
        """Call `ended`, in a thread of its own, when the run ends. `has_ended` is set before, or by now."""
        if self.run.lifeline.is_gone():
            self.has_ended = True
            return
        # In a thread that belongs to no call. `ray.cancel` of a call cancels all that it has begun, and if that were
        # the wait for the lifeline, the run would seem to have ended.
        threading.Thread(target=self._watch, args=[ended], name="enclave-lifeline", daemon=True).start()

    def _watch(self, ended: Callable[[], object]) -> None:
        self.run.lifeline.wait()
        self.has_ended = True
        ended()

    def sweep_earlier(self) -> None:
        """Tear down what earlier incarnations of this actor left behind, if there were any, in a thread of its own."""
        if self._is_restarted:
            threading.Thread(target=self._sweep_earlier, name="enclave-sweep", daemon=True).start()

    def _sweep_earlier(self) -> None:
        async def sweep() -> None:
            async with self.run.access.client() as client:
                await sweep_until_quiet(
                    client, self._actor, self.run.quiet_seconds, spare_incarnation=self._incarnation
                )

        try:
            anyio.run(sweep)
        except Exception as error:  # noqa: BLE001 - the end of the run sweeps again
            logger.warning("sweeping what an earlier worker left failed: %s", error)


def run_has_ended() -> WorkInterrupted:
    """What is raised for work of a run that has ended."""
    return WorkInterrupted("the run has ended: its driver has left the block of enclave.ray.run, or is gone")
