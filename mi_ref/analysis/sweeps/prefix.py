"""What rows of a sweep have in common: the layers before their first edit, run once for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mi_ref.model import Model
from mi_ref.run import Run


class Prefix:
    """Prompts run up to a layer, from which rows go on.

    Cells come layer by layer as a rule, so that a batch goes on where the one before it stopped;
    what that gives has the same bits as a run from the start.

    Parameters
    ----------
    model : Model
        What runs.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._prompts: list[tuple[int, ...]] = []
        self._layer = 0
        self._run: Run | None = None

    def rows(self, prompts: Sequence[tuple[int, ...]], layer: int) -> Run:
        """Return a run of all `prompts`, as many as rows, that stopped before `layer`."""
        distinct = list(dict.fromkeys(prompts))
        run = self._advanced(distinct, layer)
        xp, device = self._model.backend.xp, self._model.backend.device
        order = [distinct.index(prompt) for prompt in prompts]
        rows = xp.asarray(order, dtype=xp.int64, device=device)
        tokens, values = (
            None if x is None else xp.take(x, rows, axis=0) for x in (run.tokens, run.first_values)
        )
        resid = xp.take(run.resid, rows, axis=0)
        return replace(run, tokens=tokens, resid=resid, first_values=values, state=None)

    def _advanced(self, prompts: list[tuple[int, ...]], layer: int) -> Run:
        if self._run is None or prompts != self._prompts or layer < self._layer:
            listed = [list(prompt) for prompt in prompts]
            self._run = self._model.run(listed, stop_at_layer=layer, logits="none")
        elif layer > self._layer:
            begun, start = self._run, self._layer
            self._run = self._model.run(
                begun, start_at_layer=start, stop_at_layer=layer, logits="none"
            )
        self._prompts, self._layer = prompts, layer
        return self._run
