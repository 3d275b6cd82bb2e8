"""The site as `make docs` has built it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.programs import ROOT


@pytest.fixture(scope="session")
def site() -> Path:
    folder = ROOT / "site"
    if not folder.is_dir():
        pytest.skip("the site is not built, see `make docs`")
    return folder
