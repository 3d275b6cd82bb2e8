"""The command `enclave`: its commands, the options in front of them, and what becomes of an error."""

from __future__ import annotations

import logging
import os
import signal
import traceback
import warnings
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Annotated, Any, Literal

import typer

from enclave import InsecureTransportWarning, __version__

from . import _inspect, _map, _run, _sessions, _simulator
from ._client import GlobalOptions
from ._errors import EXIT_ERROR, EXIT_OUTPUT_CLOSED, CommandError, OutputClosed, described
from ._options import epilog
from ._output import Screen, leave_if_stuck
from ._runtime import Context, Invocation
from ._text import visible
from ._usage import usage_problem

app = typer.Typer(
    name="enclave",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
for module in (_run, _sessions, _inspect, _map, _simulator):
    app.add_typer(module.commands)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"enclave {__version__}")
        raise typer.Exit


@app.callback(
    invoke_without_command=True,
    epilog=epilog(
        "enclave run --local -c 'print(6 * 7)'",
        "enclave run job.py",
        "enclave --backend trio ls",
    ),
)
def enclave(
    ctx: Context,
    *,
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="The control plane. By default $ENCLAVE_BASE_URL.")
    ] = None,
    api_key_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A file with the API key. By default $ENCLAVE_API_KEY is the key."),
    ] = None,
    token_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A file with a user's JWT. By default $ENCLAVE_TOKEN is the token."),
    ] = None,
    backend: Annotated[
        Literal["asyncio", "trio"], typer.Option(metavar="asyncio|trio", help="The event loop.")
    ] = "asyncio",
    color: Annotated[
        Literal["auto", "always", "never"],
        typer.Option(metavar="auto|always|never", help="When to use colour. NO_COLOR and FORCE_COLOR are heeded too."),
    ] = "auto",
    version: Annotated[  # noqa: ARG001 - its callback does all the work
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Run untrusted code in isolated, ephemeral sessions."""
    ctx.obj.screen.set_color(color)
    ctx.obj.options = GlobalOptions(
        base_url=base_url, api_key_file=api_key_file, token_file=token_file, backend=backend
    )
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def run(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code. An error becomes one line on standard error."""
    screen = Screen()
    with _diagnostics(screen):
        exit_code = _exit_code(arguments, screen)
    leave_if_stuck(exit_code)
    return exit_code


def _exit_code(arguments: list[str] | None, screen: Screen) -> int:
    try:
        code = app(args=arguments, prog_name="enclave", standalone_mode=False, obj=Invocation(screen))
    except OutputClosed:
        return EXIT_OUTPUT_CLOSED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:  # noqa: BLE001 - no error goes further than this
        return _report(error, screen)
    return code if isinstance(code, int) else 0


def _report(error: Exception, screen: Screen) -> int:
    # The traceback holds what a server or a workload said, and must not act on the terminal.
    usage = usage_problem(error)
    with suppress(CommandError, OutputClosed):  # without standard error, the exit code still tells
        if os.environ.get("ENCLAVE_DEBUG") == "1":
            screen.err.write_now(visible("".join(traceback.format_exception(error))))
        screen.fail_now(usage or described(error))
    return int(getattr(error, "exit_code", EXIT_ERROR)) if usage or isinstance(error, CommandError) else EXIT_ERROR


@contextmanager
def _diagnostics(screen: Screen) -> Generator[None]:
    """Show warnings and log records of the SDK as lines of ours, because their text may hold what a server sent."""
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
