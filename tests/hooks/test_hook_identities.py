"""Identities between hook points, in every structure, to float64 rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mi_ref import Backend, Hook, Model, WeightError, at
from mi_ref.config.decoder import Experts, GatedMLP, LayerNorm, NormKind
from mi_ref.hooks.sites import LayerSite, Point
from mi_ref.params.params import Norm
from mi_ref.testing import assert_close

Load = Callable[..., Model]

PROMPT = [[40, 12, 5, 14, 19], [39, 21, 4, 16, 28]]

# Of LLaMA also: heads that do not fill d_model, a key head per query head, and one for all.
STRUCTURES = (
    "llama-biases", "llama-head-dim", "llama1", "llama3", "gemma2", "gemma3", "gpt-neox-parallel",
    "gpt2", "mixtral", "olmo2", "phi", "phi-qk-norm", "phi4-mini", "qwen3-moe", "starcoder2-window",
)  # fmt: skip


@pytest.fixture(params=STRUCTURES)
def exact(request: pytest.FixtureRequest, backend: Backend, load: Load) -> Model:
    return load(request.param, backend, "float64")


class Checked:
    """All of one run's arrays on the host, to be compared to float64 rounding."""

    def __init__(self, model: Model, **options: Any) -> None:
        self.model = model
        self.host = model.backend.to_host
        points = [entry.point for entry in model.hook_points]
        self.run = model.run(PROMPT, capture=points, **options)

    def __getitem__(self, key: Point) -> Any:
        return self.host(self.run[key])

    def weight(self, name: str, layer: int) -> Any:
        return self.host(getattr(self.model, name)[layer])

    def equal(self, formula: Any, point: Point) -> None:
        assert_close(self.run[point], formula, rel=1e-13, backend=self.model.backend)

    def gained(self, normalized: Any, norm: Norm | None) -> Any:
        """Apply a norm's gain and bias."""
        assert norm is not None
        # A norm of all heads at once has gains for each of them.
        width = normalized.shape[-1]
        axes = (width,) if norm.weight.shape[0] == width else normalized.shape[2:]
        bias = 0.0 if norm.bias is None else np.reshape(self.host(norm.bias), axes)
        return normalized * np.reshape(self.host(norm.weight), axes) + bias


def test_residual_stream(exact: Model) -> None:
    run = Checked(exact)
    start = run[at.embed]
    if exact.cfg.learned_positions:
        start = start + run[at.pos_embed]
    run.equal(start, at.resid_pre[0])
    for n, layer in enumerate(exact.cfg.blocks):
        if layer.order == "parallel":
            both = run[at.attn_out[n]] + run[at.mlp_out[n]]
            run.equal(run[at.resid_pre[n]] + both, at.resid_post[n])
        else:
            run.equal(run[at.resid_pre[n]] + run[at.attn_out[n]], at.resid_mid[n])
            run.equal(run[at.resid_mid[n]] + run[at.mlp_out[n]], at.resid_post[n])
        if n + 1 < exact.cfg.n_layers:
            run.equal(run[at.resid_post[n]], at.resid_pre[n + 1])


def normed(run: Checked, x: Any, norm: NormKind | None, scale: Point, normalized: Point) -> None:
    """Compare a norm's denominator and quotient with what it normed."""
    if isinstance(norm, LayerNorm):
        x = x - x.mean(axis=-1, keepdims=True)
    # One denominator for all heads, where there is one.
    axes = (-2, -1) if run[scale].shape[-2:] == (1, 1) else -1
    assert norm is not None
    run.equal(np.sqrt((x * x).mean(axis=axes, keepdims=True) + norm.eps), scale)
    run.equal(x / run[scale], normalized)


def test_norms_of_the_residual_stream(exact: Model) -> None:
    run = Checked(exact)
    for n, (layer, w) in enumerate(zip(exact.cfg.blocks, exact.params.blocks, strict=True)):
        mlp_reads = run[at.resid_pre[n] if layer.order == "parallel" else at.resid_mid[n]]
        places: list[tuple[Any, LayerSite, LayerSite, LayerSite, Any, Any]] = [
            (run[at.resid_pre[n]], at.ln1_scale, at.ln1_normalized, at.attn_in, layer.ln1, w.ln1),
            (run[at.attn_out_raw[n]], at.ln1_post_scale, at.ln1_post_normalized, at.attn_out,
             layer.ln1_post, w.ln1_post),
            (mlp_reads, at.ln2_scale, at.ln2_normalized, at.mlp_in, layer.ln2, w.ln2),
            (run[at.mlp_out_raw[n]], at.ln2_post_scale, at.ln2_post_normalized, at.mlp_out,
             layer.ln2_post, w.ln2_post),
        ]  # fmt: skip
        for x, scale, normalized, after, norm, weights in places:
            if norm is not None:
                normed(run, x, norm, scale[n], normalized[n])
                run.equal(run.gained(run[normalized[n]], weights), after[n])
            elif after is at.mlp_in and layer.order == "parallel":
                run.equal(run[at.attn_in[n]], at.mlp_in[n])
            else:
                run.equal(x, after[n])
    last = run[at.resid_post[exact.cfg.n_layers - 1]]
    normed(run, last, exact.cfg.ln_final, at.ln_final_scale, at.ln_final_normalized)
    run.equal(run.gained(run[at.ln_final_normalized], exact.params.ln_final), at.unembed_in)


def test_queries_and_keys_as_they_are_dotted(exact: Model) -> None:
    run = Checked(exact)
    for n, (layer, w) in enumerate(zip(exact.cfg.blocks, exact.params.blocks, strict=True)):
        sides: list[tuple[LayerSite, LayerSite, LayerSite, LayerSite, Norm | None]] = [
            (at.q, at.q_norm_scale, at.q_norm_normalized, at.rot_q, w.q_norm),
            (at.k, at.k_norm_scale, at.k_norm_normalized, at.rot_k, w.k_norm),
        ]
        for site, scale, normalized, rotated, weights in sides:
            x = run[site[n]]
            if layer.attn.qk_norm is not None:
                normed(run, x, layer.attn.qk_norm.norm, scale[n], normalized[n])
                x = run.gained(run[normalized[n]], weights)
            if layer.attn.rotary is not None:
                # Position 0 is not turned, only stretched; nor are the last coordinates anywhere.
                stretch = getattr(layer.attn.rotary.rope, "attention_factor", 1.0)
                dims = layer.attn.rotary.dims
                turned = run[rotated[n]]
                still = np.concat([x[:, :1, :, :dims] * stretch, x[:, :1, :, dims:]], axis=-1)
                np.testing.assert_allclose(turned[:, :1], still, rtol=1e-13, atol=1e-15)
                np.testing.assert_allclose(turned[..., dims:], x[..., dims:], rtol=1e-13)
                assert abs(turned[:, 1:, :, :dims] - x[:, 1:, :, :dims]).max() > 1e-3


def test_scores_and_pattern(exact: Model) -> None:
    run = Checked(exact)
    for n, layer in enumerate(exact.cfg.blocks):
        attn = layer.attn
        group = attn.n_heads // attn.n_key_value_heads
        rotated = attn.rotary is not None
        q = run[(at.rot_q if rotated else at.q)[n]]
        k = np.repeat(run[(at.rot_k if rotated else at.k)[n]], group, axis=2)
        scores = np.einsum("bqhd,bkhd->bhqk", q, k) * attn.scale
        if attn.softcap is not None:
            scores = attn.softcap * np.tanh(scores / attn.softcap)
        query, key = np.indices(scores.shape[2:])
        visible = (key <= query) & (query - key < (attn.window or 99))
        run.equal(np.where(visible, scores, -np.inf), at.attn_scores[n])
        powers = np.where(visible, np.exp(scores), 0.0)
        run.equal(powers / powers.sum(axis=-1, keepdims=True), at.pattern[n])
        values = np.repeat(run[at.v[n]], group, axis=2)
        run.equal(np.einsum("bhqk,bkhd->bqhd", run[at.pattern[n]], values), at.z[n])
        run.equal(run[at.result[n]].sum(axis=2) + run.weight("b_O", n), at.attn_out_raw[n])


def test_weight_views_reproduce_the_projections(exact: Model) -> None:
    run = Checked(exact)
    for n in range(exact.cfg.n_layers):
        read = run[at.attn_in[n]]
        for part, point in (("Q", at.q[n]), ("K", at.k[n]), ("V", at.v[n])):
            product = np.einsum("bpm,hmd->bphd", read, run.weight(f"W_{part}", n))
            run.equal(product + run.weight(f"b_{part}", n), point)
        by_head = np.einsum("bphd,hdm->bphm", run[at.z[n]], run.weight("W_O", n))
        run.equal(by_head, at.result[n])


def test_dense_mlps(exact: Model) -> None:
    run = Checked(exact)
    for n, layer in enumerate(exact.cfg.blocks):
        if isinstance(layer.mlp, Experts):
            for name in ("W_in", "W_out", "W_gate", "b_in", "b_out", "b_gate"):
                with pytest.raises(WeightError, match="mixture of experts: its weights are in"):
                    getattr(exact, name)[n]
            continue
        read = run[at.mlp_in[n]]
        into = read @ run.weight("W_in", n) + run.weight("b_in", n)
        if isinstance(layer.mlp, GatedMLP):
            run.equal(into, at.pre_linear[n])
            run.equal(read @ run.weight("W_gate", n) + run.weight("b_gate", n), at.pre[n])
        else:
            run.equal(into, at.pre[n])
            with pytest.raises(WeightError, match="has no gate: W_in is its only branch"):
                exact.W_gate[n]
        out = run[at.post[n]] @ run.weight("W_out", n) + run.weight("b_out", n)
        run.equal(out, at.mlp_out_raw[n])


def test_first_and_last_weights(exact: Model) -> None:
    run = Checked(exact)
    scale = exact.cfg.embed_scale or 1.0
    run.equal(run.host(exact.W_E)[np.array(PROMPT)] * scale, at.embed)
    if exact.cfg.learned_positions:
        run.equal(np.stack([run.host(exact.W_pos)[:5]] * 2), at.pos_embed)
    else:
        with pytest.raises(WeightError, match="no W_pos: its positions enter by rotation"):
            _ = exact.W_pos
    run.equal(run[at.unembed_in] @ run.host(exact.W_U) + run.host(exact.b_U), at.logits)
    logits = run[at.logits]
    if (cap := exact.cfg.softcap) is not None:
        logits = cap * np.tanh(logits / cap)
        assert abs(logits - run[at.logits]).max() > 1e-3
    assert_close(run.run.logits, logits, rel=1e-13, backend=exact.backend)


def test_weight_views_have_transformer_lens_shapes(exact: Model) -> None:
    cfg = exact.cfg
    host = exact.backend.to_host
    per_head = {"Q": cfg.n_heads, "K": cfg.n_key_value_heads, "V": cfg.n_key_value_heads}
    for part, heads in per_head.items():
        shape = (cfg.n_layers, heads, cfg.d_model, cfg.d_head)
        assert getattr(exact, f"W_{part}").shape == getattr(exact, f"W_{part}").stack().shape
        assert getattr(exact, f"W_{part}").shape == shape
        assert getattr(exact, f"b_{part}").shape == (cfg.n_layers, heads, cfg.d_head)
    assert exact.W_O.shape == (cfg.n_layers, cfg.n_heads, cfg.d_head, cfg.d_model)
    assert exact.b_O.shape == (cfg.n_layers, cfg.d_model)
    if all(isinstance(layer.mlp, GatedMLP) for layer in cfg.blocks):
        assert exact.W_gate.shape == (cfg.n_layers, cfg.d_model, cfg.d_mlp)
        assert exact.b_gate.shape == (cfg.n_layers, cfg.d_mlp)
    if not any(isinstance(layer.mlp, Experts) for layer in cfg.blocks):
        assert exact.W_in.shape == (cfg.n_layers, cfg.d_model, cfg.d_mlp)
        assert exact.W_out.shape == (cfg.n_layers, cfg.d_mlp, cfg.d_model)
        assert exact.b_in.shape == (cfg.n_layers, cfg.d_mlp)
        assert exact.b_out.shape == (cfg.n_layers, cfg.d_model)
    assert tuple(exact.W_E.shape) == (cfg.d_vocab, cfg.d_model)
    assert tuple(exact.W_U.shape) == (cfg.d_model, cfg.d_vocab)
    assert np.array_equal(host(exact.W_Q[1, 0, ...]), host(exact.W_Q[1])[0])
    assert np.array_equal(host(exact.W_Q[-1:][0]), host(exact.W_Q[cfg.n_layers - 1]))


def test_one_head_by_result_and_by_z(exact: Model) -> None:
    def drop(x: Any, hook: Hook) -> Any:
        kept = np.ones((1, 1, exact.cfg.n_heads, 1))
        kept[:, :, 1] = 0.0
        return x * exact.backend.from_host(kept)

    by_result = exact.run(PROMPT, edits={at.result[0]: drop}).logits
    by_z = exact.backend.to_host(exact.run(PROMPT, edits={at.z[0]: drop}).logits)
    assert_close(by_result, by_z, rel=1e-13, backend=exact.backend)
    assert not np.array_equal(by_z, exact.backend.to_host(exact.run(PROMPT).logits))


def expert(model: Model, layer: int, number: int, x: Any) -> Any:
    """Return the output of one expert for `x`, with silu, as in both families."""
    host, w = model.backend.to_host, model.params.blocks[layer].mlp.experts[number]  # type: ignore[union-attr]
    assert w.gate is not None
    pre = x @ host(w.gate.weight).T
    return (pre / (1 + np.exp(-pre)) * (x @ host(w.into.weight).T)) @ host(w.out.weight).T


# Chosen weights made to sum to one, in the first two; in the last as the softmax gives them.
@pytest.fixture(params=["mixtral", "qwen3-moe", "qwen3-moe-raw"])
def mixture(request: pytest.FixtureRequest, backend: Backend, load: Load) -> Model:
    return load(request.param, backend, "float64")


def test_mixtures_of_experts(mixture: Model) -> None:
    run = Checked(mixture)
    for n, layer in enumerate(mixture.cfg.blocks):
        if not isinstance(layer.mlp, Experts):
            continue
        read, w = run[at.mlp_in[n]], mixture.params.blocks[n].mlp
        run.equal(read @ run.host(w.router.weight).T, at.router_logits[n])  # type: ignore[union-attr]
        powers = np.exp(run[at.router_logits[n]])
        shares = powers / powers.sum(axis=-1, keepdims=True)
        least = np.sort(shares, axis=-1)[..., -layer.mlp.n_active, None]
        chosen = np.where(shares >= least, shares, 0.0)
        assert ((chosen > 0).sum(axis=-1) == layer.mlp.n_active).all()
        if layer.mlp.renormalise:
            chosen = chosen / chosen.sum(axis=-1, keepdims=True)
        run.equal(chosen, at.expert_weights[n])
        outs = [expert(mixture, n, number, read) for number in range(layer.mlp.n_experts)]
        run.equal(np.einsum("bpe,ebpm->bpm", chosen, np.stack(outs)), at.mlp_out_raw[n])


def test_an_expert_that_an_edit_chooses_runs(mixture: Model) -> None:
    backend = mixture.backend
    n, mlp = next(
        (n, x.mlp) for n, x in enumerate(mixture.cfg.blocks) if isinstance(x.mlp, Experts)
    )
    for number in range(mlp.n_experts):
        weights = np.zeros((2, 5, mlp.n_experts))
        weights[:, 1:, number] = -0.5
        run = Checked(mixture, edits={at.expert_weights[n]: backend.from_host(weights)})
        out = expert(mixture, n, number, run[at.mlp_in[n]]) * -0.5
        # The first token goes through none at all.
        out[:, 0] = 0.0
        run.equal(out, at.mlp_out_raw[n])
