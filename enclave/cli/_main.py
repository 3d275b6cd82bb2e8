"""From arguments to an exit code: every error becomes one line on standard error, and never a traceback unasked."""

from __future__ import annotations

import logging
import os
import signal
import traceback
import warnings
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

from enclave import InsecureTransportWarning

from ._app import app
from ._blocking import leave_if_stuck
from ._errors import EXIT_ERROR, EXIT_OUTPUT_CLOSED, CommandError, OutputClosed, described
from ._output import Screen


def run(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    screen = Screen()
    with _diagnostics(screen):
        exit_code = _run(arguments, screen)
    leave_if_stuck(exit_code)
    return exit_code


def _run(arguments: list[str] | None, screen: Screen) -> int:
    try:
        code = app(args=arguments, prog_name="enclave", standalone_mode=False, obj=screen)
    except OutputClosed:
        return EXIT_OUTPUT_CLOSED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:  # noqa: BLE001 - this is where errors end
        return _report(error, screen)
    return code if isinstance(code, int) else 0


def _report(error: Exception, screen: Screen) -> int:
    if os.environ.get("ENCLAVE_DEBUG") == "1":
        traceback.print_exception(error)
    usage = _usage_problem(error)
    with suppress(CommandError, OutputClosed):  # standard error is gone; the exit code still tells
        screen.warn_now(usage or described(error))
    return int(getattr(error, "exit_code", EXIT_ERROR)) if usage or isinstance(error, CommandError) else EXIT_ERROR


def _usage_problem(error: Exception) -> str | None:
    """What Typer has to say of the arguments; which module its exceptions are in depends on its version."""
    explain = getattr(error, "format_message", None)
    if explain is None:
        return None
    command = getattr(getattr(error, "ctx", None), "command_path", None) or "enclave"
    message = str(explain()).rstrip(".")
    return f"{message}; see `{command} --help`"


@contextmanager
def _diagnostics(screen: Screen) -> Generator[None]:
    """Warnings and log records of the SDK as lines of ours: their text may hold what a server sent."""
    handler = _LineHandler(screen)
    logger = logging.getLogger("enclave")
    logger.addHandler(handler)

    def show(message: Warning | str, *_args: Any, **_kwargs: Any) -> None:
        logger.warning("%s", message)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", InsecureTransportWarning)
            warnings.showwarning = show
            yield
    finally:
        logger.removeHandler(handler)


class _LineHandler(logging.Handler):
    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.WARNING)
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(CommandError, OutputClosed):  # nobody is there to read it
            self._screen.warn_now(f"warning: {record.getMessage()}")
