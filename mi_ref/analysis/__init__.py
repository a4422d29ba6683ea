"""Questions to a model, one per file, each answered by a value that prints, plots and saves.

Names load on first use. Many a function is called as its file, ``ablation`` in ``ablation.py``:
here the name is always the function, whoever imported the file before.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mi_ref.analysis import metrics as metrics
    from mi_ref.analysis.ablation.dataset import dataset_ablation as dataset_ablation
    from mi_ref.analysis.ablation.dataset_effects import (
        DatasetAblation as DatasetAblation,
        PartEffects as PartEffects,
        Spread as Spread,
    )
    from mi_ref.analysis.ablation.prompt import Ablation as Ablation, ablation as ablation
    from mi_ref.analysis.attention.calibration import (
        Calibration as Calibration,
        calibrate as calibrate,
    )
    from mi_ref.analysis.attention.dose_response import (
        AttentionDoseResponse as AttentionDoseResponse,
    )
    from mi_ref.analysis.attention.doses import (
        attention_dose_response as attention_dose_response,
    )
    from mi_ref.analysis.attention.heads import HeadScores as HeadScores, head_scores as head_scores
    from mi_ref.analysis.attention.knockout import (
        AttentionKnockout as AttentionKnockout,
        attention_knockout as attention_knockout,
    )
    from mi_ref.analysis.attention.knockout_grid import (
        KnockoutGrid as KnockoutGrid,
        knockout_grid as knockout_grid,
    )
    from mi_ref.analysis.attention.patterns import (
        AttentionPatterns as AttentionPatterns,
        attention_patterns as attention_patterns,
    )
    from mi_ref.analysis.attention.repeated_tokens import repeated_tokens as repeated_tokens
    from mi_ref.analysis.facts.block_pairs import (
        BlockPatchingPairs as BlockPatchingPairs,
        block_patching_pairs as block_patching_pairs,
    )
    from mi_ref.analysis.facts.pairs import FactPair as FactPair, LeftOut as LeftOut
    from mi_ref.analysis.facts.pairs_file import read_fact_pairs as read_fact_pairs
    from mi_ref.analysis.facts.routing import (
        FactualRouting as FactualRouting,
        factual_routing as factual_routing,
    )
    from mi_ref.analysis.facts.routing_pairs import (
        FactualRoutingPairs as FactualRoutingPairs,
        factual_routing_pairs as factual_routing_pairs,
    )
    from mi_ref.analysis.geometry.helix import (
        CharacterHelix as CharacterHelix,
        character_helix as character_helix,
    )
    from mi_ref.analysis.geometry.pca import Pca as Pca, pca as pca
    from mi_ref.analysis.geometry.probes import Probes as Probes, linear_probes as linear_probes
    from mi_ref.analysis.geometry.token_positions import (
        TokenPositions as TokenPositions,
        convert_positions as convert_positions,
        label_spans as label_spans,
        token_positions as token_positions,
    )
    from mi_ref.analysis.lens.logit_lens import logit_lens as logit_lens
    from mi_ref.analysis.lens.result import Cell as Cell, LogitLens as LogitLens
    from mi_ref.analysis.measure.comparison import (
        Change as Change,
        Comparison as Comparison,
        compare as compare,
    )
    from mi_ref.analysis.patching.activations import (
        activation_patching as activation_patching,
        head_patching as head_patching,
        neuron_patching as neuron_patching,
    )
    from mi_ref.analysis.patching.blocks import (
        BlockPatching as BlockPatching,
        block_patching as block_patching,
    )
    from mi_ref.analysis.patching.grid import PatchingGrid as PatchingGrid
    from mi_ref.analysis.patching.paths import path_patching as path_patching
    from mi_ref.analysis.patching.routes import Receiver as Receiver
    from mi_ref.analysis.patching.tracing import (
        CausalTrace as CausalTrace,
        causal_tracing as causal_tracing,
    )
    from mi_ref.analysis.recurrent.depth_loop import Feedback as Feedback
    from mi_ref.analysis.recurrent.effective_attention import (
        effective_attention as effective_attention,
        mix_by_recurrence as mix_by_recurrence,
        relu_l1 as relu_l1,
    )
    from mi_ref.analysis.recurrent.feedback import (
        RecurrentFeedback as RecurrentFeedback,
        embedding_direction as embedding_direction,
        generate_with_feedback as generate_with_feedback,
        recurrent_feedback as recurrent_feedback,
    )
    from mi_ref.analysis.recurrent.grid import StateGrid as StateGrid
    from mi_ref.analysis.recurrent.reads import StateReads as StateReads, state_reads as state_reads
    from mi_ref.analysis.recurrent.state import (
        HalfLives as HalfLives,
        StateNorms as StateNorms,
        half_lives as half_lives,
        state_norms as state_norms,
    )
    from mi_ref.analysis.recurrent.sweeps import (
        state_knockout_sweep as state_knockout_sweep,
        state_patching as state_patching,
        state_steering_sweep as state_steering_sweep,
    )
    from mi_ref.analysis.residual.accumulated import (
        AccumulatedResidual as AccumulatedResidual,
        accumulated_residual as accumulated_residual,
    )
    from mi_ref.analysis.residual.decomposition import (
        ResidualDecomposition as ResidualDecomposition,
        residual_decomposition as residual_decomposition,
    )
    from mi_ref.analysis.residual.logits import (
        LogitAttribution as LogitAttribution,
        logit_attribution as logit_attribution,
    )
    from mi_ref.analysis.steering.convergence import (
        SteeringConvergence as SteeringConvergence,
        steering_convergence as steering_convergence,
    )
    from mi_ref.analysis.steering.doses import (
        DoseResponse as DoseResponse,
        dose_response as dose_response,
    )
    from mi_ref.analysis.steering.vector import (
        SteeringVector as SteeringVector,
        steering_vector as steering_vector,
    )
    from mi_ref.analysis.sweeps.sweep import Sweep as Sweep, SweepCell as SweepCell, sweep as sweep

_NAMES = {
    "ablation": ("Ablation", "ablation"),
    "accumulated_residual": ("AccumulatedResidual", "accumulated_residual"),
    "activation_patching": ("activation_patching", "head_patching", "neuron_patching"),
    "attention_calibration": ("Calibration", "calibrate"),
    "attention_doses": ("AttentionDoseResponse",),
    "attention_knockout": ("AttentionKnockout", "attention_knockout"),
    "attention_patterns": ("AttentionPatterns", "attention_patterns"),
    "attention_steering": ("attention_dose_response",),
    "block_pairs": ("BlockPatchingPairs", "block_patching_pairs"),
    "block_patching": ("BlockPatching", "block_patching"),
    "causal_tracing": ("CausalTrace", "causal_tracing"),
    "character_helix": ("CharacterHelix", "character_helix"),
    "comparison": ("Change", "Comparison", "compare"),
    "dataset_ablation": ("dataset_ablation",),
    "dataset_effects": ("DatasetAblation", "PartEffects", "Spread"),
    "depth_loop": ("Feedback",),
    "effective_attention": ("effective_attention", "mix_by_recurrence", "relu_l1"),
    "fact_pairs": ("FactPair", "LeftOut"),
    "fact_pairs_file": ("read_fact_pairs",),
    "factual_routing": ("FactualRouting", "factual_routing"),
    "head_detectors": ("HeadScores", "head_scores"),
    "knockout_grid": ("KnockoutGrid", "knockout_grid"),
    "lens": ("Cell", "LogitLens"),
    "logit_attribution": ("LogitAttribution", "logit_attribution"),
    "logit_lens": ("logit_lens",),
    "patching_grid": ("PatchingGrid",),
    "path_patching": ("path_patching",),
    "path_routes": ("Receiver",),
    "pca": ("Pca", "pca"),
    "probes": ("Probes", "linear_probes"),
    "recurrent_feedback": (
        "RecurrentFeedback",
        "embedding_direction",
        "generate_with_feedback",
        "recurrent_feedback",
    ),
    "repeated_tokens": ("repeated_tokens",),
    "residual_decomposition": ("ResidualDecomposition", "residual_decomposition"),
    "routing_pairs": ("FactualRoutingPairs", "factual_routing_pairs"),
    "rwkv_reads": ("StateReads", "state_reads"),
    "rwkv_state": ("HalfLives", "StateNorms", "half_lives", "state_norms"),
    "rwkv_state_sweeps": ("state_knockout_sweep", "state_patching", "state_steering_sweep"),
    "state_grid": ("StateGrid",),
    "steering": ("SteeringVector", "steering_vector"),
    "steering_convergence": ("SteeringConvergence", "steering_convergence"),
    "steering_doses": ("DoseResponse", "dose_response"),
    "sweep": ("Sweep", "SweepCell", "sweep"),
    "token_positions": ("TokenPositions", "convert_positions", "label_spans", "token_positions"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted([*_HOME, "metrics"])


class _Analyses(ModuleType):
    """The package, in which Python would bind a file's name to the file once it is imported."""

    def __getattr__(self, name: str) -> Any:
        if name == "metrics":
            return import_module(f"{self.__name__}.metrics")
        if name not in _HOME:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}.")
        value = getattr(import_module(f"{self.__name__}.{_HOME[name]}"), name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _HOME.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return list(__all__)


# Type checkers know the names from the imports above; this would make every name exist for them.
if not TYPE_CHECKING:
    sys.modules[__name__].__class__ = _Analyses
