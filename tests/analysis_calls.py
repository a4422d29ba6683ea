"""Every analysis called on token ids, few and short: one line for each, and for variants of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from mi_ref import Model, analysis as a, at, do
from mi_ref.analysis import metrics

Call: TypeAlias = Callable[[Model], Any]
IDS, OTHER = [3, 7, 11, 5, 9, 20], [3, 7, 12, 5, 9, 20]
PAIR = a.FactPair(IDS, OTHER, answer=3, other=4)
EDGE: dict[str, Any] = {"source_edge": (-1, 4), "target_edge": (-1, 5)}
_GATES = (at.rwkv_r, at.rwkv_k, at.rwkv_v, at.rwkv_decay, at.rwkv_a, at.rwkv_kk)


def difference(model: Model) -> metrics.LogitDifference:
    return metrics.logit_difference(model, 3, 4)


def vector(model: Model) -> a.SteeringVector:
    return a.steering_vector(model, [IDS], [OTHER], at.resid_post[0], position=2)


def turning(model: Model) -> a.BlockPatchingPairs:
    """Return as answers the two tokens whose difference changes most between two prompts."""
    first, second = (model.run(ids).logits_at() for ids in (IDS, OTHER))
    order = sorted(range(model.cfg.d_vocab), key=lambda n: float(first[n] - second[n]))
    choices = ((n, m) for n in order[::-1] for m in order if first[n] > first[m])
    answer, other = next((n, m) for n, m in choices if second[n] < second[m])
    return a.block_patching_pairs(model, [a.FactPair(IDS, OTHER, answer=answer, other=other)])


def matrix(model: Model) -> Any:
    return a.effective_attention(model.run(IDS, capture=[at.rwkv_effective_attn[1]]), 1)


def mixed(model: Model) -> Any:
    points = [site[1] for site in _GATES]
    there = [point for point in points if model.hook_points.absence(point) is None]
    run = model.run(IDS, capture=there)
    values = run[at.rwkv_v[1]] if model.cfg.recurrent else model.params.embed[None, :6, None, :]
    return a.mix_by_recurrence(run, 1, values)


CALLS: dict[str, Call] = {
    "ablation": lambda m: a.ablation(m, IDS, what="attn", target=3),
    "ablation heads": lambda m: a.ablation(m, IDS, layers=[0]),
    "ablation neurons": lambda m: a.ablation(m, IDS, what="neuron", layers=[1], indices=[0, 1]),
    "accumulated_residual": lambda m: a.accumulated_residual(m, IDS, 3, 4),
    "accumulated_residual mid": lambda m: a.accumulated_residual(m, IDS, 3, mid=True),
    "activation_patching": lambda m: a.activation_patching(
        m, IDS, OTHER, positions=[2], metric=difference(m)
    ),
    "activation_patching mid": lambda m: a.activation_patching(
        m, IDS, OTHER, site=at.resid_mid, positions=[2], metric=difference(m)
    ),
    "attention_dose_response": lambda m: a.attention_dose_response(m, IDS, key=4, factors=[0.5]),
    "attention_knockout": lambda m: a.attention_knockout(m, IDS, keys=4),
    "attention_patterns": lambda m: a.attention_patterns(m, IDS),
    "block_patching": lambda m: a.block_patching(m, IDS, OTHER, answer=3, other=4),
    "block_patching_pairs": turning,
    "calibrate": lambda m: a.calibrate(m, IDS, OTHER, **EDGE),
    "causal_tracing": lambda m: a.causal_tracing(m, IDS, subject=[2], draws=1, positions=[2, 5]),
    "compare": lambda m: a.compare(m.run(IDS), m.run(OTHER)),
    "dataset_ablation": lambda m: a.dataset_ablation(m, [IDS, OTHER], what="mlp", method="mean"),
    "dataset_ablation heads": lambda m: a.dataset_ablation(m, [IDS, OTHER], layers=[0]),
    "dose_response": lambda m: a.dose_response(m, IDS, vector(m), [1.0]),
    "effective_attention": matrix,
    "factual_routing": lambda m: a.factual_routing(m, IDS, OTHER, layers=[0]),
    "factual_routing_pairs": lambda m: a.factual_routing_pairs(m, [PAIR], layers=[0]),
    "generate_with_feedback": lambda m: a.generate_with_feedback(m, IDS, 2, loop=(0, 1)),
    "half_lives": lambda m: a.half_lives(m, IDS),
    "head_patching": lambda m: a.head_patching(
        m, IDS, OTHER, layers=[0], positions=[2], metric=difference(m)
    ),
    "head_scores": lambda m: a.head_scores(m, period=4, n_prompts=1),
    "knockout_grid": lambda m: a.knockout_grid(m, IDS, keys=[4]),
    "linear_probes": lambda m: a.linear_probes(
        m, [IDS, OTHER, IDS[2:], OTHER[2:]], [0, 1, 0, 1], layers=[0], position=0, held_out=0.5
    ),
    "logit_attribution": lambda m: a.logit_attribution(m, IDS, 3, 4),
    "logit_attribution heads": lambda m: a.logit_attribution(m, IDS, 3, 4, by="head"),
    "logit_attribution neurons": lambda m: a.logit_attribution(m, IDS, 3, 4, by="neuron"),
    "logit_lens": lambda m: a.logit_lens(m, IDS, positions=-1),
    "mix_by_recurrence": mixed,
    "neuron_patching": lambda m: a.neuron_patching(
        m, IDS, OTHER, layer=0, neurons=[0], positions=2, metric=difference(m)
    ),
    "path_patching": lambda m: a.path_patching(m, IDS, OTHER, metric=difference(m)),
    "path_patching values": lambda m: a.path_patching(
        m, IDS, OTHER, receivers=a.Receiver(at.v[1]), metric=difference(m)
    ),
    "path_patching MLPs": lambda m: a.path_patching(
        m, IDS, OTHER, senders="mlp", receivers=a.Receiver(at.mlp_in[1]), metric=difference(m)
    ),
    "pca": lambda m: a.pca(m, m.params.embed[:5, :]),
    "recurrent_feedback": lambda m: a.recurrent_feedback(m, IDS, loop=(0, 1)),
    "relu_l1": lambda m: a.relu_l1(matrix(m), xp=m.backend.xp),
    "repeated_tokens": lambda m: a.repeated_tokens(m, 4, 2),
    "residual_decomposition": lambda m: a.residual_decomposition(m, IDS),
    "residual_decomposition heads": lambda m: a.residual_decomposition(m, IDS, heads=True),
    "residual_decomposition neurons": lambda m: a.residual_decomposition(m, IDS, neurons=[0]),
    "state_knockout_sweep": lambda m: a.state_knockout_sweep(m, IDS, positions=[2]),
    "state_norms": lambda m: a.state_norms(m, IDS, positions=[2]),
    "state_patching": lambda m: a.state_patching(m, IDS, OTHER, [4], layers=[0]),
    "state_reads": lambda m: a.state_reads(m, IDS),
    "state_steering_sweep": lambda m: a.state_steering_sweep(m, IDS, [0.5], positions=[2]),
    "steering_convergence": lambda m: a.steering_convergence(
        m, IDS, OTHER, position=2, strengths=[2.0]
    ),
    "steering_vector": vector,
    "sweep": lambda m: a.sweep(m, IDS, [a.SweepCell(((at.mlp_out[0], do.zero()),))], difference(m)),
}
"""By what is called; a word after the name says which way."""

TEXT = "The capital of France is"
TEXT_CALLS: dict[str, Call] = {
    "character_helix": lambda m: a.character_helix(
        m, "people in France speak French. " * 3, layer=0, widths=(20,)
    ),
    "convert_positions": lambda m: a.convert_positions(m.tokenizer.encode(TEXT), [14]),
    "embedding_direction": lambda m: a.embedding_direction(m, [" moon", " spoon"]),
    "label_spans": lambda m: a.label_spans(m.tokenizer.encode(TEXT), [("subject", (14, 21))]),
    "token_positions": lambda m: a.token_positions(m, TEXT, {"subject": " France"}),
}
"""Those that read text, for models with a tokenizer."""
