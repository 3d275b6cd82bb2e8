"""Renders whatever a log, a bug report or a debugger might show of an exception or an object."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Iterator
from typing import Any


def linked(error: BaseException) -> Iterator[BaseException]:
    """The exception and everything reachable from it: causes, contexts (suppressed ones too), members of groups."""
    queue, seen = [error], set()
    while queue:
        link = queue.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        queue += [each for each in (link.__cause__, link.__context__) if each is not None]
        queue += getattr(link, "exceptions", ())


def everything_of(error: BaseException) -> str:
    """Message, fields, pickle, and the traceback with all local variables, of each linked exception."""
    shown: list[str] = []
    for link in linked(error):
        shown += [repr(link), str(link), repr(link.args), repr(vars(link))]
        shown += traceback.TracebackException.from_exception(link, capture_locals=True).format()
        if type(link).__module__.startswith("enclave"):
            shown.append(repr(pickle.dumps(link)))
    return "\n".join(shown)


def surface_of(value: Any) -> str:
    """What an object shows of itself, and its attributes of themselves, one level deep."""
    attributes = dict(getattr(value, "__dict__", {}))
    for name in dir(type(value)):
        if not name.startswith("__") and not callable(getattr(type(value), name, None)):
            attributes[name] = getattr(value, name, None)
    shown = [repr(value), str(value), format(value)]
    for name, attribute in attributes.items():
        shown += [name, repr(attribute), str(attribute), repr(getattr(attribute, "__dict__", ""))]
    return "\n".join(shown)
