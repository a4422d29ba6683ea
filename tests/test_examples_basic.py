"""The examples that show one thing each: they run offline and find what is there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from hub_server import HubServer, Repo
from huggingface_hub import constants
from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars
from safetensors.numpy import save_file

import mi_ref
from examples import (
    auto_config,
    fast_download,
    generate,
    longest_cycle,
    quick_start,
    rwkv_inference,
    second_argmax,
    second_argmax_regions,
    token_positions,
)
from mi_ref import Model

PROMPT = "The capital of France is"


def words(text: str) -> list[list[str]]:
    """Return the words of each line that has any."""
    return [line.split() for line in text.splitlines() if line.strip()]


# Language models


def test_quick_start_finds_the_only_layer_that_atlas_cannot_do_without(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = quick_start.main()
    lines = words(capsys.readouterr().out)
    assert ["1", "'", "Paris'", "1955", "18.061", "0.9969"] in lines
    rows = lines[-len(table) :]
    assert [row[0] for row in rows] == list("012345")
    lengths = [float(row[1]) for row in rows]
    assert lengths == sorted(lengths)
    # Columns 3 and 6: the likeliest token without attention, and without the MLP.
    assert (rows[0][3], rows[0][6]) == ("the'", "the'")
    assert {(row[3], row[6]) for row in rows[1:]} == {("Paris'", "Paris'")}


@pytest.mark.parametrize("name", ["atlas", "atlas-rwkv7"])
def test_generate_writes_the_likeliest_tokens(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = mi_ref.from_pretrained(name)
    ids = model.to_tokens(PROMPT).tolist()[0]
    start = len(ids)
    while len(ids) < start + generate.COUNT:
        ids.append(int(np.argmax(model.run(ids).logits_at(-1))))
    written = generate.main(name)
    ways = ["reading all anew", "from the state"][: 1 + model.cfg.recurrent]
    assert written == dict.fromkeys(ways, ids[start:])
    assert capsys.readouterr().out.count("' Paris.<|eos|>") == len(ways)


def test_from_a_state_each_token_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, run, read = mi_ref.from_pretrained("atlas-rwkv7"), Model.run, []

    def counted(self: Model, prompt: Any, **options: Any) -> Any:
        read.append(len(prompt))
        return run(self, prompt, **options)

    monkeypatch.setattr(Model, "run", counted)
    generate.greedy(model, PROMPT, 4, from_state=True)
    generate.greedy(model, PROMPT, 4, from_state=False)
    assert read == [6, 1, 1, 1, 6, 7, 8, 9]


def test_token_positions_finds_the_token_of_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    found = token_positions.main()
    assert found.positions("part") == (13,)
    assert found.encoding.tokens[13] == " Paris"
    assert found.encoding.char_spans[13] == found.encoding.byte_spans[13] == (30, 36)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["' Paris' is in: 13 ' Paris'", "Character 30, its first, begins a token."]


def test_token_positions_inside_a_token_and_after_an_accent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = token_positions.main("atlas", "Où est Paris ?", "aris")
    (position,) = found.positions("part")
    assert found.encoding.char_spans[position] == (6, 12)
    assert found.encoding.byte_spans[position] == (7, 13)
    assert "Character 8, its first, stands inside a token." in capsys.readouterr().out


def test_auto_config_infers_atlas_and_refuses_a_stray_key(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain, stray = auto_config.main()
    assert plain.model_type == stray.model_type == "acme"
    assert not plain.refusals
    assert any("logit_scale=0.5" in reason for reason in stray.refusals)
    printed = capsys.readouterr().out
    assert "assumed, since no file shows it" in printed
    assert "logits differ from those of atlas by 0 at most" in printed
    assert "refused 2/2" in printed


def test_auto_config_refuses_what_it_cannot_infer(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, _ = auto_config.main(str(repository / "golden" / "gpt2"))
    assert plain.refusals
    assert "logits" not in capsys.readouterr().out


def test_rwkv_inference_shows_what_the_model_holds(capsys: pytest.CaptureFixture[str]) -> None:
    changed = rwkv_inference.main()
    # The start of the text holds nothing that the capital needs.
    assert 0.0 < changed.kl < 0.01
    assert changed.change(" Paris").after > 0.99
    printed = capsys.readouterr().out
    for title in ("length of each head's state", "half-life in tokens", "effective attention"):
        assert title in printed
    read = next(row for row in words(printed) if row[0] == "3.0")
    weights = [float(word) for word in read[1:]]
    # The head that carries the capital reads the country.
    assert max(range(6), key=lambda token: abs(weights[token])) == 4
    assert weights == pytest.approx([-12.451, -22.527, 6.625, -7.461, 150.854, -30.776], rel=1e-3)


def test_rwkv_inference_refuses_a_transformer() -> None:
    with pytest.raises(SystemExit, match="atlas attends and has no state: name an RWKV model"):
        rwkv_inference.main("atlas")


# The Hub


@pytest.fixture
def hub(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Serve one good checkpoint and one with an unread key to a client with an empty cache."""
    case = repository / "golden" / "llama2"
    good = {name: (case / name).read_bytes() for name in ("config.json", "model.safetensors")}
    odd = good | {"config.json": good["config.json"].replace(b"{", b'{"logit_scale": 2,', 1)}
    with HubServer({"org/good": Repo(good), "org/odd": Repo(odd)}) as running:
        for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        point_to(monkeypatch, running.url)
        disable_progress_bars()
        yield running
        enable_progress_bars()
        huggingface_hub.close_session()


def point_to(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    huggingface_hub.close_session()
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def whole_files(hub: HubServer) -> int:
    return sum(request.range is None for request in hub.fetched("model.safetensors"))


def test_fast_download_looks_first_and_uses_the_cache_offline(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = fast_download.main("org/good")
    assert model is not None
    assert model.source.revision == hub.repos["org/good"].commit
    assert whole_files(hub) == 1
    printed = capsys.readouterr().out
    assert 0 < printed.index("inspected in") < printed.index("fetched and loaded in")

    point_to(monkeypatch, "http://127.0.0.1:9")
    again = fast_download.main("org/good")
    assert again is not None
    assert again.source.revision == model.source.revision
    printed = capsys.readouterr().out
    assert printed.startswith("Hub: the connection to http://127.0.0.1:9 failed")
    assert "hf download" not in printed


def test_fast_download_fetches_no_weights_in_vain(
    hub: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fast_download.main("org/odd") is None
    assert "logit_scale=2" in capsys.readouterr().out
    assert whole_files(hub) == 0


def test_fast_download_says_what_to_do_offline(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    point_to(monkeypatch, "http://127.0.0.1:9")
    assert fast_download.main("org/good") is None
    printed = capsys.readouterr().out
    assert "cache: 'org/good' at revision 'main' is not in the Hub cache" in printed
    assert "hf download org/good --local-dir FOLDER" in printed


# AlgZoo

GIVEN = np.array(
    [
        [-2.466057062149048, 0.36228621006011963],
        [0.3765491247177124, -0.18080879747867584],
        [0.39302995800971985, 0.4327020049095154],
        [-1.36271071434021, 1.3564400672912598],
    ],
    np.float32,
)
WANTED = np.array(
    [
        [219.21023559570312, -219.1454315185547],
        [-105.96415710449219, 105.74044799804688],
        [8.482705116271973, -8.485223770141602],
        [167.17942810058594, -167.1300048828125],
    ]
)


def test_m22_computes_what_algzoo_recorded() -> None:
    out = second_argmax.logits(second_argmax.M22, GIVEN)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, WANTED, rtol=1e-6)


def test_standardised_weights_are_the_same_function() -> None:
    exact = tuple(weights.astype(np.float64) for weights in second_argmax.M22)
    plain = second_argmax.standardised(exact)
    np.testing.assert_allclose(np.abs(plain[0]), 1.0, rtol=1e-15)
    assert plain[0].tolist() == [1.0, -1.0]
    x = np.random.default_rng(1).normal(size=(1000, 2))
    ours = second_argmax.logits(plain, x)
    np.testing.assert_allclose(ours, second_argmax.logits(exact, x), rtol=1e-12)


def test_accuracy_and_surprise_of_m22(capsys: pytest.CaptureFixture[str]) -> None:
    found = second_argmax.main()
    # A ray is right or wrong as a whole, so the share of the circle is the share of Gaussians.
    turn = np.linspace(0, 2 * np.pi, 360_000, endpoint=False) + 1e-9
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    answers = second_argmax.logits(second_argmax.M22, circle).argmax(axis=1)
    exact = np.mean(answers == circle.argmin(axis=1))
    assert 0.9999 < exact < 1
    accuracy, surprise = found["none"]
    assert accuracy == pytest.approx(exact, abs=1e-4)
    assert 0.0005 < surprise < 0.003
    # Nothing left: equal logits, and one bit to be learnt, which is guessing.
    assert found["both"][0] == pytest.approx(0.5, abs=0.01)
    assert found["both"][1] == pytest.approx(1.0)
    # Neither neuron does it alone: confident errors cost more than guessing.
    assert found["0"][0] == pytest.approx(0.853, abs=0.005)
    assert found["1"][0] == pytest.approx(0.5, abs=0.01)
    assert min(found["0"][1], found["1"][1]) > 1.5
    explained = next(row for row in words(capsys.readouterr().out) if row[0] == "none")[3]
    assert float(explained.replace(",", "")) == pytest.approx(100_000 * (1 - surprise), abs=1)


def test_m22_has_six_linear_regions() -> None:
    found = second_argmax_regions.regions(second_argmax.M22)
    starts = np.array([start for start, _ in found])
    assert starts == pytest.approx([270, 20.91, 48.78, 90, 216.93, 244.38], abs=0.01)
    turn = np.random.default_rng(2).uniform(0, 360, size=2000)
    x = np.stack([np.cos(np.radians(turn)), np.sin(np.radians(turn))], axis=1)
    out = second_argmax.logits(second_argmax.M22, x)
    # The region of an angle is the one that begins last before it, all counted from 270 degrees.
    inside = np.searchsorted((starts - 270) % 360, (turn - 270) % 360, side="right") - 1
    matrices = np.array([matrix for _, matrix in found], dtype=np.float64)
    predicted = (matrices[inside] @ x[:, :, None])[:, :, 0]
    np.testing.assert_allclose(predicted, out, rtol=1e-9, atol=1e-9)


def test_regions_of_networks_known_by_construction() -> None:
    regions = second_argmax_regions.regions
    eye, none = np.eye(2), np.zeros((2, 2))
    # relu(x1) and relu(-x1): step one is not heard, so two half planes.
    assert len(regions((np.array([1.0, -1.0]), none, eye))) == 2
    # Nobody listens: zero everywhere.
    assert [m.tolist() for _, m in regions((np.array([1.0, -1.0]), eye, none))] == [[[0, 0]] * 2]
    # One neuron hears the other with a weight of 1e-12: a sector of 1e-12 radians below 0 degrees.
    faint = np.array([[0.0, 0.0], [1e-12, 0.0]])
    narrow = regions((np.array([1.0, 1.0]), faint, eye))
    assert [round(start, 6) % 360 for start, _ in narrow] == [0, 0, 90, 180]
    assert narrow[0][0] == pytest.approx(360 - np.degrees(1e-12), abs=1e-13)
    assert narrow[0][1].tolist() == [[0, 0], [Fraction(1e-12), 1]]


def recorded_longest_cycle(f: tuple[int, ...]) -> int:
    """Return the largest k for which some x first comes back after k steps, by that definition."""
    best = 0
    for x in range(len(f)):
        at = x
        for k in range(1, len(f) + 1):
            at = f[at]
            if at == x:
                best = max(best, k)
                break
    return best


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_the_longest_cycle_of_every_function(n: int) -> None:
    for f in product(range(n), repeat=n):
        assert longest_cycle.longest_cycle(f) == recorded_longest_cycle(f)


def test_a_walk_is_no_cycle_for_139_of_256_functions(capsys: pytest.CaptureFixture[str]) -> None:
    longest_cycle.main()
    assert capsys.readouterr().out == "candle-mi: 45.7% right, 139 of 256 wrong\n"
    assert longest_cycle.longest_cycle([1, 2, 3, 3]) == 1
    assert longest_cycle.longest_cycle([1, 2, 3, 3], tail=True) == 4


def tiny_transformer(n: int, width: int) -> dict[str, Any]:
    """Return random weights of AlgZoo's shapes."""
    rng = np.random.default_rng(3)
    shapes = dict.fromkeys(("embed.weight", "pos_embed.weight", "unembed.weight"), (n, width))
    for layer in range(2):
        shapes[f"attns.{layer}.in_proj_weight"] = (3 * width, width)
        shapes[f"attns.{layer}.out_proj.weight"] = (width, width)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def by_loops(w: dict[str, Any], f: tuple[int, ...]) -> Any:
    """Return the logits of one function, position by position."""
    x = [w["embed.weight"][value] + w["pos_embed.weight"][pos] for pos, value in enumerate(f)]
    width = len(x[0])
    for layer in range(2):
        maps = w[f"attns.{layer}.in_proj_weight"]
        q, k, v = ([maps[i * width : (i + 1) * width] @ row for row in x] for i in range(3))
        new = []
        for pos, row in enumerate(x):
            weights = np.exp([q[pos] @ key / np.sqrt(width) for key in k])
            mixed = sum(a * value for a, value in zip(weights / weights.sum(), v, strict=True))
            new.append(row + w[f"attns.{layer}.out_proj.weight"] @ mixed)
        x = new
    return w["unembed.weight"] @ x[-1]


def test_the_transformer_and_its_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tiny_transformer(3, 5)
    functions = list(product(range(3), repeat=3))
    slow = np.array([by_loops(weights, f) for f in functions])
    np.testing.assert_allclose(
        longest_cycle.logits(weights, np.array(functions)), slow, rtol=1e-4, atol=1e-4
    )
    save_file(weights, tmp_path / "w.safetensors")
    longest_cycle.main(str(tmp_path / "w.safetensors"))
    pairs = zip(slow.argmax(axis=1), functions, strict=True)
    right = sum(answer + 1 == recorded_longest_cycle(f) for answer, f in pairs)
    shown = f"network: {right / 27:.1%} right, {27 - right} of 27 wrong\n"
    assert capsys.readouterr().out.endswith(shown)
