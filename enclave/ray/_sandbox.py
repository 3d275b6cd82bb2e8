"""`SandboxActor`: an actor that runs one request a call, for loops that ask for one at a time."""

from __future__ import annotations

from typing import Any

import anyio
import ray
from anyio.lowlevel import current_token

from enclave import CreateSessionRequest, EnclaveClient, Outcome

from ._run import Run
from ._worker import Worker, run_has_ended


class Sandbox:
    """What `SandboxActor` is an actor of."""

    def __init__(self, run: Run) -> None:
        self._worker = Worker(run)
        self._client: EnclaveClient | None = None
        self._scopes: set[anyio.CancelScope] = set()

    async def run(self, request: CreateSessionRequest | str, *, type: Any = Any) -> Outcome[Any]:
        """Run a request in a session of its own, and give its outcome. See `SandboxActor`."""
        request = self._worker.run.bounded(request)
        client = self._client or self._start()
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                if self._worker.has_ended:  # asked after the scope is in the set, so that one of the two ends this
                    raise run_has_ended()
                [outcome] = await client.map([request], max_concurrency=1, type=type)
                return outcome
            finally:
                self._scopes.discard(scope)
        raise run_has_ended()

    def _cancel_all(self) -> None:
        for scope in list(self._scopes):
            scope.cancel()

    def _start(self) -> EnclaveClient:
        # With the first call, for the loop of the actor does not run yet when it is made.
        self._client = client = self._worker.client()
        loop = current_token()
        self._worker.watch(lambda: anyio.from_thread.run_sync(self._cancel_all, token=loop))
        self._worker.sweep_earlier()
        return client


SandboxActor = ray.remote(num_cpus=0, max_restarts=-1)(Sandbox)
"""An actor of Ray's that runs sessions, many at once, each for one call.

::

    actor = enclave.ray.SandboxActor.remote(run)
    outcome = await actor.run.remote("enclave.result(6 * 7)", type=int)

``SandboxActor.remote(run)`` takes what `enclave.ray.run` gives.

``actor.run.remote(request, *, type=Any)`` takes source text or a `CreateSessionRequest`, and what the result's value is
decoded into, as for `EnclaveClient.result`. Awaited, it gives an `Outcome`. It raises TypeError if an argument cannot
be used, and `WorkInterrupted` if the run has ended.

`ray.cancel` of what ``actor.run.remote`` gives tears that session down, within milliseconds. `ray.kill` of the actor
and `ray.get(timeout=...)` do not: what they leave is swept when the run ends.
"""
