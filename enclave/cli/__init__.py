"""The command line, `enclave`. Needs the extra `enclave-sdk[cli]`; nothing in the rest of the package imports it.

_app.py         what the commands and their options are called; imports a command's module only when it runs
_main.py        from arguments to an exit code, and from an exception to one line
_errors.py      errors of the command line's own, and which fix goes with which error of the SDK
_supervise.py   the event loop: signals become cancellation
_blocking.py    reads and writes that may block, in threads that a signal can leave behind
_output.py      standard output and standard error
_text.py        control characters of untrusted text made visible
_json.py        JSON for people's terminals and for pipes
_connect.py     the client, from options and the environment, or with an embedded simulator
_parse.py       KEY=VALUE, durations, limits
_source.py      the program to run and its language
_frames.py      a stream's frames as output
_tables.py      tables on a terminal; the one module that needs Rich for them
_run.py, _logs.py, _inspect.py, _remove.py, _map.py, _simulator.py   the commands, by name
_map_input.py, _map_output.py   requests from JSONL, and results to JSONL that can be resumed

Exit codes: the workload's own for `run`; 1 an error, 2 wrong usage, 124 out of time, 137 killed by the platform,
141 the reader of standard output went away, 130 Ctrl-C, and 128 plus its number for another signal.
"""

from __future__ import annotations

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line on `arguments`, by default those of the process, and return the exit code."""
    try:
        from ._main import run  # noqa: PLC0415 - so that a missing extra is one line, not a traceback
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich", "click"):
            raise
        import sys  # noqa: PLC0415 - only needed here

        print("enclave: the command line needs an extra: pip install 'enclave-sdk[cli]'", file=sys.stderr)  # noqa: T201
        return 1
    return run(arguments)
