"""What the commands are called and what they take. Each imports what it needs when it runs, so that help is quick."""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import typer

from ._options import (
    Allow,
    AllowRemote,
    ApiKeyFile,
    Backend,
    BaseUrl,
    Code,
    Detach,
    DryRun,
    Follow,
    Host,
    Id,
    Ids,
    Json,
    JsonFrames,
    JsonOutcome,
    Labels,
    Language,
    Limit,
    Local,
    MaxConcurrency,
    NewLabels,
    OlderThan,
    Port,
    Program,
    Raw,
    RequestFile,
    ResultFile,
    RunTimeout,
    ServiceBinding,
    TokenFile,
    Version,
    WaitTimeout,
    examples,
)

if TYPE_CHECKING:
    from enclave import EnclaveClient

    from ._connect import GlobalOptions
    from ._inspect import Filters
    from ._output import Screen

app = typer.Typer(
    name="enclave",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@dataclass(frozen=True)
class _Invocation:
    screen: Screen
    options: GlobalOptions

    def run(self, work: Callable[[EnclaveClient, Screen], Awaitable[int]], *, local: bool = False) -> int:
        """Run what needs a client."""
        from ._connect import connect
        from ._supervise import supervise

        return supervise(
            lambda: connect(self.options, local=local),
            lambda enclave: work(enclave, self.screen),
            backend=self.options.backend,
            screen=self.screen,
        )


def _of(ctx: typer.Context) -> _Invocation:
    return cast(_Invocation, ctx.obj)


def _filters(labels: list[str] | None, older_than: str | None) -> Filters:
    from . import _parse
    from ._inspect import Filters

    age = None if older_than is None else _parse.duration("--older-than", older_than)
    return Filters(labels=_parse.pairs("--label", labels), older_than=age)


@app.callback(
    invoke_without_command=True,
    epilog=examples(
        "enclave run --local -c 'print(6 * 7)'",
        "enclave run job.py",
        "enclave --backend trio ls",
    ),
)
def enclave(
    ctx: typer.Context,
    *,
    base_url: BaseUrl = None,
    api_key_file: ApiKeyFile = None,
    token_file: TokenFile = None,
    backend: Backend = "asyncio",
    version: Version = False,  # noqa: ARG001 - its callback does it all
) -> None:
    """Run untrusted code in isolated, ephemeral sessions."""
    from ._connect import GlobalOptions

    options = GlobalOptions(base_url=base_url, api_key_file=api_key_file, token_file=token_file, backend=backend)
    ctx.obj = _Invocation(cast("Screen", ctx.obj), options)
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@app.command(
    epilog=examples(
        "enclave run job.py",
        "enclave run -c 'enclave.result({\"answer\": 6 * 7})'",
        "echo 'console.log(6 * 7)' | enclave run - --language node",
        "enclave run job.py --limit memory-mb=256 --limit wall-clock-ms=5000",
        "enclave run job.py --allow 203.0.113.0/24 --label team=data",
        "enclave run job.py --json | tail -n 1",
        "enclave run job.py --detach",
        "enclave run --local job.py",
    )
)
def run(
    ctx: typer.Context,
    file: Program = None,
    *,
    code: Code = None,
    language: Language = None,
    allow: Allow = None,
    limit: Limit = None,
    label: NewLabels = None,
    service_binding: ServiceBinding = None,
    detach: Detach = False,
    json: JsonOutcome = False,
    timeout: RunTimeout = None,
    local: Local = False,
    raw: Raw = False,
) -> int:
    """Run a program, show its output as it comes, and exit with its exit code.

    The session is torn down on every way out, Ctrl-C included. A program that the platform kills exits with 137.
    """
    from enclave import CreateSessionRequest

    from . import _parse
    from ._run import RunOptions
    from ._run import run as run_program
    from ._source import program

    options = RunOptions(local=local, detach=detach, json=json, timeout_seconds=_parse.seconds("--timeout", timeout))
    options.check()
    source, language = program(file, code, language)
    request = CreateSessionRequest(
        code=source,
        language=language,
        limits=_parse.limits(limit),
        egress=_parse.egress(allow),
        labels=_parse.pairs("--label", label) or None,
        service_bindings=service_binding or None,
    )
    if raw:
        _of(ctx).screen.obey()
    return _of(ctx).run(lambda enclave, screen: run_program(enclave, request, options, screen), local=local)


@app.command(epilog=examples("enclave ls", "enclave ls --label team=data --older-than 1h", "enclave ls | jq '.[].id'"))
def ls(ctx: typer.Context, *, label: Labels = None, older_than: OlderThan = None, json: Json = False) -> int:
    """List the sessions, newest first: a table, or JSON in a pipe."""
    from ._inspect import ls as list_sessions

    filters = _filters(label, older_than)
    return _of(ctx).run(lambda enclave, screen: list_sessions(enclave, filters, json=json, screen=screen))


@app.command(epilog=examples("enclave show s-6b44fc-2"))
def show(ctx: typer.Context, session: Id, json: Json = False) -> int:
    """Show one session: its phase, limits, network policy, labels and times."""
    from ._inspect import show as show_session

    return _of(ctx).run(lambda enclave, screen: show_session(enclave, session, json=json, screen=screen))


@app.command(epilog=examples("enclave logs s-6b44fc-2", "enclave logs --follow s-6b44fc-2"))
def logs(ctx: typer.Context, session: Id, *, follow: Follow = False, json: JsonFrames = False, raw: Raw = False) -> int:
    """Show what a session has printed, from its start.

    Without --follow it ends at the first second without output, or after ten seconds of a program that never pauses.
    """
    from ._logs import logs as show_logs

    if raw:
        _of(ctx).screen.obey()
    return _of(ctx).run(lambda enclave, screen: show_logs(enclave, session, follow=follow, json=json, screen=screen))


@app.command(epilog=examples("enclave result s-6b44fc-2", "enclave result s-6b44fc-2 | jq .json"))
def result(ctx: typer.Context, session: Id, *, timeout: WaitTimeout = None, json: Json = False) -> int:
    """Wait until a session has ended, and show its exit code and result."""
    from . import _parse
    from ._inspect import result as show_result

    seconds = _parse.seconds("--timeout", timeout)
    return _of(ctx).run(
        lambda enclave, screen: show_result(enclave, session, json=json, timeout_seconds=seconds, screen=screen)
    )


@app.command(epilog=examples("enclave audit s-6b44fc-2"))
def audit(ctx: typer.Context, session: Id, json: Json = False) -> int:
    """Show a session's audit trail so far, oldest first."""
    from ._inspect import audit as show_audit

    return _of(ctx).run(lambda enclave, screen: show_audit(enclave, session, json=json, screen=screen))


@app.command(
    epilog=examples(
        "enclave rm s-6b44fc-2",
        "enclave rm --label team=data --dry-run",
        "enclave rm --older-than 1h",
    )
)
def rm(
    ctx: typer.Context,
    sessions: Ids = None,
    *,
    label: Labels = None,
    older_than: OlderThan = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Tear sessions down, by id, or all that every filter holds for. Does not ask; prints what it removed."""
    from ._remove import Removal, remove

    removal = Removal(ids=sessions or (), filters=_filters(label, older_than), dry_run=dry_run)
    removal.check()
    return _of(ctx).run(lambda enclave, screen: remove(enclave, removal, json=json, screen=screen))


@app.command(epilog=examples("enclave health"))
def health(ctx: typer.Context, json: Json = False) -> int:
    """Ask whether the control plane and its backend are well; exit with 1 if not."""
    from ._inspect import health as show_health

    return _of(ctx).run(lambda enclave, screen: show_health(enclave, json=json, screen=screen))


@app.command(epilog=examples("enclave simulator", "enclave simulator --port 0"))
def simulator(
    ctx: typer.Context, *, host: Host = "127.0.0.1", port: Port = 8088, allow_remote: AllowRemote = False
) -> int:
    """Serve a control plane on this machine until Ctrl-C, and print the exports to use it with.

    Convenient, NOT a security boundary: programs run as your user. The API key is a new one unless one is given.
    """
    from contextlib import nullcontext

    from ._simulator import Address, serve
    from ._supervise import supervise

    address = Address(host=host, port=port, allow_remote=allow_remote)
    invocation = _of(ctx)
    return supervise(
        nullcontext,
        lambda _: serve(address, options=invocation.options, screen=invocation.screen),
        backend=invocation.options.backend,
        screen=invocation.screen,
        until_signal=True,
    )


@app.command(
    name="map",
    epilog=examples(
        "enclave map requests.jsonl --output results.jsonl",
        "enclave map requests.jsonl --max-concurrency 50 | jq .sessionId",
        "enclave map - --local < requests.jsonl",
    ),
)
def map_(
    ctx: typer.Context,
    file: RequestFile,
    *,
    output: ResultFile = None,
    max_concurrency: MaxConcurrency = 16,
    local: Local = False,
) -> int:
    """Run many requests, and write results as lines of JSON as they come: index, sessionId, and result or error.

    The index is the request's line, from 0. Exits with 1 if any has failed. Stopped, it goes on where it was when run
    again with the same --output.
    """
    from ._map import MapOptions, run_map

    options = MapOptions(file=file, output=output, max_concurrency=max_concurrency)
    return _of(ctx).run(lambda enclave, screen: run_map(enclave, options, screen), local=local)
