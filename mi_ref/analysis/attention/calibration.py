"""How much to scale an attention weight so that it becomes like another.

Scaling an edge's weight ``a`` by ``c`` and renormalising gives ``c a / (1 - a + c a)``, which is
less than ``c a``: the factor that reaches a weight is not the ratio of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mi_ref.analysis.arguments.prompts import one_prompt, place, places
from mi_ref.analysis.attention.edges import edge_weight, refuse_unseen
from mi_ref.edits.intervention import Places
from mi_ref.errors import ShapeError
from mi_ref.hooks.capture import capture
from mi_ref.hooks.sites import at
from mi_ref.model import Model
from mi_ref.text.prompt import Prompt

DOSES = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0)
"""Factors from half to sixfold, candle-mi's."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The weight of an edge that is to be changed, and of one that it is to be like.

    Both are one head's, between 0 and 1; for a mean over heads the factors are approximate.
    """

    source: float
    """Attention along the edge to imitate."""
    target: float
    """Attention along the edge to change."""

    def __post_init__(self) -> None:
        if not (0 <= self.source <= 1 and 0 < self.target < 1):
            raise ShapeError(
                f"source={self.source}, target={self.target}: weights lie between 0 and 1, and one"
                " of 0 or 1 cannot be scaled to another."
            )

    @property
    def ratio(self) -> float:
        """The source's weight over the target's."""
        return self.source / self.target

    def factor_for(self, weight: float | None = None, *, renormalise: bool = True) -> float:
        """Return the factor that brings the target's edge to a weight.

        Parameters
        ----------
        weight : float or None
            To be reached; None for the source's.
        renormalise : bool
            Whether the row sums to one again after scaling. False gives the ratio, as candle-mi
            does although it renormalises.
        """
        wanted = self.source if weight is None else weight
        if not 0 <= wanted < 1:
            raise ShapeError(f"weight={wanted}: scaling reaches weights from 0 to below 1.")
        if not renormalise:
            return wanted / self.target
        return wanted * (1 - self.target) / (self.target * (1 - wanted))

    def weights(
        self, factors: Sequence[float] = DOSES, *, renormalise: bool = True
    ) -> tuple[tuple[float, float], ...]:
        """Return each factor with the weight that it gives the target's edge."""
        rest = 1 - self.target
        return tuple(
            (c, c * self.target / (rest + c * self.target if renormalise else 1.0)) for c in factors
        )


def calibrate(
    model: Model,
    source: Prompt,
    target: Prompt,
    *,
    layer: int | None = None,
    heads: Places = None,
    source_edge: tuple[int, int] = (-1, 0),
    target_edge: tuple[int, int] = (-1, 0),
    prepend_bos: bool | None = None,
) -> Calibration:
    """Measure an edge in two prompts, so that the target's can be scaled to the source's.

    Parameters
    ----------
    model : Model
        With attention.
    source, target : str, sequence of int, or Array
        Each one text, or its token ids.
    layer : int or None
        Where; None for the middle layer.
    heads : int, slice, sequence, or None
        Whose mean; None for all heads.
    source_edge, target_edge : tuple of int
        Query and key.
    prepend_bos : bool or None
        As for `Model.run`.

    Raises
    ------
    HookError
        If a query does not see its key.
    """
    n_layers = model.cfg.n_layers
    at_layer = place(n_layers // 2 if layer is None else layer, n_layers, "layer")
    whose = places(heads, model.cfg.n_heads, "heads")

    def weight(prompt: Prompt, edge: tuple[int, int]) -> float:
        ids = one_prompt(model, prompt, prepend_bos)
        if not hasattr(edge, "__len__") or len(edge) != 2:
            raise ShapeError(f"edge {edge!r}: name its query and its key.")
        query, key = place(edge[0], len(ids), "query"), place(edge[1], len(ids), "key")
        refuse_unseen(model, [at_layer], [query], [key])
        seen = capture(at.pattern[at_layer], pos=[query])
        run = model.run(ids, capture=[seen], stop_at_layer=at_layer + 1, logits="none")
        return edge_weight(run, at_layer, whose, [key])

    return Calibration(weight(source, source_edge), weight(target, target_edge))
