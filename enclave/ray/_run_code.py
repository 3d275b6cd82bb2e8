"""`RunCode`: rows of a Ray Dataset to sessions, and their outcomes to columns."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

import anyio
import msgspec
from anyio.from_thread import BlockingPortal

from enclave import Completed, CreateSessionRequest, EnclaveClient, Errored, Outcome, ResultTypeError, Verdict

from ._run import Run
from ._worker import Worker, run_has_ended

DEFAULT_COLUMNS = ("session_id", "verdict", "exit_code", "value", "kill_reason", "error", "duration_seconds")
TAIL_CHARS = 4_000
_COLUMNS = (*DEFAULT_COLUMNS, "stdout", "stderr")

Row = dict[str, Any]
ToRequest = Callable[[Row], CreateSessionRequest | str]


class RunCode:
    """A callable class for `Dataset.map_batches`: each row becomes a session, and its outcome becomes columns.

    ::

        rows.map_batches(
            RunCode,
            fn_constructor_args=(run,),
            fn_constructor_kwargs={"request": lambda row: row["code"]},
            batch_size=64,
            compute=ray.data.ActorPoolStrategy(
                size=2, max_concurrent_calls_per_actor=4, enable_true_multi_threading=True
            ),
        )

    The columns of the row stay. What goes wrong with a row stands in its ``verdict`` and ``error``, so each row comes
    out once. A batch raises only when the run has ended.

    Args:
        run: what `enclave.ray.run` gives.
        request: makes a row, as a dict, into source text or a `CreateSessionRequest`. If it raises, that row's verdict
            is ``client``.
        type: what each result's value is decoded into, as for `EnclaveClient.result`. The column ``value`` then has it
            as plain Python types. Without a type it has JSON text.
        max_concurrency: how many sessions one batch runs at once.
        creates_per_second: how many sessions one batch creates in a second at most.
        columns: which columns to add. By default all but ``stdout`` and ``stderr``, which have the last 4,000
            characters.

    Raises:
        TypeError, ValueError: an argument cannot be used. The message names it.
    """

    def __init__(
        self,
        run: Run,
        *,
        request: ToRequest,
        type: Any = Any,
        max_concurrency: int = 16,
        creates_per_second: float | None = None,
        columns: Sequence[str] = DEFAULT_COLUMNS,
    ) -> None:
        if not callable(request):
            raise TypeError("request: expected a callable that makes a row into a request")
        unknown = [name for name in columns if name not in _COLUMNS]
        if unknown:
            raise ValueError(f"columns: {', '.join(unknown)} is none of {', '.join(_COLUMNS)}")
        self._worker = Worker(run)
        self._request = request
        self._type = type
        self._columns = tuple(columns)
        self._options: dict[str, Any] = {
            "max_concurrency": max_concurrency,
            "creates_per_second": creates_per_second,
            "type": type,
        }
        self._tasks: set[Future[list[Outcome[Any]]]] = set()
        self._client: EnclaveClient = self._worker.client()
        self._client.fan_out([], **self._options)  # a mistake in these shows here, and not in every batch
        self._portal = _start_loop(self._client)
        self._worker.watch(self._cancel_all)
        self._worker.sweep_earlier()

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Run the sessions of a batch. Several threads may call this at once."""
        return self._with_columns(batch, self._run(self._rows_of(batch)))

    def _rows_of(self, batch: Mapping[str, Any]) -> list[Row]:
        clash = [name for name in self._columns if name in batch]
        if clash:
            raise ValueError(f"columns: the rows have {', '.join(clash)} already. Rename them, or leave them out here")
        names = list(batch)
        return [dict(zip(names, values, strict=True)) for values in zip(*batch.values(), strict=True)]

    def _with_columns(self, batch: Mapping[str, Any], outcomes: list[Outcome[Any]]) -> dict[str, Any]:
        cells = [_cells(outcome, self._type) for outcome in outcomes]
        return {**batch, **{name: [row[name] for row in cells] for name in self._columns}}

    def _run(self, rows: list[Row]) -> list[Outcome[Any]]:
        task: Future[list[Outcome[Any]]] = self._portal.start_task_soon(self._map, rows)
        self._tasks.add(task)
        try:
            if self._worker.has_ended:  # asked after the task is in the set, so that one of the two cancels it
                task.cancel()
            return task.result()
        except CancelledError:
            raise run_has_ended() from None
        finally:
            self._tasks.discard(task)

    async def _map(self, rows: list[Row]) -> list[Outcome[Any]]:
        outcomes: list[Outcome[Any] | None] = [None] * len(rows)
        requests: list[CreateSessionRequest] = []
        places: list[int] = []
        for place, row in enumerate(rows):
            try:
                requests.append(self._worker.run.bounded(self._request(row)))
                places.append(place)
            except Exception as error:  # noqa: BLE001 - stands in the row
                outcomes[place] = _rejected(place, error)
        for outcome in await self._client.map(requests, **self._options):
            outcomes[places[outcome.index]] = outcome
        return [outcome for outcome in outcomes if outcome is not None]

    def _cancel_all(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    def __del__(self) -> None:
        # Ray drops the object at a normal end, and when it releases an idle actor.
        portal = getattr(self, "_portal", None)
        if portal is not None:
            self._cancel_all()
            portal.start_task_soon(portal.stop, True)


def _start_loop(client: EnclaveClient) -> BlockingPortal:
    """An event loop in a thread of its own, with the client open. Ray's loop would hold our streams up.

    On Ray's loop runs what is upstream of us, and a slow consumer blocks it.
    """
    started: Future[BlockingPortal] = Future()

    async def main() -> None:
        async with client, BlockingPortal() as portal:
            started.set_result(portal)
            await portal.sleep_until_stopped()

    # A daemon, for a worker that is told to exit must not wait for it.
    threading.Thread(target=anyio.run, args=(main,), name="enclave-loop", daemon=True).start()
    return started.result()


def _rejected(index: int, error: Exception) -> Errored:
    return Errored(index=index, request="", session_id=None, error=error, verdict=Verdict.CLIENT, duration_seconds=0.0)


def _cells(outcome: Outcome[Any], value_type: Any) -> Row:
    """What a row has in each column. Plain types and None, so that Arrow has a column for it."""
    cells: Row = dict.fromkeys(_COLUMNS)
    cells["verdict"] = str(outcome.verdict)
    cells["session_id"] = outcome.session_id
    cells["duration_seconds"] = outcome.duration_seconds
    error = outcome.error if isinstance(outcome, Errored) else outcome.teardown_error
    if error is not None:
        # Arrow takes no half of a surrogate pair, which may stand in an error of the caller's own.
        cells["error"] = f"{type(error).__name__}: {error}".encode("utf-8", "replace").decode()
    if isinstance(outcome, Completed):
        result = outcome.result
        cells["value"] = _plain(result.value, value_type)
    elif isinstance(outcome.error, ResultTypeError):
        result = outcome.error.result  # without its value, which does not fit, for a column has one type
    else:
        return cells
    cells["exit_code"] = result.exit_code
    if result.kill_reason is not None:
        cells["kill_reason"] = str(result.kill_reason)
    for name in ("stdout", "stderr"):
        text = getattr(result, name)
        cells[name] = None if text is None else text[-TAIL_CHARS:]
    return cells


def _plain(value: Any, value_type: Any) -> Any:
    if value_type is Any:
        return msgspec.json.encode(value).decode()
    # Pydantic is no dependency, so its models are known by their methods.
    return msgspec.to_builtins(value.model_dump() if hasattr(value, "model_dump") else value)
