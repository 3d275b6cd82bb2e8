"""What all tests of hostile servers share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def brief_search(monkeypatch: pytest.MonkeyPatch) -> None:
    # A session whose create got no answer is looked for, and these servers never show one.
    monkeypatch.setattr("enclave._create.LOOK_SECONDS", 0.05)
