"""Arguments of analyses that users often get wrong, and valid ones for each analysis."""

from __future__ import annotations

import inspect
from typing import Any

from analysis_calls import IDS, OTHER, difference, vector

from mi_ref import analysis, at, do

PAIR = {"clean": IDS, "corrupted": OTHER, "metric": difference}
CALLS: dict[str, dict[str, Any]] = {
    "ablation": {"prompt": IDS, "target": 3, "other": 4},
    "accumulated_residual": {"prompt": IDS, "target": 3, "other": 4},
    "activation_patching": PAIR,
    "attention_dose_response": {"prompt": IDS, "layer": 1, "factors": [0.5], "target": 3},
    "attention_knockout": {"prompt": IDS, "target": 3},
    "attention_patterns": {"prompt": IDS},
    "block_patching": {"prompt": IDS, "counterfactual": OTHER, "answer": 3, "other": 4},
    "causal_tracing": {"prompt": IDS, "subject": [2], "draws": 1, "target": 3, "layers": [0]},
    "dataset_ablation": {"prompts": [IDS, OTHER], "layers": [0]},
    "dose_response": {"prompt": IDS, "vector": vector, "scales": [0.5], "target": 3},
    "factual_routing": {"prompt": IDS, "counterfactual": OTHER},
    "head_patching": {**PAIR, "layers": [0]},
    "head_scores": {"prompt": [3, 4, 5, 3, 4, 5]},
    "knockout_grid": {"prompt": IDS, "target": 3},
    "logit_attribution": {"prompt": IDS, "target": 3, "other": 4},
    "logit_lens": {"prompt": IDS, "target": 3},
    "neuron_patching": {**PAIR, "layer": 0, "neurons": [0]},
    "path_patching": PAIR,
    "recurrent_feedback": {"prompt": IDS, "loop": (0, 1)},
    "residual_decomposition": {"prompt": IDS},
    "steering_convergence": {"prompt": IDS, "contrast": OTHER, "target": 3, "strengths": [1.0]},
    "sweep": {
        "prompt": IDS,
        "cells": [analysis.SweepCell(((at.mlp_out[0], do.zero()),))],
        "metric": difference,
    },
    # The rest are calls on a recurrent model.
    "half_lives": {"prompt": IDS},
    "state_knockout_sweep": {"prompt": IDS, "target": 3},
    "state_norms": {"prompt": IDS},
    "state_patching": {"prompt": IDS, "source": OTHER, "after": [4], "target": 3},
    "state_reads": {"prompt": IDS},
    "state_steering_sweep": {"prompt": IDS, "scales": [0.5], "target": 3},
}
RECURRENT = ("half_lives", "state_")
PLACES = ("layers", "positions", "heads", "queries", "keys", "indices", "neurons", "subject")
ONE_PLACE = ("layer", "position", "query", "key")
TOKENS = ("target", "other", "answer")
OF_ANOTHER_KIND = {("residual_decomposition", "heads"), ("head_scores", "prompt")}
"""Whether to split by head; and any number of prompts."""
COUNTS = ("draws", "block_size", "top", "depth", "window", "seed", "period", "n_prompts", "rows")
PROMPTS = ("prompt", "clean", "corrupted", "counterfactual", "contrast", "source", "after")


def arguments(*names: str) -> list[tuple[str, str]]:
    """Return every analysis with those of its parameters that have one of these names."""
    return [
        (call, name)
        for call in CALLS
        for name in names
        if name in inspect.signature(getattr(analysis, call)).parameters
        if (call, name) not in OF_ANOTHER_KIND
    ]
