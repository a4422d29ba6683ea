"""Every hook point of a transformers decoder, taken from the modules that compute it.

`capture` runs a model once and names what passes as ``mi_ref`` does. `true_float64` makes that run
a float64 reference, which ``model.double()`` is not: norms, softmax and rotary embedding cast to
float32 in their own code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

Arrays = dict[str, np.ndarray[Any, np.dtype[np.float64]]]
Site = tuple[str, str, Literal["in", "out"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Where a model type computes what the hook points name.

    Parameters
    ----------
    model, block : tuple of Site
        (hook, module, its input or output); `block` hooks and modules are below a layer.
    layers : str
        The list of blocks.
    norms, block_norms : Mapping
        {norm as hooks spell it: module}.
    attn : Mapping
        The block's attention modules: "self", "q", "k", "v", "o".
    order : tuple of str
        A block's hooks as they come in the forward pass.
    """

    model: tuple[Site, ...]
    block: tuple[Site, ...]
    layers: str
    norms: Mapping[str, str]
    block_norms: Mapping[str, str]
    attn: Mapping[str, str]
    order: tuple[str, ...]


_SEQUENTIAL_GATED = (
    "hook_resid_pre",
    "ln1.hook_scale",
    "ln1.hook_normalized",
    *(f"attn.hook_{name}" for name in ("in", "q", "k", "v", "rot_q", "rot_k")),
    *(f"attn.hook_{name}" for name in ("attn_scores", "pattern", "z", "result", "out")),
    "hook_attn_out",
    "hook_resid_mid",
    "ln2.hook_scale",
    "ln2.hook_normalized",
    *(f"mlp.hook_{name}" for name in ("in", "pre", "pre_linear", "post", "out")),
    "hook_mlp_out",
    "hook_resid_post",
)

FAMILIES = {
    "llama": Family(
        model=(
            ("hook_embed", "model.embed_tokens", "out"),
            ("unembed.hook_in", "lm_head", "in"),
            ("unembed.hook_out", "lm_head", "out"),
        ),
        block=(
            ("hook_resid_pre", "", "in"),
            ("attn.hook_in", "self_attn", "in"),
            ("attn.hook_out", "self_attn.o_proj", "out"),
            ("hook_attn_out", "self_attn", "out"),
            ("hook_resid_mid", "post_attention_layernorm", "in"),
            ("mlp.hook_in", "mlp", "in"),
            ("mlp.hook_pre", "mlp.gate_proj", "out"),
            ("mlp.hook_pre_linear", "mlp.up_proj", "out"),
            ("mlp.hook_post", "mlp.down_proj", "in"),
            ("mlp.hook_out", "mlp.down_proj", "out"),
            ("hook_mlp_out", "mlp", "out"),
            ("hook_resid_post", "", "out"),
        ),
        layers="model.layers",
        norms={"ln_final": "model.norm"},
        block_norms={"ln1": "input_layernorm", "ln2": "post_attention_layernorm"},
        attn={
            "self": "self_attn",
            "q": "self_attn.q_proj",
            "k": "self_attn.k_proj",
            "v": "self_attn.v_proj",
            "o": "self_attn.o_proj",
        },
        order=_SEQUENTIAL_GATED,
    )
}


class _Float64Mode(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        def widen(value: Any) -> Any:
            return torch.float64 if value is torch.float32 else value

        kwargs = {key: widen(value) for key, value in (kwargs or {}).items()}
        return func(*map(widen, args), **kwargs)


@contextmanager
def true_float64() -> Iterator[None]:
    """Turn every request for float32 into float64; build the model inside it as well.

    The default dtype matters too: dynamic rotary scaling multiplies the integer sequence length by
    a Python float, which no cast announces.
    """
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Float64Mode():
            yield
    finally:
        torch.set_default_dtype(default)


def capture(model: nn.Module, tokens: Tensor) -> Arrays:
    """Run `model` on `tokens` and return every hook point, in forward order.

    Parameters
    ----------
    model : nn.Module
        A causal language model of transformers with eager attention, of a type in `FAMILIES`.
    tokens : Tensor
        ``[batch, pos]``, all real (no padding).

    Returns
    -------
    dict
        {hook point: float64 array}.
    """
    config: Any = model.config
    family = FAMILIES[config.model_type]
    blocks: Any = model.get_submodule(family.layers)
    prefixes = [f"blocks.{layer}." for layer in range(len(blocks))]
    seen: dict[str, Tensor] = {}
    norm_inputs: dict[str, Tensor] = {}
    norms = {name: model.get_submodule(path) for name, path in family.norms.items()}

    with ExitStack() as stack, torch.no_grad():
        for hook, path, side in family.model:
            stack.enter_context(_watch(model.get_submodule(path), side, seen, hook))
        for prefix, block in zip(prefixes, blocks, strict=True):
            for hook, path, side in family.block:
                stack.enter_context(_watch(block.get_submodule(path), side, seen, prefix + hook))
            for name in "qkv":
                module = block.get_submodule(family.attn[name])
                stack.enter_context(_watch(module, "out", seen, f"{prefix}attn.hook_{name}"))
            for name, path in family.block_norms.items():
                norms[prefix + name] = block.get_submodule(path)
        for name, norm in norms.items():
            stack.enter_context(_watch(norm, "in", norm_inputs, name))
        stack.enter_context(_watch_attention(model, seen))
        model(input_ids=tokens, use_cache=False)

    with torch.no_grad():
        for name, norm in norms.items():
            seen.update(_norm_points(name, norm, norm_inputs[name]))
        for prefix, block in zip(prefixes, blocks, strict=True):
            d_head = block.get_submodule(family.attn["self"]).head_dim
            for name in "qkv":
                flat = seen[f"{prefix}attn.hook_{name}"]
                # [batch, pos, head * d_head] -> [batch, pos, head, d_head]
                seen[f"{prefix}attn.hook_{name}"] = flat.reshape(*flat.shape[:-1], -1, d_head)
            seen[prefix + "attn.hook_result"] = _result(
                seen[prefix + "attn.hook_z"], block.get_submodule(family.attn["o"]).weight
            )

    order = ["hook_embed", *(prefix + hook for prefix in prefixes for hook in family.order)]
    order += [
        "ln_final.hook_scale",
        "ln_final.hook_normalized",
        "unembed.hook_in",
        "unembed.hook_out",
    ]
    if set(order) != set(seen):
        raise RuntimeError(f"points not captured or not ordered: {sorted(set(order) ^ set(seen))}")
    return {hook: seen[hook].double().numpy().copy() for hook in order}


@contextmanager
def _watch(module: nn.Module, side: str, into: dict[str, Tensor], hook: str) -> Iterator[None]:
    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        # Blocks pass the residual stream by position, attention takes it by keyword.
        value = output if side == "out" else (args[0] if args else kwargs["hidden_states"])
        into[hook] = value[0] if isinstance(value, tuple) else value

    handle = module.register_forward_hook(keep, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _watch_attention(model: nn.Module, into: dict[str, Tensor]) -> Iterator[None]:
    source = sys.modules[type(model).__module__]
    eager: Callable[..., tuple[Tensor, Tensor]] = source.eager_attention_forward
    softmax = nn.functional.softmax

    def watched(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        scores: list[Tensor] = []

        def spy(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            scores.append(x)
            return softmax(x, *args, **kwargs)

        with patch.object(nn.functional, "softmax", spy):
            z, pattern = eager(module, query, key, value, mask, **kwargs)
        (score,) = scores
        prefix = f"blocks.{module.layer_idx}.attn."
        # [batch, head, pos, d_head] -> [batch, pos, head, d_head]
        into[prefix + "hook_rot_q"] = query.transpose(1, 2)
        into[prefix + "hook_rot_k"] = key.transpose(1, 2)
        # transformers masks by adding the dtype's lowest finite number.
        into[prefix + "hook_attn_scores"] = score.masked_fill(mask < 0, -torch.inf)
        into[prefix + "hook_pattern"] = pattern
        into[prefix + "hook_z"] = z
        return z, pattern

    with patch.object(source, "eager_attention_forward", watched):
        yield


def _norm_points(name: str, norm: nn.Module, x: Tensor) -> dict[str, Tensor]:
    # Derived: the module never shows these. Normalized is the module itself with unit gain; scale
    # is what makes x = scale * normalized, by least squares over the row.
    ones = {key: torch.ones_like(value) for key, value in norm.named_parameters()}
    normalized: Tensor = torch.func.functional_call(norm, ones, (x,))
    scale = (x * normalized).sum(-1, keepdim=True) / normalized.square().sum(-1, keepdim=True)
    return {f"{name}.hook_scale": scale, f"{name}.hook_normalized": normalized}


def _result(z: Tensor, weight: Tensor) -> Tensor:
    # Derived: o_proj multiplies all heads at once. weight is [d_model, head * d_head].
    per_head = weight.reshape(-1, *z.shape[2:])
    return torch.einsum("bphd,mhd->bphm", z, per_head)
