"""From BlinkDL's tensor names of RWKV-6 and RWKV-7 to those of checkpoints on the Hub.

Names, shapes and sizes only: no file is read and no value is changed. RWKV-6 (x060) gets the layout
of ``RWKV/v6-Finch-*-HF``, RWKV-7 (x070) that of flash-linear-attention.

Source: https://github.com/BlinkDL/RWKV-LM (RWKV-v5/src/model.py, RWKV-v7/rwkv_v7_numpy.py);
https://huggingface.co/RWKV/v6-Finch-1B6-HF; https://github.com/fla-org/flash-linear-attention
(fla/models/rwkv7).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mi_ref.checkpoints.safetensors import READABLE, TensorInfo
from mi_ref.errors import WeightError

Axes = tuple[str | int, ...]

MODEL = "d_model"
VECTOR, SQUARE = (MODEL,), (MODEL, MODEL)
_MATRICES = ("receptance", "key", "value", "gate", "output")
# RWKV-7 computes x0 + f(x @ x1) @ x2, except that its gate has no x0. These are the inner widths.
_RANKS = {"w": "d_decay", "a": "d_rate", "v": "d_value", "g": "d_gate"}
_UNREAD_7 = {f"blocks.0.att.v{number}" for number in range(3)}
_BLOCK = re.compile(r"blocks\.(\d+)\.")
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Move:
    """One tensor: its name in a ``.pth`` file and its new name in the folder."""

    old: str
    new: str
    axes: Axes
    """What each axis of the ``.pth`` file's tensor counts, or its length."""
    transposed: bool = False
    """Whether the axes are reversed in the folder."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """The plan of a conversion."""

    moves: tuple[Move, ...]
    sizes: Mapping[str, int]
    config: Mapping[str, Any]
    """``config.json`` without the ids of special tokens, which the ``.pth`` file does not give."""

    def shape(self, move: Move) -> tuple[int, ...]:
        """Return the shape of a tensor in the folder."""
        shape = [self.sizes.get(str(axis), axis) for axis in move.axes]
        return tuple(int(size) for size in (shape[::-1] if move.transposed else shape))


def plan_conversion(tensors: Mapping[str, TensorInfo], *, source: str) -> Conversion:
    """Plan the conversion of a file from its tensors' names and shapes alone.

    A vector may be stored as ``[d_model]`` or ``[1, 1, d_model]``. RWKV-7 has no value residual in
    its first layer, so ``blocks.0.att.v0``, ``v1`` and ``v2``, which some files have, are dropped.

    Parameters
    ----------
    tensors : mapping
        From name to dtype and shape.
    source : str
        The file, for messages.

    Raises
    ------
    WeightError
        If it is another version or variant, with every tensor that is missing, misshapen,
        unreadable or unused.
    """
    version = _version(tensors, source)
    # The number of blocks, not the highest one: blocks.99999999.x must not use up the memory.
    n_layers = len({match[1] for match in map(_BLOCK.match, tensors) if match})
    first_norm = any(name.startswith("blocks.0.ln0.") for name in tensors)
    moves = tuple(_rwkv6(n_layers) if version == 6 else _rwkv7(n_layers, first_norm))
    sizes: dict[str, int] = {}
    faults = [fault for move in moves if (fault := _fault(move, tensors.get(move.old), sizes))]
    faults += _uneven(sizes)
    expected = {move.old for move in moves} | (_UNREAD_7 if version == 7 else set())
    faults += [
        f"{name} {info.shape} is not used by this architecture"
        for name, info in tensors.items()
        if name not in expected
    ]
    if faults:
        more = f"\n  and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        listed = "\n  ".join(faults[:_SHOWN]) + more
        raise WeightError(
            f"{source} is not a plain RWKV-{version} (x0{version}0):\n  {listed}\nMissing tensors"
            " mean that the file is truncated or only part of a model. Additional ones (s_emb,"
            " time_state, lora, …) mean a variant, which computes something else. Pass the file of"
            " a whole, plain model."
        )
    write_config = _config6 if version == 6 else _config7
    return Conversion(moves, sizes, write_config(sizes, n_layers, first_norm))


def _version(names: Collection[str], source: str) -> int:
    """Return 6 or 7, which the tensors of the first layer's attention show."""
    held = {name.removeprefix("blocks.0.att.") for name in names}
    if held & {"r_k", "w0"}:
        return 7
    if held & {"time_maa_x", "time_maa_w1"}:
        return 6
    if held & {"time_mix_k", "time_decay"}:
        older = "RWKV-4" if "ln_x.weight" not in held else "RWKV-5"
        older += ".1 or 5.2" if "gate.weight" in held else ""
        raise WeightError(f"{source}: expected RWKV-6 (x060) or RWKV-7 (x070), got {older}.")
    first = ", ".join(sorted(map(str, names))[:4]) or "no tensors"
    raise WeightError(
        f"{source}: expected BlinkDL's names of RWKV-6 or RWKV-7, such as"
        f" blocks.0.att.time_maa_x or blocks.0.att.r_k, got {first}. Pass the .pth file of a whole"
        " model as BlinkDL releases it."
    )


def _norm(old: str, new: str) -> Iterator[Move]:
    for part in ("weight", "bias"):
        yield Move(f"{old}.{part}", f"{new}.{part}", VECTOR)


def _rwkv6(n_layers: int) -> Iterator[Move]:
    vector = (1, 1, MODEL)
    attention = {f"time_maa_{part}": vector for part in "xwkvrg"} | {
        "time_maa_w1": (MODEL, "5 × d_shift"),
        "time_maa_w2": (5, "d_shift", MODEL),
        "time_decay": vector,
        "time_decay_w1": (MODEL, "d_decay"),
        "time_decay_w2": ("d_decay", MODEL),
        "time_faaaa": ("n_heads", "d_head"),
        **{f"{name}.weight": SQUARE for name in _MATRICES},
        "ln_x.weight": VECTOR,
        "ln_x.bias": VECTOR,
    }
    feed_forward = {
        "time_maa_k": vector,
        "time_maa_r": vector,
        "key.weight": ("d_mlp", MODEL),
        "receptance.weight": SQUARE,
        "value.weight": (MODEL, "d_mlp"),
    }
    yield Move("emb.weight", "rwkv.embeddings.weight", ("d_vocab", MODEL))
    yield from _norm("blocks.0.ln0", "rwkv.blocks.0.pre_ln")
    for layer in range(n_layers):
        old, new = f"blocks.{layer}", f"rwkv.blocks.{layer}"
        yield from _norm(f"{old}.ln1", f"{new}.ln1")
        yield from _norm(f"{old}.ln2", f"{new}.ln2")
        for name, axes in attention.items():
            yield Move(f"{old}.att.{name}", f"{new}.attention.{name}", axes)
        for name, axes in feed_forward.items():
            yield Move(f"{old}.ffn.{name}", f"{new}.feed_forward.{name}", axes)
    yield from _norm("ln_out", "rwkv.ln_out")
    yield Move("head.weight", "head.weight", ("d_vocab", MODEL))


def _rwkv7(n_layers: int, first_norm: bool) -> Iterator[Move]:
    yield Move("emb.weight", "model.embeddings.weight", ("d_vocab", MODEL))
    if first_norm:
        yield from _norm("blocks.0.ln0", "model.layers.0.pre_norm")
    for layer in range(n_layers):
        old, new = f"blocks.{layer}", f"model.layers.{layer}"
        yield from _norm(f"{old}.ln1", f"{new}.attn_norm")
        yield from _norm(f"{old}.ln2", f"{new}.ffn_norm")
        yield from _attention7(f"{old}.att", f"{new}.attn", has_residual=layer > 0)
        yield Move(f"{old}.ffn.x_k", f"{new}.ffn.x_k", VECTOR)
        yield Move(f"{old}.ffn.key.weight", f"{new}.ffn.key.weight", ("d_mlp", MODEL))
        yield Move(f"{old}.ffn.value.weight", f"{new}.ffn.value.weight", (MODEL, "d_mlp"))
    yield from _norm("ln_out", "model.norm")
    yield Move("head.weight", "lm_head.weight", ("d_vocab", MODEL))


def _attention7(old: str, new: str, *, has_residual: bool) -> Iterator[Move]:
    for part in "rwkvag":
        yield Move(f"{old}.x_{part}", f"{new}.x_{part}", (1, 1, MODEL))
    for part, rank in _RANKS.items():
        if part == "v" and not has_residual:
            continue
        lora = f"{new}.{part}_lora.lora"
        yield Move(f"{old}.{part}1", f"{lora}.0.weight", (MODEL, rank), transposed=True)
        yield Move(f"{old}.{part}2", f"{lora}.2.weight", (rank, MODEL), transposed=True)
        if part != "g":
            yield Move(f"{old}.{part}0", f"{lora}.2.bias", VECTOR)
    yield Move(f"{old}.k_k", f"{new}.k_k", VECTOR)
    yield Move(f"{old}.k_a", f"{new}.k_a", VECTOR)
    yield Move(f"{old}.r_k", f"{new}.r_k", ("n_heads", "d_head"))
    for name, letter in (("receptance", "r"), ("key", "k"), ("value", "v"), ("output", "o")):
        yield Move(f"{old}.{name}.weight", f"{new}.{letter}_proj.weight", SQUARE)
    yield from _norm(f"{old}.ln_x", f"{new}.g_norm")


def _fault(move: Move, tensor: TensorInfo | None, sizes: dict[str, int]) -> str | None:
    """Return what is wrong with a tensor; the first tensor with an axis sets its size."""
    if tensor is None:
        return f"{move.old} is missing"
    if tensor.dtype not in READABLE:
        return f"{move.old} is stored as {tensor.dtype}; expected {', '.join(READABLE)}"
    shape, axes = tensor.shape, tuple(axis for axis in move.axes if axis != 1)
    if len(axes) == 1:
        shape = tuple(size for size in shape if size != 1)
    if len(shape) == len(axes) and all(
        0 < size == (axis if isinstance(axis, int) else sizes.setdefault(axis, size))
        for size, axis in zip(shape, axes, strict=True)
    ):
        return None
    known = (f"{axis} {sizes.get(str(axis), '')}".rstrip() for axis in move.axes)
    return f"{move.old} has shape {tensor.shape}; expected [{', '.join(known)}]"


def _uneven(sizes: Mapping[str, int]) -> Iterator[str]:
    """Yield the contradictions between sizes of different axes."""
    heads = sizes.get("n_heads"), sizes.get("d_head")
    for whole, (count, each) in ((MODEL, heads), ("5 × d_shift", (5, sizes.get("d_shift")))):
        if whole in sizes and count and each and count * each != sizes[whole]:
            yield f"{whole} is {sizes[whole]}, but other tensors make it {count} × {each}"


def _config6(sizes: Mapping[str, int], n_layers: int, first_norm: bool) -> dict[str, Any]:
    return {
        "architectures": ["Rwkv6ForCausalLM"],
        "model_type": "rwkv6",
        "vocab_size": sizes["d_vocab"],
        "hidden_size": sizes[MODEL],
        "attention_hidden_size": sizes[MODEL],
        "num_hidden_layers": n_layers,
        # This layout's name for the width of a head.
        "num_attention_heads": sizes["d_head"],
        "head_size": sizes["d_head"],
        "head_size_divisor": 8,
        "intermediate_size": sizes["d_mlp"],
        "layer_norm_epsilon": 1e-5,
        "rescale_every": 6,
        "tie_word_embeddings": False,
    }


def _config7(sizes: Mapping[str, int], n_layers: int, first_norm: bool) -> dict[str, Any]:
    ranks = {
        "decay_low_rank_dim": "d_decay",
        "gate_low_rank_dim": "d_gate",
        "a_low_rank_dim": "d_rate",
        "v_low_rank_dim": "d_value",
    }
    return {
        "architectures": ["RWKV7ForCausalLM"],
        "model_type": "rwkv7",
        "vocab_size": sizes["d_vocab"],
        "hidden_size": sizes[MODEL],
        "num_hidden_layers": n_layers,
        "head_dim": sizes["d_head"],
        "num_heads": sizes["n_heads"],
        "intermediate_size": sizes["d_mlp"],
        "hidden_act": "sqrelu",
        **{key: sizes[axis] for key, axis in ranks.items() if axis in sizes},
        "norm_first": first_norm,
        "norm_bias": True,
        "norm_eps": 1e-5,
        # 1e-5 × 8² for heads of any width; flash-linear-attention has head_dim × norm_eps, which
        # is the same for a width of 64.
        "group_norm_eps": 64e-5,
        "tie_word_embeddings": False,
    }
