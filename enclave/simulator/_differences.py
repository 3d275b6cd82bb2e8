"""How an answer looks that comes from a server which differs from the documented one. Pure: no I/O.

`CHANGES` says for each difference which objects it changes, and how: a session, a result or an audit event wherever it
stands, a stream's frame, and so on. The differences in `STREAMS` are about when a stream begins and ends, and `_sse.py`
has what they do.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, Literal

import msgspec

from enclave.types import Health, Session, SessionLimits, SessionResult
from enclave.types._encode import wire_names

from ._server import Reply

Difference = Literal[
    "epoch_times",
    "limits_with_units",
    "number_for_a_label",
    "no_phase_on_create",
    "no_id_on_create",
    "flat_audit_events",
    "odd_session_in_list",
    "unknown_fields",
    "misshapen_frames",
    "frames_without_json",
    "live_only_stream",
    "heartbeats_only_stream",
    "no_end_frame",
    "stream_stays_open",
    "unreadable_result",
    "exit_code_137_when_killed",
    "health_503",
]
"""A way to differ, for `Faults.differ`. [The guide][playing-a-server-that-differs] says what each of them does."""
Kind = Literal["create", "session", "sessions", "result", "audit", "health", "stream"]
"""What an answer holds: one session, a list of them, and so on."""
Object = Literal["created", "newest", "session", "result", "event", "frame", "health", "result_body"]
"""What a difference changes: the answer to a create, the newest session of a list, any session, and so on."""

Document = dict[str, Any]
Change = Callable[[Document], Any]

EXIT_CODE_OF_SIGKILL = 137
OUTPUT_KINDS = ("stdout", "stderr")


_EXIT_CODE = wire_names(SessionResult)["exit_code"]
_BACKEND_HEALTHY = wire_names(Health)["backend_healthy"]
_TIMES = {wire_names(Session)[name] for name in ("created_at", "started_at", "finished_at")} | {"ts"}
_UNITS = {wire: name.rpartition("_")[2] if "_" in name else "" for name, wire in SessionLimits.wire_names().items()}

_object = msgspec.json.Decoder(Document)


def _epoch_times(document: Document) -> Document:
    return {name: _epoch_ms(value) if name in _TIMES else value for name, value in document.items()}


def _epoch_ms(value: Any) -> Any:
    try:
        return round(datetime.fromisoformat(value).timestamp() * 1000)
    except (TypeError, ValueError):
        return value  # a script made it so


def _limits_with_units(session: Document) -> Document:
    limits = {name: f"{value}{_UNITS.get(name, '')}" for name, value in session["limits"].items()}
    return {**session, "limits": limits}


def _number_for_a_label(session: Document) -> Document:
    return {**session, "labels": {**session["labels"], "build": 7}}


def _odd(session: Document) -> Document:
    return {name: value if name in ("id", "phase") else [value] for name, value in session.items()}


def _flat(event: Document) -> Document:
    detail: Document = event.get("detail", {})
    return _without("detail")(event) | detail


def _with_unknown_field(document: Document) -> Document:
    return {**document, "unknown": {"from": "a later version"}}


def _killed_with_exit_code(result: Document) -> Document:
    return {**result, _EXIT_CODE: EXIT_CODE_OF_SIGKILL} if result.get(_EXIT_CODE, 0) is None else result


def _misshapen_output(frame: Document) -> Document:
    return {**frame, "data": {"text": frame.get("data")}} if frame.get("kind") in OUTPUT_KINDS else frame


def _text_alone(frame: Document) -> Document | bytes:
    return str(frame.get("data")).encode() if frame.get("kind") in OUTPUT_KINDS else frame


def _without_end(frame: Document) -> Document | None:
    return None if frame.get("kind") == "end" else frame


def _without(name: str) -> Callable[[Document], Document]:
    return lambda document: {key: value for key, value in document.items() if key != name}


def _unhealthy(health: Document) -> Document:
    return {**health, "ok": False, _BACKEND_HEALTHY: False}


CHANGES: dict[Difference, dict[Object, Change]] = {
    "epoch_times": {"session": _epoch_times, "event": _epoch_times, "frame": _epoch_times},
    "limits_with_units": {"session": _limits_with_units},
    "number_for_a_label": {"session": _number_for_a_label},
    "no_phase_on_create": {"created": _without("phase")},
    "no_id_on_create": {"created": _without("id")},
    "flat_audit_events": {"event": _flat},
    "odd_session_in_list": {"newest": _odd},
    "unknown_fields": {
        "session": _with_unknown_field,
        "result": _with_unknown_field,
        "event": _with_unknown_field,
        "frame": _with_unknown_field,
    },
    "misshapen_frames": {"frame": _misshapen_output},
    "frames_without_json": {"frame": _text_alone},
    "no_end_frame": {"frame": _without_end},
    "stream_stays_open": {"frame": _without_end},
    "unreadable_result": {"result_body": lambda _: b"<html>upstream error</html>"},
    "exit_code_137_when_killed": {"result": _killed_with_exit_code},
    "health_503": {"health": _unhealthy},
}
STREAMS: frozenset[Difference] = frozenset({"live_only_stream", "heartbeats_only_stream", "stream_stays_open"})

_HOLDS: dict[Kind, set[Object]] = {
    "create": {"created", "session", "result"},
    "session": {"session", "result"},
    "sessions": {"newest", "session", "result"},
    "result": {"result", "result_body"},
    "audit": {"event"},
    "health": {"health"},
    "stream": {"frame", "result", "event"},
}


def affects(difference: Difference, kind: Kind) -> bool:
    """Whether a difference shows in answers of this kind."""
    changed = CHANGES.get(difference, {}).keys()
    return bool(changed & _HOLDS[kind]) or (kind == "stream" and difference in STREAMS)


def rewrite(differences: list[Difference], kind: Kind, reply: Reply) -> Reply:
    """The answer with these differences, each of which affects it."""
    for difference in differences:
        reply = rewrite_json(partial(_change_answer, CHANGES[difference], kind), reply)
        if difference == "health_503":
            reply.status = 503
    return reply


def rewrite_json(change: Callable[[Any], Any], reply: Reply) -> Reply:
    """The answer with its JSON changed. Bytes are taken as the whole body."""
    document = change(msgspec.json.decode(reply.body))
    body = document if isinstance(document, bytes) else msgspec.json.encode(document)
    return msgspec.structs.replace(reply, body=body)


def rewrite_frame(differences: list[Difference], frame: bytes) -> bytes | None:
    """The frame with these differences. It is None where it is left out."""
    # Frames are changed each time that they are sent, so a replay is equal to what was sent before.
    for difference in differences:
        try:
            changed = _change(CHANGES.get(difference, {}), "frame", _object.decode(frame))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return frame  # a script made it so, or another difference
        if changed is None:
            return None
        frame = changed if isinstance(changed, bytes) else msgspec.json.encode(changed)
    return frame


def _change_answer(changes: dict[Object, Change], kind: Kind, answer: Any) -> Any:
    match kind:
        case "sessions":
            sessions = [_change(changes, "session", session) for session in answer]
            return [*(_change(changes, "newest", session) for session in sessions[:1]), *sessions[1:]]
        case "audit":
            return [_change(changes, "event", event) for event in answer]
        case "create":
            return _change(changes, "created", _change(changes, "session", answer))
        case "result":
            return _change(changes, "result_body", _change(changes, "result", answer))
        case _:
            return _change(changes, kind, answer)


def _change(changes: dict[Object, Change], what: str, document: Document) -> Any:
    """An object with its changes, and those of the result or event in it."""
    for part in ("result", "event"):
        if part in changes and isinstance(document.get(part), dict):
            document = {**document, part: changes[part](document[part])}
    return changes[what](document) if what in changes else document
