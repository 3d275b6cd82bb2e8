"""The command line `enclave` (extra `enclave-sdk[cli]`). Nothing in the rest of the package imports it.

_app.py         the commands, the options in front of them, and what becomes of an error
_run.py         enclave run, enclave logs
_sessions.py    enclave ls, enclave rm
_inspect.py     enclave show, result, audit, health
_map.py         enclave map, _map_output.py the file with its results
_simulator.py   enclave simulator

_runtime.py     what a command runs on: an event loop, signals that cancel it, a client
_options.py     options that several commands share, and what the text of an option means
_frames.py      a stream's frames as output
_output.py      standard output and standard error
_tables.py      tables and the progress bar, the one module that needs Rich
_text.py        control characters made visible, and JSON
_errors.py      exit codes, and the line that an error becomes
_usage.py       what is said of arguments that make no sense

Each command is a coroutine function that Typer calls through `_runtime.runs`. Its exit code is the program's own for
`run`, and otherwise as `_errors.py` and docs/cli.md have it.
"""

from __future__ import annotations

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line on `arguments`, by default those of the process, and return the exit code."""
    try:
        from ._app import run  # noqa: PLC0415 - so that a missing extra is one line, not a traceback
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich", "click"):
            raise
        import sys  # noqa: PLC0415 - only needed here

        print("enclave: the command line needs an extra: pip install 'enclave-sdk[cli]'", file=sys.stderr)  # noqa: T201
        return 1
    return run(arguments)
