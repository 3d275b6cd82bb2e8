"""How a process of the cluster reaches the control plane. Holds no secret, so it may travel through Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from enclave import EnclaveClient

Credential = Callable[[], str]


@dataclass(frozen=True)
class Access:
    """Where the control plane is, and where its key comes from.

    Raises:
        TypeError: the credential is a key itself, and not a callable that gives one.
    """

    base_url: str | None = None
    """By default ``ENCLAVE_BASE_URL`` of the process."""
    credential: Credential | None = None
    """Gives the API key, in the process that needs it. By default that has it in ``ENCLAVE_API_KEY``."""

    def __post_init__(self) -> None:
        if self.credential is not None and not callable(self.credential):
            raise TypeError(
                "credential: expected a callable that gives the key where it runs. Ray would store and log the key "
                "itself. Set ENCLAVE_API_KEY on the nodes, or pass a function that reads it from a secret store"
            )

    def key(self) -> str | None:
        """The API key. None where the environment has it."""
        return None if self.credential is None else self.credential()

    def client(self, labels: Mapping[str, str] | None = None) -> EnclaveClient:
        """A client with these labels on every session."""
        return EnclaveClient(self.base_url, api_key=self.key(), labels=labels)
