"""The analyses' examples give the known findings, draw them, and print what their README shows."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from examples import (
    ablation,
    activation_patching,
    attention_knockout,
    attention_patterns,
    character_count_helix,
    counterfact_patching,
    factual_routing,
    induction_heads,
    logit_attribution,
    path_patching,
    recurrent_feedback,
    rwkv_state_knockout,
    steering_convergence,
    steering_dose_response,
)
from mi_ref import HookError
from tests.docs.test_readme import assert_same

README = (Path(attention_knockout.__file__).parent / "README.md").read_text(encoding="utf-8")
SUBJECT, LAST = 4, 5
MOVERS = {(3, 6), (3, 7), (4, 6), (4, 7)}
"""Heads that bring the capital to the last token."""
ATTENTION = [
    attention_knockout, attention_patterns, factual_routing, induction_heads,
    path_patching, steering_dose_response,
]  # fmt: skip
ANY = [activation_patching, logit_attribution, steering_convergence]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run an example, check what it prints and draws, and return what its main returns."""

    def check(module: ModuleType, *, draws: bool = True) -> Any:
        name = module.__name__.rpartition(".")[2]
        picture = tmp_path / f"{name}.png"
        found = module.main(*[module.main.__defaults__[0], str(picture)][: 1 + draws])
        shown = re.search(rf"^## {name}\.py\n\n```\n(.*?)\n```$", README, re.M | re.S)
        assert shown is not None
        assert_same(capsys.readouterr().out, shown[1])
        if draws:
            assert picture.read_bytes().startswith(b"\x89PNG")
        return found

    return check


def test_the_readme_lists_every_script_once_with_its_output() -> None:
    names = sorted(path.name for path in Path(attention_knockout.__file__).parent.glob("*.py"))
    assert re.findall(r"^\| \[(\w+\.py)\]\(\1\) \|", README, re.M) == names
    assert re.findall(r"^## (\w+\.py)\n\n```\n.", README, re.M) == names


def test_the_last_token_looks_at_the_subject(run: Any) -> None:
    found = run(attention_patterns)
    for layer, head in MOVERS:
        assert found.attention_from(layer, head=head)[SUBJECT] > 0.99


def test_the_movers_act_on_the_logits_and_read_what_the_first_mlp_wrote(run: Any) -> None:
    _, movers, fed = run(path_patching)
    assert {cell[:2] for cell in movers} == MOVERS
    layer, _, share = fed["values", "mlp"]
    assert layer == 0
    assert share > 0.8
    assert max(abs(fed[what, "mlp"][2]) for what in ("queries", "keys")) < 0.05


def test_what_all_countries_need_is_not_what_tells_them_apart(run: Any) -> None:
    found = run(ablation)
    leading = found["mean"].top(1)[0]
    assert (leading.layer, leading.index) == (0, 4)
    by_head = {
        method: {(e.layer, e.index): e.kl.mean for e in each.effects}
        for method, each in found.items()
    }
    assert by_head["resample"][0, 4] < by_head["mean"][0, 4] / 10
    for head in ((3, 6), (3, 7)):
        assert by_head["resample"][head] > 5 * max(by_head["mean"][head], by_head["zero"][head])


def test_the_prediction_hangs_on_layer_3_looking_at_the_subject(run: Any) -> None:
    grid, together = run(attention_knockout)
    first, second = grid.strongest(2)
    assert (first.layer, first.key) == (3, SUBJECT)
    assert first.kl > 10 * second.kl
    # No single layer's edges carry all of it.
    assert first.target.after > 0.5
    assert together.target.after < 0.05


def test_doses_take_the_capital_away_and_put_another_in_its_place(run: Any) -> None:
    attention, doses = run(steering_dose_response)
    chances = [dose.target.after for dose in attention.doses]
    assert chances[0] < 0.7
    assert max(chances) > 0.99
    assert [outcome.probability > 0.5 for outcome in doses.outcomes] == [
        False, False, True, True, True,
    ]  # fmt: skip


def test_early_layers_absorb_a_push(run: Any) -> None:
    found = run(steering_convergence)
    assert [push.absorbed is not None for push in found.pushes] == [True] * 3 + [False] * 3
    kls = [push.outcome.kl for push in found.sweep]
    assert kls == sorted(kls)


def test_the_subject_carries_the_capital_until_four_heads_move_it(run: Any) -> None:
    streams, order, together = run(activation_patching)
    for layer, row in enumerate(streams.recovery):
        assert (row[SUBJECT] > 0.9) == (layer < 4)
        assert (row[LAST] > 0.8) == (layer >= 4)
        assert max(map(abs, row[:SUBJECT])) < 0.05
    assert set(order[:4]) == MOVERS
    assert together[0].token == " Paris"
    assert together[-1].token == " Rome"


def test_every_pair_turns_at_the_subject_and_then_at_the_last_token(run: Any) -> None:
    found = run(counterfact_patching)
    assert len({result.tokens for result in found.pairs}) >= 10
    shares = {(each.block[0], each.place): each.share for each in found.turned}
    assert [shares[0, place] for place in ("before", "subject", "last")] == [0, 1, 0]
    assert [shares[4, place] for place in ("before", "subject", "last")] == [0, 0, 1]


def test_heads_that_carry_the_capital_stay_at_the_subject(run: Any) -> None:
    found = run(factual_routing)
    assert len(found.pairs) > 50
    heads = {(each.layer, each.head): each for each in found.heads}
    # No head of layer 0 can see a patch of the stream that leaves it.
    assert all(heads[0, head].size == 0 == heads[0, head].count for head in range(8))
    assert all(heads[place].size < 0.02 for place in MOVERS)
    assert all(heads[3, head].count > 50 for head in (1, 2, 5))


def test_feedback_names_its_words_and_plans_nothing(run: Any) -> None:
    found = run(recurrent_feedback, draws=False)
    assert found["with its rhymes"] == [3, 0, 0, 0]
    assert found["with another's"] == [0, 3, 0, 0]
    assert found["as it is"][0] < 3


def test_neighbouring_counts_are_alike(run: Any) -> None:
    found = run(character_count_helix)
    near, far = (character_count_helix.likeness(found, apart) for apart in (1, 5))
    assert near > 0.4
    assert near > far + 0.3


def test_induction_heads_are_what_copies(run: Any) -> None:
    found, before, after = run(induction_heads)
    assert {(head.layer, head.head) for head in found.of("induction")[:2]} == {(3, 0), (3, 1)}
    assert found.of("induction")[2].score < 0.1
    assert before < 0.1
    assert after > 5


def test_the_heads_that_move_the_capital_write_most_of_it(run: Any) -> None:
    found = run(logit_attribution)
    heads = [part for part, _ in found.top(20) if part.kind == "head"]
    assert {(head.layer, head.index) for head in heads[:4]} == MOVERS


def test_the_subjects_write_into_the_last_layer_is_the_fact(run: Any) -> None:
    found = run(rwkv_state_knockout)
    assert found.strongest() == (3, SUBJECT)
    assert found.cells[3][SUBJECT].probability < 0.01
    others = [cell for row in found.cells[:3] for cell in row]
    assert min(cell.probability for cell in others) > 0.95


@pytest.mark.parametrize("module", ATTENTION)
def test_a_recurrent_model_is_refused_with_the_reason(module: ModuleType) -> None:
    with pytest.raises(
        HookError, match=r"does not exist in this .*: this recurrent model has no attention"
    ):
        module.main("atlas-rwkv7")


@pytest.mark.parametrize("module", ANY)
def test_a_recurrent_model_is_looked_into_too(
    module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    module.main("atlas-rwkv7")
    assert "' Paris'" in capsys.readouterr().out


def test_a_transformer_has_no_state_to_knock_out() -> None:
    with pytest.raises(SystemExit, match="atlas attends and has no state"):
        rwkv_state_knockout.main("atlas")
