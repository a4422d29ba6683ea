"""Layers run over and over: a loop in depth, with vectors fed back before each further pass.

Layers ``loop`` run `depth` times on one prompt, then the rest of the model does. ``"recurrent"``
sends what the loop put out, plus feedback, through it again. ``"restart"`` is candle-mi's: as soon
as there is feedback, each further pass starts anew from what entered the loop first, so that the
passes before it are lost and depth beyond two changes nothing. Without feedback the two are the
same.

Source: candle-mi's ``forward_recurrent`` and ``generate_recurrent``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mi_ref._typing import Array, Float
from mi_ref.analysis.arguments.numbers import whole
from mi_ref.analysis.arguments.prompts import one_prompt
from mi_ref.analysis.measure.comparison import Comparison, compare
from mi_ref.analysis.recurrent.depth_loop import Feedback, Mode, loop_bounds, placed, run_loop
from mi_ref.errors import ShapeError, TokenError
from mi_ref.model import Model
from mi_ref.output import plots
from mi_ref.output.origin import Origin
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Table
from mi_ref.run import Run
from mi_ref.text.prompt import Prompt


@dataclass(frozen=True, slots=True)
class Pass:
    """What one more pass through the loop led to."""

    number: int
    """From 1, which is the plain model."""
    change: float
    """Length of the change of the loop's output since the pass before, relative to that output, at
    the last position; 0 for the first."""
    comparison: Comparison
    """With the plain model, at the last position."""
    token: str
    """The likeliest next token."""
    probability: float


@dataclass(frozen=True, slots=True, repr=False)
class RecurrentFeedback(Result):
    """Passes through a loop of layers, each finished by the rest of the model.

    Attributes
    ----------
    passes : tuple of Pass
        From the plain model's to the last.
    run : Run
        The last one, finished.
    loop : tuple of int
        First layer, and the one after the last.
    mode : {"recurrent", "restart"}
        What a further pass starts from.
    feedback : tuple of (int, float)
        Position, counted from the front, and length of what was added.
    tokens : tuple of int
        The prompt's.
    origin : Origin
        The model, without its weights.
    """

    passes: tuple[Pass, ...]
    run: Run = field(compare=False)
    loop: tuple[int, int]
    mode: Mode
    feedback: tuple[tuple[int, float], ...]
    tokens: tuple[int, ...]
    origin: Origin = field(compare=False)

    def table(self) -> Table:
        """Return one row per pass."""
        table = Table(
            [">pass", ">change", ">KL", "likeliest", ">p"],
            f"layers {self.loop[0]} to {self.loop[1] - 1}, {self.mode}",
        )
        for p in self.passes:
            kl = f"{p.comparison.kl:.4g}"
            table.add(p.number, f"{p.change:.4g}", kl, repr(p.token), f"{p.probability:.4f}")
        return table

    def summary(self) -> str:
        """Return what the last pass predicts, as a sentence."""
        last = self.passes[-1]
        return (
            f"After {last.number} pass{'es' * (last.number > 1)} {last.token!r} is likeliest,"
            f" {last.probability:.4f}; KL {last.comparison.kl:.4g} nats from the plain model."
        )

    def record(self) -> dict[str, Any]:
        """Return every number but the feedback's vectors, of which it has the lengths."""
        passes = [
            {"number": p.number, "change": p.change, "kl": p.comparison.kl, "token": p.token,
             "probability": p.probability}
            for p in self.passes
        ]  # fmt: skip
        return record_of(
            self,
            "recurrent_feedback",
            self.tokens,
            loop=list(self.loop),
            mode=self.mode,
            feedback=[{"position": n, "length": length} for n, length in self.feedback],
            passes=passes,
        )

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw KL from the plain model, pass by pass."""
        plots.curves(
            path,
            [float(p.number) for p in self.passes],
            {"KL": [p.comparison.kl for p in self.passes]},
            title=f"Layers {self.loop[0]} to {self.loop[1] - 1}, over and over",
            x_label="passes",
            y_label="KL from the plain model, nats",
        )


def recurrent_feedback(
    model: Model,
    prompt: Prompt,
    *,
    loop: tuple[int, int],
    depth: int = 2,
    feedback: Sequence[Feedback] = (),
    mode: Mode = "recurrent",
    prepend_bos: bool | None = None,
) -> RecurrentFeedback:
    """Run a loop of layers `depth` times, and see what each pass changes.

    Parameters
    ----------
    model : Model
        What runs.
    prompt : str, sequence of int, or Array
        One text, or its token ids.
    loop : tuple of int
        First layer of the loop, and the one after its last, as in ``model.run(start_at_layer=,
        stop_at_layer=)``.
    depth : int
        Passes; 1 is the plain model.
    feedback : sequence of Feedback
        What to add before every pass but the first.
    mode : {"recurrent", "restart"}
        What a further pass starts from; see the module.
    prepend_bos : bool or None
        As for `Model.run`.

    Raises
    ------
    HookError
        If the loop is not a range of layers.
    ShapeError
        If the depth is below 1, or feedback does not fit.
    """
    ids = one_prompt(model, prompt, prepend_bos)
    vectors = placed(model, feedback, len(ids))
    start, stop = loop_bounds(model, loop, depth, mode)
    loops = run_loop(model, model.to_tokens(ids), (start, stop), depth, vectors, mode)
    finished = [model.run(run, start_at_layer=stop) for run in loops]
    passes, before = [], loops[0]
    for number, (run, end) in enumerate(zip(loops, finished, strict=True), start=1):
        best = end.top(1)[0]
        # The plain model's tokens, which a run that starts from a stream does not know.
        compared = replace(compare(finished[0], end), tokens=ids)
        passes.append(Pass(number, _change(before, run), compared, best.token, best.probability))
        before = run
    xp = model.backend.xp
    return RecurrentFeedback(
        passes=tuple(passes),
        run=finished[-1],
        loop=(start, stop),
        mode=mode,
        feedback=tuple((n, float(xp.sqrt(xp.sum(v * v)))) for n, v in vectors),
        tokens=ids,
        origin=model.origin,
    )


def generate_with_feedback(
    model: Model,
    prompt: Prompt,
    n_tokens: int,
    *,
    loop: tuple[int, int],
    depth: int = 2,
    feedback: Sequence[Feedback] = (),
    mode: Mode = "recurrent",
    sustained: bool = False,
    prepend_bos: bool | None = None,
) -> tuple[int, ...]:
    """Return the `n_tokens` ids that follow, each the likeliest, each by a loop of its own.

    Parameters
    ----------
    model, prompt, loop, depth, feedback, mode, prepend_bos
        As for `recurrent_feedback`; positions are those of the prompt.
    n_tokens : int
        How many.
    sustained : bool
        Add every vector at the last token of each step too. Where it is there already, as when it
        was given for the prompt's last token, it is added once; candle-mi adds it twice.
    """
    ids = one_prompt(model, prompt, prepend_bos)
    start, stop = loop_bounds(model, loop, depth, mode)
    given = placed(model, feedback, len(ids))
    if whole(n_tokens, "n_tokens") < 1:
        raise ShapeError(f"n_tokens={n_tokens}: at least one token has to be written.")
    new: list[int] = []
    for _ in range(n_tokens):
        text = [*ids, *new]
        last = len(text) - 1
        added = [(last, v) for n, v in given if n != last] if sustained else []
        tokens = model.to_tokens(text)
        run = run_loop(model, tokens, (start, stop), depth, [*given, *added], mode)[-1]
        new.append(model.run(run, start_at_layer=stop, logits="last").top(1)[0].id)
    return tuple(new)


def embedding_direction(
    model: Model, words: Sequence[str] | Sequence[int]
) -> Float[Array, " d_model"]:
    """Return the mean embedding of words, of length one; each is one token's text, or its id.

    Raises
    ------
    TokenError
        If there are no words, or one is not one token.
    """
    if isinstance(words, str) or not words:
        raise TokenError(f"words={words!r}: a sequence of texts of exactly one token each.")
    xp = model.backend.xp
    rows = [model.params.embed[model.origin.token_id(word), :] for word in words]
    mean = xp.mean(xp.stack(rows), axis=0)
    return mean / xp.sqrt(xp.sum(mean * mean))


def _change(before: Run, after: Run) -> float:
    """Return how far the last position moved, relative to where it was."""
    xp = before.backend.xp
    old, new = (run.resid[0, -1, :] for run in (before, after))
    return float(xp.sqrt(xp.sum((new - old) ** 2) / xp.sum(old * old)))
