"""For MkDocs: docstrings are written for `help()`, where a line of two colons announces an indented block."""

# ruff: noqa: INP001 - MkDocs loads it by its path
from __future__ import annotations


def on_page_content(html: str, **_: object) -> str:
    """Drop what is left of such a line where the block shows by itself."""
    return html.replace("<p>::</p>\n", "")
