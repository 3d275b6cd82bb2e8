"""The SDK's one logger.

Each response, of a stream too, and each resumed stream is a record at DEBUG, and each retry one at INFO. What a
cancellation left behind, or cannot be read, is a WARNING. No record holds a credential.
"""

from __future__ import annotations

import logging

logger = logging.getLogger("enclave")
