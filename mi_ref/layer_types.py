"""Reading which layers see only a window of keys."""

from __future__ import annotations

from collections.abc import Callable

from mi_ref.hf_config import HfConfig

FULL, SLIDING = "full_attention", "sliding_attention"


def read_layer_types(
    read: HfConfig, n_layers: int, slides: Callable[[int], bool]
) -> tuple[str, ...]:
    """Return `FULL` or `SLIDING` for each layer: as ``layer_types`` says, or else `slides`."""
    listed = read.listed("layer_types", (FULL, SLIDING))
    if listed is None:
        return tuple(SLIDING if slides(number) else FULL for number in range(n_layers))
    read.require(
        len(listed) == n_layers,
        f"layer_types lists {len(listed)} layers; num_hidden_layers is {n_layers}",
    )
    return tuple((listed + [FULL] * n_layers)[:n_layers])


def windows(
    read: HfConfig, layer_types: tuple[str, ...], window: int | None
) -> tuple[int | None, ...]:
    """Return how many keys a query sees in each layer, itself included; None for all."""
    read.require(
        window is not None or SLIDING not in layer_types,
        "layer_types has sliding_attention, and sliding_window, its width, is off",
    )
    return tuple(window if kind == SLIDING else None for kind in layer_types)


def read_window(read: HfConfig, default: int | None) -> int | None:
    """Return ``sliding_window``: null turns it off, an absent key means `default`."""
    if read.null("sliding_window") or not (read.has("sliding_window") or default):
        read.only("sliding_window", (), "it should be a number of keys")
        return None
    return read.integer("sliding_window", default)


def read_switched_windows(read: HfConfig, n_layers: int) -> tuple[int | None, ...]:
    """Return the windows of a family that has ``use_sliding_window`` and ``max_window_layers``.

    Source: transformers 5.23.0 ``models/qwen2/configuration_qwen2.py``.
    """
    given = read_window(read, 4096)
    window = given if read.flag("use_sliding_window", False) else None
    first = read.count("max_window_layers", 28)
    types = read_layer_types(read, n_layers, lambda n: window is not None and n >= first)
    return windows(read, types, window)
