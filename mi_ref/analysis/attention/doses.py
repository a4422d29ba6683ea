"""How the next token answers to more and less attention on one edge: a dose-response.

Each dose scales the edge's weight in the pattern, or sets it, and the query's other keys share
what is left, in the proportions that they have. Nothing lets a query look at later tokens.

Source: candle-mi's ``interp/steering.rs``, whose doses these are.
"""

from __future__ import annotations

from collections.abc import Sequence

from mi_ref import do
from mi_ref.analysis.arguments.numbers import finite
from mi_ref.analysis.arguments.prompts import one_prompt, place, places
from mi_ref.analysis.attention.calibration import DOSES
from mi_ref.analysis.attention.dose_response import AttentionDose, AttentionDoseResponse
from mi_ref.analysis.attention.edges import edge_weight, logits_for, refuse_unseen
from mi_ref.analysis.measure.comparison import compare
from mi_ref.edits.edges import EdgeEdit
from mi_ref.edits.intervention import Places
from mi_ref.errors import ShapeError
from mi_ref.hooks.capture import capture
from mi_ref.hooks.sites import at
from mi_ref.model import Model
from mi_ref.text.prompt import Prompt


def attention_dose_response(
    model: Model,
    prompt: Prompt,
    *,
    layer: int | None = None,
    heads: Places = None,
    query: int = -1,
    key: int = 0,
    factors: Sequence[float] | None = None,
    weights: Sequence[float] | None = None,
    target: str | int | None = None,
    position: int = -1,
    prepend_bos: bool | None = None,
) -> AttentionDoseResponse:
    """Scale or set the weight of an edge by several doses, and compare the next token.

    Parameters
    ----------
    model : Model
        With attention.
    prompt : str, sequence of int, or Array
        One text, or its token ids.
    layer : int or None
        Where; None for the middle layer.
    heads : int, slice, sequence, or None
        Whose; None for all heads.
    query, key : int
        The edge: by default from the last position to the first.
    factors : sequence of float or None
        To multiply the weight with; 1 leaves it. None for
        `mi_ref.analysis.attention.calibration.DOSES`.
    weights : sequence of float or None
        To set the weight to, in the place of `factors`: from 0 to 1.
    target : str, int or None
        The token to follow: an id, or a text that is exactly one token. None: what the model
        predicts as it is.
    position : int
        Whose next token to compare.
    prepend_bos : bool or None
        As for `Model.run`.

    Raises
    ------
    HookError
        If the query does not see the key.
    ShapeError
        If there is no dose, one is negative or a weight above one, or a place is out of range.
    """
    ids = one_prompt(model, prompt, prepend_bos)
    n_layers = model.cfg.n_layers
    at_layer = place(n_layers // 2 if layer is None else layer, n_layers, "layer")
    whose = places(heads, model.cfg.n_heads, "heads")
    row, column = place(query, len(ids), "query"), place(key, len(ids), "key")
    where = place(position, len(ids), "position")
    doses = _doses(factors, weights)
    followed = None if target is None else model.origin.token_id(target)
    refuse_unseen(model, [at_layer], [row], [column])
    wanted, there = logits_for(where, len(ids))
    seen = capture(at.pattern[at_layer], pos=[row])
    before = model.run(ids, capture=[seen, at.resid_pre[at_layer]], logits=wanted)
    if followed is None:
        followed = before.top(1, pos=there)[0].id

    def give(dose: float) -> AttentionDose:
        edit: EdgeEdit = (
            do.scale_pattern(dose, row, column, heads=whose)
            if weights is None
            else do.set_pattern(dose, row, column, heads=whose)
        )
        after = model.run(
            before[at.resid_pre[at_layer]],
            start_at_layer=at_layer,
            edits=[(at.pattern[at_layer], edit)],
            capture=[seen],
            logits=wanted,
        )
        found = compare(before, after, position=there, top=1)
        attention = edge_weight(after, at_layer, whose, [column])
        return AttentionDose(dose, attention, found.kl, found.change(followed))

    return AttentionDoseResponse(
        how="scale" if weights is None else "set",
        doses=tuple(map(give, doses)),
        baseline=edge_weight(before, at_layer, whose, [column]),
        layer=at_layer,
        query=row,
        key=column,
        heads=whose,
        position=where,
        tokens=ids,
        origin=model.origin,
    )


def _doses(factors: Sequence[float] | None, weights: Sequence[float] | None) -> list[float]:
    """Return the doses, smallest first."""
    if factors is not None and weights is not None:
        raise ShapeError("factors= and weights= are two ways to dose: give one of them.")
    if weights is not None:
        given = finite(weights, "weights")
    else:
        given = list(DOSES) if factors is None else finite(factors, "factors")
    outside = [n for n in given if n < 0 or (weights is not None and n > 1)]
    if outside or not given:
        raise ShapeError(
            f"factors={factors}, weights={weights}: name at least one dose; factors are not"
            " negative, weights lie between 0 and 1."
        )
    return sorted(set(given))
