"""What a caller sends: `CreateSessionRequest`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import msgspec

from ._encode import EXTRA, WireStruct, wire_names
from ._lenient import LenientDecoder
from ._limits import EgressPolicy, SessionLimits, check_egress, check_limits


class CreateSessionRequest(
    WireStruct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", forbid_unknown_fields=True
):
    """A program to run, and the terms that it runs on. See [The request][the-request].

    Only `code` is required. A field that is None is not sent.

    Raises:
        TypeError: a field has the wrong type. The message names the field.
        ValueError: a field has a value that no server can take. The message names the field and the fix.
    """

    code: str
    """The source text to run."""
    language: str | None = None
    """``"python"`` (the server's default) or ``"node"``."""
    limits: SessionLimits | None = None
    """Resource limits. An unset one is the server's default."""
    egress: EgressPolicy | None = None
    """Network policy. The server's default denies everything."""
    service_bindings: Sequence[str] | None = None
    """Ids of service bindings. The workload finds the base URL of each in ``ENCLAVE_SVC_<NAME>``."""
    webhook_url: str | None = None
    """Where the server POSTs the result event on completion."""
    labels: Mapping[str, str] | None = None
    """Strings of your own to find the session by."""
    extra: dict[str, Any] = msgspec.field(default={}, name=EXTRA)
    """Request fields that this version has no name for, under their wire names. They are sent as they are."""

    def __post_init__(self) -> None:
        _check_text("code", self.code)
        for name in ("language", "webhook_url"):
            value = getattr(self, name)
            if value is not None:
                _check_text(name, value)
        if self.limits is not None:
            check_limits(self.limits)
        if self.egress is not None:
            check_egress(self.egress)
        _check_bindings(self.service_bindings)
        if self.labels is not None:
            check_labels(self.labels)
        _check_extra("extra", self.extra, type(self))
        if self.limits is not None:
            _check_extra("limits.extra", self.limits.extra, SessionLimits)

    @classmethod
    def from_json(cls, document: bytes) -> CreateSessionRequest:
        """The request in a JSON document, as `to_json` writes it. Fields without a name here are kept in `extra`.

        Raises:
            ValueError: the document is not JSON or not a request. The message says where and why.
        """
        try:
            return _decoder.decode(document)
        except msgspec.DecodeError as error:
            raise ValueError(str(error)) from None


# A field that cannot be read is a mistake of the caller's, and is told. In an answer of the server's it would be kept.
_decoder = LenientDecoder(CreateSessionRequest, keep_misfits=False)


class SessionFields(TypedDict, total=False):
    """The fields of `CreateSessionRequest`, as `EnclaveClient.run` and `EnclaveClient.session` take them by name."""

    code: str
    """The source text to run."""
    language: str | None
    """``"python"`` (the server's default) or ``"node"``."""
    limits: SessionLimits | None
    """Resource limits. An unset one is the server's default."""
    egress: EgressPolicy | None
    """Network policy. The server's default denies everything."""
    service_bindings: Sequence[str] | None
    """Ids of service bindings. The workload finds the base URL of each in ``ENCLAVE_SVC_<NAME>``."""
    webhook_url: str | None
    """Where the server POSTs the result event on completion."""
    labels: Mapping[str, str] | None
    """Strings of your own to find the session by."""
    extra: dict[str, Any]
    """Request fields that this version has no name for, under their wire names."""


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a string, got {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name}: character {error.start} is a lone surrogate, which UTF-8 cannot carry. "
            'Decode the source with errors="replace"'
        ) from None


def _check_bindings(bindings: Sequence[str] | None) -> None:
    if bindings is None:
        return
    if isinstance(bindings, str) or not isinstance(bindings, Sequence):
        raise TypeError(f"service_bindings: expected a list of names, got {bindings!r}")
    for index, name in enumerate(bindings):
        _check_text(f"service_bindings[{index}]", name)


def check_labels(labels: Mapping[str, str]) -> None:
    """Raise TypeError or ValueError, naming the label, for labels that no server can take."""
    if not isinstance(labels, Mapping):
        raise TypeError(f"labels: expected a mapping of string to string, got {type(labels).__name__}")
    for key, value in labels.items():
        _check_text("labels: each key", key)
        _check_text(f"labels[{key!r}]", value)


def _check_extra(where: str, extra: dict[str, Any], struct: type[msgspec.Struct]) -> None:
    if not isinstance(extra, dict):
        raise TypeError(f"{where}: expected a dict of wire names to values, got {type(extra).__name__}")
    for name, wire_name in wire_names(struct).items():
        if wire_name in extra:
            raise ValueError(f"{where}[{wire_name!r}]: this field has a name of its own. Pass {name}=... instead")
