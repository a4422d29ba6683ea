"""Every hook point of a transformers decoder, taken from the modules that compute it.

`capture` runs a model once and names its values as ``mi_ref`` does. `true_float64` makes that run
a float64 reference, which ``model.double()`` is not: norms, softmax and rotary embedding cast to
float32 in their own code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.pytorch_utils import Conv1D

from golden.capture.tables import FAMILIES, ORDER, Block

Arrays = dict[str, np.ndarray[Any, np.dtype[np.float64]]]
Tensors = dict[str, Tensor]


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
    watches = [_Watch(block, family.block(block), f"blocks.{i}.") for i, block in enumerate(blocks)]
    seen: Tensors = {}
    norm_inputs: Tensors = {}
    ln_final = model.get_submodule(family.ln_final)
    attended: dict[int, _Attended] = {}

    with ExitStack() as stack, torch.no_grad():
        for hook, path, side in (
            ("hook_embed", family.embed, "out"),
            ("hook_pos_embed", family.pos_embed, "out"),
            ("unembed.hook_in", "lm_head", "in"),
            ("unembed.hook_out", "lm_head", "out"),
        ):
            if path is not None:
                stack.enter_context(_keep(model.get_submodule(path), side, seen, hook))
        for watch in watches:
            watch.enter(stack)
        stack.enter_context(_keep(ln_final, "in", norm_inputs, "ln_final"))
        stack.enter_context(_keep_attention(model, attended))
        model(input_ids=tokens, use_cache=False)

    with torch.no_grad():
        if family.pos_embed is not None:
            seen["hook_pos_embed"] = seen["hook_pos_embed"].expand_as(seen["hook_embed"])
        seen |= norm_points("ln_final", ln_final, norm_inputs["ln_final"], family.unit_offset)
        for layer, watch in enumerate(watches):
            seen |= watch.points(attended[layer], family.unit_offset, family.rotary is not None)
    return _in_order(seen, [watch.prefix for watch in watches])


class _Attended(NamedTuple):
    """The inputs and results of one layer's attention function."""

    query: Tensor  # [batch, head, pos, d_head]
    key: Tensor  # [batch, kv_head, pos, d_head]
    value: Tensor  # [batch, kv_head, pos, d_head]
    scores: Tensor  # [batch, head, query_pos, key_pos]
    pattern: Tensor  # [batch, head, query_pos, key_pos]
    z: Tensor  # [batch, pos, head, d_head]


class _Watch:
    """Keeps the values of one block, and makes hook points of them after the run."""

    def __init__(self, block: nn.Module, table: Block, prefix: str) -> None:
        self.block, self.table, self.prefix = block, table, prefix
        self.seen: Tensors = {}
        self.inner: Tensors = {}
        """Tensors that are no hook points: inputs of norms, outputs of fused projections."""

    def enter(self, stack: ExitStack) -> None:
        """Watch the block until `stack` is closed."""
        get = self.block.get_submodule
        for hook, (path, side) in self.table.sites().items():
            stack.enter_context(_keep(get(path), side, self.seen, hook))
        for name, path in self.table.norms.items():
            stack.enter_context(_keep(get(path), "in", self.inner, name))
        for modules, names in (
            (self.table.attn, ("q", "k", "v", "qkv")),
            (self.table.mlp, ("gate_up", "router")),
        ):
            for name in names:
                if name in modules:
                    stack.enter_context(_keep(get(modules[name]), "out", self.inner, name))
        if "experts" in self.table.mlp:
            stack.enter_context(_keep_routing(get(self.table.mlp["experts"]), self.inner))

    def points(self, attended: _Attended, unit_offset: bool, rotary: bool) -> Tensors:
        """Return {hook point: tensor} of the block."""
        seen = self.seen | self._attention_points(attended, rotary)
        if "gate_up" in self.table.mlp:
            gate, up = self.inner["gate_up"].chunk(2, dim=-1)
            seen |= {"mlp.hook_pre": gate, "mlp.hook_pre_linear": up}
        if "router" in self.table.mlp:
            seen |= self._router_points(seen["mlp.hook_in"].shape[:2])
        for name, path in self.table.norms.items():
            module, x = self.block.get_submodule(path), self.inner[name]
            if not name.startswith("attn."):
                seen |= norm_points(name, module, x, unit_offset)
                continue
            x = x.transpose(1, 2) if self.table.qk_norm == "heads first" else x
            found = norm_points(name, module, x, unit_offset)
            if self.table.qk_norm == "whole":
                # [batch, pos, 1 or head * d_head] -> [batch, pos, 1 or head, 1 or d_head]
                d_head = attended.query.shape[-1]
                found = {
                    hook: value.unflatten(-1, (-1, min(d_head, value.shape[-1])))
                    for hook, value in found.items()
                }
            seen |= found
        return {self.prefix + hook: value for hook, value in seen.items()}

    def _attention_points(self, attended: _Attended, rotary: bool) -> Tensors:
        query, key, value, scores, pattern, z = attended
        projected = self._projections(query.shape[1], key.shape[1], query.shape[-1])
        # [batch, head, pos, d_head] -> [batch, pos, head, d_head]
        rotated = {"rot_q": query.transpose(1, 2), "rot_k": key.transpose(1, 2)}
        same = [(projected["v"], value.transpose(1, 2))]
        if not rotary:
            same += [(projected["q"], rotated.pop("rot_q")), (projected["k"], rotated.pop("rot_k"))]
        if not all(map(torch.equal, *zip(*same, strict=True))):
            raise RuntimeError(f"{self.prefix}attn: attention did not get what was projected")
        named = projected | rotated | {"attn_scores": scores, "pattern": pattern, "z": z}
        named["result"] = _result(z, self.block.get_submodule(self.table.attn["o"]))
        return {f"attn.hook_{name}": value for name, value in named.items()}

    def _projections(self, n_heads: int, n_kv_heads: int, d_head: int) -> Tensors:
        if "qkv" not in self.inner:
            # [batch, pos, head * d_head] -> [batch, pos, head, d_head]
            return {name: self.inner[name].unflatten(-1, (-1, d_head)) for name in "qkv"}
        fused = self.inner["qkv"]
        if self.table.qkv_by_head:
            parts = fused.unflatten(-1, (n_heads, 3, d_head)).unbind(-2)
        else:
            heads = fused.unflatten(-1, (-1, d_head))
            parts = heads.split([n_heads, n_kv_heads, n_kv_heads], dim=-2)
        return dict(zip("qkv", parts, strict=True))

    def _router_points(self, shape: torch.Size) -> Tensors:
        logits = self.inner["router"]
        chosen = self.inner["chosen_weights"]
        weights = chosen.new_zeros(logits.shape).scatter(-1, self.inner["chosen"], chosen)
        # [batch * pos, expert] -> [batch, pos, expert]
        return {
            "mlp.hook_router_logits": logits.unflatten(0, shape),
            "mlp.hook_expert_weights": weights.unflatten(0, shape),
        }


@contextmanager
def _keep(module: nn.Module, side: str, into: Tensors, name: str) -> Iterator[None]:
    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        # Blocks pass the residual stream by position, attention takes it by keyword.
        value = output if side == "out" else (args[0] if args else kwargs["hidden_states"])
        into[name] = value[0] if isinstance(value, tuple) else value

    handle = module.register_forward_hook(keep, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _keep_routing(experts: nn.Module, into: Tensors) -> Iterator[None]:
    def keep(_: nn.Module, args: tuple[Any, ...]) -> None:
        _, into["chosen"], into["chosen_weights"] = args

    handle = experts.register_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _keep_attention(model: nn.Module, into: dict[int, _Attended]) -> Iterator[None]:
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
        # transformers masks by adding the dtype's lowest finite number.
        score = score.masked_fill(mask < 0, -torch.inf)
        into[module.layer_idx] = _Attended(query, key, value, score, pattern, z)
        return z, pattern

    with patch.object(source, "eager_attention_forward", watched):
        yield


def norm_points(name: str, norm: nn.Module, x: Tensor, unit_offset: bool) -> Tensors:
    """Return the hook points of one norm, which its module never shows.

    Normalized is the module itself with unit gain and no bias; scale is what makes
    x = scale * normalized, by least squares over the row. A layer norm also centres x, which
    changes nothing here: a centred row has no product with a constant.
    """
    neutral = {
        key: torch.zeros_like(value) if unit_offset or key == "bias" else torch.ones_like(value)
        for key, value in norm.named_parameters()
    }
    normalized: Tensor = torch.func.functional_call(norm, neutral, (x,))
    # A row of zeros, which ReLU can leave, does not determine its scale: ask with a row next to it.
    nearly = torch.linspace(-1e-30, 1e-30, x.shape[-1], dtype=x.dtype).expand_as(x)
    probe = torch.where((x == 0).all(-1, keepdim=True), nearly, x)
    probed: Tensor = torch.func.functional_call(norm, neutral, (probe,))
    scale = (probe * probed).sum(-1, keepdim=True) / probed.square().sum(-1, keepdim=True)
    return {f"{name}.hook_scale": scale, f"{name}.hook_normalized": normalized}


def out_by_in(linear: Any) -> Tensor:
    """Return the weight of a linear module as ``[out, in]``; GPT-2 stores the transpose."""
    weight: Tensor = linear.weight.T if isinstance(linear, Conv1D) else linear.weight
    return weight


def _result(z: Tensor, o: nn.Module) -> Tensor:
    # Derived: o multiplies all heads at once. Its weight is [d_model, head * d_head].
    per_head = out_by_in(o).reshape(-1, *z.shape[2:])
    return torch.einsum("bphd,mhd->bphm", z, per_head)


def _in_order(seen: Tensors, prefixes: list[str]) -> Arrays:
    order = ["hook_embed", "hook_pos_embed", *(p + hook for p in prefixes for hook in ORDER)]
    order += ["ln_final.hook_scale", "ln_final.hook_normalized"]
    order += ["unembed.hook_in", "unembed.hook_out"]
    if unknown := sorted(set(seen) - set(order)):
        raise RuntimeError(f"points without a place in the order: {unknown}")
    return {hook: seen[hook].double().numpy().copy() for hook in order if hook in seen}
