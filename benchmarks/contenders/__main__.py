"""Measure one contender once: `python -m benchmarks.contenders <JSON>` prints one line of JSON."""

from __future__ import annotations

import json
import sys

from benchmarks._limits import raise_open_files

from . import CONTENDERS, _jobs


def main() -> None:
    raise_open_files()
    request = json.loads(sys.argv[1])
    contender = CONTENDERS[request["contender"]]
    print(json.dumps(_jobs.run(contender, request["base_url"], request["job"], request["parameters"])))


if __name__ == "__main__":
    main()
