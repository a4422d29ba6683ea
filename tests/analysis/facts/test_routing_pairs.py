"""Factual routing and block patching over many pairs, compared with hand-made runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import Backend, HookError, Model, PairsError, ShapeError, SweepError, at
from mi_ref.analysis.facts.block_pairs import block_patching_pairs
from mi_ref.analysis.facts.block_turns import count_turned
from mi_ref.analysis.facts.pairs import FactPair, PairLike
from mi_ref.analysis.facts.routing_pairs import factual_routing_pairs
from mi_ref.analysis.patching.blocks import block_patching

Load = Callable[[str, Backend, str], Model]
IDS = [([5, 17, 8, 39, 22], [5, 17, 3, 39, 22]), ([7, 11, 2], [7, 30, 2]),
       ([5, 9, 8, 14], [5, 12, 3, 14])]  # fmt: skip
THE = "The capital of {} is"
WORLD = [("France", "Italy", " Paris", " Rome"), ("Spain", "Egypt", " Madrid", " Cairo"),
         ("Japan", "Peru", " Tokyo", " Lima")]  # fmt: skip
PAIRS = [FactPair(THE.format(a), THE.format(b), a, x, y) for a, b, x, y in WORLD]
UNEQUAL = (THE.format("France"), THE.format("the Gambia"))


@pytest.fixture(scope="module")
def atlas() -> Model:
    return mi_ref.from_pretrained("atlas")


def looks(model: Model, ids: list[int], donor: list[int] | None, where: list[int]) -> Any:
    """Return ``[layer, head]``: the last token's attention to the subject, layer 0 patched."""
    edits = []
    if donor is not None:
        held = model.run(donor, capture=[at.resid_post[0]])[at.resid_post[0]]

        def patch(x: Any, hook: Any) -> None:
            x[:, where] = held[:, where]

        edits = [(at.resid_post[0], patch)]
    run = model.run(ids, capture=[at.pattern[:]], edits=edits)
    points = [at.pattern[n] for n in range(model.cfg.n_layers)]
    return np.stack([run[point][0, :, -1, where].sum(axis=0) for point in points])


@pytest.mark.parametrize("case", ["llama2", "gemma2", "gpt-neox-parallel"])
def test_every_head_is_averaged_and_counted(load: Load, case: str) -> None:
    model = load(case, mi_ref.get_backend("numpy"), "float64")
    found = factual_routing_pairs(model, IDS, layers=[0], top=3)
    changes = []
    for ids, other in IDS:
        where = [n for n, (a, b) in enumerate(zip(ids, other, strict=True)) if a != b]
        changes.append(looks(model, ids, other, where) - looks(model, ids, None, where))
    n_layers, n_heads = changes[0].shape
    assert len(found.heads) == n_layers * n_heads
    for each in found.heads:
        values = [float(change[each.layer, each.head]) for change in changes]
        assert each.mean == pytest.approx(fmean(values), rel=1e-9, abs=1e-14)
        assert each.error == pytest.approx(stdev(values) / 3**0.5, rel=1e-9, abs=1e-14)
        assert each.size == pytest.approx(fmean(map(abs, values)), rel=1e-9, abs=1e-14)
        ranks = [int((np.abs(c) > abs(c[each.layer, each.head])).sum()) for c in changes]
        assert each.count == (sum(rank < 3 for rank in ranks) if each.layer else 0)
    order = [(-each.count, -each.size) for each in found.heads]
    assert order == sorted(order)


def test_a_head_that_did_not_change_never_counts(atlas: Model) -> None:
    """Otherwise the first heads of layers that cannot see the patch would count as the largest."""
    found = factual_routing_pairs(atlas, PAIRS, layers=[4], top=20)
    assert {each.layer for each in found.heads if each.count} == {5}
    changed = sum(x != 0 for pair in found.pairs for x in pair.changes()[5])
    assert sum(each.count for each in found.heads) == changed > 0


def test_the_patch_is_the_subjects_alone(load: Load) -> None:
    """candle-mi replaces whole activations: then a subject elsewhere would change nothing."""
    model = load("llama2", mi_ref.get_backend("numpy"), "float64")
    ids, other = [5, 17, 8, 39, 22], [5, 17, 3, 39, 30]
    part, whole = (
        factual_routing_pairs(model, [FactPair(ids, other, subject)], layers=[0])
        for subject in ([2], None)
    )
    changes = looks(model, ids, other, [2]) - looks(model, ids, None, [2])
    assert np.allclose(part.pairs[0].changes(), changes, rtol=1e-9, atol=1e-14)
    assert whole.pairs[0].subject == (2, 4)
    assert part.heads[0].error is None
    assert not np.allclose(part.pairs[0].changes(), whole.pairs[0].changes(), atol=1e-6)


def test_turned_pairs_are_counted_by_where_the_position_stands(atlas: Model) -> None:
    speak = "The people in France speak", "The people in Spain speak"
    pairs: list[PairLike] = [*PAIRS, speak]
    found = block_patching_pairs(atlas, pairs, block_size=3)
    single = [block_patching(atlas, p.prompt, p.counterfactual, answer=p.answer, other=p.other,
                             block_size=3) for p in PAIRS]  # fmt: skip
    single.append(block_patching(atlas, *speak, block_size=3))
    assert [pair.values for pair in found.pairs] == [pair.values for pair in single]
    assert found.subjects == ((4,),) * 4
    for row, block in enumerate(found.pairs[0].blocks):
        flags = [pair.turned()[row] for pair in single]
        for place, chosen in (("before", range(4)), ("subject", [4]), ("last", [5])):
            (counted,) = [t for t in found.turned if (t.block, t.place) == (block, place)]
            cells = [[flag[pos] for pos in chosen] for flag in flags]
            assert (counted.pairs, counted.pairs_turned) == (4, sum(map(any, cells)))
            assert (counted.patches, counted.patches_turned) == (
                4 * len(chosen),
                sum(map(sum, cells)),
            )
            assert counted.share == counted.pairs_turned / 4
    assert {each.place for each in found.turned} == {"before", "subject", "last"}


@pytest.mark.bits
def test_each_pair_goes_on_from_a_file_of_its_own(atlas: Model, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "pairs"
    whole = block_patching_pairs(atlas, [UNEQUAL, *PAIRS[:2]], skip=True, resume=folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(files) == ["pair-1.jsonl", "pair-2.jsonl"]
    (folder / "pair-1.jsonl").write_bytes(files["pair-1.jsonl"][:-50])
    (folder / "pair-2.jsonl").unlink()
    again = block_patching_pairs(atlas, [UNEQUAL, *PAIRS[:2]], skip=True, resume=folder)
    assert again == whole
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    with pytest.raises(SweepError, match="belongs to another sweep"):
        block_patching_pairs(atlas, [PAIRS[2], PAIRS[2]], resume=folder)


def test_kinds_of_positions(load: Load) -> None:
    model = load("llama2", mi_ref.get_backend("numpy"), "float64")
    ids, other = [5, 17, 8, 39, 22, 4], [5, 17, 3, 39, 30, 4]
    pair = block_patching(model, ids, other, answer=7, other=9)
    turned = count_turned([pair, pair], [(2, 3), (4, 5)])
    counts = {each.place: (each.pairs, each.patches) for each in turned}
    # After the subject is one place of the first prompt; the last token of the second is its own.
    assert counts == {"before": (2, 6), "subject": (2, 4), "after": (1, 1), "last": (1, 1)}


def test_one_turned_position_of_several_turns_the_pair(load: Load) -> None:
    model = load("llama2", mi_ref.get_backend("numpy"), "float64")
    pair = block_patching(model, [5, 17, 8, 39, 22], [5, 17, 3, 30, 22], answer=7, other=9)
    sign = 1.0 if pair.base > 0 else -1.0
    values = ((sign, sign, -sign, sign, sign),)
    pairs = [replace(pair, values=values), replace(pair, values=((sign,) * 5,))]
    counts = {each.place: each for each in count_turned(pairs, [(2, 3), (2, 3)])}
    found = counts["subject"]
    assert (found.pairs, found.pairs_turned, found.share) == (2, 1, 0.5)
    assert (found.patches, found.patches_turned) == (4, 1)
    assert counts["before"].pairs_turned == counts["last"].pairs_turned == 0


def test_pairs_that_turn_nothing_do_not_fit(atlas: Model) -> None:
    wrong = FactPair(PAIRS[0].prompt, PAIRS[0].counterfactual, None, " Paris", " spoon")
    with pytest.raises(PairsError, match=r"1: logit ' Paris' . ' spoon' is \+.* nothing to turn"):
        block_patching_pairs(atlas, [PAIRS[0], wrong])
    found = block_patching_pairs(atlas, [UNEQUAL, PAIRS[0], wrong], skip=True)
    assert found.numbers == (1,)
    assert [each.number for each in found.left_out] == [0, 2]
    assert str(found).splitlines()[0].endswith("1 pairs, 2 left out")


def test_refusals(atlas: Model, load: Load) -> None:
    with pytest.raises(PairsError, match=r"1 of 4 pairs do not fit.*\n  3: prompt has 6 tokens"):
        factual_routing_pairs(atlas, [*PAIRS, UNEQUAL])
    with pytest.raises(ShapeError, match="top=0"):
        factual_routing_pairs(atlas, PAIRS, top=0)
    with pytest.raises(ShapeError, match=r"layers \[6\] of 6"):
        factual_routing_pairs(atlas, PAIRS, layers=6, skip=True)
    with pytest.raises(ShapeError, match="block_size=0"):
        block_patching_pairs(atlas, PAIRS, block_size=0)
    recurrent = load("rwkv7", mi_ref.get_backend("numpy"), "float64")
    with pytest.raises(HookError, match=r"at\.pattern.* does not exist in this model"):
        factual_routing_pairs(recurrent, IDS)


def test_tables_records_and_pictures(atlas: Model, tmp_path: Path) -> None:
    routing = factual_routing_pairs(atlas, [UNEQUAL, *PAIRS], layers=[0, 1], top=5, skip=True)
    assert str(routing).startswith("attention from the last token to the subject: 3 pairs, 1 left")
    best = routing.heads[0]
    assert f"Head {best.layer}.{best.head} is among the 5" in routing.summary()
    record = json.loads(json.dumps(routing.record()))
    assert record["format"] == "mi_ref.factual_routing_pairs/1"
    assert record["heads"][0]["mean"] == best.mean
    assert [each["number"] for each in record["pairs"]] == [1, 2, 3]
    assert record["str_tokens"][record["pairs"][1]["counterfactual"]][4] == " Egypt"
    assert record["left_out"][0]["number"] == 0
    blocks = block_patching_pairs(atlas, PAIRS, block_size=3)
    assert "1.000  3 of 3" in str(blocks)
    assert blocks.summary().endswith("position 'subject': 3 of 3 pairs.")
    record = json.loads(json.dumps(blocks.record()))
    assert record["format"] == "mi_ref.block_patching_pairs/1"
    assert record["turned"][1]["share"] == 1.0
    assert record["pairs"][2]["choice"]["token"]["text"] == " Tokyo"
    routing.plot(tmp_path / "a.png")
    routing.plot(tmp_path / "b.png", "change")
    blocks.plot(tmp_path / "c.png")
    for name in "abc":
        assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
