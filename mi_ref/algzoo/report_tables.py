"""A report on one of AlgZoo's networks as tables and in a sentence."""

from __future__ import annotations

from mi_ref.algzoo.ablation import Cut
from mi_ref.algzoo.findings import Findings
from mi_ref.algzoo.rnn import Rnn
from mi_ref.algzoo.scores import WEIGHT_BITS, ClassScore, Surprise, ValueScore
from mi_ref.output.tables import Table

_PAIRS = 5
_ROLES = 3


def all_tables(report: Findings) -> list[Table]:
    """Return every table that has something to say."""
    tables = [summary(report), _weights(report), _cuts(report), _roles(report), _regions(report)]
    return [table for table in tables if len(table)]


def conclusion(report: Findings) -> str:
    """Return what it comes to."""
    worst = max((cut for cut in report.cuts if len(cut.parts) == 1), key=lambda cut: cut.loss)
    part = report.network.parts[worst.parts[0]]
    return f"{_quality(report.score)}; without {part} {_quality(worst.score)}."


def summary(report: Findings) -> Table:
    """Return how well it answers, in counts and bits."""
    found, weights = report.score, report.network.n_weights
    kind = "functions" if report.task.functions else "normal inputs"
    drawn = "all" if report.seed is None else f"seed {report.seed}"
    table = Table(["what", "found"], f"{report.task.name} of {report.n} numbers, {weights} weights")
    table.add("inputs", f"{found.count:,} {kind}, {drawn}")
    table.add("answers", _quality(found))
    if isinstance(found, ValueScore):
        table.add("root mean square error", f"{found.error**0.5:.4g}")
    if bits := report.surprise:
        table.add("surprise", f"{bits.network / bits.count:.3g} bits a label; guessing"
                  f" {bits.guessing / bits.count:.3g}, frequencies"
                  f" {bits.frequencies / bits.count:.3g}")  # fmt: skip
        each = f"{bits.per_weight:,.{0 if abs(bits.per_weight) >= 100 else 2}f} a weight"
        table.add("bits explained", f"{bits.explained:,.0f} of {bits.guessing:,.0f}, {each}")
        table.add("labels that pay for the weights", _paying(bits, whole=report.seed is None))
    if report.regions:
        table.add("linear regions", f"{len(report.regions)}, all that there are")
    if report.patterns:
        met = len(report.patterns.counts)
        table.add("activation patterns met", f"{met:,}, a lower bound")
    return table


def _paying(bits: Surprise, *, whole: bool) -> str:
    if bits.explained <= 0:
        return "none: guessing is as short"
    few = ", more than there are" if whole and bits.break_even > bits.count else ""
    return f"{bits.break_even:,.0f} at {WEIGHT_BITS} bits a weight{few}"


def _quality(found: ClassScore | ValueScore) -> str:
    if isinstance(found, ClassScore):
        return f"{found.right:,} of {found.count:,} right ({found.quality:.2%})"
    return f"{found.quality:.2%} of the variance explained"


def _weights(report: Findings) -> Table:
    """Return an RNN's weights by neuron, standardised where they can be."""
    network = report.standard or report.network
    title = "weights, each input weight 1 or -1" if report.standard else "weights"
    if not isinstance(report.network, Rnn):
        return Table([])
    w_ih, w_hh, w_oh = (network.backend.to_host(w).tolist() for w in network.weights.values())
    neurons, answers = range(len(w_hh)), range(len(w_oh))
    heads = [f">from {j}" for j in neurons] + [f">to answer {j}" for j in answers]
    table = Table([">neuron", ">from input", *heads], title)
    for j in neurons:
        row = [*w_ih[j], *w_hh[j], *(weights[j] for weights in w_oh)]
        table.add(j, *(f"{weight:+.3f}" for weight in row))
    return table


def _cuts(report: Findings) -> Table:
    """Return each part, and the pairs that interact most."""
    share = ">accuracy" if report.task.classes else ">explained"
    table = Table(["silent", share, ">surprise", ">lost", ">interaction"],
                  f"{report.score.quality:.4f} with nothing silent")  # fmt: skip
    pairs = sorted((cut for cut in report.cuts if cut.interaction is not None), key=_strength)
    for cut in [cut for cut in report.cuts if cut.interaction is None] + pairs[:_PAIRS]:
        names = [report.network.parts[part] for part in cut.parts]
        bits = f"{cut.score.surprise:.3g}" if isinstance(cut.score, ClassScore) else ""
        together = "" if cut.interaction is None else f"{cut.interaction:+.4f}"
        table.add(" + ".join(names), f"{cut.score.quality:.4f}", bits, f"{cut.loss:+.4f}", together)
    return table


def _strength(cut: Cut) -> float:
    return -abs(cut.interaction or 0.0)


def _roles(report: Findings) -> Table:
    """Return what each neuron holds at the end."""
    table = Table([">neuron", "role", "correlations"], "what neurons hold after the last number")
    for role in report.roles:
        best = ", ".join(f"{name} {value:+.3f}" for name, value in role.correlations[:_ROLES])
        table.add(role.neuron, role.name, best)
    return table


def _regions(report: Findings) -> Table:
    """Return the plane's regions, counter-clockwise."""
    answers = [f">answer {row}" for row in range(report.network.n_answers)]
    table = Table([">region", ">from", ">to", ">inputs", *answers], "linear regions, in degrees")
    for number, region in enumerate(report.regions):
        stop = (region.start + region.width) % 360
        rows = (f"{float(a):+.2f} x0 {float(b):+.2f} x1" for a, b in region.matrix)
        share = f"{region.width / 360:.2%}"
        table.add(number, f"{region.start:.2f}", f"{stop:.2f}", share, *rows)
    return table
