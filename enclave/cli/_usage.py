"""What is said of arguments that make no sense. Typer finds them, and here its words get the way out. No I/O."""

from __future__ import annotations

import difflib
from typing import Any

from ._options import LIMIT_NAMES


def usage_problem(error: Exception) -> str | None:
    """What Typer says about the arguments. The module of its exceptions differs between its versions."""
    explain = getattr(error, "format_message", None)
    if explain is None:
        return None
    context: Any = getattr(error, "ctx", None)
    command = getattr(context, "command_path", None) or "enclave"
    problem = str(explain()).rstrip(".")
    if context is not None and hasattr(error, "possibilities"):  # it is about an option that the command does not have
        command, problem = _way_out(str(getattr(error, "option_name", "")), context) or (command, problem)
    return f"{problem}{'' if problem.endswith('?') else '.'} See `{command} --help`"


def _way_out(option: str, context: Any) -> tuple[str, str] | None:
    """Whose help tells of an option that has another place, or another name, and what to say of it. None of others."""
    root = context.find_root()
    if context is root:
        for name, command in root.command.commands.items():
            if option in _options(command):
                after = f"{root.command_path} {name}"
                return after, f"{option} goes after the command, as in `{after} {option}`"
    elif option in _options(root.command):
        return root.command_path, f"{option} goes before the command, as in `enclave {option} ... {context.info_name}`"
    elif _options(context.command).get("--limit") == "KEY=VALUE" and (limit := _limit(option.lstrip("-"))):
        return context.command_path, f"No such option: {option}. Did you mean --limit {limit}=...?"
    return None


def _options(command: Any) -> dict[str, str | None]:
    """The options of a command, and what each takes."""
    return {option: parameter.metavar for parameter in command.params for option in parameter.opts if option[0] == "-"}


def _limit(name: str) -> str | None:
    """The limit that a name is meant for."""
    begun = [limit for limit in LIMIT_NAMES if len(name) > 1 and limit.startswith(name)]
    return next(iter(begun or difflib.get_close_matches(name, LIMIT_NAMES, n=1)), None)
