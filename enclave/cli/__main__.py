"""`python -m enclave.cli` does the same as the command `enclave`, and so does `python -m enclave`."""

from __future__ import annotations

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
