"""How fast the client is, measured beside its neighbours: `python -m benchmarks`.

__main__.py   the commands
_run.py       the command `run`; _draw.py the command `report`
suite/        the benchmarks, one module each, and their registry
contenders/   the clients that are compared, each run in a process of its own
source/       the server that they read from
node/         the JavaScript contender and its lock file
_model.py     what a benchmark, a case, a table and a target are
_process.py   starting the source and a contender
_runner.py    contenders side by side, repeat after repeat
_report.py    results as JSON, text and Markdown; _svg.py and _plots.py as a picture
_environment.py, _limits.py  versions, and the open-file limit
"""
