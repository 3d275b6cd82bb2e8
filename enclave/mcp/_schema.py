"""What the tools take and give, with descriptions for the model that calls them. Imports msgspec only.

The wire's own types serve programs; these serve a language model: every field is described, lists and texts are bounded
and say what was left out, and unknown arguments are refused, so that a misspelt limit is not silently no limit.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

PositiveInt = Annotated[int, Meta(ge=1)]


class Limits(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Resource limits; those left out are the server's defaults."""

    cpu_millis: Annotated[PositiveInt | None, Meta(description="CPU share in thousandths of a core.")] = None
    memory_mb: Annotated[PositiveInt | None, Meta(description="Memory in mebibytes.")] = None
    wall_clock_ms: Annotated[PositiveInt | None, Meta(description="Wall-clock time in milliseconds.")] = None
    pids: Annotated[PositiveInt | None, Meta(description="Processes and threads alive at once.")] = None


class Egress(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which addresses the code may connect to."""

    mode: Annotated[
        Literal["deny_all", "allowlist"] | None,
        Meta(description="By default allowlist if allow names any, else deny_all."),
    ] = None
    allow: Annotated[
        tuple[str, ...], Meta(description='Networks in CIDR form, as in "203.0.113.0/24". Only these can be reached.')
    ] = ()


class RunCode(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Arguments of `run_code`: the fields of the wire's `CreateSessionRequest`."""

    code: Annotated[
        str,
        Meta(description="Source text. enclave.result(value) in it returns any JSON value; print goes to stdout."),
    ]
    language: Annotated[Literal["python", "node"] | None, Meta(description="python unless given.")] = None
    limits: Annotated[Limits | None, Meta(description="Resource limits. A run that exceeds one is killed.")] = None
    egress: Annotated[
        Egress | None, Meta(description="Network policy. By default every outgoing connection is denied.")
    ] = None
    service_bindings: Annotated[
        tuple[str, ...] | None,
        Meta(description="Names of services; the code finds the base URL of each in ENCLAVE_SVC_<NAME>."),
    ] = None
    webhook_url: Annotated[str | None, Meta(description="Where the result event is POSTed on completion.")] = None
    labels: Annotated[dict[str, str] | None, Meta(description="Free-form strings to find the session by.")] = None


class SessionId(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Arguments of the tools that are about one session."""

    session_id: Annotated[str, Meta(description="A session's id, as run_code and list_sessions give it.")]


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No arguments."""


class Output(msgspec.Struct, frozen=True, rename="camel"):
    """The end of an output stream."""

    tail: Annotated[str, Meta(description="The end of the text; all of it unless cutChars is positive.")]
    cut_chars: Annotated[int, Meta(description="How many characters before the tail were left out.")] = 0


class DeniedEgress(msgspec.Struct, frozen=True):
    """Connections that the network policy denied."""

    host: str
    attempts: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How a run ended. Untrusted: the code can forge the value and the output."""

    session_id: str
    phase: Annotated[str, Meta(description="succeeded, failed (non-zero exit code), killed or torn_down.")]
    exit_code: Annotated[int | None, Meta(description="null when the platform killed the run.")]
    kill_reason: Annotated[
        str | None, Meta(description="The limit that was exceeded, as in memory_exceeded; null unless killed.")
    ] = None
    value: Annotated[Any, Meta(description="The value given to enclave.result; null if there was none.")] = (
        msgspec.field(default=None, name="json")
    )
    stdout: Output = Output("")
    stderr: Output = Output("")
    denied_egress: Annotated[
        tuple[DeniedEgress, ...], Meta(description="Connections that the network policy denied, by host.")
    ] = ()
    duration_ms: float | None = None
    warnings: Annotated[
        tuple[str, ...], Meta(description="What was left out of this answer, or went wrong besides.")
    ] = ()


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a session's trail."""

    type: str
    ts: str | None
    detail: dict[str, Any]


class AuditTrail(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A session's trail."""

    session_id: str
    events: Annotated[tuple[AuditEntry, ...], Meta(description="In order; the latest ones if cutEvents is positive.")]
    cut_events: Annotated[int, Meta(description="How many earlier entries were left out.")]


class SessionSummary(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One session in a list."""

    session_id: str
    phase: str
    language: str | None
    exit_code: int | None
    kill_reason: str | None
    labels: dict[str, str]
    created_at: str | None
    finished_at: str | None


class SessionList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The org's sessions."""

    sessions: Annotated[tuple[SessionSummary, ...], Meta(description="Newest first.")]
    cut_sessions: Annotated[int, Meta(description="How many older sessions were left out.")]


class TornDown(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A session that is gone."""

    session_id: str
    torn_down: bool = True


def json_schema(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON schema of a Struct with an object at its root, as MCP demands, and no `$ref` there."""
    (root,), definitions = msgspec.json.schema_components([struct], ref_template="#/$defs/{name}")
    schema = dict(definitions.pop(root["$ref"].rpartition("/")[2]))
    if definitions:
        schema["$defs"] = definitions
    return schema
