"""Whether a checkpoint's tensors are exactly those that its config requires."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from mi_ref.checkpoints.read_recurrent import recurrent_modules
from mi_ref.checkpoints.safetensors import TensorInfo
from mi_ref.config.decoder import DecoderConfig, Layer, LayerNorm
from mi_ref.errors import WeightError
from mi_ref.families.reading.weight_names import Axis, Fused, Module, WeightNames, modules_of

_Expected = tuple[str, tuple[int, ...], str]


@dataclass(frozen=True, slots=True)
class TensorFault:
    """One tensor that does not fit; ``str`` gives the sentence."""

    kind: Literal["missing", "misshapen", "unused"]
    name: str
    detail: str

    def __str__(self) -> str:
        return f"{self.name} {self.detail}"


def check_tensors(
    cfg: DecoderConfig, names: WeightNames, info: Mapping[str, TensorInfo], *, source: str
) -> None:
    """Refuse a checkpoint with missing, misshapen or unused tensors.

    Raises
    ------
    WeightError
        With all of them, and the sizes in the config that each expected shape comes from.
    """
    if faults := tensor_faults(cfg, names, info):
        shown = "\n  ".join(map(str, faults[:12]))
        more = f"\n  and {len(faults) - 12} more" if len(faults) > 12 else ""
        raise WeightError(
            f"the weights of {source} do not fit its config:\n  {shown}{more}\n"
            "Check that config and weights are from the same checkpoint and that it is complete."
        )


def tensor_faults(
    cfg: DecoderConfig, names: WeightNames, info: Mapping[str, TensorInfo]
) -> list[TensorFault]:
    """Return what is wrong with a checkpoint's tensors; empty if they fit."""
    names = names.found_in(info)
    faults = []
    expected = {name: (shape, why) for name, shape, why in _expected(cfg, names)}
    spared = names.spared(cfg.n_layers)
    if cfg.tied:
        # HuggingFace ties only if the file lacks one of the two, or if both are equal.
        spared.add(f"{names.unembed}.weight")
    for name, (shape, why) in expected.items():
        if name not in info:
            faults.append(TensorFault("missing", name, f"is missing: expected {shape} = ({why})"))
        elif info[name].shape != shape:
            detail = f"has shape {info[name].shape}; the config requires {shape} = ({why})"
            faults.append(TensorFault("misshapen", name, detail))
    faults += [
        TensorFault("unused", name, f"{tensor.shape} is not used by this architecture")
        for name, tensor in info.items()
        if name not in expected and name not in spared
    ]
    return faults


def _expected(cfg: DecoderConfig, names: WeightNames) -> Iterator[_Expected]:
    """Yield name, shape and the meaning of the shape of every tensor that the config requires."""
    vocab, model = ("d_vocab", cfg.d_vocab), ("d_model", cfg.d_model)
    yield _tensor(f"{names.prefix}{names.embed}.weight", vocab, model)
    if cfg.learned_positions:
        n_ctx = ("n_ctx", cfg.n_ctx or 0)
        yield _tensor(f"{names.prefix}{names.pos_embed}.weight", n_ctx, model)
    if cfg.ln_embed is not None:
        yield _tensor(f"{names.prefix}{names.ln_embed}.weight", model)
        yield _tensor(f"{names.prefix}{names.ln_embed}.bias", model)
    for number, layer in enumerate(cfg.layers):
        if isinstance(layer, Layer):
            yield from _transformer_block(names, layer, cfg.d_model, number)
            continue
        for part in recurrent_modules(layer, cfg.d_model):
            if isinstance(part, Module):
                yield from _stored(names, part, number)
            else:
                axes = names.stored[part.slot].axes(part.axes)
                yield _tensor(names.stored_path(part.slot, number), *axes)
    yield _tensor(f"{names.prefix}{names.ln_final}.weight", model)
    if isinstance(cfg.ln_final, LayerNorm):
        yield _tensor(f"{names.prefix}{names.ln_final}.bias", model)
    if not cfg.tied:
        yield _tensor(f"{names.unembed}.weight", vocab, model)
    if cfg.bias_unembed:
        yield _tensor(f"{names.unembed}.bias", vocab)


def _transformer_block(
    names: WeightNames, layer: Layer, d_model: int, number: int
) -> Iterator[_Expected]:
    modules = {(m.slot, m.expert): m for m in modules_of(layer, d_model)}
    for fused in names.fused:
        parts = [modules.pop((slot, 0)) for slot in fused.slots if (slot, 0) in modules]
        if parts:
            yield from _stored(names, _joined(fused, parts), number)
    for module in modules.values():
        yield from _stored(names, module, number)


def _joined(fused: Fused, parts: list[Module]) -> Module:
    """Return the single module that `parts` are stored as."""
    label = " + ".join(part.out[0] for part in parts)
    out = (f"{label} ×", sum(part.out[1] for part in parts))
    return Module(fused.slots[0], out, parts[0].into, parts[0].bias)


def _stored(names: WeightNames, module: Module, layer: int) -> Iterator[_Expected]:
    path = names.path(module.slot, layer, module.expert)
    axes = [module.out] if module.into is None else [module.out, module.into]
    if names.transposed:
        axes.reverse()
    yield _tensor(f"{path}.weight", *axes)
    if module.bias:
        yield _tensor(f"{path}.bias", module.out)


def _tensor(name: str, *axes: Axis) -> _Expected:
    meaning = ", ".join(
        label.removesuffix(" ×") if "×" in label else f"{label} {size}" for label, size in axes
    )
    return name, tuple(size for _, size in axes), meaning
