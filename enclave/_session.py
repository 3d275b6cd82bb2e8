"""`SessionHandle`: what can be done with one session, by its id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from ._observed import ObservedSession
from ._streams import FrameStream
from .errors import WorkloadError
from .types import AuditEvent, Session, SessionResult

if TYPE_CHECKING:
    from ._client import EnclaveClient

T = TypeVar("T")


class SessionHandle:
    """A session on the server. Holds its id and the client, no connection; safe to share between tasks."""

    def __init__(
        self,
        client: EnclaveClient,
        session_id: str,
        session: Session | None = None,
        *,
        observed: ObservedSession | None = None,
    ) -> None:
        self.id = session_id
        """The session's opaque identifier."""
        self.session = session
        """The session as last seen, when it was created or by `refresh`. None for an attached one until then."""
        self._client = client
        self._observed = observed or ObservedSession()

    def __repr__(self) -> str:
        phase = f" {self.session.phase}" if self.session else ""
        return f"<SessionHandle {self.id!r}{phase}>"

    async def refresh(self) -> Session:
        """Fetch the session as it is now. Raises as `EnclaveClient.get` does."""
        self.session = await self._client.get(self.id)
        self._observed.seen(self.session)
        return self.session

    def stream(self) -> FrameStream:
        """The session's frames, from the first one. See `EnclaveClient.stream`."""
        return self._client.stream(self.id)

    @overload
    async def result(self) -> SessionResult[Any]: ...
    @overload
    async def result(self, type: type[T]) -> SessionResult[T]: ...
    @overload
    async def result(self, type: Any) -> SessionResult[Any]: ...

    async def result(self, type: Any = Any) -> SessionResult[Any]:
        """Wait for the workload to end and give its result. See `EnclaveClient.result`."""
        try:
            result = await self._client.result(self.id, type)
        except WorkloadError as error:  # the value does not fit the type; how the workload ended is known all the same
            if error.result is not None:
                self._observed.finished(error.result)
            raise
        self._observed.finished(result)
        return result

    async def audit(self) -> list[AuditEvent]:
        """The session's audit trail so far. See `EnclaveClient.audit`."""
        return await self._client.audit(self.id)

    async def teardown(self) -> None:
        """Stop the workload if it runs, and reclaim everything. See `EnclaveClient.teardown`."""
        await self._client.teardown(self.id)
