"""Fields that are never None, although a server may send null for them: null means absent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeVar

T = TypeVar("T")

if TYPE_CHECKING:
    OrAbsent = Annotated[T, "null on the wire is taken for absent"]
else:
    # Not the `Annotated` of above, of which msgspec sees T alone: it would refuse the null.

    class OrAbsent:
        """``OrAbsent[T]`` is T for whoever reads the field, and ``T | None`` for msgspec, which decodes it.

        What makes it T is the Struct's ``__post_init__``, which puts the default in the place of a None.
        """

        def __class_getitem__(cls, type_: Any) -> Any:
            return type_ | None
