"""`SyncSimulator`: a `Simulator` that serves from a thread of its own, for code that runs in no event loop."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack
from functools import partial, wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

import anyio
from anyio.from_thread import BlockingPortal

from ._control_plane import RecordedRequest
from ._faults import Faults
from ._framing import Framing
from ._remote import Remote
from ._script import Script
from ._simulator import Simulator

P = ParamSpec("P")
T = TypeVar("T")

_NOT_SERVED = "the simulator is not being served, use with SyncSimulator() as simulator, or simulator.start()"


def _with_options_of(
    init: Callable[Concatenate[Any, P], None],
) -> Callable[[Callable[..., None]], Callable[Concatenate[Any, P], None]]:
    return cast("Callable[[Callable[..., None]], Callable[Concatenate[Any, P], None]]", wraps(init))


def _on_its_loop(method: Callable[Concatenate[Simulator, P], T]) -> Callable[Concatenate[SyncSimulator, P], T]:
    """The same method for `SyncSimulator`. It is called on the simulator's event loop."""

    @wraps(method)
    def call(self: SyncSimulator, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.call(partial(method, self.simulator, *args, **kwargs))

    return call


class SyncSimulator:
    """A `Simulator` for scripts, notebooks and synchronous tests: it serves from a thread of its own.

    ::

        with SyncSimulator() as simulator:
            client = SyncEnclaveClient(simulator.base_url, api_key=simulator.api_key)

    Takes what `Simulator` takes. Where a block does not fit, as across the cells of a notebook, `start` and `stop` do
    the same. Any thread may use it.
    """

    @_with_options_of(Simulator.__init__)
    def __init__(self, **options: Any) -> None:
        self.simulator = Simulator(**options)
        """The simulator itself, which only its own event loop may use. What `wait_until` takes is called there."""
        self.faults: Faults = cast(Faults, Remote(self.call, self.simulator.faults))
        """Arms faults for the requests and streams to come. See `enclave.simulator.Faults`."""
        self._process = os.getpid()
        self._portal: BlockingPortal | None = None
        self._serving = ExitStack()

    def __repr__(self) -> str:
        return repr(self.simulator).replace("Simulator", type(self).__name__, 1)

    # Serving

    def start(self, *, host: str = "127.0.0.1", port: int = 0, allow_remote: bool = False) -> Self:
        """Serve until `stop`, or until the program ends. Takes and raises what `Simulator.serve` does.

        Gives the simulator itself.
        """
        with ExitStack() as stack:
            portal = stack.enter_context(self._open_portal())
            serving = self.simulator.serve(host=host, port=port, allow_remote=allow_remote)
            stack.enter_context(portal.wrap_async_context_manager(serving))
            self._portal = portal
            self._serving = stack.pop_all()
        atexit.register(self.stop)
        return self

    def stop(self) -> None:
        """Tear every session down, and serve no longer. Harmless when called twice."""
        atexit.unregister(self.stop)
        # In a child that was forked, the thread that serves does not exist. The parent ends what it has started.
        serving, self._serving = self._serving, ExitStack()
        if self._process == os.getpid():
            serving.close()
        self._portal = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def call(self, function: Callable[[], T]) -> T:
        """Call a function on the simulator's event loop, and give what it returns.

        A `Script` that it returns may be used from any thread.

        Args:
            function: takes no arguments. It must not wait for anything, for the simulator stands still meanwhile.

        Raises:
            RuntimeError: it is not being served.
        """
        value = self._its_loop().call(function)
        return cast(T, Remote(self.call, value)) if isinstance(value, Script) else value

    @property
    def base_url(self) -> str:
        """Where it is served, as in ``"http://127.0.0.1:40123"``.

        Raises:
            RuntimeError: it is not being served.
        """
        self._its_loop()
        return self.simulator.base_url

    @property
    def console_url(self) -> str:
        """The link to the console, with `api_key` in its fragment, which a browser does not send.

        Raises:
            RuntimeError: it is not being served.
        """
        self._its_loop()
        return self.simulator.console_url

    # Credentials

    @property
    def org_id(self) -> str:
        """The first org, that of `api_key`."""
        return self.simulator.org_id

    @property
    def org_ids(self) -> list[str]:
        """All orgs."""
        return self.simulator.org_ids

    @property
    def api_key(self) -> str:
        """A key of an owner in the first org."""
        return self.simulator.api_key

    add_api_key = _on_its_loop(Simulator.add_api_key)
    issue_token = _on_its_loop(Simulator.issue_token)

    # Behaviour

    script = _on_its_loop(Simulator.script)

    @property
    def framing(self) -> Framing:
        """How streams that open from now on are written."""
        return self.simulator.framing

    @framing.setter
    def framing(self, framing: Framing) -> None:
        self.call(lambda: setattr(self.simulator, "framing", framing))

    # Observation

    @property
    def requests(self) -> list[RecordedRequest]:
        """The latest 4,096 requests, without credentials. The oldest one comes first."""
        return self.call(lambda: list(self.simulator.requests))

    @property
    def open_connections(self) -> int:
        """How many connections are open."""
        return self.call(lambda: self.simulator.open_connections)

    @property
    def open_streams(self) -> int:
        """How many streams are open."""
        return self.call(lambda: self.simulator.open_streams)

    @property
    def phases(self) -> dict[str, str]:
        """The phase of every session of all orgs, by its id. The oldest session comes first."""
        return self.call(lambda: self.simulator.phases)

    @property
    def running_sessions(self) -> list[str]:
        """The ids of the sessions that have not ended. A service that cleans up after itself leaves none."""
        return self.call(lambda: self.simulator.running_sessions)

    @property
    def unreclaimed_sessions(self) -> int:
        """How many sessions have a workload that runs, waits to run, or is being reclaimed."""
        return self.call(lambda: self.simulator.unreclaimed_sessions)

    def wait_until(self, condition: Callable[[Simulator], bool], *, seconds: float = 10.0) -> None:
        """Wait until a condition on the simulator's state holds. In a coroutine this would block the event loop.

        ::

            simulator.wait_until(lambda simulator: simulator.unreclaimed_sessions == 0)

        Args:
            condition: takes the `Simulator`. It is called on the simulator's event loop, again at every change.
            seconds: how long to wait at most.

        Raises:
            TimeoutError: the condition did not hold within `seconds`.
        """
        waiting = self._its_loop().start_task_soon(_until, self.simulator, condition, seconds)
        try:
            waiting.result()
        finally:
            waiting.cancel()

    def _open_portal(self) -> AbstractContextManager[BlockingPortal]:
        self._process = os.getpid()
        return _PortalThread()

    def _its_loop(self) -> BlockingPortal:
        if self._portal is None:
            raise RuntimeError(_NOT_SERVED)
        if self._process != os.getpid():
            raise RuntimeError("this simulator is served by the process that this one was forked from")
        return self._portal


class _PortalThread(AbstractContextManager[BlockingPortal]):
    """A thread with an event loop.

    Not anyio's, which is a generator: in a forked child the end of that would hang. Nor `asyncio.run`, which starts a
    thread in the end where names were looked up: a program that ends with its simulator running can start none.
    """

    def __enter__(self) -> BlockingPortal:
        ready: Future[BlockingPortal] = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="enclave simulator", daemon=True)
        self._thread.start()
        self._portal = ready.result()
        return self._portal

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._portal.call(self._portal.stop)
        self._thread.join()

    def _run(self, ready: Future[BlockingPortal]) -> None:
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(self._live(ready))
            loop.run_until_complete(loop.shutdown_asyncgens())
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)
        finally:
            loop.close()

    async def _live(self, ready: Future[BlockingPortal]) -> None:
        async with BlockingPortal() as portal:
            ready.set_result(portal)
            await portal.sleep_until_stopped()


async def _until(simulator: Simulator, condition: Callable[[Simulator], bool], seconds: float) -> None:
    with anyio.fail_after(seconds):
        await simulator.until(condition)
