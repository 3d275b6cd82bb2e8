"""`python -m benchmarks [command] [options]`. A command is a module with `main(arguments) -> exit status`."""

from __future__ import annotations

import sys

from . import _draw, _run, bounds, cuts, ray_rows, soak

COMMANDS = {
    "run": _run.main,
    "report": _draw.main,
    "soak": soak.main,
    "cuts": cuts.main,
    "bounds": bounds.main,
    "ray": ray_rows.main,
}


def main() -> int:
    """Dispatch to a command; without one, run."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in COMMANDS:
        return COMMANDS[arguments[0]](arguments[1:])
    return _run.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
