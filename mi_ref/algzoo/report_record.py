"""A report on one of AlgZoo's networks as a record for JSON, the weights included."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from mi_ref.algzoo.activation_patterns import PatternCounts
from mi_ref.algzoo.findings import Findings
from mi_ref.algzoo.networks import Network
from mi_ref.algzoo.scores import ClassScore, Surprise, ValueScore
from mi_ref.checkpoints.source import versions


def record(report: Findings) -> dict[str, Any]:
    """Return everything, with what it takes to repeat it; maps of regions in floats."""
    return {
        "format": "mi_ref.algzoo/1",
        "provenance": _provenance(report.network, report.seed),
        "task": report.task.name,
        "n": report.n,
        "weights": _weights(report.network),
        "standardised": _weights(report.standard) if report.standard else None,
        "score": _score(report.score),
        "surprise": _surprise(report.surprise) if report.surprise else None,
        "cuts": [asdict(cut) | {"score": _score(cut.score)} for cut in report.cuts],
        "roles": [asdict(role) for role in report.roles],
        "patterns": _patterns(report.patterns) if report.patterns else None,
        "regions": [
            asdict(region) | {"matrix": [list(map(float, row)) for row in region.matrix]}
            for region in report.regions
        ],
        "attention": report.attention,
    }


def _patterns(found: PatternCounts) -> dict[str, Any]:
    """Return each pattern as a word per step, with a 1 for each open relu."""
    counts = {
        " ".join("".join(map(str, map(int, step))) for step in pattern): count
        for pattern, count in found.counts
    }
    return {"counts": counts, "possible": found.possible, "gap": found.gap}


def _score(found: ClassScore | ValueScore) -> dict[str, Any]:
    return asdict(found) | {"quality": found.quality}


def _surprise(found: Surprise) -> dict[str, Any]:
    derived = ("explained", "per_weight", "break_even")
    return asdict(found) | {name: getattr(found, name) for name in derived}


def _weights(network: Network) -> dict[str, Any]:
    host = network.backend.to_host
    return {name: host(weight).tolist() for name, weight in network.weights.items()}


def _provenance(network: Network, seed: int | None) -> dict[str, Any]:
    backend, source = network.backend, network.source
    return {
        "model": source.name if source else None,
        "weights_sha256": source.sha256() if source else None,
        "model_type": type(network).__name__,
        "backend": backend.name,
        "device": str(next(iter(network.weights.values())).device),
        "dtype": str(network.dtype).rpartition(".")[2],
        "seed": seed,
        "versions": versions(backend),
    }
