"""Failures that users of other tools reported, each of which a test here would catch.

Each docstring names the tool and its thread. Other files test many more: hooks that never fire,
unknown names and errors inside hooks in tests/hooks/test_capture.py, numbers that differ from
HuggingFace's in tests/forward/test_golden.py, pads in tests/text/test_padding.py.
"""

from __future__ import annotations

import gc
import inspect
import weakref
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import Backend, HookError, Model, ShapeError, analysis, at, do, get_backend
from tests.fixtures.by_hand import equal, host, log_probs
from tests.fixtures.model_points import editable
from tests.fixtures.rwkv_models import state_of

pytestmark = pytest.mark.usefixtures("as_users_call")

Load = Callable[[str, Backend, str], Model]
ROWS = [[30, 12, 5, 14, 19], [39, 21, 4], [7]]


@pytest.fixture(params=["llama-biases", "gemma2", "gpt2", "gpt-neox-parallel", "rwkv6", "rwkv7"])
def model(request: pytest.FixtureRequest, load: Load) -> Model:
    return load(request.param, get_backend("numpy"), "float64")


def test_points_computed_on_demand_fire_however_they_are_named(model: Model) -> None:
    """TransformerLens#1688: hooks on points that a flag gates are accepted and never fire."""
    lazy = [e.point for e in model.hook_points if e.lazy and e.point in editable(model)]
    assert lazy
    for point in lazy:
        for selector in (point, str(point), lambda name, wanted=str(point): name == wanted):
            fired: set[str] = set()

            def note(x: Any, hook: Any, fired: set[str] = fired) -> None:
                fired.add(hook.name)

            model.run(ROWS[0], edits=[(selector, note)])
            assert fired == {str(point)}


@pytest.mark.bits
def test_a_cached_run_takes_no_edit_away(model: Model) -> None:
    """TransformerLens#1638: run_with_cache removed every hook on the points that it touched."""
    edits = [(at.resid_post[0], do.scale(2.0))]
    steered = model.run(ROWS[0], edits=edits).logits
    assert not equal(steered, model.run(ROWS[0]).logits)
    for names in (None, [at.resid_post[0]], [at.embed]):
        logits, _ = model.run_with_cache(ROWS[0], names, edits=edits)
        assert equal(logits, steered)
        assert equal(model.run_with_hooks(ROWS[0], edits), steered)


def test_what_was_never_computed_cannot_be_patched_in(model: Model) -> None:
    """nnsight#143, #468: an experiment silently patched with a value that was never set."""
    run = model.run(ROWS[0], capture=[at.embed])
    with pytest.raises(HookError, match=r"at\.resid_pre\[1\] was not captured.*model\.run\("):
        model.run(ROWS[0], edits={at.resid_pre[1]: run[at.resid_pre[1]]})
    nothing: Any = run.cache.get(at.resid_pre[1])
    for edits in ({at.resid_pre[1]: nothing}, [("blocks.1.hook_resid_pre", nothing)]):
        with pytest.raises(
            ShapeError, match=r"at\.resid_pre\[1\]: expected a numpy.* got a NoneType"
        ):
            model.run(ROWS[0], edits=edits)


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_written_together_are_written_alone(side: Any, model: Model) -> None:
    """TransformerLens#1005, nnsight#672: generating in a batch, short rows looked at their pads."""
    together = [list(row) for row in ROWS]
    for _ in range(4):
        run = model.run(together, padding_side=side, logits="last")
        for number, row in enumerate(together):
            row.append(run.top(1, batch=number)[0].id)
    for start, written in zip(ROWS, together, strict=True):
        alone = list(start)
        for _ in range(4):
            alone.append(model.run(alone).top(1)[0].id)
        assert written == alone


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_of_one_keeps_its_mask(side: Any, model: Model) -> None:
    """transformers#46773: recurrent layers read the pads of a batch that has a single row."""
    tokens, gap = ROWS[0], [7, 7]
    padded, mask = (
        (gap + tokens, [0, 0] + [1] * 5) if side == "left" else (tokens + gap, [1] * 5 + [0, 0])
    )
    run = model.run([padded], attention_mask=[mask])
    alone = model.run(tokens)
    own = slice(2, None) if side == "left" else slice(None, 5)
    found, wanted = (host(model, each.logits) for each in (run, alone))
    np.testing.assert_allclose(found[:, own], wanted, rtol=1e-10)
    if model.cfg.recurrent:
        found, wanted = (state_of(each)[1].wkv for each in (run, alone))
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-14)


COUNTRIES = (" France", " Italy", " Spain")
PUSH = [analysis.Feedback(position=-1, vector=np.ones(128, dtype=np.float32), strength=1.0)]
LOOP: dict[str, Any] = {"loop": (1, 2), "feedback": PUSH}
FEW: dict[str, Any] = {"layers": [0], "heads": [0]}
# What each analysis takes: one prompt, two, prompts, their labels, or pairs of them; and options.
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "ablation": ("one", {"what": "layer"}),
    "accumulated_residual": ("one", {}),
    "activation_patching": ("two", {"layers": [3]}),
    "attention_dose_response": ("one", {"factors": [2.0]}),
    "attention_knockout": ("one", {}),
    "attention_patterns": ("one", {}),
    "block_patching": ("two", {}),
    "block_patching_pairs": ("pairs", {}),
    "calibrate": ("two", {}),
    "causal_tracing": ("one", {"subject": [2], "layers": [1], "draws": 1}),
    "dataset_ablation": ("prompts", {"what": "layer", "layers": [1]}),
    "dose_response": ("one", {"scales": [9.0]}),
    "factual_routing": ("two", {}),
    "factual_routing_pairs": ("pairs", {}),
    "generate_with_feedback": ("one", {"n_tokens": 2, **LOOP}),
    "half_lives": ("state", {}),
    "head_patching": ("two", FEW),
    "head_scores": ("one", {}),
    "knockout_grid": ("one", FEW),
    "linear_probes": ("labels", {"layers": [5]}),
    "logit_attribution": ("one", {"target": " Paris"}),
    "logit_lens": ("one", {}),
    "neuron_patching": ("two", {"layer": 3, "neurons": [0]}),
    "path_patching": ("two", {"senders": "attn"}),
    "recurrent_feedback": ("one", LOOP),
    "residual_decomposition": ("one", {}),
    "state_knockout_sweep": ("state", FEW),
    "state_norms": ("state", {}),
    "state_patching": ("states", {"layers": [0]}),
    "state_reads": ("state", {}),
    "state_steering_sweep": ("state", {"scales": [2.0], **FEW}),
    "steering_convergence": ("two", {}),
    "steering_vector": ("sides", {}),
    "sweep": ("one", {"cells": [analysis.SweepCell(((at.z[3], do.zero()),))]}),
}


def answer(name: str, model: Model, read: Callable[[str], Any], **bos: Any) -> Any:
    """Return an analysis's result for prompts as `read` gives them, without their text."""
    kind, options = CALLS[name]
    france, italy, spain = (read(f"The capital of{word} is") for word in COUNTRIES)
    prompts: Any = {
        "one": [france], "two": [france, italy], "pairs": [[(france, italy)]],
        "prompts": [[france, italy]], "sides": [[france], [italy], at.resid_post[1]],
        "labels": [[france, italy, spain] * 4, [0, 1, 2] * 4],
        "state": [france], "states": [france, italy, read(" so")],
    }[kind]  # fmt: skip
    if name == "dose_response":
        ends = ([5, 6, 7], [8, 9, 7])
        prompts += [analysis.steering_vector(model, ends[:1], ends[1:], at.resid_post[1])]
    if name == "sweep":
        options |= {"metric": analysis.metrics.logit_difference(model, " Rome", " Paris")}
    found = getattr(analysis, name)(model, *prompts, **options, **bos)
    if not hasattr(found, "record"):
        return found
    record = found.record()
    record["value"]["fields"].pop("prompt", None)
    return {key: value for key, value in record.items() if key != "prompt"}


@pytest.fixture(scope="module")
def goose() -> Model:
    return mi_ref.from_pretrained("atlas-rwkv7")


def test_every_analysis_of_text_is_among_the_calls() -> None:
    taking = {
        name
        for name in analysis.__all__
        if isinstance(getattr(analysis, name), FunctionType)
        and "prepend_bos" in inspect.signature(getattr(analysis, name)).parameters
    }
    # Those two take text alone, of which they tell the tokens.
    assert taking == set(CALLS) | {"character_helix", "token_positions"}


@pytest.mark.parametrize("name", CALLS)
def test_every_analysis_hands_prepend_bos_on(name: str, atlas: Model, goose: Model) -> None:
    """TransformerLens#74, #369, #1439: prepend_bos reached some methods and not others."""
    if name == "linear_probes":
        pytest.importorskip("sklearn")
    model = goose if CALLS[name][0].startswith("state") else atlas

    def ids(text: str) -> list[int]:
        return list(model.tokenizer.encode(text, prepend_bos=False).ids)

    without = answer(name, model, str, prepend_bos=False)
    assert without == answer(name, model, ids)
    assert without != answer(name, model, str)


def test_a_model_and_its_activations_go_with_their_last_name(repository: Path) -> None:
    """TransformerLens#290, nnsight#102, #538: released values stayed in memory."""
    model = mi_ref.from_pretrained(repository / "golden" / "data" / "llama2")
    run = model.run(ROWS, capture=["*"], edits=[(at.z[0], lambda x, hook: x * 2.0)])
    lens = analysis.logit_lens(model, ROWS[0])
    held = [*run.cache.values(), run.logits, run.resid]
    seen = [weakref.ref(array) for array in held]
    weights = weakref.ref(model.params.embed)
    del run, held
    gc.collect()
    assert not any(array() is not None for array in seen)
    assert weights() is not None
    del model, lens
    gc.collect()
    assert weights() is None


@pytest.mark.parametrize("case", ["rwkv6", "rwkv7"])
def test_an_edit_acts_on_every_token_that_is_written(case: str, load: Load) -> None:
    """TransformerLens#500, #697: with keys and values kept, hooks saw one token or none."""
    model = load(case, get_backend("numpy"), "float64")
    lengths: list[int] = []

    def push(x: Any, hook: Any) -> Any:
        lengths.append(x.shape[1])
        return x + np.linspace(-3.0, 3.0, x.shape[-1])

    edits = [(at.resid_pre[1], push)]
    run, written = model.run(ROWS[0], edits=edits), list(ROWS[0])
    for _ in range(5):
        written.append(run.top(1)[0].id)
        run = model.run(written[-1:], state=run.state, edits=edits)
    assert lengths == [5, 1, 1, 1, 1, 1]
    whole = model.run(written, edits=edits).logits
    assert whole is not None
    np.testing.assert_allclose(host(model, run.logits), whole[:, -1:], rtol=1e-10, atol=1e-12)
    assert written[5:] == [int(n) for n in whole[0, 4:9].argmax(axis=-1)]


@pytest.mark.parametrize("case", ["llama2", "gemma2", "gpt2", "phi", "gpt-neox-parallel", "qwen3"])
def test_a_head_is_the_same_head_in_every_family(case: str, backend: Backend, load: Load) -> None:
    """pyvene#158: interventions on heads were right only for GPT-2, and wrong for grouped heads."""
    model = load(case, backend, "float64")
    plain = model.run(ROWS[0], capture=[at.result[0], at.attn_out_raw[0]])
    parts, total = (host(model, plain[point]) for point in (at.result[0], at.attn_out_raw[0]))
    for head in range(model.cfg.n_heads):
        edits = [(at.z[0], do.zero(heads=head))]
        run = model.run(ROWS[0], edits=edits, capture=[at.attn_out_raw[0]])
        found = host(model, run[at.attn_out_raw[0]])
        np.testing.assert_allclose(found, total - parts[:, :, head], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("site", [at.k, at.v])
def test_keys_and_values_of_groups_are_patched_by_their_own_heads(site: Any, load: Load) -> None:
    """TransformerLens 4: patching of keys and values needs a key head for each query head."""
    model = load("llama2", get_backend("numpy"), "float64")
    clean, corrupted = ROWS[0], [30, 12, 8, 14, 19]
    metric = analysis.metrics.logit_difference(model, 7, 9)
    found = analysis.head_patching(model, clean, corrupted, site=site, metric=metric)
    assert found.columns == ("0", "1")
    source = model.run(clean, capture=[site[0]])[site[0]]
    own = model.run(corrupted, capture=[site[0]])[site[0]]
    for head in range(model.cfg.n_key_value_heads):
        mixed = own.copy()
        mixed[:, :, head] = source[:, :, head]
        row = model.run(corrupted, edits={site[0]: mixed}).logits_at()
        assert found.values[0][head] == pytest.approx(float(row[7] - row[9]), rel=1e-11)


@pytest.mark.parametrize("case", ["gemma2", "gpt2"])
def test_the_lens_norms_and_caps_every_stream_as_the_last(case: str, load: Load) -> None:
    """TransformerLens#1076: early layers were divided by the last one's size; candle-mi: no cap."""
    model = load(case, get_backend("numpy"), "float64")
    run = model.run(ROWS[0], capture=[at.resid_post[:]])
    w, norm, cap = model.params.ln_final, model.cfg.ln_final, model.cfg.softcap
    found = analysis.logit_lens(model, ROWS[0], target=7)
    for layer in range(model.cfg.n_layers):
        x = run[at.resid_post[layer]][0]
        x = x - x.mean(-1, keepdims=True) if w.bias is not None else x
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + norm.eps) * w.weight
        logits = (x if w.bias is None else x + w.bias) @ model.W_U
        logits = logits if cap is None else cap * np.tanh(logits / cap)
        for pos, wanted in enumerate(np.exp(log_probs(logits))[:, 7]):
            target = found[layer, pos].target
            assert target is not None
            assert target.probability == pytest.approx(wanted, rel=1e-11)


@pytest.mark.parametrize("side", ["left", "right"])
def test_measures_of_a_padded_row_are_its_own(side: Any, model: Model) -> None:
    """TransformerLens#1607: the mask reached the logits, and never the loss made of them."""
    edits = [(at.resid_pre[1], do.scale(-0.5))]
    before, after = (model.run(ROWS, padding_side=side, edits=e) for e in ((), edits))
    for row, tokens in enumerate(ROWS):
        alone = analysis.compare(model.run(tokens), model.run(tokens, edits=edits))
        found = analysis.compare(before, after, row=row)
        assert found.kl == pytest.approx(alone.kl, rel=1e-9)
        assert [c.id for c in found.changes[:3]] == [c.id for c in alone.changes[:3]]
