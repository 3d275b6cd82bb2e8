"""Runs of an event loop that end at random moments, in every way that there is: no session stays, and nothing warns."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from benchmarks.cuts import WAYS, cut_runs

RUNS = 30


@pytest.mark.parametrize("backend", WAYS)
def test_runs_that_are_cut_at_random_leave_no_session_and_no_warning(backend: str) -> None:
    counts: Counter[str] = Counter()
    assert cut_runs(backend, RUNS, random.Random(0), counts) == []
    assert counts.total() - counts[f"{backend}: sessions"] == RUNS
    assert counts[f"{backend}: sessions"] > 0
