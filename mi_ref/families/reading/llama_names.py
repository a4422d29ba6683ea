"""The module names of most checkpoints: LLaMA's, and what other families have in their place."""

from __future__ import annotations

from mi_ref.families.reading.weight_names import Fused, WeightNames

ATTENTION = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "out": "self_attn.o_proj",
}
NORMS = {"ln1": "input_layernorm", "ln2": "post_attention_layernorm"}
POST_NORMS = {"ln1_post": "post_attention_layernorm", "ln2_post": "post_feedforward_layernorm"}
SANDWICH = {"ln1": "input_layernorm", "ln2": "pre_feedforward_layernorm", **POST_NORMS}
QK_NORMS = {"q_norm": "self_attn.q_norm", "k_norm": "self_attn.k_norm"}
GATED = {"mlp_gate": "mlp.gate_proj", "mlp_in": "mlp.up_proj", "mlp_out": "mlp.down_proj"}


def llama_like(*modules: dict[str, str], fused: tuple[Fused, ...] = ()) -> WeightNames:
    """Return the names of a family with LLaMA's layout.

    Parameters
    ----------
    *modules : dict
        From slot to path within a block.
    fused : tuple of Fused
        Modules that share a tensor.
    """
    return WeightNames(
        prefix="model.",
        embed="embed_tokens",
        pos_embed=None,
        ln_embed=None,
        ln_final="norm",
        unembed="lm_head",
        block="layers.{layer}.",
        modules={slot: path for part in modules for slot, path in part.items()},
        fused=fused,
        stored={},
        transposed=False,
        # Files from before transformers 4.32 contain the rotary frequencies, which the config sets.
        ignored=("self_attn.rotary_emb.inv_freq",),
        others=(),
    )
