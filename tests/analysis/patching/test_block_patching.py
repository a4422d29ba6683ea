"""Block patching and factual routing compared with hand-made runs, and on the bundled model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import Backend, HookError, Model, ShapeError, TokenError, at
from mi_ref.analysis.facts.routing import factual_routing
from mi_ref.analysis.patching.blocks import block_patching

BASE, OTHER = [5, 17, 8, 39, 22], [5, 17, 3, 39, 22]
FRANCE, ITALY = "The capital of France is", "The capital of Italy is"


def exact(load: Callable[[str, Backend, str], Model], case: str) -> Model:
    return load(case, mi_ref.get_backend("numpy"), "float64")


def patched(model: Model, layers: Any, pos: Any, base: Any, other: Any, **options: Any) -> Any:
    """Run `base` with the streams of `other` at one position, layer by layer."""
    donor = model.run(other, capture=[at.resid_post[:]])

    def patch(x: Any, hook: Any) -> None:
        x[:, pos] = donor[hook.point][:, pos]

    return model.run(base, edits=[(at.resid_post[n], patch) for n in layers], **options)


@pytest.mark.parametrize("case", ["llama2", "gemma2", "gpt2", "gpt-neox-parallel", "rwkv6"])
@pytest.mark.parametrize("size", [1, 2])
def test_every_cell_is_the_patch_made_by_hand(
    load: Callable[[str, Backend, str], Model], case: str, size: int
) -> None:
    model = exact(load, case)
    found = block_patching(model, BASE, OTHER, answer=7, other=9, block_size=size)
    n_layers = model.cfg.n_layers
    blocks = [range(n, min(n + size, n_layers)) for n in range(0, n_layers, size)]
    assert found.blocks == tuple((block[0], block[-1]) for block in blocks)
    for ids, value in ((BASE, found.base), (OTHER, found.counterfactual)):
        logits = model.run(ids).logits_at()
        assert value == pytest.approx(float(logits[7] - logits[9]), rel=1e-12)
    for row, block in enumerate(blocks):
        for pos in range(len(BASE)):
            logits = patched(model, block, pos, BASE, OTHER).logits_at()
            expected = float(logits[7] - logits[9])
            assert found.values[row][pos] == pytest.approx(expected, rel=1e-11)
            assert found.likeliest[row][pos] == int(np.argmax(logits))
            assert found.turned()[row][pos] == ((expected > 0) != (found.base > 0))


def test_every_layer_of_the_block_is_patched_and_no_other_position(atlas: Model) -> None:
    """candle-mi replaces whole tensors, so that only a block's last layer counts.

    Then the block 0-3 at one position would equal layer 3 alone, and either every position, even
    the first, would turn the answer, or none would.
    """
    whole = block_patching(atlas, FRANCE, ITALY, block_size=4, positions=[1, 4])
    last = block_patching(atlas, FRANCE, ITALY, block_size=1, positions=[1, 4])
    first_block, layer_3 = whole.values[0][1], last.values[3][1]
    assert first_block != pytest.approx(layer_3, abs=1.0)
    run = patched(atlas, range(4), 4, FRANCE, ITALY).logits_at()
    paris, rome = (atlas.to_single_token(word) for word in (" Paris", " Rome"))
    assert first_block == pytest.approx(float(run[paris] - run[rome]), rel=1e-4)
    assert whole.turned()[0] == (False, True)
    assert whole.values[0][0] == pytest.approx(whole.base, rel=1e-5)


def test_blocks_of_the_bundled_model(atlas: Model) -> None:
    found = block_patching(atlas, FRANCE, ITALY, block_size=2)
    assert str(found.choice) == "logit ' Paris' - ' Rome'"
    assert found.turned() == (
        (False, False, False, False, True, False),
        (False, False, False, False, True, True),
        (False, False, False, False, False, True),
    )
    predicted = [atlas.token_string(line[4]) for line in found.likeliest]
    assert predicted == [" Rome", " Rome", " Paris"]


def test_table_summary_record_and_plot(atlas: Model, tmp_path: Path) -> None:
    found = block_patching(atlas, FRANCE, ITALY, positions=[4, 5])
    lines = str(found).splitlines()
    assert lines[0] == "logit ' Paris' - ' Rome', at.resid_post patched"
    assert lines[4].split()[0] == "0-3"
    assert f"{found.values[0][0]:+.2f}  ' Rome'" in lines[4]
    assert lines[5].split()[0] == "4-5"
    assert found.summary().endswith("3 of 4 patches turn the choice.")
    record = json.loads(json.dumps(found.record()))
    assert record["format"] == "mi_ref.block_patching/1"
    assert record["likeliest_tokens"][0][0] == " Rome"
    assert [tuple(line) for line in record["values"]] == list(found.values)
    assert record["choice"]["token"]["text"] == " Paris"
    found.plot(tmp_path / "blocks.png")
    assert (tmp_path / "blocks.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("case", ["llama2", "gemma2", "gpt-neox-parallel"])
@pytest.mark.parametrize("subject", [[2], [3, 2]])
def test_routing_is_the_difference_of_two_runs(
    load: Callable[[str, Backend, str], Model], case: str, subject: list[int]
) -> None:
    model = exact(load, case)
    found = factual_routing(model, BASE, OTHER, subject=subject, layers=[0])
    wanted = {"capture": [at.pattern[:]]}
    before, after = (
        patched(model, layers, sorted(subject), BASE, OTHER, **wanted) for layers in ([], [0])
    )
    for layer in range(model.cfg.n_layers):
        for run, values in ((before, found.before), (after, found.after)):
            expected = run[at.pattern[layer]][0, :, -1, sorted(subject)].sum(axis=0)
            assert values[layer] == pytest.approx(expected, rel=1e-11, abs=1e-300)
    assert found.changes()[0] == (0.0,) * len(found.before[0])
    assert max(map(abs, found.changes()[1])) > 1e-6


def test_routing_in_the_bundled_model(atlas: Model, tmp_path: Path) -> None:
    found = factual_routing(atlas, FRANCE, ITALY, layers=[0, 1])
    assert (found.subject, found.patched) == ((4,), (0, 1))
    lines = str(found).splitlines()
    assert lines[0].startswith("attention 5 -> 4 ' France'")
    changes = found.changes()
    assert max(abs(x) for x in changes[0]) == 0
    top = max((abs(x), n, h) for n, line in enumerate(changes) for h, x in enumerate(line))
    assert lines[4].split()[0] == f"{top[1]}.{top[2]}"
    assert top[0] > 0.5
    record = json.loads(json.dumps(found.record()))
    assert record["format"] == "mi_ref.factual_routing/1"
    assert [tuple(line) for line in record["changes"]] == list(changes)
    found.plot(tmp_path / "routing.png")
    assert (tmp_path / "routing.png").read_bytes()[:4] == b"\x89PNG"
    assert factual_routing(atlas, FRANCE, ITALY).patched == (0, 1, 2, 3)


def test_refusals(atlas: Model, load: Callable[[str, Backend, str], Model]) -> None:
    with pytest.raises(TokenError, match=r"prompt has 6 tokens .* counterfactual has 8"):
        block_patching(atlas, FRANCE, "The capital of the country Italy is")
    with pytest.raises(ShapeError, match="block_size=0: a block has at least one layer"):
        block_patching(atlas, FRANCE, ITALY, block_size=0)
    with pytest.raises(TokenError, match="both are ' Paris'"):
        block_patching(atlas, FRANCE, "The capital of France was")
    with pytest.raises(ShapeError, match=r"layers \[6\] of 6"):
        factual_routing(atlas, FRANCE, ITALY, layers=[6])
    with pytest.raises(HookError, match=r"at\.pattern.* does not exist in this model"):
        factual_routing(exact(load, "rwkv7"), BASE, OTHER)
