"""Errors of the command line's own, and the one line that any error becomes: what is wrong, and the fix. No I/O."""

from __future__ import annotations

import enclave

from ._text import one_line

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_TIMEOUT = 124  # as `timeout` has it
EXIT_KILLED = 137
EXIT_OUTPUT_CLOSED = 141  # as a shell shows a program that died of SIGPIPE


class CommandError(Exception):
    """A command cannot go on; the message is one line with the fix."""

    def __init__(self, message: str, *, exit_code: int = EXIT_ERROR) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class BadUsage(CommandError):
    """The arguments make no sense; nothing was sent."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=EXIT_USAGE)


class OutputClosed(Exception):
    """Whoever read our output went away. Not an error: there is nobody to tell."""


_FIXES: tuple[tuple[type[enclave.EnclaveError], str], ...] = (
    (enclave.AuthenticationError, "set ENCLAVE_API_KEY, or pass --api-key-file before the command"),
    (enclave.PermissionDeniedError, "use a key that has the scope; a viewer cannot create or remove sessions"),
    (enclave.NotFoundError, "`enclave ls` lists the sessions there are"),
    (enclave.RateLimitError, "try again later, or with a lower --max-concurrency"),
    (enclave.ServiceUnavailableError, "try again later"),
    (enclave.ConnectError, "is it running? check ENCLAVE_BASE_URL; `enclave simulator` starts one here"),
    (enclave.SessionTornDown, "run it again; `enclave audit` shows what became of it"),
    (enclave.StreamInterrupted, "`enclave logs` shows the output from its start"),
)


def described(error: BaseException) -> str:
    """One line for an error that the command line expects, and for one that it does not."""
    if isinstance(error, CommandError):
        return one_line(error)
    if isinstance(error, enclave.EnclaveError):
        fix = next((fix for kind, fix in _FIXES if isinstance(error, kind)), None)
        return one_line(f"{error}; {fix}" if fix else error)
    if isinstance(error, OSError):
        reason = error.strerror or str(error) or type(error).__name__
        return one_line(f"{error.filename}: {reason}" if error.filename else reason)
    return one_line(f"unexpected {type(error).__name__}: {error}; ENCLAVE_DEBUG=1 shows the traceback")
