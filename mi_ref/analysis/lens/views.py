"""A lens as tables, as a sentence, and as a record for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mi_ref.analysis.lens.cells import Cell, LensCells
from mi_ref.output.tables import Styled, Table, chance
from mi_ref.run import Prediction

_LEADER, _TARGET, _FAINT = "bold", "bold green", "dim"


def layer_table(lens: LensCells, position: int) -> Table:
    """Return one row per layer, the target's entries highlighted."""
    column = lens.at_position(position)
    target = column[-1].target
    table = Table(
        [">layer", "likeliest", ">p", "runners-up", ">rank", ">p(target)", ">entropy", ">KL"],
        f"after {place(lens, position)}: target {target.token!r} (id {target.id})",
        flexible=["runners-up"],
    )
    for layer, cell in enumerate(column):
        leader, *others = cell.top.items
        style = _TARGET if leader.id == target.id else _LEADER
        ahead = _TARGET if cell.target.rank == 1 else ""
        table.add(
            layer,
            Styled((repr(leader.token), style)),
            Styled((chance(leader.probability), style)),
            Styled(*(_runner_up(other, target.id) for other in others)),
            Styled((f"{cell.target.rank:,}", ahead)),
            Styled((chance(cell.target.probability), ahead)),
            f"{cell.entropy:.2f}",
            f"{cell.kl:.2f}",
        )
    return table


def token_grid(lens: LensCells, layers: Sequence[int] | None) -> Table:
    """Return the likeliest tokens, dim where the layer does not yet predict as the last does."""
    shown = range(lens.n_layers) if layers is None else [n % lens.n_layers for n in layers]
    table = Table(
        [">pos", "token", *(f"layer {n}" if n == shown[0] else str(n) for n in shown)],
        "likeliest next token after each position, by layer",
    )
    for place_ in lens.positions:
        column = lens.at_position(place_)
        final = column[-1].top[0].id
        table.add(
            place_,
            Styled((repr(lens.str_tokens[place_]), "bold")),
            *(_grid_cell(column[layer], final) for layer in shown),
        )
    return table


def summary(lens: LensCells, position: int) -> str:
    """Return the target's way through the layers as a sentence."""
    cell = lens.at_position(position)[-1]
    target, leader, kept = cell.target, cell.top[0], len(cell.top)
    near = lens.first_layer(top=kept, position=position)
    first = lens.first_layer(position=position)
    end = chance(target.probability)
    if first is None:
        way = f"is in the top {kept} from layer {near} on" if near is not None else "never leads"
        end = f"at rank {target.rank:,} with {end}, behind {leader.token!r} with"
        end += f" {chance(leader.probability)}"
    elif near is not None and near < first:
        way = f"is in the top {kept} from layer {near} on, leads from layer {first} on"
        end = f"at {end}"
    else:
        way, end = f"leads from layer {first} on", f"at {end}"
    return f"{target.token!r} {way} and ends {end}."


def record(lens: LensCells) -> dict[str, Any]:
    """Return everything in the lens, ready for JSON."""
    return {
        "format": "mi_ref.logit_lens/1",
        "provenance": lens.origin.record(),
        "units": {"entropy": "nats", "kl": "nats, KL(final || layer)"},
        "prompt": lens.prompt,
        "tokens": list(lens.tokens),
        "str_tokens": list(lens.str_tokens),
        "positions": list(lens.positions),
        "layers": [
            {
                "layer": layer,
                "cells": [_cell_record(p, c) for p, c in zip(lens.positions, row, strict=True)],
            }
            for layer, row in enumerate(lens.cells)
        ],
    }


def place(lens: LensCells, position: int) -> str:
    """Return a position and its token as text."""
    position %= len(lens.tokens)
    return f"position {position}, {lens.str_tokens[position]!r}"


def _runner_up(other: Prediction, target: int) -> tuple[str, str]:
    return f"{other.token!r} {chance(other.probability)}", _TARGET if other.id == target else _FAINT


def _grid_cell(cell: Cell, final: int) -> Styled:
    leader = cell.top[0]
    return Styled((repr(leader.token), "green" if leader.id == final else _FAINT))


def _cell_record(position: int, cell: Cell) -> dict[str, Any]:
    return {
        "position": position,
        "entropy": cell.entropy,
        "kl": cell.kl,
        "target": asdict(cell.target),
        "top": [asdict(prediction) for prediction in cell.top.items],
    }
