"""Points and weights of recurrent models, reasons for absent ones, and their files."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import Backend, HookError, Model, WeightError, at, get_backend
from mi_ref.hooks.absence import absent_global, absent_in_layer
from mi_ref.hooks.sites import ALL_SITES, LAZY, LayerSite
from mi_ref.testing import assert_close
from tests.fixtures.golden_copies import Altered
from tests.fixtures.rwkv_models import CASES

Load = Callable[..., Model]
TOKENS = [[5, 26, 3, 17], [1, 2, 0, 38]]


@pytest.fixture(params=CASES)
def exact(request: pytest.FixtureRequest, backend: Backend, load: Load) -> Model:
    return load(request.param, backend, "float64")


@pytest.fixture(params=CASES)
def model(request: pytest.FixtureRequest, load: Load) -> Model:
    """On NumPy alone."""
    return load(request.param, get_backend("numpy"), "float64")


def test_every_site_is_there_or_absent_for_a_reason(model: Model, tiny: Model) -> None:
    for each in (model, tiny):
        for n, layer in enumerate(each.cfg.layers):
            absent = absent_in_layer(layer)
            present = {x.point.site for x in each.hook_points if x.point.layer == n}
            layered = {site for site in ALL_SITES if isinstance(site, LayerSite)}
            assert present | set(absent) == layered
            assert not present & set(absent)
    assert absent_global(model.cfg) == {
        at.pos_embed: "the order of tokens is in the recurrent state"
    }
    of_7 = {at.rwkv_a, at.rwkv_kk} <= model.hook_points.sites
    assert of_7 == (model.cfg.model_type == "rwkv7")
    assert (at.mlp_gate in model.hook_points.sites) != of_7


REASONS: list[tuple[str, Any, str]] = [
    ("rwkv6", at.pattern[0], r"this recurrent model has no attention; see at\.rwkv_r, .*"
                             r"at\.rwkv_effective_attn"),
    ("rwkv7", at.q[:], "this recurrent model has no attention"),
    ("rwkv7", at.pos_embed, "the order of tokens is in the recurrent state"),
    ("rwkv6", at.ln1_post_scale[1], "time mixing's output is added without a norm"),
    ("rwkv6", at.ln2_post_scale[1], "channel mixing's output is added without a norm"),
    ("rwkv7", at.pre_linear[0], r"channel mixing has one branch, at\.pre"),
    ("rwkv6", at.router_logits[0], "channel mixing is not a mixture of experts"),
    ("rwkv6-fla", at.rwkv_kk[0], "RWKV-6 only adds to the state; RWKV-7 also removes"),
    ("rwkv6", at.rwkv_a[:], "RWKV-6 only adds to the state"),
    ("rwkv7", at.mlp_gate[0], "channel mixing has no gate in RWKV-7"),
    ("llama2", at.rwkv_state[0], r"this model has attention and no recurrent state; see"),
    ("mixtral", at.mlp_shift[:], "this model has attention and no recurrent state"),
]  # fmt: skip


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(("case", "selector", "reason"), REASONS)
def test_absent_sites_give_their_reason(case: str, selector: Any, reason: str, load: Load) -> None:
    model = load(case, get_backend("numpy"), "float64")
    for options in ({"capture": [selector]}, {"edits": [(selector, lambda x, hook: x)]}):
        with pytest.raises(HookError, match=f"does not exist in this model: {reason}"):
            model.run(TOKENS, **options)


def test_broad_patterns_pass_over_what_is_computed_on_demand(model: Model) -> None:
    _, cache = model.run_with_cache(TOKENS)
    lazy = {at.rwkv_write, at.rwkv_state, at.rwkv_effective_attn}
    assert lazy < LAZY
    sites = {point.site for point in cache}
    assert model.hook_points.sites - sites == lazy
    named = model.run(TOKENS, capture=["blocks.*.rwkv.hook_state"]).cache
    assert list(named) == [at.rwkv_state[n] for n in range(model.cfg.n_layers)]
    # An edit of everything that is always computed, except points that cannot be edited.
    touched: list[str] = []
    model.run(TOKENS, edits={"blocks.0.rwkv.*": lambda x, hook: touched.append(hook.name)})
    assert touched == [str(point) for point in cache if str(point).startswith("blocks.0.rwkv.")]


def test_the_table_of_points(model: Model) -> None:
    cfg, lines = model.cfg, str(model.hook_points.table(batch=2, pos=4)).splitlines()
    state = next(line for line in lines if " rwkv_state[l]" in line)
    heads = f"2 × 4 × {cfg.n_heads} × {cfg.d_head} × {cfg.d_head}"
    assert f"batch pos head d_key d_value  {heads}" in state
    assert re.search(r"\byes\b", state)
    derived = next(line for line in lines if "rwkv_effective_attn[l]" in line)
    assert f"batch head query_pos key_pos  2 × {cfg.n_heads} × 4 × 4" in derived
    assert re.search(r"\bno\b", derived)


def test_weight_views(exact: Model) -> None:
    """Weights in TransformerLens' axis order; a recurrent model has no queries to view."""
    host, cfg = exact.backend.to_host, exact.cfg
    run = exact.run(TOKENS, capture=[at.post[:], at.mlp_out_raw[:], at.unembed_in, at.embed])
    for n in range(cfg.n_layers):
        out = host(run[at.post[n]]) @ host(exact.W_out[n]) + host(exact.b_out[n])
        assert_close(run[at.mlp_out_raw[n]], out, rel=1e-13, backend=exact.backend)
        assert tuple(exact.W_in[n].shape) == (cfg.d_model, cfg.d_mlp)
        for name in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O"):
            with pytest.raises(WeightError, match=r"this recurrent layer has no attention: .*attn"):
                getattr(exact, name)[n]
    logits = host(run[at.unembed_in]) @ host(exact.W_U) + host(exact.b_U)
    assert_close(run.logits, logits, rel=1e-13, backend=exact.backend)
    assert np.array_equal(host(run[at.embed]), host(exact.W_E)[np.array(TOKENS)])
    with pytest.raises(WeightError, match="no W_pos: its positions are in its state"):
        _ = exact.W_pos


def same_logits(folder: Path, case: str, load: Load) -> None:
    wanted = load(case, get_backend("numpy"), "float32").run(TOKENS).logits
    found = mi_ref.from_pretrained(folder).run(TOKENS).logits
    assert np.array_equal(np.asarray(found), np.asarray(wanted))


def stacked(tensors: dict[str, Any]) -> dict[str, Any]:
    """Join the six mixes of each layer, as in files from before they had separate names."""
    old = {name: x for name, x in tensors.items() if not re.search(r"attn\.x_[rwkvag]$", name)}
    for layer in range(3):
        block = f"model.layers.{layer}.attn.x_"
        parts = [np.reshape(tensors[block + name], (-1,)) for name in "rwkvag"]
        old[f"{block}x"] = np.stack(parts)
    assert len(old) == len(tensors) - 15
    return old


@pytest.mark.bits
def test_the_older_layout_of_rwkv7(load: Load, altered: Altered) -> None:
    same_logits(altered("rwkv7", stacked), "rwkv7", load)


@pytest.mark.bits
@pytest.mark.parametrize(
    ("case", "prefix"), [("rwkv6", "rwkv."), ("rwkv6-fla", "model."), ("rwkv7", "model.")]
)
def test_files_of_the_bare_model(case: str, prefix: str, load: Load, altered: Altered) -> None:
    def bare(tensors: dict[str, Any]) -> dict[str, Any]:
        short = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
        assert short.keys() != tensors.keys()
        return short

    same_logits(altered(case, bare), case, load)


MISFITS = [
    ("rwkv6", "rwkv.blocks.1.attention.time_maa_w2", "rwkv.blocks.0.attention.time_first"),
    ("rwkv6", "rwkv.blocks.0.attention.time_faaaa", "rwkv.blocks.1.pre_ln.weight"),
    ("rwkv6-fla", "model.layers.1.attn.x_bias", "model.layers.0.ffn.key.linear.bias"),
    ("rwkv6-fla", "model.layers.0.ffn.receptance.linear.weight", "model.layers.0.attn.x_r"),
    ("rwkv7", "model.layers.2.attn.v_lora.lora.2.bias", "model.layers.0.attn.v_lora.lora.2.bias"),
    ("rwkv7", "model.layers.1.attn.r_k", "model.layers.1.attn.g_lora.lora.2.bias"),
    ("rwkv7-plain", "model.layers.0.attn_norm.bias", "model.layers.0.pre_norm.weight"),
]


@pytest.mark.parametrize(("case", "missing", "unused"), MISFITS)
def test_tensors_that_do_not_fit_are_named(
    case: str, missing: str, unused: str, altered: Altered
) -> None:
    def spoil(tensors: dict[str, Any]) -> dict[str, Any]:
        del tensors[missing]
        return tensors | {unused: np.zeros(3, np.float32)}

    with pytest.raises(WeightError) as refusal:
        mi_ref.from_pretrained(altered(case, spoil))
    assert f"{unused} (3,) is not used by this architecture" in str(refusal.value)
    assert f"{missing} is missing: expected (" in str(refusal.value)
