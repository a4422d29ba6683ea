"""Where the cells of a sweep are computed: here, or by any ``concurrent.futures`` executor."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal, cast

from mi_ref.analysis.measure.metrics import Metric
from mi_ref.analysis.sweeps.cells import CellBatch, ResolvedCell, evaluate
from mi_ref.analysis.sweeps.file import SweepFile
from mi_ref.analysis.sweeps.prefix import Prefix
from mi_ref.backend import get_backend
from mi_ref.errors import SweepError
from mi_ref.load import from_pretrained
from mi_ref.model import Model
from mi_ref.output.progress import tracked

_AHEAD = 64
"""Batches handed to an executor before the first of them is waited for."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What another process loads the same model from."""

    name: str
    revision: str | None
    backend: str
    device: str | None
    dtype: str
    compat: Literal["candle-mi"] | None
    unread_config: tuple[str, ...]
    sha256: str


def spec_of(model: Model) -> ModelSpec:
    """Return what to load a model from.

    Raises
    ------
    BackendError
        If its backend is not an installed one, so that no other process finds it.
    """
    get_backend(model.backend.name)
    number = getattr(model.backend.device, "id", None)
    return ModelSpec(
        name=str(model.origin.name),
        revision=model.origin.revision,
        backend=model.backend.name,
        device=None if number is None else str(number),
        dtype=str(model.dtype).rpartition(".")[2],
        compat=cast("Literal['candle-mi'] | None", model.cfg.compat),
        unread_config=tuple(model.cfg.unread_config),
        sha256=model.origin.weights.sha256(),
    )


@cache
def load(spec: ModelSpec) -> Model:
    """Load a model once per process, and keep it there for its other cells.

    Raises
    ------
    SweepError
        If its weights are not those that the sweep began with.
    """
    model = from_pretrained(
        spec.name,
        backend=spec.backend,
        device=spec.device,
        dtype=spec.dtype,
        revision=spec.revision,
        allow_unread_config=spec.unread_config,
        compat=spec.compat,
    )
    if model.origin.weights.sha256() != spec.sha256:
        raise SweepError(
            f"a worker found other weights under {spec.name!r} than the sweep began with: were"
            " they replaced meanwhile, or is it another machine's folder?"
        )
    return model


def evaluate_elsewhere(
    spec: ModelSpec, cells: Sequence[ResolvedCell], metrics: Sequence[Metric], position: int
) -> list[tuple[float, ...]]:
    """Do `evaluate` in a process that has no model yet."""
    return evaluate(load(spec), cells, metrics, position)


def run_batches(
    model: Model, every: Sequence[CellBatch], executor: Executor | None, file: SweepFile | None
) -> list[tuple[float, ...]]:
    """Return every cell's numbers: those of the file, then what is left, written there too.

    Parameters
    ----------
    model : Model
        What runs.
    every : sequence of CellBatch
        The whole sweep's, cut as if nothing were finished: a cell's last bits may depend on its
        company.
    executor : concurrent.futures.Executor or None
        Who computes; None for this process.
    file : SweepFile or None
        Keeps finished cells.
    """
    values = [] if file is None else list(file.values)
    left = [batch for batch in every if batch.start + len(batch.cells) > len(values)]
    found = _evaluated(model, left, executor)
    for batch, numbers in zip(left, tracked(found, "sweeping", len(left)), strict=True):
        fresh = numbers[max(0, len(values) - batch.start) :]
        if file is not None:
            file.append(len(values), fresh)
        values += fresh
    return values


def _evaluated(
    model: Model, left: Sequence[CellBatch], executor: Executor | None
) -> Iterator[list[tuple[float, ...]]]:
    """Yield each batch's numbers, in their order, whoever finishes first."""
    if executor is None:
        prefix = Prefix(model)
        yield from (evaluate(model, b.cells, b.metrics, b.position, prefix) for b in left)
        return
    # Threads share the model; whatever else there is may be another process.
    threads = isinstance(executor, ThreadPoolExecutor)
    work = partial(evaluate, model) if threads else partial(evaluate_elsewhere, spec_of(model))
    waiting: deque[Future[list[tuple[float, ...]]]] = deque()
    try:
        for b in left:
            waiting.append(executor.submit(work, b.cells, b.metrics, b.position))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
