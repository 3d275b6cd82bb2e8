"""The help of every command, as docs/cli.md shows it. Run it to bring that file up to date."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
from pathlib import Path
from unittest.mock import MagicMock

import typer.main

from enclave.cli._app import app

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "cli.md"
MARK = "<!-- help -->\n"


def help_of(*command: str) -> str:
    """What `enclave ... --help` prints."""
    os.environ["COLUMNS"] = "80"
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        app([*command, "--help"], prog_name="enclave", standalone_mode=False, obj=MagicMock())
    return out.getvalue()


def commands() -> list[str]:
    """All commands, in the order of the help."""
    return list(typer.main.get_command(app).commands)


def sections() -> str:
    """The Markdown of all of it."""
    parts = [f"```text\n{help_of()}```\n"]
    parts += [f"### enclave {name}\n\n```text\n{help_of(name)}```\n" for name in commands()]
    return "\n".join(parts)


def examples(*command: str) -> list[str]:
    """The examples that the help gives, as they are typed into a shell."""
    return re.findall(r"^    (\S.*)$", help_of(*command).partition("Examples:\n")[2], re.MULTILINE)


def is_plain(example: str) -> bool:
    """Whether it needs no shell: no pipe, no redirection."""
    return not set(shlex.split(example)) & {"|", "<", ">"}


def normal(text: str) -> str:
    """Without what differs between versions of Typer: types after names, brackets around them, spacing."""
    text = re.sub(r" <[a-z \[\]]+>", "", text)
    text = re.sub(r"[{}\[\]]|\.\.\.", "", text)
    return " ".join(text.split())


if __name__ == "__main__":
    before = DOCUMENT.read_text().partition(MARK)[0]
    DOCUMENT.write_text(f"{before}{MARK}\n{sections()}")
