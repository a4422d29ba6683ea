"""Questions to a model, one per file, each answered by a value that prints, plots and saves."""

from __future__ import annotations

from mi_ref.analysis import metrics
from mi_ref.analysis.ablation import Ablation, ablation
from mi_ref.analysis.activation_patching import (
    activation_patching,
    head_patching,
    neuron_patching,
)
from mi_ref.analysis.attention_calibration import Calibration, calibrate
from mi_ref.analysis.attention_doses import AttentionDoseResponse
from mi_ref.analysis.attention_knockout import AttentionKnockout, attention_knockout
from mi_ref.analysis.attention_patterns import AttentionPatterns, attention_patterns
from mi_ref.analysis.attention_steering import attention_dose_response
from mi_ref.analysis.block_patching import BlockPatching, block_patching
from mi_ref.analysis.causal_tracing import CausalTrace, causal_tracing
from mi_ref.analysis.character_helix import CharacterHelix, character_helix
from mi_ref.analysis.comparison import Change, Comparison, compare
from mi_ref.analysis.depth_loop import Feedback
from mi_ref.analysis.effective_attention import effective_attention, mix_by_recurrence, relu_l1
from mi_ref.analysis.factual_routing import FactualRouting, factual_routing
from mi_ref.analysis.head_detectors import HeadScores, head_scores
from mi_ref.analysis.knockout_grid import KnockoutGrid, knockout_grid
from mi_ref.analysis.lens import Cell, LogitLens
from mi_ref.analysis.logit_attribution import LogitAttribution, logit_attribution
from mi_ref.analysis.logit_lens import logit_lens
from mi_ref.analysis.patching_grid import PatchingGrid
from mi_ref.analysis.pca import Pca, pca
from mi_ref.analysis.probes import Probes, linear_probes
from mi_ref.analysis.recurrent_feedback import (
    RecurrentFeedback,
    embedding_direction,
    generate_with_feedback,
    recurrent_feedback,
)
from mi_ref.analysis.repeated_tokens import repeated_tokens
from mi_ref.analysis.residual_decomposition import (
    ResidualDecomposition,
    residual_decomposition,
)
from mi_ref.analysis.rwkv_reads import StateReads, state_reads
from mi_ref.analysis.rwkv_state import HalfLives, StateNorms, half_lives, state_norms
from mi_ref.analysis.rwkv_state_sweeps import StateGrid, state_knockout_sweep, state_patching
from mi_ref.analysis.steering import SteeringVector, steering_vector
from mi_ref.analysis.steering_convergence import SteeringConvergence, steering_convergence
from mi_ref.analysis.steering_doses import DoseResponse, dose_response
from mi_ref.analysis.sweep import Sweep, SweepCell, sweep
from mi_ref.analysis.token_positions import (
    TokenPositions,
    convert_positions,
    label_spans,
    token_positions,
)

__all__ = [
    "Ablation",
    "AttentionDoseResponse",
    "AttentionKnockout",
    "AttentionPatterns",
    "BlockPatching",
    "Calibration",
    "CausalTrace",
    "Cell",
    "Change",
    "CharacterHelix",
    "Comparison",
    "DoseResponse",
    "FactualRouting",
    "Feedback",
    "HalfLives",
    "HeadScores",
    "KnockoutGrid",
    "LogitAttribution",
    "LogitLens",
    "PatchingGrid",
    "Pca",
    "Probes",
    "RecurrentFeedback",
    "ResidualDecomposition",
    "StateGrid",
    "StateNorms",
    "StateReads",
    "SteeringConvergence",
    "SteeringVector",
    "Sweep",
    "SweepCell",
    "TokenPositions",
    "ablation",
    "activation_patching",
    "attention_dose_response",
    "attention_knockout",
    "attention_patterns",
    "block_patching",
    "calibrate",
    "causal_tracing",
    "character_helix",
    "compare",
    "convert_positions",
    "dose_response",
    "effective_attention",
    "embedding_direction",
    "factual_routing",
    "generate_with_feedback",
    "half_lives",
    "head_patching",
    "head_scores",
    "knockout_grid",
    "label_spans",
    "linear_probes",
    "logit_attribution",
    "logit_lens",
    "metrics",
    "mix_by_recurrence",
    "neuron_patching",
    "pca",
    "recurrent_feedback",
    "relu_l1",
    "repeated_tokens",
    "residual_decomposition",
    "state_knockout_sweep",
    "state_norms",
    "state_patching",
    "state_reads",
    "steering_convergence",
    "steering_vector",
    "sweep",
    "token_positions",
]
