"""`SyncSessionHandle`: a `SessionHandle` for a thread, and the block that holds a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from enclave._session import SessionBlock, SessionHandle
from enclave.types import Session, SessionPhase

from ._block import Block
from ._driver import Driver, reworded
from ._mirror import Blocking, blocking, giving, like
from ._stream import SyncFrameStream


class SyncSessionHandle(Blocking[SessionHandle]):
    """A session on the server. Holds its id and the client's connections, none of its own. Threads may share it."""

    def __init__(self, target: SessionHandle, driver: Driver, block: SyncSessionBlock | None = None) -> None:
        super().__init__(target, driver)
        self._block = block  # which is left once nothing refers to it any more

    @property
    def id(self) -> str:
        """The session's opaque identifier."""
        return self._async.id

    @property
    @like(SessionHandle.last_seen)
    def last_seen(self) -> Session | None:
        return self._async.last_seen

    @property
    @like(SessionHandle.phase)
    def phase(self) -> SessionPhase | None:
        return self._async.phase

    refresh = blocking(SessionHandle.refresh)
    stream = giving(SyncFrameStream, SessionHandle.stream)
    result = blocking(SessionHandle.result)
    audit = blocking(SessionHandle.audit)
    teardown = blocking(SessionHandle.teardown)


class SyncSessionBlock(Block[SessionBlock]):
    """What `SyncEnclaveClient.session` gives: a context manager that holds a session for the length of a block."""

    if not TYPE_CHECKING:  # a type checker refuses these by itself

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("_"):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
            with reworded():
                return getattr(self._async, name)

        def __iter__(self) -> NoReturn:
            with reworded():
                self._async.__aiter__()

    def __enter__(self) -> SyncSessionHandle:
        session = self._enter()
        try:
            return SyncSessionHandle(session, self._driver, self)
        except BaseException:  # interrupted, and nobody else would leave the block
            self._leave()
            raise
