"""What the tools take and give, with descriptions for the model that calls them, and their JSON schemas.

The wire's own types serve programs. These serve a language model. Every argument is described. Lists and texts are
bounded, and say what was left out. Unknown arguments are refused, so that a misspelt limit is not silently no limit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta

from enclave import CreateSessionRequest, EgressPolicy, SessionLimits, SessionPhase

MAX_SESSIONS = 100
"""How many sessions one call lists at most."""

_LIMITS = {name: {"type": "integer", "minimum": 1} for name in SessionLimits.wire_names().values()}


class Egress(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which addresses the code may connect to."""

    mode: Annotated[
        Literal["deny_all", "allowlist"] | None,
        Meta(description="By default allowlist if allow names any network, and otherwise deny_all."),
    ] = None
    allow: Annotated[
        tuple[str, ...], Meta(description='Networks in CIDR form, as in "203.0.113.0/24". Only these can be reached.')
    ] = ()


class RunCode(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The arguments of `run_code`. They are the fields of `CreateSessionRequest`."""

    code: Annotated[
        str,
        Meta(description="Source text. enclave.result(value) in it returns any JSON value, and print goes to stdout."),
    ]
    language: Annotated[Literal["python", "node"] | None, Meta(description="python by default.")] = None
    limits: Annotated[
        dict[str, Any] | None,  # `to_request` checks them
        Meta(
            description=(
                "Resource limits: cpuMillis in thousandths of a core, memoryMb in mebibytes, wallClockMs in "
                "milliseconds, pids in processes and threads. A run that exceeds one is killed."
            ),
            extra_json_schema={"properties": _LIMITS, "additionalProperties": False},
        ),
    ] = None
    egress: Annotated[
        Egress | None, Meta(description="Network policy. By default every outgoing connection is denied.")
    ] = None
    service_bindings: Annotated[
        tuple[str, ...] | None,
        Meta(description="Ids of services. The code finds the base URL of each in ENCLAVE_SVC_<NAME>."),
    ] = None
    webhook_url: Annotated[str | None, Meta(description="Where the result event is POSTed on completion.")] = None
    labels: Annotated[dict[str, str] | None, Meta(description="Strings to find the session by.")] = None

    def to_request(self) -> CreateSessionRequest:
        """The request that creates the session.

        Raises:
            TypeError, ValueError: an argument has a value that no server can take. The message names it.
        """
        fields = msgspec.structs.asdict(self)
        if self.limits is not None:
            fields["limits"] = _limits(self.limits)
        if self.egress is not None:
            if self.egress.mode == "deny_all" and self.egress.allow:
                raise ValueError(
                    'egress.allow: mode "deny_all" takes no networks. Leave the mode out, or set it to "allowlist"'
                )
            mode = self.egress.mode or ("allowlist" if self.egress.allow else "deny_all")
            fields["egress"] = EgressPolicy(mode, self.egress.allow)
        return CreateSessionRequest(**fields)


def _limits(limits: Mapping[str, object]) -> SessionLimits:
    numbers: dict[str, int] = {}
    for name, value in limits.items():
        if name not in _LIMITS:
            raise ValueError(f"limits: unknown limit {name!r}, expected one of {', '.join(_LIMITS)}")
        try:
            if value is not None:
                numbers[name] = msgspec.convert(value, int, strict=False)
        except msgspec.ValidationError as error:
            raise ValueError(f"limits.{name}: {error}") from None
    return msgspec.convert(numbers, SessionLimits)


class SessionId(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The arguments of the tools that are about one session."""

    session_id: Annotated[str, Meta(description="A session's id, as run_code and list_sessions give it.")]


_ARGUMENTS = SessionLimits.wire_names() | {
    field.name: field.encode_name for struct in (RunCode, SessionId) for field in msgspec.structs.fields(struct)
}


def in_arguments(message: str) -> str:
    """A message of the SDK that begins with one of its names, with the name of the tool's argument in its place."""
    path = re.split(r"[^\w.]", message, maxsplit=1)[0]
    return ".".join(_ARGUMENTS.get(name, name) for name in path.split(".")) + message[len(path) :]


class ListSessions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The arguments of `list_sessions`."""

    limit: Annotated[int, Meta(ge=1, le=MAX_SESSIONS, description="How many sessions to list at most.")] = 20
    phase: Annotated[SessionPhase | None, Meta(description="Only sessions in this phase.")] = None


class Output(msgspec.Struct, frozen=True, rename="camel"):
    """The end of an output stream."""

    tail: str
    cut_chars: int = 0
    """How many characters before the tail were left out."""


class DeniedEgress(msgspec.Struct, frozen=True):
    """Connections that the network policy denied."""

    host: str
    attempts: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How a run ended. It is untrusted: the code can forge the value and the output."""

    session_id: str
    phase: Annotated[str, Meta(description="succeeded, failed (non-zero exit code), killed or torn_down.")]
    exit_code: int | None
    kill_reason: Annotated[
        str | None, Meta(description="The limit that was exceeded, as in memory_exceeded. null unless killed.")
    ] = None
    value: Annotated[Any, Meta(description="The value given to enclave.result.")] = msgspec.field(
        default=None, name="json"
    )
    stdout: Output = Output("")
    stderr: Output = Output("")
    denied_egress: tuple[DeniedEgress, ...] = ()
    duration_ms: float | None = None
    warnings: Annotated[
        tuple[str, ...], Meta(description="What was left out of this answer, and what else went wrong.")
    ] = ()


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a session's trail."""

    type: str
    ts: str | None
    detail: dict[str, Any]


class AuditTrail(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A session's trail, oldest first."""

    session_id: str
    events: tuple[AuditEntry, ...]
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
    """The organisation's sessions, newest first."""

    sessions: tuple[SessionSummary, ...]
    cut_sessions: Annotated[int, Meta(description="How many more sessions there are.")]


class TornDown(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A session that is gone."""

    session_id: str
    torn_down: bool = True


def input_schema(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON schema of a tool's arguments. An optional argument is described as what it is when it is given."""
    return _schema(struct, is_answer=False)


def as_meant(value: Any, schema: Mapping[str, Any]) -> Any:
    """Arguments in the form that the schema asks for, where a host wrote them in another and the meaning is plain.

    Some hosts send null for an optional argument that a model left out, and some an object or a list as a text of JSON,
    or the one item of a list without the list. Models write names such as python with a capital.
    """
    kind = schema.get("type")
    if isinstance(value, str):
        value = _text_as_meant(value, kind, schema.get("enum", ()))
    properties = schema.get("properties")
    if not isinstance(value, dict) or properties is None:
        return cast("object", value)
    given = cast("dict[str, Any]", value)
    return {name: as_meant(inner, properties.get(name, {})) for name, inner in given.items() if inner is not None}


def _text_as_meant(text: str, kind: object, choices: Sequence[str]) -> object:
    if kind == "integer":
        return text.strip()  # what else it may be is left to msgspec
    if choices:
        return text.lower() if text.lower() in choices else text
    if kind not in ("object", "array"):
        return text
    try:
        decoded: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return [text] if kind == "array" else text
    fits: bool = isinstance(decoded, dict if kind == "object" else list)
    return cast("object", decoded) if fits else text


def output_schema(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON schema of a tool's answer."""
    return _schema(struct, is_answer=True)


def _schema(struct: type[msgspec.Struct], *, is_answer: bool) -> dict[str, Any]:
    """A schema without `$ref`, `anyOf` and what a model does not need. So it is short, and plain for every host."""
    (root,), definitions = msgspec.json.schema_components([struct], ref_template="{name}")
    for definition in definitions.values():
        del definition["description"]  # the docstring of the Struct, which is for readers of this file

    def plain(schema: dict[str, Any]) -> dict[str, Any]:
        found = {**definitions.get(schema.get("$ref", ""), {}), **schema}
        if "anyOf" in found:
            (given,) = (option for option in found.pop("anyOf") if option != {"type": "null"})
            found = {**plain(given), **found}
            if is_answer:
                found["type"] = [found["type"], "null"]
        # msgspec gives no type beside an enumeration, and some hosts refuse a schema without one.
        if "enum" in found:
            found["type"] = "string"
        for name, inner in found.items():
            if name == "properties":
                found[name] = {key: plain(value) for key, value in inner.items()}
            elif name in ("items", "additionalProperties") and isinstance(inner, dict):
                found[name] = plain(cast("dict[str, Any]", inner))
        return {name: value for name, value in found.items() if not _is_noise(name, value, is_answer=is_answer)}

    return plain(root)


def _is_noise(name: str, value: Any, *, is_answer: bool) -> bool:
    if name == "default":
        return is_answer or not value
    return name in ("$ref", "title") or (name == "required" and not value)
