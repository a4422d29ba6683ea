"""Numbers worked out elsewhere, in candle-mi's tests and HuggingFace's tables, one case each.

Other files hold the remaining cases: tests/algzoo/test_algzoo.py has the networks,
tests/edits/test_edges.py edges, tests/analysis/attention/ calibration and means over heads,
tests/analysis/geometry/ places in a text and points along a line,
tests/families/test_rwkv_family.py configurations and norms.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mi_ref import Backend, Model, at, capture, do, get_backend
from mi_ref.config.decoder import Attention, GatedMLP, PlainMLP
from mi_ref.config.rope import DefaultRope, Llama3Rope, Rope, Rotary
from mi_ref.families.reading.config_file import HfConfig
from mi_ref.families.reading.rope_keys import read_rope
from mi_ref.forward.rotary import rotary_tables
from mi_ref.text.tokenizer import Tokenizer
from mi_ref.text.world_vocabulary import read_vocabulary
from tests.fixtures.by_hand import equal, host
from tests.fixtures.family_configs import parse
from tests.fixtures.model_points import editable

INF = float("inf")
PROMPT = [[30, 12, 5, 14, 19], [39, 21, 4, 16, 28]]


@pytest.fixture
def flat(backend: Backend, load: Any) -> Any:
    """Return the scores of one head where every visible key scores zero."""
    model: Model = load("llama2", backend, "float64")

    def scores(tokens: list[int], pos: Any = None) -> Any:
        point = at.attn_scores[1]
        run = model.run(tokens, edits=[(at.q[1], do.zero())], capture=[capture(point, pos=pos)])
        return host(model, run[point])[0, 0]

    return scores


def test_the_causal_mask_of_three_tokens(flat: Any) -> None:
    """Section 12, case 7: hidden keys score minus infinity, all others as before."""
    assert flat([5, 6, 7]).ravel().tolist() == [0, -INF, -INF, 0, 0, -INF, 0, 0, 0]


def test_the_masks_of_tokens_that_go_on_with_a_text(flat: Any) -> None:
    """Section 12, case 7: one and two new tokens in a text of five; there a table of their own."""
    text = [5, 6, 7, 8, 9]
    assert flat(text, -1).tolist() == [[0] * 5]
    assert flat(text, [3, 4]).tolist() == [[0, 0, 0, 0, -INF], [0] * 5]


@pytest.mark.usefixtures("as_users_call")
def test_pieces_of_hello(tmp_path: Path) -> None:
    """Section 12, case 12: the longest piece at each place; ids one higher, since 0 ends a text."""
    pieces = ["h", "e", "l", "o", "he", "hel", "hello"]
    path = tmp_path / "rwkv_vocab_v1.txt"
    lines = (f"{n} {piece!r} {len(piece)}\n" for n, piece in enumerate(pieces, 1))
    path.write_text("".join(lines), encoding="utf-8")
    tokenizer = Tokenizer.from_files(None, world=[path], source="case 12")
    assert [n - 1 for n in tokenizer.encode("hello").ids] == [6]
    assert [n - 1 for n in tokenizer.encode("helo").ids] == [5, 3]


def test_escapes_are_characters_in_text_and_bytes_in_bytes(tmp_path: Path) -> None:
    r"""Section 12, case 12: ``'\x80'`` and ``'\xff'`` take two bytes each, ``b'\xff'`` one."""
    path = tmp_path / "rwkv_vocab_v1.txt"
    path.write_text("1 '\\x80' 2\n2 '\\xff' 2\n3 b'\\xff' 1\n", encoding="utf-8")
    assert read_vocabulary(path) == {1: b"\xc2\x80", 2: b"\xc3\xbf", 3: b"\xff"}


def sizes(d_model: int, n_layers: int, n_heads: int, n_kv: int, d_mlp: int, vocab: int) -> Any:
    """Return the keys of a config that say how large a model is."""
    return {
        "hidden_size": d_model, "num_hidden_layers": n_layers, "num_attention_heads": n_heads,
        "num_key_value_heads": n_kv, "intermediate_size": d_mlp, "vocab_size": vocab,
    }  # fmt: skip


# Keys as the published files have them. Then d_head, attention's scale, windows of the first two
# layers, caps of scores and logits, biases of queries and MLP, gated, scale of the embedding.
PUBLISHED: dict[str, tuple[str, dict[str, Any], tuple[Any, ...]]] = {
    "Qwen2.5-Coder-3B": (
        "qwen2", sizes(2048, 36, 16, 2, 11008, 151936) | {
            "rms_norm_eps": 1e-6, "rope_theta": 1e6, "max_position_embeddings": 32768,
            "sliding_window": 32768, "max_window_layers": 36, "use_sliding_window": False,
            "tie_word_embeddings": True, "hidden_act": "silu"},
        (128, 128**-0.5, (None, None), None, None, True, False, True, None)),
    "Mistral-7B-v0.1": (
        "mistral", sizes(4096, 32, 32, 8, 14336, 32000) | {
            "rms_norm_eps": 1e-5, "rope_theta": 1e4, "max_position_embeddings": 32768,
            "sliding_window": 4096, "tie_word_embeddings": False, "hidden_act": "silu"},
        (128, 128**-0.5, (4096, 4096), None, None, False, False, True, None)),
    "Phi-3-mini-4k": (
        "phi3", sizes(3072, 32, 32, 32, 8192, 32064) | {
            "rms_norm_eps": 1e-5, "rope_theta": 1e4, "max_position_embeddings": 4096,
            "original_max_position_embeddings": 4096, "rope_scaling": None,
            "sliding_window": 2047, "tie_word_embeddings": False, "hidden_act": "silu"},
        (96, 96**-0.5, (2047, 2047), None, None, False, False, True, None)),
    "gemma-2b": (
        "gemma", sizes(2048, 18, 8, 1, 16384, 256000) | {
            "head_dim": 256, "rms_norm_eps": 1e-6, "rope_theta": 1e4, "hidden_act": "gelu",
            "max_position_embeddings": 8192, "hidden_activation": None},
        (256, 256**-0.5, (None, None), None, None, False, False, True, 2048**0.5)),
    "gemma-2-2b": (
        "gemma2", sizes(2304, 26, 8, 4, 9216, 256000) | {
            "head_dim": 256, "rms_norm_eps": 1e-6, "rope_theta": 1e4, "sliding_window": 4096,
            "max_position_embeddings": 8192, "query_pre_attn_scalar": 256,
            "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
            "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"},
        (256, 256**-0.5, (4096, None), 50.0, 30.0, False, False, True, 2304**0.5)),
    "starcoder2-3b": (
        "starcoder2", sizes(3072, 30, 24, 2, 12288, 49152) | {
            "norm_epsilon": 1e-5, "norm_type": "layer_norm", "rope_theta": 999999.4420358813,
            "sliding_window": 4096, "max_position_embeddings": 16384, "use_bias": True,
            "hidden_act": "gelu_pytorch_tanh", "mlp_type": "default"},
        (128, 128**-0.5, (4096, 4096), None, None, True, True, False, None)),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_of_six_families(name: str) -> None:
    """Section 12, case 15; LLaMA's, the seventh, are in tests/families/test_config.py."""
    family, keys, expected = PUBLISHED[name]
    cfg = parse(family, **keys)
    first, second = cfg.blocks[:2]
    attn, mlp = first.attn, first.mlp
    assert isinstance(attn, Attention)
    assert isinstance(mlp, GatedMLP | PlainMLP)
    found = (
        cfg.d_head, attn.scale, (attn.window, second.attn.window), attn.softcap, cfg.softcap,
        attn.bias_qkv, mlp.bias, isinstance(mlp, GatedMLP), cfg.embed_scale,
    )  # fmt: skip
    assert found == expected
    assert (cfg.n_layers, cfg.n_heads, cfg.n_key_value_heads, cfg.d_mlp, cfg.d_vocab) == tuple(
        keys[key] for key in ("num_hidden_layers", "num_attention_heads", "num_key_value_heads",
                              "intermediate_size", "vocab_size")
    )  # fmt: skip
    assert attn.rotary == Rotary(rope=DefaultRope(theta=keys["rope_theta"]), dims=cfg.d_head)
    # Gemma's norms multiply by one more than their weight; its activation is the one of tanh,
    # whatever its first config says.
    gemma = family.startswith("gemma")
    assert getattr(cfg.ln_final, "unit_offset", None) == (None if family == "starcoder2" else gemma)
    assert cfg.act_fn == ("gelu_tanh" if gemma or family == "starcoder2" else "silu")
    assert cfg.tied == (gemma or family in ("qwen2", "starcoder2"))
    assert (first.ln1_post is not None) == (family == "gemma2")


def turns(rope: Rope, dims: int) -> Any:
    """Return the frequencies and the factor that the tables of two positions have."""
    rotary = Rotary(rope=rope, dims=dims)
    numpy = get_backend("numpy")
    cos, sin = rotary_tables(rotary, 2, None, dtype=np.float64, backend=numpy)
    return np.arctan2(sin[1], cos[1]), cos[0, 0]


def test_llama_3_changes_17_of_32_frequencies() -> None:
    """Section 12, case 16: the 15 fastest do not change."""
    rope = Llama3Rope(
        theta=5e5, factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_n_ctx=8192
    )
    found, _ = turns(rope, 64)
    kept = np.isclose(found, 5e5 ** (-np.arange(32) / 32), rtol=1e-12, atol=0)
    assert kept.tolist() == [True] * 15 + [False] * 17


def test_longrope_of_phi_3_5_mini() -> None:
    """Section 12, case 16: HuggingFace's float32 results for the published factors."""
    short = [1.0, 1.02, 1.03, 1.03, 1.05, *[1.0] * 42, 2.84]
    scaling = {"type": "longrope", "short_factor": short, "long_factor": [64.0] * 48}
    raw = {"rope_scaling": scaling, "original_max_position_embeddings": 4096}
    config = HfConfig(raw, source="config.json", family="phi3")
    rotary = read_rope(config, n_ctx=131072, d_head=96, default_theta=1e4)
    found, factor = turns(rotary.rope, rotary.dims)
    assert factor == pytest.approx(1.1902380714238083, rel=1e-15)
    wanted = [1.0, 0.8092197775840759, 0.6614486575126648, 0.5459624528884888, 0.4420561194419861]
    # Half a unit of float32 in the factor, one in the power and one in the quotient.
    assert found[:5].tolist() == pytest.approx(wanted, rel=2.5 * 2**-23)
    assert found[47] == pytest.approx(4.2659426981117576e-05, rel=2.5 * 2**-23)


STRUCTURES = ("llama-biases", "gemma2", "gpt-neox-parallel", "mixtral", "phi-qk-norm", "rwkv6",
              "rwkv7")  # fmt: skip


@pytest.mark.bits
@pytest.mark.parametrize("edit", [do.add(0.0), do.scale(1.0)], ids=str)
@pytest.mark.parametrize("case", STRUCTURES)
def test_adding_nothing_and_scaling_by_one_change_no_bit(
    case: str, edit: Any, backend: Backend, load: Any
) -> None:
    """Section 12, case 18: at every point, lazy ones too, one by one and all at once.

    Its other identities are in tests/hooks/test_hook_contract.py, test_hook_identities.py,
    test_attention_edits.py, test_state.py, test_rwkv_effective.py and test_algzoo_regions.py.
    """
    model: Model = load(case, backend, "float32")
    plain = host(model, model.run(PROMPT).logits)
    points = editable(model)
    assert equal(host(model, model.run(PROMPT, edits=dict.fromkeys(points, edit)).logits), plain)
    for point in points if backend.name == "numpy" else points[::17]:
        edited = model.run(PROMPT, edits=[(point, edit)])
        assert equal(host(model, edited.logits), plain), point
