"""The exit codes, the command line's own errors, and the one line that any error becomes. No I/O."""

from __future__ import annotations

import re

import enclave

from ._text import one_line

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_TIMEOUT = 124  # as the command `timeout` does
EXIT_KILLED = 137
EXIT_OUTPUT_CLOSED = 141  # what a shell reports for a program that died of SIGPIPE


class CommandError(Exception):
    """A command cannot go on. The message is one line that also says how to fix it."""

    def __init__(self, message: str, *, exit_code: int = EXIT_ERROR) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class BadUsage(CommandError):
    """The arguments make no sense. Nothing was sent."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=EXIT_USAGE)


class OutputClosed(Exception):
    """The program that read our output has gone. There is nobody to report an error to."""


_FIXES: tuple[tuple[type[enclave.EnclaveError], str], ...] = (
    (enclave.AuthenticationError, "Set ENCLAVE_API_KEY, or pass --api-key-file before the command"),
    (enclave.PermissionDeniedError, "Use a key that has the scope. A viewer cannot create or remove sessions"),
    (enclave.NotFoundError, "`enclave ls` lists the sessions"),
    (enclave.RateLimitError, "Try again later, or with a lower --max-concurrency"),
    (enclave.ServiceUnavailableError, "Try again later"),
    (enclave.ConnectError, "Is it running? Check ENCLAVE_BASE_URL. `enclave simulator` starts a control plane here"),
    (enclave.SessionTornDown, "Run it again. `enclave audit` shows what happened to the session"),
    (enclave.StreamInterrupted, "`enclave logs` shows the output from the start"),
)


# The SDK names the parameter that is wrong. Here it is an option, or came from one.
_PARAMETER = re.compile(r"(\w+)[\w.\[\]']*: ")
_OPTIONS = {
    "base_url": "--base-url",
    "api_key": "the API key",
    "token": "the token",
    "session_id": "ID",
    "host": "--host",
    "egress": "--allow",
}
_HINTS = {
    "Pass the id of a Session": "`enclave ls` lists the sessions",
    "pass api_key= or token=": "pass --api-key-file or --token-file",
    "(allow_remote=True)": "(--allow-remote permits it)",
}


def in_options(message: str) -> str:
    """A message of the SDK about a wrong argument, with the names of the command line's options."""
    match = _PARAMETER.match(message)
    if match and match[1] in _OPTIONS:
        message = f"{_OPTIONS[match[1]]}: {message[match.end() :]}"
    for theirs, ours in _HINTS.items():
        message = message.replace(theirs, ours)
    return message


def described(error: BaseException) -> str:
    """One line about an error, expected or not, with a way to fix it where there is one."""
    if isinstance(error, CommandError):
        return one_line(error)
    if isinstance(error, enclave.ConfigurationError):
        return one_line(in_options(str(error)))
    if isinstance(error, enclave.EnclaveError):
        fix = next((fix for kind, fix in _FIXES if isinstance(error, kind)), None)
        return one_line(f"{str(error).rstrip('.')}. {fix}" if fix else error)
    if isinstance(error, OSError):
        reason = error.strerror or str(error) or type(error).__name__
        return one_line(f"{error.filename}: {reason}" if error.filename else reason)
    return one_line(f"unexpected {type(error).__name__}: {error} (ENCLAVE_DEBUG=1 shows the traceback)")
