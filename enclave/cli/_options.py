"""The options and arguments of the commands, and what help says of them."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from enclave import SessionLimits


def examples(*lines: str) -> str:
    """The end of a command's help; a test runs them."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


# Before the command

BaseUrl = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The control plane; by default $ENCLAVE_BASE_URL.", show_default=False),
]
ApiKeyFile = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Holds the API key; by default $ENCLAVE_API_KEY is the key.", show_default=False),
]
TokenFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="Holds a user's JWT; by default $ENCLAVE_TOKEN is the token.", show_default=False
    ),
]
Backend = Annotated[Literal["asyncio", "trio"], typer.Option(metavar="asyncio|trio", help="The event loop.")]


def _version(value: bool) -> None:
    if value:
        from enclave import __version__  # noqa: PLC0415 - only needed here

        typer.echo(f"enclave {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
]

# Of several commands

Id = Annotated[str, typer.Argument(metavar="ID", help="The session.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="JSON also on a terminal.")]
Raw = Annotated[bool, typer.Option("--raw", help="Let the workload's output control the terminal.")]
Local = Annotated[
    bool, typer.Option("--local", help="Run on a simulator inside this command. NOT a security boundary.")
]
Labels = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="Only sessions with this label.")
]
OlderThan = Annotated[
    str | None,
    typer.Option("--older-than", metavar="TIME", help="Only sessions created before, as in 30s, 15m, 1h30m, 2d."),
]

# Of `run`

Program = Annotated[
    str | None, typer.Argument(metavar="FILE", help="The program; - for standard input.", show_default=False)
]
Code = Annotated[
    str | None, typer.Option("--code", "-c", metavar="CODE", help="The program itself.", show_default=False)
]
Language = Annotated[
    str | None,
    typer.Option(
        metavar="python|node",
        help="By default from the suffix: .py, .js, .mjs, .cjs; else the server's default.",
        autocompletion=lambda: ["python", "node"],
        show_default=False,
    ),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(metavar="CIDR", help="A network the program may connect to; none by default. Repeatable."),
]
_LIMIT_KEYS = ", ".join(name.replace("_", "-") for name in SessionLimits.wire_names())
Limit = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help=f"A limit ({_LIMIT_KEYS}) and a whole number. Repeatable."),
]
NewLabels = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="To find the session by. Repeatable.")
]
ServiceBinding = Annotated[
    list[str] | None, typer.Option(metavar="ID", help="A service the program may use. Repeatable.")
]
Detach = Annotated[bool, typer.Option("--detach", help="Print the session's id, and leave it running.")]
JsonOutcome = Annotated[
    bool,
    typer.Option(
        "--json", help="Print the outcome as one line of JSON; what the program prints goes to standard error."
    ),
]
RunTimeout = Annotated[
    float | None,
    typer.Option(
        "--timeout", metavar="SECONDS", help="Tear down and exit with 124 after that long.", show_default=False
    ),
]

# Of the others

WaitTimeout = Annotated[
    float | None,
    typer.Option("--timeout", metavar="SECONDS", help="Exit with 124 if it has not ended by then.", show_default=False),
]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on until the session ends.")]
JsonFrames = Annotated[bool, typer.Option("--json", help="Every frame of the stream as a line of JSON.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="The sessions.", show_default=False)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say which.")]
Host = Annotated[str, typer.Option(metavar="HOST", help="Where to listen.")]
Port = Annotated[int, typer.Option(metavar="PORT", help="0 for any free one.", min=0, max=65535)]
AllowRemote = Annotated[
    bool,
    typer.Option("--allow-remote", help="Permit another HOST than loopback: whoever has the key runs code as you."),
]
RequestFile = Annotated[
    str,
    typer.Argument(metavar="FILE", help="One request on a line, or a string that is its code; - for standard input."),
]
ResultFile = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Append results here instead of printing them; requests whose line is there already are skipped.",
        show_default=False,
    ),
]
MaxConcurrency = Annotated[int, typer.Option(metavar="N", help="How many sessions run at once.", min=1)]
