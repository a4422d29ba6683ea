"""Names and shapes of BlinkDL's files, copied from his code, and of their conversions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mi_ref.blinkdl import Conversion, plan_conversion
from mi_ref.errors import WeightError
from mi_ref.weights import TensorInfo

Shapes = dict[str, tuple[int, ...]]
V, C, H, N, F, LAYERS = 11, 6, 2, 3, 14, 2  # the letters of BlinkDL's code


def norm(name: str) -> Shapes:
    return {f"{name}.weight": (C,), f"{name}.bias": (C,)}


def whole(attention: Callable[[int], Shapes], ffn: Shapes) -> Shapes:
    """Names and shapes of a whole ``.pth`` file."""
    shapes = {"emb.weight": (V, C), **norm("blocks.0.ln0")}
    for i in range(LAYERS):
        shapes |= {**norm(f"blocks.{i}.ln1"), **norm(f"blocks.{i}.ln2")}
        shapes |= {f"blocks.{i}.att.{name}": shape for name, shape in attention(i).items()}
        shapes |= {f"blocks.{i}.ffn.{name}": shape for name, shape in ffn.items()}
    return {**shapes, **norm("ln_out"), "head.weight": (V, C)}


def x060() -> Shapes:
    attention = {
        **{f"time_maa_{name}": (1, 1, C) for name in ("x", "w", "k", "v", "r", "g")},
        "time_maa_w1": (C, 20), "time_maa_w2": (5, 4, C),
        "time_decay": (1, 1, C), "time_decay_w1": (C, 5), "time_decay_w2": (5, C),
        "time_faaaa": (H, N), **norm("ln_x"),
        **{f"{m}.weight": (C, C) for m in ("receptance", "key", "value", "output", "gate")},
    }  # fmt: skip
    ffn = {"time_maa_k": (1, 1, C), "time_maa_r": (1, 1, C), "receptance.weight": (C, C)}
    return whole(lambda _: attention, {**ffn, "key.weight": (F, C), "value.weight": (C, F)})


def x070() -> Shapes:
    def attention(layer: int) -> Shapes:
        ranks = {"w": 4, "a": 5, "g": 8} | ({"v": 7} if layer else {})
        return {
            **{f"x_{name}": (1, 1, C) for name in ("r", "w", "k", "v", "a", "g")},
            **{f"{name}0": (1, 1, C) for name in ranks if name != "g"},
            **{f"{name}1": (C, rank) for name, rank in ranks.items()},
            **{f"{name}2": (rank, C) for name, rank in ranks.items()},
            "k_k": (1, 1, C), "k_a": (1, 1, C), "r_k": (H, N), **norm("ln_x"),
            **{f"{m}.weight": (C, C) for m in ("receptance", "key", "value", "output")},
        }  # fmt: skip

    return whole(attention, {"x_k": (1, 1, C), "key.weight": (F, C), "value.weight": (C, F)})


FILES = {6: x060, 7: x070}


def plan(shapes: Shapes, dtype: str = "BF16") -> Conversion:
    return plan_conversion(
        {name: TensorInfo(dtype, shape) for name, shape in shapes.items()}, source="model.pth"
    )


def names(found: Conversion) -> dict[str, str]:
    return {move.old: move.new for move in found.moves}


def refusal(shapes: Shapes, dtype: str = "BF16") -> str:
    with pytest.raises(WeightError) as caught:
        plan(shapes, dtype)
    return str(caught.value)
