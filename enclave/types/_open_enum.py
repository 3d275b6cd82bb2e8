"""String enumerations that stay readable when the server knows more members than we do."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class OpenStrEnum(StrEnum):
    """A `StrEnum` that turns an unknown string into a member of its own instead of failing.

    The unknown member compares and hashes like the string it was made from, but is not cached: compare it
    with ``==``, as with every string. `is_known` tells the two apart.
    """

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        # Not kept among the members: a server could fill that table without end.
        member = str.__new__(cls, value)
        member._name_ = value
        member._value_ = value
        return member

    @property
    def is_known(self) -> bool:
        """Whether this version of the SDK has a name for the member."""
        return self._value_ in type(self)._value2member_map_
