"""`Driver`: on which loop the calls of one client run, and what ends that loop.

A loop belongs to one process. After a fork only the thread that forked goes on, so a loop of the parent never answers.
The child makes a loop of its own with its first call, and with it connections of its own. Those of its parent it leaves
alone, for they are in use there.

A loop ends with `close`, or once nothing refers to the client, its sessions and its streams any more. At the end of the
program the blocks that are still open are left, and calls are cancelled, so that no session stays behind. The loop goes
on then, for what other handlers of `atexit` and finalizers may still call. Idle connections are closed, since an
interpreter that ends would warn of their sockets.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from enclave._log import logger
from enclave.errors import UsageError

from ._loop import EventLoop
from ._words import in_blocking_words
from ._work import Call

if TYPE_CHECKING:
    from enclave._client import EnclaveClient

T = TypeVar("T")

_EXIT_SECONDS = 60.0
"""How long the interpreter's exit waits at most. What is torn down has deadlines of its own, usually shorter ones."""

_running: dict[EventLoop, Callable[[], None]] = {}
"""With what closes the idle connections of each."""


class Driver:
    """The loop of one client, and of all that shares its connections: sessions, streams, and clients of other options.

    Args:
        client: whose connections to close at the end.
        can_move: whether another process may make connections of its own.
    """

    def __init__(self, client: EnclaveClient, *, can_move: bool) -> None:
        self._client = client
        self._can_move = can_move
        self._home = os.getpid()
        # By process: a child must find neither a loop of its parent's, nor a lock that a thread held at the fork.
        self._processes: dict[int, _Process] = {}

    def call(self, coroutine: Coroutine[Any, Any, T], undo: Callable[[T], Awaitable[None]] | None = None) -> T:
        """Run a coroutine on the loop, and wait for it. See `Call`, which this raises as."""
        call = self.prepared(coroutine, undo)
        try:
            return call.wait()
        except UsageError as error:
            reword(error)
            raise

    def prepared(
        self, coroutine: Coroutine[Any, Any, T], undo: Callable[[T], Awaitable[None]] | None = None
    ) -> Call[T]:
        """The same call, still to be waited for."""
        try:
            return Call(self.loop(), coroutine, undo)
        except BaseException:
            coroutine.close()
            raise

    def loop(self) -> EventLoop:
        """The loop of this process, for a thread that will wait for it.

        Raises:
            UsageError: the client cannot be used in this process, or not in this thread, which is the loop's.
        """
        process = self._processes.get(os.getpid()) or self._enter_process()
        loop = process.loop
        if loop is None:
            with process.making:
                loop = process.loop = process.loop or self._make_loop()
        loop.check_thread()
        return loop

    def close(self) -> None:
        """End all work, close all connections, and end the loop. Harmless when called twice."""
        with suppress(UsageError):  # it is closed, or there can be none here
            loop = self.loop()
            _running.pop(loop, None)
            loop.close(self._client.aclose)

    def _enter_process(self) -> _Process:
        if not self._can_move and os.getpid() != self._home:
            raise UsageError(
                "this client was made in another process, whose connections are in its transport=... "
                "Make a client in this process, with a transport of its own"
            )
        return self._processes.setdefault(os.getpid(), _Process())

    def _make_loop(self) -> EventLoop:
        loop = EventLoop()
        _run_early_at_exit()
        _running[loop] = self._client._http.close_idle  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - one of us
        weakref.finalize(self, _close_unattended, loop, self._client.aclose).atexit = False
        return loop


class _Process:
    """What a driver has in one process."""

    def __init__(self) -> None:
        self.making = threading.Lock()
        self.loop: EventLoop | None = None


def reword(error: UsageError) -> None:
    """Make the message of a mistake in the use of the client show the blocking form."""
    error.args = tuple(in_blocking_words(part) if isinstance(part, str) else part for part in error.args)


@contextmanager
def reworded() -> Generator[None]:
    """Reword what is raised in the block."""
    try:
        yield
    except UsageError as error:
        reword(error)
        raise


def _close_unattended(loop: EventLoop, aclose: Callable[[], Awaitable[None]]) -> None:
    # A finalizer runs in any thread, at any moment, so it waits for nothing. In a child the loop is the parent's.
    if loop.pid == os.getpid():
        _running.pop(loop, None)
        with suppress(UsageError):  # it is closed
            loop.close_soon(aclose)


def _end_work_at_exit() -> None:
    running = _running.copy()  # which no finalizer of a client can change meanwhile
    ending = [(loop, loop.end_work(close_idle)) for loop, close_idle in running.items() if loop.pid == os.getpid()]
    for loop, mail in ending:
        try:
            loop.wait(mail, _EXIT_SECONDS)
        except TimeoutError:
            logger.warning("the program ends, and tearing down what it left open took too long")


@cache
def _run_early_at_exit() -> None:
    # Again with the first call. The last one to register runs first, and so before a simulator that was started is
    # stopped. In a handler of `atexit` it is too late to register, and the first registration counts.
    atexit.register(_end_work_at_exit)


atexit.register(_end_work_at_exit)
