"""The SDK's one logger: retries at INFO, resumed streams at DEBUG, what a cancellation left behind at WARNING."""

from __future__ import annotations

import logging

logger = logging.getLogger("enclave")
