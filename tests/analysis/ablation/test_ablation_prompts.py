"""Ablations over many prompts compared with single prompts; their means, draws and errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import mi_ref
from examples import ablation as example
from mi_ref import Backend, Model, ShapeError
from mi_ref.analysis.ablation.dataset import dataset_ablation
from mi_ref.analysis.ablation.dataset_effects import DatasetAblation
from mi_ref.analysis.ablation.parts import Method
from mi_ref.analysis.ablation.prompt import ablation

Load = Callable[[str, Backend, str], Model]

PROMPTS = [[3, 1, 4, 11, 5], [9, 2, 6], [7, 7, 2, 21, 0], [8, 30, 2], [12, 1, 3, 11, 5]]
TARGETS, OTHERS = [1, 2, 3, 4, 5], [9, 8, 7, 6, 10]
COUNTRIES = ("France", "Italy", "Peru", "Kenya")
CAPITALS = [f"The capital of {name} is" for name in COUNTRIES]


@pytest.fixture(scope="module")
def atlas() -> Model:
    return mi_ref.from_pretrained("atlas")


@pytest.fixture(params=["gemma2", "gpt2", "rwkv7"])
def model(request: pytest.FixtureRequest, load: Load) -> Model:
    return load(request.param, mi_ref.get_backend("numpy"), "float64")


@pytest.mark.bits
@pytest.mark.parametrize("method", ["zero", "mean", "resample"])
def test_each_prompt_is_ablated_as_alone(model: Model, method: Method) -> None:
    """The mean is over the other prompts' tokens; a resampled prompt gets its partner's."""
    found = dataset_ablation(
        model, PROMPTS, what="mlp", method=method, targets=TARGETS, others=OTHERS, position=-2,
        positions=[0, -2],
    )  # fmt: skip
    assert found.targets == tuple(TARGETS)
    assert found.others == tuple(OTHERS)
    assert found.tokens == tuple(map(tuple, PROMPTS))
    assert found.ablated == ((0, 3), (0, 1), (0, 3), (0, 1), (0, 3))
    assert found.positions == (3, 1, 3, 1, 3)
    for n, ids in enumerate(PROMPTS):
        reference = {
            "zero": list[list[int]](),
            "mean": PROMPTS[:n] + PROMPTS[n + 1 :],
            "resample": [PROMPTS[m] for m in found.partners[n]] if found.partners else [],
        }[method]
        alone = ablation(
            model, ids, what="mlp", method=method, reference=reference, target=TARGETS[n],
            other=OTHERS[n], position=-2, positions=[0, -2],
        )  # fmt: skip
        assert found.intact is not None
        assert found.intact[n] == alone.intact
        for own, effect in zip(found.effects, alone.effects, strict=True):
            assert (own.layer, own.index) == (effect.layer, effect.index)
            assert own.kls[n] == pytest.approx(effect.kl, rel=1e-11, abs=1e-15)
            assert own.changes is not None
            change = (effect.logit_difference or 0.0) - alone.intact
            assert own.changes[n] == pytest.approx(change, rel=1e-9, abs=1e-13)


def test_means_and_standard_errors(model: Model) -> None:
    found = dataset_ablation(model, PROMPTS, what="attn", targets=TARGETS)
    for effect in found.effects:
        assert effect.kl.mean == pytest.approx(np.mean(effect.kls), rel=1e-12)
        for spread, values in ((effect.kl, effect.kls), (effect.change, effect.changes)):
            assert spread is not None
            assert spread.mean == pytest.approx(np.mean(values or ()), rel=1e-12)
            error = np.std(values or (), ddof=1) / np.sqrt(len(PROMPTS))
            assert spread.error == pytest.approx(error, rel=1e-12)
    means = [effect.kl.mean for effect in found.top(99)]
    assert means == sorted((e.kl.mean for e in found.effects), reverse=True)
    plain = dataset_ablation(model, PROMPTS, what="attn")
    assert (plain.targets, plain.others, plain.intact) == (None, None, None)
    assert plain.effects[0].change is None
    assert [e.kls for e in plain.effects] == [e.kls for e in found.effects]


def test_partners_are_others_of_the_same_length(tiny: Model) -> None:
    def call(seed: int) -> DatasetAblation:
        return dataset_ablation(
            tiny, PROMPTS, what="mlp", method="resample", draws=20, seed=seed, layers=[0]
        )

    found = call(3)
    drawn = [set(row) for row in found.partners]
    assert drawn == [{2, 4}, {3}, {0, 4}, {1}, {0, 2}]
    assert [len(row) for row in found.partners] == [20] * 5
    assert call(3) == found
    assert call(4).partners != found.partners
    assert found.record()["provenance"]["seed"] == 3


def test_draws_are_averaged(load: Load) -> None:
    model = load("gpt2", mi_ref.get_backend("numpy"), "float64")
    found = dataset_ablation(model, PROMPTS, method="resample", draws=3, targets=TARGETS)
    for n, partners in enumerate(found.partners):
        each = [
            ablation(model, PROMPTS[n], method="resample", reference=[PROMPTS[m]]) for m in partners
        ]
        for place, effect in enumerate(found.effects):
            mean = np.mean([alone.effects[place].kl for alone in each])
            assert effect.kls[n] == pytest.approx(mean, rel=1e-11, abs=1e-15)


@pytest.mark.parametrize("method", ["zero", "mean", "resample"])
def test_every_array_library(backend: Backend, load: Load, method: Method) -> None:
    found, wanted = (
        dataset_ablation(load("llama2", each, "float64"), PROMPTS, method=method, targets=TARGETS)
        for each in (backend, mi_ref.get_backend("numpy"))
    )
    for own, other in zip(found.effects, wanted.effects, strict=True):
        assert own.kls == pytest.approx(other.kls, rel=1e-9, abs=1e-15)
        assert own.changes == pytest.approx(other.changes, rel=1e-9, abs=1e-13)


def test_refusals(tiny: Model, atlas: Model, as_users_call: None) -> None:
    with pytest.raises(ShapeError) as error:
        dataset_ablation(atlas, [*CAPITALS, "The capital is", "France"], method="resample")
    for said in ("4 (4 tokens, ['<|bos|>', 'The', ' capital', ' is'])", "5 (", "use the mean"):
        assert said in str(error.value)
    assert "; 0 (" not in str(error.value)
    for prompts in (["The capital"], "The capital", []):
        with pytest.raises(ShapeError, match="name two or more; of one prompt, call ablation"):
            dataset_ablation(atlas, prompts)
    with pytest.raises(ShapeError, match="prompts 0 and 2, 1 and 3 are the same tokens"):
        dataset_ablation(tiny, [*PROMPTS[:2], *PROMPTS[:2]])
    for wrong in ([1, 2], " Paris"):
        with pytest.raises(ShapeError, match=r"targets=.*: name one token for each of the 5"):
            dataset_ablation(tiny, PROMPTS, targets=wrong)
    with pytest.raises(ShapeError, match=r"others=\[1\]: name one token for each of the 5"):
        dataset_ablation(tiny, PROMPTS, targets=TARGETS, others=[1])
    with pytest.raises(ShapeError, match="are compared with targets: say targets= too"):
        dataset_ablation(tiny, PROMPTS, others=OTHERS)
    with pytest.raises(ShapeError, match=r"position \[3\] of 3"):
        dataset_ablation(tiny, PROMPTS, position=3)
    with pytest.raises(ShapeError, match="draws=0"):
        dataset_ablation(tiny, PROMPTS, method="resample", draws=0)
    with pytest.raises(ShapeError, match="rows=0"):
        dataset_ablation(tiny, PROMPTS, rows=0)
    with pytest.raises(ValueError, match="method='noise'"):
        dataset_ablation(tiny, PROMPTS, method="noise")  # type: ignore[arg-type]


def test_table_record_and_pictures(atlas: Model, tmp_path: Path) -> None:
    found = dataset_ablation(
        atlas, CAPITALS, targets=[" Paris", " Rome", " Lima", " Nairobi"], layers=[3, 0]
    )
    best = found.top(1)[0]
    assert best.change is not None
    lines = str(found.table(3)).splitlines()
    assert len(lines) == 7
    assert lines[4].split() == [
        f"{best.layer}.{best.index}", f"{best.kl.mean:.4f}", f"{best.kl.error:.4f}",
        f"{best.change.mean:+.3f}", f"{best.change.error:.3f}",
    ]  # fmt: skip
    found.save(tmp_path / "found.json")
    record = json.loads((tmp_path / "found.json").read_text("utf-8"))
    first = found.effects[0]
    assert first.changes is not None
    assert first.change is not None
    assert record["effects"][0] == {
        "layer": 3, "index": 0, "kls": list(first.kls), "changes": list(first.changes),
        "kl": {"mean": first.kl.mean, "error": first.kl.error},
        "change": {"mean": first.change.mean, "error": first.change.error},
    }  # fmt: skip
    assert record["intact_logit_differences"] == list(found.intact or ())
    assert record["str_tokens"][1][4] == " Italy"
    found.plot(tmp_path / "kl.png")
    found.plot(tmp_path / "change.png", "logit_difference")
    for name in ("kl.png", "change.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"
    plain = dataset_ablation(atlas, CAPITALS, what="mlp", layers=[0])
    with pytest.raises(ShapeError, match="nothing was followed"):
        plain.plot(tmp_path / "none.png", "logit_difference")


def test_what_a_head_is_needed_for_and_what_it_carries(atlas: Model) -> None:
    """Head 0.4 is similar for all countries; 3.6 and 3.7 carry the capital, and others can too."""
    prompts = [f"The capital of {country} is" for country in example.COUNTRIES]
    zero, mean, resample = (
        {
            (effect.layer, effect.index): effect.kl
            for effect in dataset_ablation(
                atlas, prompts, method=method, layers=[0, 3], draws=2
            ).effects
        }
        for method in example.METHODS
    )
    means = {place: kl.mean for place, kl in mean.items()}
    assert max(means, key=means.__getitem__) == (0, 4)
    assert min(zero[0, 4].mean, mean[0, 4].mean) > 10 * resample[0, 4].mean
    for mover in ((3, 6), (3, 7)):
        assert max(zero[mover].mean, mean[mover].mean) < 0.02
        assert resample[mover].mean > 0.1
        assert resample[mover].mean > 2 * resample[mover].error
    others = [resample[3, head].mean for head in range(6)]
    assert max(others) < 0.01


@pytest.mark.parametrize("name", ["atlas", "atlas-rwkv7"])
def test_the_example_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(example, "COUNTRIES", ["France", "Italy"])
    found = example.main(name, str(tmp_path / "picture.png"))
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"
    assert {each.what for each in found.values()} == {"head" if name == "atlas" else "attn"}
    lines = capsys.readouterr().out.splitlines()
    best = found["mean"].top(1)[0]
    shown = f"{best.layer}" if best.index is None else f"{best.layer}.{best.index}"
    (row,) = (line.split() for line in lines if line.split()[:1] == [shown])
    assert row[3:5] == [f"{best.kl.mean:.4f}", f"{best.kl.error:.4f}"]
