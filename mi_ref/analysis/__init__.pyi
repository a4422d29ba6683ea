from .ablation.dataset import dataset_ablation as dataset_ablation
from .ablation.dataset_effects import (
    DatasetAblation as DatasetAblation,
    PartEffects as PartEffects,
    Spread as Spread,
)
from .ablation.prompt import Ablation as Ablation, ablation as ablation
from .attention.calibration import Calibration as Calibration, calibrate as calibrate
from .attention.dose_response import AttentionDoseResponse as AttentionDoseResponse
from .attention.doses import attention_dose_response as attention_dose_response
from .attention.heads import HeadScores as HeadScores, head_scores as head_scores
from .attention.knockout import (
    AttentionKnockout as AttentionKnockout,
    attention_knockout as attention_knockout,
)
from .attention.knockout_grid import KnockoutGrid as KnockoutGrid, knockout_grid as knockout_grid
from .attention.patterns import (
    AttentionPatterns as AttentionPatterns,
    attention_patterns as attention_patterns,
)
from .attention.repeated_tokens import repeated_tokens as repeated_tokens
from .facts.block_pairs import (
    BlockPatchingPairs as BlockPatchingPairs,
    block_patching_pairs as block_patching_pairs,
)
from .facts.pairs import FactPair as FactPair, LeftOut as LeftOut
from .facts.pairs_file import read_fact_pairs as read_fact_pairs
from .facts.routing import FactualRouting as FactualRouting, factual_routing as factual_routing
from .facts.routing_pairs import (
    FactualRoutingPairs as FactualRoutingPairs,
    factual_routing_pairs as factual_routing_pairs,
)
from .geometry.helix import CharacterHelix as CharacterHelix, character_helix as character_helix
from .geometry.pca import Pca as Pca, pca as pca
from .geometry.probes import Probes as Probes, linear_probes as linear_probes
from .geometry.token_positions import (
    TokenPositions as TokenPositions,
    convert_positions as convert_positions,
    label_spans as label_spans,
    token_positions as token_positions,
)
from .lens.logit_lens import logit_lens as logit_lens
from .lens.result import Cell as Cell, LogitLens as LogitLens
from .measure import metrics as metrics
from .measure.comparison import Change as Change, Comparison as Comparison, compare as compare
from .patching.activations import (
    activation_patching as activation_patching,
    head_patching as head_patching,
    neuron_patching as neuron_patching,
)
from .patching.blocks import BlockPatching as BlockPatching, block_patching as block_patching
from .patching.grid import PatchingGrid as PatchingGrid
from .patching.paths import path_patching as path_patching
from .patching.routes import Receiver as Receiver
from .patching.tracing import CausalTrace as CausalTrace, causal_tracing as causal_tracing
from .recurrent.depth_loop import Feedback as Feedback
from .recurrent.effective_attention import (
    effective_attention as effective_attention,
    mix_by_recurrence as mix_by_recurrence,
    relu_l1 as relu_l1,
)
from .recurrent.feedback import (
    RecurrentFeedback as RecurrentFeedback,
    embedding_direction as embedding_direction,
    generate_with_feedback as generate_with_feedback,
    recurrent_feedback as recurrent_feedback,
)
from .recurrent.grid import StateGrid as StateGrid
from .recurrent.reads import StateReads as StateReads, state_reads as state_reads
from .recurrent.state import (
    HalfLives as HalfLives,
    StateNorms as StateNorms,
    half_lives as half_lives,
    state_norms as state_norms,
)
from .recurrent.sweeps import (
    state_knockout_sweep as state_knockout_sweep,
    state_patching as state_patching,
    state_steering_sweep as state_steering_sweep,
)
from .residual.accumulated import (
    AccumulatedResidual as AccumulatedResidual,
    accumulated_residual as accumulated_residual,
)
from .residual.decomposition import (
    ResidualDecomposition as ResidualDecomposition,
    residual_decomposition as residual_decomposition,
)
from .residual.logits import (
    LogitAttribution as LogitAttribution,
    logit_attribution as logit_attribution,
)
from .steering.convergence import (
    SteeringConvergence as SteeringConvergence,
    steering_convergence as steering_convergence,
)
from .steering.doses import DoseResponse as DoseResponse, dose_response as dose_response
from .steering.vector import SteeringVector as SteeringVector, steering_vector as steering_vector
from .sweeps.sweep import Sweep as Sweep, SweepCell as SweepCell, sweep as sweep

__all__: list[str]
