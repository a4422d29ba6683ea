"""The meaning of recurrent models' configs, and the norms that they specify."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mi_ref import ConfigError, Model, at, get_backend
from mi_ref.config.decoder import ChannelMix, LayerNorm, TimeMix6, TimeMix7
from mi_ref.families import FAMILIES
from mi_ref.params.params import Linear, Norm
from tests.fixtures.family_configs import parse
from tests.mistakes.mutations_rwkv import structure, time_mix

Load = Callable[..., Model]

FINCH = TimeMix6(n_heads=12, d_head=64, d_shift=32, d_decay=64, group_norm_eps=64e-5)
FLA6 = TimeMix6(n_heads=4, d_head=512, d_shift=32, d_decay=64, group_norm_eps=64e-5)
FLA7 = TimeMix7(
    n_heads=32, d_head=64, d_decay=64, d_rate=64, d_value=16, d_gate=128, group_norm_eps=64e-5
)
# By family and the keys that are not left to their defaults, because they choose the layout or
# stand in every checkpoint: d_model, d_vocab, n_layers, d_mlp, and time mixing of the second layer.
# Read off Rwkv6Config, which lies beside the Finch checkpoints, and off flash-linear-attention's
# RWKV6Config and RWKV7Config.
DEFAULTS: list[tuple[str, dict[str, Any], tuple[Any, ...]]] = [
    ("rwkv6", {"hidden_size": 768, "num_hidden_layers": 24}, (768, 65536, 24, 2688, FINCH)),
    ("rwkv6", {"norm_eps": 1e-5, "expand_k": 1.0}, (2048, 32000, 24, 7168, FLA6)),
    ("rwkv7", {}, (2048, 32000, 24, 8192, FLA7)),
]


@pytest.mark.parametrize(("family", "keys", "expected"), DEFAULTS)
def test_absent_keys_are_the_defaults_of_the_layout(
    family: str, keys: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    cfg = parse(family, **keys)
    found = cfg.d_model, cfg.d_vocab, cfg.n_layers, cfg.d_mlp, cfg.layers[1].mixer
    assert found == expected
    norm = LayerNorm(eps=1e-5)
    assert {cfg.ln_embed, cfg.ln_final, *(x for w in cfg.layers for x in (w.ln1, w.ln2))} == {norm}
    gated = family == "rwkv6"
    mlp = ChannelMix(d_mlp=expected[3], act_fn="relu_squared", gated=gated)
    assert {layer.mlp for layer in cfg.layers} == {mlp}
    assert (cfg.recurrent, cfg.n_ctx, cfg.tied, cfg.softcap) == (True, None, False, None)
    assert (cfg.learned_positions, cfg.embed_scale, cfg.bias_unembed) == (False, None, False)


def test_every_recurrent_family_has_its_defaults_tested() -> None:
    recurrent = {family for family in FAMILIES if parse(family).recurrent}
    assert recurrent == {family for family, *_ in DEFAULTS}


def test_only_the_first_layer_of_rwkv7_mixes_in_no_values() -> None:
    ranks = [layer.mixer.d_value for layer in parse("rwkv7").layers]  # type: ignore[union-attr]
    assert ranks == [None] + 23 * [16]


@pytest.mark.parametrize("key", ["head_size", "num_attention_heads"])
def test_finch_of_width_2048(key: str) -> None:
    """As candle-mi reads it, whose ``num_attention_heads`` is the width of a head as well."""
    cfg = parse("rwkv6", hidden_size=2048, num_hidden_layers=24, **{key: 64})
    attn = cfg.layers[0].mixer
    assert isinstance(attn, TimeMix6)
    assert (cfg.n_heads, cfg.d_head, cfg.d_mlp) == (32, 64, 7168)
    assert attn.group_norm_eps == pytest.approx(6.4e-4, rel=1e-12)


def test_goose_of_width_2048_with_ranks_of_its_own() -> None:
    keys = {"decay_low_rank_dim": 96, "a_low_rank_dim": 96, "v_low_rank_dim": 64}
    cfg = parse("rwkv7", hidden_size=2048, gate_low_rank_dim=256, **keys)
    attn = cfg.layers[1].mixer
    assert isinstance(attn, TimeMix7)
    assert (attn.d_decay, attn.d_rate, attn.d_value, attn.d_gate) == (96, 96, 64, 256)
    assert (cfg.n_heads, cfg.d_head, cfg.d_mlp) == (32, 64, 8192)
    assert attn.group_norm_eps == pytest.approx(6.4e-4, rel=1e-12)


@pytest.mark.parametrize(
    ("family", "keys", "expected"),
    [
        ("rwkv6", {"head_size_divisor": 4}, 16e-5),
        ("rwkv6", {"layer_norm_epsilon": 1e-6}, 64e-6),
        ("rwkv6", {"expand_k": 1.0, "norm_eps": 1e-6}, 64e-6),
        ("rwkv7", {"head_dim": 128}, 128e-5),
        ("rwkv7", {"norm_eps": 1e-6, "head_dim": 32}, 32e-6),
        ("rwkv7", {"head_dim": 16, "group_norm_eps": 64e-5}, 64e-5),
    ],
)
def test_the_group_norms_epsilon(family: str, keys: dict[str, Any], expected: float) -> None:
    for layer in parse(family, **keys).layers:
        eps = layer.mixer.group_norm_eps  # type: ignore[union-attr]
        assert eps == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("family", "keys", "told"),
    [
        ("rwkv6", {"norm_eps": 1e-5}, r"expand_k is 0\.5: keys and values are as wide as"),
        ("rwkv6", {"hidden_size": 100}, "the width of a head"),
        ("rwkv6", {"num_attention_heads": 3, "head_size": 64}, "num_attention_heads is 3"),
        ("rwkv6", {"attention_hidden_size": 8}, "attention_hidden_size is 8"),
        ("rwkv7", {"num_heads": 31}, "num_heads is 31: hidden_size over head_dim is 32"),
        ("rwkv7", {"value_dim": 1024}, "value_dim is 1024"),
        ("rwkv7", {"norm_bias": False}, "norm_bias is False"),
        ("rwkv7", {"attn": {"layers": [1]}}, "a mixture of recurrence and attention"),
    ],
)
def test_what_cannot_be_run_is_refused(family: str, keys: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse(family, **keys)


def test_layer_norm_of_one_to_four(load: Load) -> None:
    model: Model = load("rwkv6", get_backend("numpy"), "float64")
    resid = np.tile([1.0, 2.0, 3.0, 4.0], 3)[None, None, :]
    run = model.run(resid, start_at_layer=0, capture=[at.ln1_normalized[0]])
    found = np.asarray(run[at.ln1_normalized[0]])[0, 0, :4]
    wanted = np.array([-1.5, -0.5, 0.5, 1.5]) / np.sqrt(1.25 + 1e-5)
    assert found == pytest.approx(wanted, rel=1e-12)
    assert found[0] == pytest.approx(-1.3416, abs=5e-5)


def test_group_norm_of_one_to_four_in_groups_of_two(load: Load) -> None:
    """Each pair is normed by itself, so both come out as minus one and one."""
    ones, zeros = np.ones(12), np.zeros(12)
    pairs = structure(
        lambda w: replace(w, mixer=replace(w.mixer, n_heads=6, d_head=2, group_norm_eps=1e-5))
    )
    plain = time_mix(
        bonus=lambda w: w.bonus.reshape(6, 2),
        group_norm=lambda w: Norm(ones, zeros),
        out=lambda w: Linear(np.eye(12), None),
    )
    model = plain(pairs(load("rwkv6", get_backend("numpy"), "float64")))
    wkv = np.tile([[1.0, 2.0], [3.0, 4.0]], (3, 1))
    edits = {
        at.rwkv_wkv[0]: lambda x, hook: np.broadcast_to(wkv, x.shape).copy(),
        at.rwkv_gate[0]: lambda x, hook: np.ones_like(x),
    }
    run = model.run([5, 26], capture=[at.attn_out_raw[0]], edits=edits)
    found = np.asarray(run[at.attn_out_raw[0]])
    wanted = np.tile([-0.5, 0.5], 6) / np.sqrt(0.25 + 1e-5)
    assert np.allclose(found, wanted, rtol=1e-12, atol=0)
    assert np.allclose(found, np.tile([-1.0, 1.0], 6), rtol=5e-5, atol=0)
