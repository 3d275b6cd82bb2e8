"""The open-file limit, which bounds how many streams one process can hold."""

from __future__ import annotations

import resource

SPARE_FILES = 200
"""Descriptors a process needs besides its streams."""


def raise_open_files() -> int:
    """Raise the soft limit to the hard one and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def most_streams() -> int:
    """How many streams a process may open here."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (hard if hard != resource.RLIM_INFINITY else 1 << 20) - SPARE_FILES
