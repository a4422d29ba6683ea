"""Reading which layers see only a window of keys."""

from __future__ import annotations

from collections.abc import Callable

from mi_ref.config.decoder import Causal, Mask, Window
from mi_ref.families.reading.config_file import HfConfig

FULL, SLIDING = "full_attention", "sliding_attention"


def read_layer_types(
    read: HfConfig, n_layers: int, slides: Callable[[int], bool]
) -> tuple[str, ...]:
    """Return `FULL` or `SLIDING` for each layer, from ``layer_types`` or, without it, `slides`."""
    listed = read.listed("layer_types", (FULL, SLIDING))
    if listed is None:
        return tuple(SLIDING if slides(number) else FULL for number in range(n_layers))
    read.require(
        len(listed) == n_layers,
        f"layer_types lists {len(listed)} layers, but num_hidden_layers is {n_layers}",
    )
    return tuple((listed + [FULL] * n_layers)[:n_layers])


def masks(read: HfConfig, layer_types: tuple[str, ...], sliding: Mask) -> tuple[Mask, ...]:
    """Return the mask of each layer; `sliding` is that of layers of type `SLIDING`."""
    read.require(
        isinstance(sliding, Window) or SLIDING not in layer_types,
        "layer_types has sliding_attention, but sliding_window, its width, is off",
    )
    return tuple(sliding if kind == SLIDING else Causal() for kind in layer_types)


def read_mask(read: HfConfig, default: int | None) -> Mask:
    """Return the mask that ``sliding_window`` sets; null means no window, absence `default`."""
    if read.null("sliding_window") or not (read.has("sliding_window") or default):
        read.only("sliding_window", (), "expected a number of keys")
        return Causal()
    return Window(size=read.integer("sliding_window", default))


def read_switched_masks(read: HfConfig, n_layers: int) -> tuple[Mask, ...]:
    """Return the masks of a family that has ``use_sliding_window`` and ``max_window_layers``.

    Source: transformers 5.23.0 ``models/qwen2/configuration_qwen2.py``.
    """
    given = read_mask(read, 4096)
    sliding = given if read.flag("use_sliding_window", False) else Causal()
    first = read.count("max_window_layers", 28)
    slides = isinstance(sliding, Window)
    types = read_layer_types(read, n_layers, lambda number: slides and number >= first)
    return masks(read, types, sliding)
