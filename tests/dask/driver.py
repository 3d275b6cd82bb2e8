"""Drivers on Dask, as programs of their own: `python driver.py CASE`. They print lines of JSON. Tests kill them.

`grading` is the program of docs/dask.md.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import grading
from distributed import Client, LocalCluster

PARTS, ROWS_OF_A_PART = 6, 10


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


@contextmanager
def connected() -> Iterator[Client]:
    """A client of the cluster whose address is in the environment, or else of one in this process."""
    if "DASK_ADDRESS" in os.environ:
        with Client(os.environ["DASK_ADDRESS"]) as dask:
            yield dask
    else:
        with local_cluster() as cluster, Client(cluster) as dask:
            yield dask


def local_cluster() -> LocalCluster:
    return LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)


def graded(*, code: str = "x", wall_clock_ms: int = 50_000) -> None:
    """Grade every row, and say what the rows became, or which error the driver met."""
    parts = [
        [{"id": part * ROWS_OF_A_PART + number, "code": code} for number in range(ROWS_OF_A_PART)]
        for part in range(PARTS)
    ]
    try:
        with connected() as dask, grading.sandboxes(dask, wall_clock_ms) as run:
            futures = dask.map(grading.grade, range(PARTS), parts, run=run)
            rows = list(chain.from_iterable(dask.gather(futures)))
    except BaseException as error:
        say(error=type(error).__name__)
        raise
    say(rows=[{"id": row["id"], "verdict": row["verdict"]} for row in rows])


def batch() -> None:
    graded()


def endless() -> None:
    """Sessions that end by their wall-clock limit only."""
    graded(code="import time; time.sleep(600)", wall_clock_ms=15_000)


def cluster() -> None:
    """No driver, but a cluster for one. The end of its input is its end."""
    with local_cluster() as cluster:
        say(address=cluster.scheduler_address)
        sys.stdin.read()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
