"""Decoding an answer that is not what the wire contract says: field by field, and nothing is lost.

`LenientDecoder` decodes an answer that keeps to the contract in one step. Only where that step fails, because a field
has another shape or has no name here, are the fields read one at a time:

- A field that cannot be read has its default. Its value as the server sent it stands in `extra`, under its wire name.
- A field that this version has no name for stands in `extra` as well.
- A field that is required, or whose type the caller chose, has no default to fall back to. Its misfit is raised.
- A Struct inside is read by the same rules. One without a field `extra` has no place for a misfit, and raises it.
- Of a mapping, the entries that fit are kept, and the whole mapping as it was sent stands in `extra`.

All of it is derived from the Structs, so a new field needs nothing here.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from typing import Any, Generic, TypeVar, get_args, get_origin

import msgspec

from ._json import NestedTooDeeplyError, decode_text
from ._split import split_array, split_object

S = TypeVar("S", bound=msgspec.Struct)

_anything = msgspec.json.Decoder(Any)


class LenientDecoder(Generic[S]):
    """A decoder of one Struct that keeps what it cannot read. Build it once for a type."""

    def __init__(self, type_: type[S], *, keep_misfits: bool = True) -> None:
        """Without `keep_misfits` only unknown fields are kept. Raises TypeError where msgspec cannot decode `type_`."""
        self._type = type_
        self._keep_misfits = keep_misfits
        self._one = msgspec.json.Decoder(type_)
        # Not `list[type_]`, which a type checker takes for an annotation, and a variable can be no part of one.
        self._list: msgspec.json.Decoder[list[S]] = msgspec.json.Decoder(list.__class_getitem__(type_))

    def decode(self, document: bytes) -> S:
        """Decode one object.

        Raises:
            msgspec.DecodeError: the document is not JSON, or (as ValidationError) lacks what cannot be left out.
        """
        try:
            return decode_text(self._one, document)
        except (msgspec.ValidationError, NestedTooDeeplyError):
            return self._by_field.read(document)

    def decode_list(self, document: bytes) -> list[S]:
        """Decode an array of objects. One odd object does not harm the others. Raises as `decode` does."""
        try:
            return decode_text(self._list, document)
        except (msgspec.ValidationError, NestedTooDeeplyError):
            return [self._item(index, item) for index, item in enumerate(split_array(document))]

    def decode_usable(self, document: bytes) -> list[S]:
        """The same without the items that cannot be decoded. Raises where the document is no array."""
        usable: list[S] = []
        for item in split_array(document):
            try:
                usable.append(self.decode(item))
            except msgspec.DecodeError:
                continue
        return usable

    def _item(self, index: int, document: bytes) -> S:
        try:
            return self.decode(document)
        except msgspec.DecodeError as error:
            raise _at(f"[{index}]", error) from None

    @cached_property
    def _by_field(self) -> _StructReader[S]:
        return _StructReader(self._type, keep_misfits=self._keep_misfits)


class _StructReader(Generic[S]):
    """Reads a Struct one field at a time."""

    def __init__(self, type_: type[S], *, keep_misfits: bool) -> None:
        self._type = type_
        self._keeps_extra = _has_extra(type_)
        self._keeps_misfits = self._keeps_extra and keep_misfits
        # A generic Struct such as SessionResult[Answer] has the caller's type where its own declaration has a TypeVar.
        declared = msgspec.structs.fields(get_origin(type_) or type_)
        self._fields = [
            _FieldReader(field, is_callers=isinstance(declaration.type, TypeVar), keep_misfits=keep_misfits)
            for field, declaration in zip(msgspec.structs.fields(type_), declared, strict=True)
            if field.name != "extra"
        ]

    def read(self, document: bytes) -> S:
        sent = split_object(document)
        values: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        for field in self._fields:
            raw = sent.pop(field.wire_name, b"")
            if field.is_absent(raw):
                continue
            try:
                values[field.name] = field.read(raw)
            except msgspec.DecodeError as error:
                if field.is_demanded or not self._keeps_misfits:
                    raise _at(f".{field.wire_name}", error) from None
                values |= field.readable_part(raw)
                extra[field.wire_name] = _as_sent(raw)
        if self._keeps_extra:
            values["extra"] = extra | {name: _as_sent(raw) for name, raw in sent.items()}
        try:
            return self._type(**values)
        except (TypeError, ValueError) as error:  # the Struct's own check
            raise msgspec.ValidationError(str(error)) from None


class _FieldReader:
    """Reads one field of a Struct from its JSON."""

    def __init__(self, field: msgspec.structs.FieldInfo, *, is_callers: bool, keep_misfits: bool) -> None:
        self.name = field.name
        self.wire_name = field.encode_name
        self.is_demanded = field.required or is_callers
        self._is_required = field.required
        self._exact = msgspec.json.Decoder(field.type)
        members = [field.type, *get_args(field.type)]
        structs = (member for member in members if _has_extra(member))
        self._struct = next((_StructReader(struct, keep_misfits=keep_misfits) for struct in structs), None)
        mapping = next((member for member in members if get_origin(member) is dict), None)
        self._entry = msgspec.json.Decoder(get_args(mapping)[1]) if mapping else None

    def is_absent(self, document: bytes) -> bool:
        """Whether the server left the field out, by null or by an empty document, which is none at all."""
        if not document and self._is_required:
            raise msgspec.ValidationError(f"Object missing required field `{self.wire_name}`")
        # A type of the caller's decides itself whether it takes null.
        return not document or (document == b"null" and not self.is_demanded)

    def read(self, document: bytes) -> Any:
        try:
            return decode_text(self._exact, document)
        except (msgspec.ValidationError, NestedTooDeeplyError):
            if self._struct is None:
                raise
            return self._struct.read(document)

    def readable_part(self, document: bytes) -> dict[str, Any]:
        """The field with those entries of a mapping that fit. Empty where the field is no mapping."""
        if self._entry is None:
            return {}
        try:
            entries = split_object(document)
        except msgspec.DecodeError:
            return {}
        # One odd label must not hide the others: a session whose create got no answer is found by its label.
        fitting: dict[str, Any] = {}
        for key, raw in entries.items():
            with suppress(msgspec.DecodeError):
                fitting[key] = decode_text(self._entry, raw)
        return {self.name: fitting}


def _has_extra(type_: Any) -> bool:
    struct = get_origin(type_) or type_
    return isinstance(struct, type) and issubclass(struct, msgspec.Struct) and "extra" in struct.__struct_fields__


def _as_sent(document: bytes) -> Any:
    """The value as plain JSON types. One that no Python value can hold, such as ``1e999``, is its text."""
    try:
        return decode_text(_anything, document)
    except msgspec.DecodeError:
        return document.decode("utf-8", "replace")


def _at(step: str, error: msgspec.DecodeError) -> msgspec.ValidationError:
    """The same error, seen from one step further out in the document."""
    reason, at, path = str(error).rpartition(" - at `$")
    return msgspec.ValidationError(f"{reason} - at `${step}{path}" if at else f"{path} - at `${step}`")
