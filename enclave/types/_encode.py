"""The way back: a Struct to the JSON document that the wire has for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ._shown import Shown

EXTRA = "__extra__"
"""The name of `extra` until its entries are merged into the document. No field of the wire has this name."""


def wire_names(struct: type[msgspec.Struct]) -> dict[str, str]:
    """The fields of a Struct but for `extra`: what each is called in Python, and on the wire."""
    # Not `msgspec.structs.fields`, which reads the annotations anew at each call and takes 200 us for a request.
    names = dict(zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True))
    names.pop("extra", None)
    return names


class WireStruct(Shown, frozen=True):
    """A type of the wire that is a document of its own."""

    def to_json(self) -> bytes:
        """The JSON document: camelCase names, and the entries of ``extra``, where there is one.

        What a client decoded comes out as the server sent it. A field that could not be read has the value that the
        server gave it.

        Raises:
            TypeError, ValueError: an ``extra`` in it holds a value that JSON cannot express.
        """
        try:
            document = msgspec.to_builtins(self, enc_hook=_to_builtin)
            _merge_extra(document, self)
            return msgspec.json.encode(document)
        except UnicodeEncodeError:
            # Every other text was checked when it was made or came from JSON.
            raise ValueError("extra: holds a lone surrogate, which UTF-8 cannot carry") from None
        except RecursionError:
            raise ValueError("extra: is nested too deeply for JSON, or holds itself") from None


def _merge_extra(document: dict[str, Any], struct: msgspec.Struct) -> None:
    # By the Structs and not by what is in the document: a workload's value may have a key of this name.
    for name, wire_name in wire_names(type(struct)).items():
        child = getattr(struct, name)
        if isinstance(child, msgspec.Struct) and wire_name in document:
            _merge_extra(document[wire_name], child)
    document.update(document.pop(EXTRA, {}))


# The methods of str, int and float and not their constructors, which call what a subclass overrides. Template engines
# mark text as safe with a subclass whose `__str__` returns itself.
_BUILTINS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (Mapping, dict),
    (Sequence, list),
)


def _to_builtin(value: Any) -> Any:
    """For `msgspec.to_builtins`, which knows exact types alone. What is none of these can only be in `extra`."""
    for abstract, builtin in _BUILTINS:
        if isinstance(value, abstract):
            return builtin(value)
    raise TypeError(f"extra: JSON cannot express an object of type {type(value).__name__}")
