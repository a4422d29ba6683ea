"""What Gemma 2 and 3 need beside sizes: the scale of scores, and which layers see a window.

Source: llama.cpp ``llama-model.cpp``, ``LLM_ARCH_GEMMA2`` and ``LLM_ARCH_GEMMA3``.
"""

from __future__ import annotations

import math
from typing import Any

from mi_ref.checkpoints.gguf.metadata import Metadata
from mi_ref.families.reading.window_keys import FULL, SLIDING

_LOCAL_THETA, _PATTERN = 10_000.0, 6
# Blocks of the 27B models, whose scores are scaled by the mean width of a head; and the width of
# the heads of all others, whose scores are scaled by it.
_BLOCKS_OF_27B = {"gemma2": 46, "gemma3_text": 62}
_USUAL_WIDTH = 256


def gemma_keys(
    meta: Metadata, model_type: str, *, d_model: int, n_heads: int, d_head: int
) -> dict[str, Any]:
    """Return the keys of ``config.json`` that no other family has.

    Raises
    ------
    ConfigError
        If the scale of scores is neither in the file nor known.
    """
    if model_type not in _BLOCKS_OF_27B:
        return {}
    found: dict[str, Any] = {}
    scale = meta.take("attention.scale")
    if type(scale) is float and scale > 0:
        exact = scale**-2
        whole = round(exact)
        found["query_pre_attn_scalar"] = (
            whole if math.isclose(exact, whole, rel_tol=1e-6) else exact
        )
    elif meta.n_blocks == _BLOCKS_OF_27B[model_type] and d_head * n_heads != d_model:
        found["query_pre_attn_scalar"] = d_model // n_heads
        meta.infer(f"scores are divided by the root of {d_model // n_heads}, as in the 27B model")
    elif d_head == _USUAL_WIDTH:
        found["query_pre_attn_scalar"] = d_head
        meta.infer(f"scores are divided by the root of {d_head}, the width of a head")
    else:
        raise meta.refuse(
            f"it gives no {meta.name}.attention.scale, and what scores are divided by is only known"
            f" of the published sizes; heads here are {d_head} wide. Load the model's safetensors."
        )
    return found | (_gemma3(meta) if model_type == "gemma3_text" else _gemma2(meta))


def _gemma2(meta: Metadata) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, name, default in (
        ("attention.sliding_window", "sliding_window", 4096),
        ("attn_logit_softcapping", "attn_logit_softcapping", 50.0),
        ("final_logit_softcapping", "final_logit_softcapping", 30.0),
    ):
        if key not in meta.keys:
            meta.infer(f"{name} {default}, as in all Gemma 2")
        found[name] = meta.take(key, default)
    meta.infer("every other layer, from the first, sees the window")
    return found


def _gemma3(meta: Metadata) -> dict[str, Any]:
    found: dict[str, Any] = {"sliding_window": meta.size("attention.sliding_window")}
    meta.take("attention.sliding_window")
    for cap in ("attn_logit_softcapping", "final_logit_softcapping"):
        found[cap] = meta.take(cap)
    if "rope.freq_base_swa" not in meta.keys:
        meta.infer(f"rotary base {_LOCAL_THETA:,.0f} in layers with a window")
    found["rope_local_base_freq"] = meta.take("rope.freq_base_swa", _LOCAL_THETA)
    pattern = meta.take("attention.sliding_window_pattern")
    if isinstance(pattern, list):
        found["layer_types"] = [SLIDING if slides else FULL for slides in pattern]
    elif pattern is None:
        meta.infer(f"every {_PATTERN}th layer sees all keys, the others the window")
    else:
        found["sliding_window_pattern"] = pattern
    return found
