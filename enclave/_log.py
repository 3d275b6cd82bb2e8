"""The SDK's one logger.

Each response is a record at DEBUG, also that of a stream, and so is each resumed stream. Each retry is a record at
INFO. A WARNING tells what a cancellation may have left behind, and what the client could not read. No record holds a
credential.
"""

from __future__ import annotations

import logging

logger = logging.getLogger("enclave")
