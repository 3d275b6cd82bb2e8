"""How an answer looks that comes from a server which differs from the documented one. Pure: no I/O.

A difference shows in answers of one kind or several. `ANSWERS` says what becomes of an answer, and `FRAMES` what
becomes of a stream's frame. A frame that becomes None is left out. The differences in `STREAMS` are about when a stream
begins and ends, and `_sse.py` has what they do.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

import msgspec

from enclave.types import Health, Session, SessionLimits, SessionResult

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
Kind = Literal["create", "session", "sessions", "result", "audit", "health", "stream"]
"""What an answer holds: one session, a list of them, and so on."""

Document = dict[str, Any]
Change = Callable[[Any], Any]
AnswerChange = Callable[[Reply], Reply]

EXIT_CODE_OF_SIGKILL = 137
OUTPUT_KINDS = ("stdout", "stderr")


def _wire_name(struct: type[msgspec.Struct], name: str) -> str:
    return next(field.encode_name for field in msgspec.structs.fields(struct) if field.name == name)


_EXIT_CODE = _wire_name(SessionResult, "exit_code")
_LIMIT_UNITS = {
    field.encode_name: field.name.rpartition("_")[2] if "_" in field.name else ""
    for field in msgspec.structs.fields(SessionLimits)
}
_TIMES = {_wire_name(Session, name) for name in ("created_at", "started_at", "finished_at")} | {"ts"}


def affects(difference: Difference, kind: Kind) -> bool:
    """Whether a difference shows in answers of this kind."""
    if kind == "stream":
        return difference in FRAMES or difference in STREAMS
    return kind in ANSWERS.get(difference, {})


def rewrite(differences: list[Difference], kind: Kind, reply: Reply) -> Reply:
    """The answer with these differences."""
    for difference in differences:
        reply = ANSWERS[difference][kind](reply)
    return reply


def rewrite_frame(differences: list[Difference], frame: bytes) -> bytes | None:
    """The frame with these differences. None where it is left out, or bytes that are no JSON."""
    for change in [FRAMES[difference] for difference in differences if difference in FRAMES]:
        try:
            document = msgspec.json.decode(frame)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return frame  # a script sent it so, or another difference made it so
        changed = change(document)
        if changed is None:
            return None
        frame = changed if isinstance(changed, bytes) else msgspec.json.encode(changed)
    return frame


def in_document(change: Change) -> AnswerChange:
    """What changes the JSON of an answer, made to change the answer. Bytes are taken as the whole body."""

    def changed(reply: Reply) -> Reply:
        document = change(msgspec.json.decode(reply.body))
        body = document if isinstance(document, bytes) else msgspec.json.encode(document)
        return msgspec.structs.replace(reply, body=body)

    return changed


# What becomes of one object


def _epoch_times(document: Document) -> Document:
    return {name: _epoch_ms(value) if name in _TIMES else value for name, value in document.items()}


def _epoch_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def _limits_with_units(session: Document) -> Document:
    limits = {name: f"{value}{_LIMIT_UNITS.get(name, '')}" for name, value in session["limits"].items()}
    return {**session, "limits": limits}


def _number_for_a_label(session: Document) -> Document:
    return {**session, "labels": {**session["labels"], "build": 7}}


def _odd_session(session: Document) -> Document:
    return {name: value if name in ("id", "phase") else [value] for name, value in session.items()}


def _flat_event(event: Document) -> Document:
    detail: Document = event.get("detail", {})
    return {name: value for name, value in event.items() if name != "detail"} | detail


def _with_unknown_field(document: Document) -> Document:
    return {**document, "unknown": {"from": "a later version"}}


def _killed_with_exit_code(result: Document) -> Document:
    return {**result, _EXIT_CODE: EXIT_CODE_OF_SIGKILL} if result[_EXIT_CODE] is None else result


def _misshapen_output(frame: Document) -> Document:
    return {**frame, "data": {"text": frame["data"]}} if frame["kind"] in OUTPUT_KINDS else frame


def _text_without_json(frame: Document) -> Document | bytes:
    return str(frame["data"]).encode() if frame["kind"] in OUTPUT_KINDS else frame


def _without_end(frame: Document) -> Document | None:
    return None if frame["kind"] == "end" else frame


# Where such an object stands


def _without(name: str) -> Change:
    return lambda document: {key: value for key, value in document.items() if key != name}


def _each(change: Change) -> Change:
    return lambda documents: [change(document) for document in documents]


def _first(change: Change) -> Change:
    return lambda documents: [change(document) for document in documents[:1]] + documents[1:]


def _part(name: str, change: Change) -> Change:
    return lambda document: {**document, name: change(document[name])} if document.get(name) else document


def _in_sessions(change: Change) -> dict[Kind, AnswerChange]:
    return {
        "create": in_document(change),
        "session": in_document(change),
        "sessions": in_document(_each(change)),
    }


def _in_audit(change: Change) -> dict[Kind, AnswerChange]:
    return {"audit": in_document(_each(change))}


def _in_results(change: Change) -> dict[Kind, AnswerChange]:
    return {"result": in_document(change), **_in_sessions(_part("result", change))}


def _unhealthy(reply: Reply) -> Reply:
    document = msgspec.structs.replace(msgspec.json.decode(reply.body, type=Health), ok=False, backend_healthy=False)
    return Reply.json(document, 503)


ANSWERS: dict[Difference, dict[Kind, AnswerChange]] = {
    "epoch_times": {**_in_sessions(_epoch_times), **_in_audit(_epoch_times)},
    "limits_with_units": _in_sessions(_limits_with_units),
    "number_for_a_label": _in_sessions(_number_for_a_label),
    "no_phase_on_create": {"create": in_document(_without("phase"))},
    "no_id_on_create": {"create": in_document(_without("id"))},
    "flat_audit_events": _in_audit(_flat_event),
    "odd_session_in_list": {"sessions": in_document(_first(_odd_session))},
    "unknown_fields": {
        **_in_results(_with_unknown_field),
        **_in_sessions(lambda session: _with_unknown_field(_part("result", _with_unknown_field)(session))),
        **_in_audit(_with_unknown_field),
    },
    "unreadable_result": {"result": in_document(lambda _: b"<html>upstream error</html>")},
    "exit_code_137_when_killed": _in_results(_killed_with_exit_code),
    "health_503": {"health": _unhealthy},
}

FRAMES: dict[Difference, Change] = {
    "epoch_times": lambda frame: _part("event", _epoch_times)(_epoch_times(frame)),
    "flat_audit_events": _part("event", _flat_event),
    "unknown_fields": lambda frame: _with_unknown_field(
        _part("event", _with_unknown_field)(_part("result", _with_unknown_field)(frame))
    ),
    "misshapen_frames": _misshapen_output,
    "frames_without_json": _text_without_json,
    "no_end_frame": _without_end,
    "stream_stays_open": _without_end,
    "exit_code_137_when_killed": _part("result", _killed_with_exit_code),
}

STREAMS: frozenset[Difference] = frozenset({"live_only_stream", "heartbeats_only_stream", "stream_stays_open"})
