"""The logit lens: what the model would predict if it stopped after each layer.

The residual stream leaving a layer goes through the model's own final norm and unembedding, as if
it were the last. At the last layer this is the model's output itself, bit for bit.

Source: nostalgebraist, "interpreting GPT: the logit lens" (2020); KL as in arXiv:2303.08112.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mi_ref._typing import Array, Float, Int
from mi_ref.analysis.arguments.numbers import whole
from mi_ref.analysis.arguments.prompts import one_prompt, places
from mi_ref.analysis.lens.cells import Cell
from mi_ref.analysis.lens.result import LogitLens
from mi_ref.analysis.measure.distributions import entropy, kl_divergence, log_softmax, ranks
from mi_ref.edits.intervention import Places
from mi_ref.errors import ShapeError
from mi_ref.hooks.capture import capture
from mi_ref.hooks.sites import at
from mi_ref.model import LogitsWanted, Model
from mi_ref.run import Prediction, Predictions, Run
from mi_ref.text.prompt import Prompt


def logit_lens(
    model: Model,
    prompt: Prompt,
    *,
    target: str | int | None = None,
    top: int = 5,
    positions: Places = None,
    prepend_bos: bool | None = None,
) -> LogitLens:
    """Read the residual stream after every layer as a prediction of the next token.

    Parameters
    ----------
    model : Model
        What to look into.
    prompt : str, sequence of int, or Array
        One text, or its token ids.
    target : str, int or None
        The token to follow through the layers: an id, or a text that is exactly one token
        (``" Paris"``, space included). None: at each position what the model itself predicts.
    top : int
        How many of the likeliest tokens to keep.
    positions : Places
        Where to look; negative counts from the end. None for everywhere. Looking at few bounds
        the memory to the vocabulary times those.
    prepend_bos : bool or None
        As for `Model.run`.

    Returns
    -------
    LogitLens

    Notes
    -----
    The last layer equals ``model.run(prompt).logits`` bit for bit; for the last position alone,
    those of ``logits="last"``. For other choices of positions, an array library may round sums
    otherwise in the last bit.

    Probabilities are in the model's dtype. Entropy and KL are computed from its logits in float64
    and in log space, and are not clamped: no epsilon hides how far apart two predictions are.
    """
    ids = one_prompt(model, prompt, prepend_bos)
    wanted = None if target is None else model.origin.token_id(target)
    if whole(top, "top") < 1:
        raise ShapeError(f"top={top}: at least one token has to be kept.")
    chosen = places(positions, len(ids), "positions")
    own: LogitsWanted = "all" if positions is None else "none"
    if chosen == (len(ids) - 1,):
        own = "last"
    if model.cfg.compat is not None:
        own = "none"  # The lens leaves out what the model's own logits have.
    wanted_rows = capture(at.resid_post[:], pos=None if positions is None else chosen)
    run = model.run(ids, capture=[wanted_rows], logits=own)
    return LogitLens(
        prompt=prompt if isinstance(prompt, str) else None,
        tokens=ids,
        str_tokens=tuple(map(model.token_string, ids)),
        positions=chosen,
        cells=tuple(_rows(model, run, wanted, top)),
        origin=model.origin,
    )


def _rows(model: Model, run: Run, target: int | None, top: int) -> Iterator[tuple[Cell, ...]]:
    """Yield each layer's cells; no more than two layers' logits are held at once."""
    xp = model.backend.xp
    last = model.cfg.n_layers - 1
    # The model's own logits where it has computed them at these very positions.
    own = model.project_to_vocab(run[at.resid_post[last]]) if run.logits is None else run.logits
    final = own[0, :, :]
    final_log_probs = log_softmax(final, xp=xp)
    targets = (
        model.backend.ops.top_k(final, 1)[1][:, 0]
        if target is None
        else xp.full(final.shape[0], target, dtype=xp.int64, device=final.device)
    )
    for layer in range(last):
        logits = model.project_to_vocab(run[at.resid_post[layer]])[0, :, :]
        yield _cells(model, logits, final_log_probs, targets, top)
    yield _cells(model, final, final_log_probs, targets, top)


def _cells(
    model: Model,
    logits: Float[Array, "pos d_vocab"],
    final_log_probs: Float[Array, "pos d_vocab"],
    targets: Int[Array, " pos"],
    top: int,
) -> tuple[Cell, ...]:
    """Return one layer's predictions at each position."""
    xp, ops = model.backend.xp, model.backend.ops
    _, best = ops.top_k(logits, min(top, logits.shape[-1]))
    shown = xp.concat([best, targets[:, None]], axis=-1)
    log_probs = log_softmax(logits, xp=xp)
    columns = zip(
        _plain(model, shown),
        _plain(model, xp.take_along_axis(logits, shown, axis=-1)),
        _plain(model, xp.take_along_axis(ops.softmax(logits), shown, axis=-1)),
        _plain(model, ranks(logits, targets, xp=xp)),
        _plain(model, entropy(log_probs, xp=xp)),
        _plain(model, kl_divergence(final_log_probs, log_probs, xp=xp)),
        strict=True,
    )
    cells = []
    for ids, values, probs, target_rank, nats, kl in columns:
        # The target stands last, after the likeliest in their order.
        places = [*range(1, len(ids)), target_rank]
        *likeliest, target = (
            Prediction(rank, model.token_string(token), token, logit, probability)
            for rank, token, logit, probability in zip(places, ids, values, probs, strict=True)
        )
        cells.append(Cell(Predictions(tuple(likeliest)), target, nats, kl))
    return tuple(cells)


def _plain(model: Model, x: Array) -> list[Any]:
    listed: list[Any] = model.backend.to_host(x).tolist()
    return listed
