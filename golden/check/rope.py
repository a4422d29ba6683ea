"""Check that rotary scaling changes the frequencies as a golden case is meant to show."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from golden.capture.tables import FAMILIES


def check_rope(model: nn.Module, n_pos: int) -> None:
    """Check the frequencies of every kind of layer.

    Parameters
    ----------
    model : nn.Module
        After its run: dynamic and long scaling set the frequencies in the forward pass.
    n_pos : int
        Length of that run.

    Raises
    ------
    AssertionError
        If a regime is missing that the kind of scaling has, or another is there.
    """
    config: Any = model.config
    path = FAMILIES[config.model_type].rotary
    if path is None:
        return
    rotary: Any = model.get_submodule(path)
    if not isinstance(rotary.rope_type, dict):
        plain = rotary.compute_default_rope_parameters(config)[0]
        scaling = rotary.attention_scaling
        _check(rotary.inv_freq, plain, config.rope_parameters, scaling, config, n_pos)
        return
    for kind in rotary.rope_type:
        plain = rotary.compute_default_rope_parameters(config, layer_type=kind)[0]
        scaling = getattr(rotary, f"{kind}_attention_scaling")
        frequencies = getattr(rotary, f"{kind}_inv_freq")
        _check(frequencies, plain, config.rope_parameters[kind], scaling, config, n_pos)


def _check(
    frequencies: torch.Tensor,
    plain: torch.Tensor,
    parameters: dict[str, Any],
    scaling: float,
    config: Any,
    n_pos: int,
) -> None:
    if frequencies.dtype != torch.float64:
        raise AssertionError("rotary frequencies are not float64")
    ratio = frequencies.numpy() / plain.double().numpy()
    n_ctx = config.max_position_embeddings
    if parameters["rope_type"] == "longrope":
        _check_longrope(ratio, parameters, scaling, n_pos)
        return
    factor = parameters.get("factor")
    if factor is None:
        factor = n_ctx / parameters.get("original_max_position_embeddings", n_ctx)
    kept = np.isclose(ratio, 1.0, rtol=1e-12, atol=0.0)
    divided = np.isclose(ratio, 1.0 / factor, rtol=1e-12, atol=0.0) & ~kept
    regimes = {
        "kept": bool(kept.any()),
        "between": bool((~kept & ~divided).any()),
        "divided": bool(divided.any()),
    }
    found = {name for name, present in regimes.items() if present}
    wanted = {
        "default": {"kept"},
        "linear": {"divided"},
        "dynamic": {"kept", "between"} if n_pos > n_ctx else {"kept"},
        "llama3": {"kept", "between", "divided"},
        "yarn": {"kept", "between", "divided"},
    }[parameters["rope_type"]]
    if found != wanted:
        raise AssertionError(f"rope {parameters['rope_type']}: {found}, wanted {wanted}: {ratio}")


def _check_longrope(
    ratio: np.ndarray[Any, Any], parameters: dict[str, Any], scaling: float, n_pos: int
) -> None:
    beyond = n_pos > parameters["original_max_position_embeddings"]
    own, other = ("long_factor", "short_factor") if beyond else ("short_factor", "long_factor")
    if not np.allclose(ratio * parameters[own], 1.0, rtol=1e-12, atol=0.0):
        raise AssertionError(f"rope longrope: {ratio} is not one over {own} {parameters[own]}")
    if np.isclose(parameters[own], parameters[other]).any():
        raise AssertionError(f"rope longrope: {own} and {other} agree somewhere")
    if abs(scaling - 1.0) < 0.1:
        raise AssertionError(f"rope longrope: attention scaling {scaling} hardly acts")
