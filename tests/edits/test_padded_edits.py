"""Interventions in batches of prompts of different lengths."""

from __future__ import annotations

import pytest

import mi_ref
from mi_ref import at, do
from mi_ref.edits.values import Bypass


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_mean_leaves_pads_out(side: str) -> None:
    model = mi_ref.from_pretrained("atlas", dtype="float64")
    edits = [(at.z[0], do.mean("pos"))]
    rows = [[5, 6, 7, 8, 9], [10, 11, 12]]
    run = model.run(rows, edits=edits, padding_side=side)  # type: ignore[arg-type]
    assert run.padding is not None
    assert run.logits is not None
    for number, row in enumerate(rows):
        alone = model.run([row], edits=edits).logits
        own = slice(run.padding.starts[number], run.padding.stops[number])
        assert alone is not None
        assert abs(run.logits[number, own] - alone[0]).max() < 1e-11


@pytest.mark.bits
def test_a_bypass_keeps_to_its_rows() -> None:
    model = mi_ref.from_pretrained("atlas-rwkv7")
    prompts = [[1, 20, 30, 40, 50], [1, 50, 40, 30, 20]]
    plain = model.run(prompts).logits
    edited = model.run(prompts, edits=[(at.rwkv_shift[0], Bypass([2], rows=[0]))]).logits
    assert plain is not None
    assert edited is not None
    assert abs(edited[0] - plain[0]).max() > 0
    assert (edited[1] == plain[1]).all()
