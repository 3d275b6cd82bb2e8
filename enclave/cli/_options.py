"""Options that several commands share, and what the text of an option means."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
import typer.core

from enclave import EgressPolicy, SessionLimits

from ._errors import BadUsage, CommandError, in_options

MAX_SOURCE_BYTES = 64 * 1024 * 1024

Json = Annotated[bool, typer.Option("--json", help="Print JSON on a terminal too.")]
Raw = Annotated[bool, typer.Option("--raw", help="Let the program's output control the terminal.")]
Local = Annotated[
    bool, typer.Option("--local", help="Run on a simulator inside this command. It is NOT a security boundary.")
]
Labels = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="Only sessions with this label. Repeatable.")
]
OlderThan = Annotated[
    str | None,
    typer.Option("--older-than", metavar="TIME", help="Only sessions that are older. Examples: 30s, 15m, 1h30m, 2d."),
]

_LANGUAGES = {".py": "python", ".js": "node", ".mjs": "node", ".cjs": "node"}
# Help, completion and parsing all use these, so a new limit needs nothing here.
_LIMITS = {name.replace("_", "-"): name for name in SessionLimits.wire_names()}
LIMIT_NAMES = tuple(_LIMITS)
_UNITS = {"": "seconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"[0-9]{1,6}|([0-9]{1,6}[smhdw])+")
_PART = re.compile(r"([0-9]+)([smhdw]?)")


def epilog(*examples: str) -> str:
    """The end of a command's help. A test runs each example."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in examples)


class Command(typer.core.TyperCommand):
    """A command whose help shows arguments by their names alone, whatever the version of Typer."""

    def collect_usage_pieces(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # Typer carries its Click
        """What follows the command's name in the first line of the help."""
        arguments = [parameter for parameter in self.get_params(ctx) if parameter.param_type_name == "argument"]
        return ["[OPTIONS]", *(_name(each) if each.required else f"[{_name(each)}]" for each in arguments)]

    def format_options(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """The sections about arguments and options."""
        for title, kind in (("Arguments", "argument"), ("Options", "option")):
            parameters = [parameter for parameter in self.get_params(ctx) if parameter.param_type_name == kind]
            records = [(parameter, parameter.get_help_record(ctx)) for parameter in parameters]
            rows = [(_name(each) if kind == "argument" else record[0], record[1]) for each, record in records if record]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _name(argument: Any) -> str:
    return f"{argument.metavar}..." if argument.nargs != 1 else str(argument.metavar)


def pairs(option: str, values: Sequence[str] | None) -> dict[str, str]:
    """``KEY=VALUE`` strings as a mapping.

    Raises:
        BadUsage: a string is no such pair, or a key is given twice.
    """
    result: dict[str, str] = {}
    for text in values or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise BadUsage(f"{option}: expected KEY=VALUE, got {text!r}")
        if key in result:
            raise BadUsage(f"{option}: {key!r} is given twice")
        result[key] = value
    return result


def duration(option: str, text: str) -> timedelta:
    """What ``90``, ``15m``, ``1h30m`` or ``2d`` means. A bare number counts seconds. Raises `BadUsage`."""
    if not _DURATION.fullmatch(text):
        raise BadUsage(f"{option}: expected a duration such as 30s, 15m, 1h30m or 2d, got {text!r}")
    return sum((timedelta(**{_UNITS[unit]: int(number)}) for number, unit in _PART.findall(text)), timedelta())


def seconds(option: str, value: float | None) -> float:
    """A number of seconds to wait, or infinity if the option was not given. Raises `BadUsage`."""
    if value is None:
        return float("inf")
    if not value > 0:
        raise BadUsage(f"{option}: expected a positive number of seconds, got {value:g}")
    return value


def program(file: str | None, code: str | None, language: str | None) -> tuple[str, str | None]:
    """The source text and its language. The language is None where the server's default will do. This may block.

    Raises:
        BadUsage: both or none of `file` and `code` are given, or the suffix of the file tells no language.
        CommandError: the source is too large, or is not text.
        OSError: the file cannot be read.
    """
    if (file is None) == (code is None):
        raise BadUsage("run: give a FILE, or - for standard input, or -c CODE. See `enclave run --help`")
    if code is not None:
        try:
            code.encode()
        except UnicodeEncodeError:
            raise BadUsage("-c: the code is not UTF-8. Put it into a file") from None
        return code, language
    if file is None or file == "-":
        return _source("standard input", standard_input()), language
    if language is None:
        language = _language_of(Path(file))
    with Path(file).open("rb") as opened:
        return _source(file, opened), language


def standard_input() -> BinaryIO:
    """Standard input as bytes.

    Raises:
        CommandError: it is closed.
    """
    if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison] - whoever started us can have closed it
        raise CommandError("standard input is closed. Name a file instead")
    return sys.stdin.buffer


def _language_of(path: Path) -> str | None:
    suffix = path.suffix.lower()
    if suffix and suffix not in _LANGUAGES:
        raise BadUsage(f"{path}: the suffix tells no language ({', '.join(_LANGUAGES)} do). Pass --language")
    return _LANGUAGES.get(suffix)


def _source(name: str, file: BinaryIO) -> str:
    source = file.read(MAX_SOURCE_BYTES + 1)
    if len(source) > MAX_SOURCE_BYTES:
        raise CommandError(f"{name}: larger than {MAX_SOURCE_BYTES} bytes. No server takes such a program")
    try:
        return source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CommandError(f"{name}: not UTF-8 at byte {error.start}. Convert it, or pass another file") from None


def limits(values: Sequence[str] | None) -> SessionLimits | None:
    """The limits that ``--limit memory-mb=256`` and the like set. None if there are none. Raises `BadUsage`."""
    known = {_squeezed(name): field for name, field in _LIMITS.items()}
    found: dict[str, Any] = {}
    for name, value in pairs("--limit", values).items():
        field = known.get(_squeezed(name))
        if field is None:
            raise BadUsage(f"--limit: unknown limit {name!r}, expected one of {', '.join(LIMIT_NAMES)}")
        # Not `int(value)` alone, which takes " 5", "1_000" and the digits of every script.
        if not re.fullmatch(r"[0-9]{1,15}", value) or int(value) == 0:
            raise BadUsage(f"--limit {name}: expected a whole number from 1, got {value!r}")
        found[field] = int(value)
    return SessionLimits(**found) if found else None


def _squeezed(name: str) -> str:
    """The same text for cpu-millis, cpu_millis and cpuMillis."""
    return re.sub(r"[-_]", "", name).lower()


def egress(networks: Sequence[str] | None) -> EgressPolicy | None:
    """The policy that allows these networks. Without any it is None, and the server denies everything.

    Raises:
        BadUsage: a text is no network.
    """
    if not networks:
        return None
    try:
        return EgressPolicy.allowlist(*networks)
    except ValueError as error:
        raise BadUsage(in_options(str(error))) from None
