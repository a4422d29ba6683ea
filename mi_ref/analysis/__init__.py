"""Questions to a model, one per file, each answered by a value that prints, plots and saves."""

from __future__ import annotations

from mi_ref.analysis.effective_attention import effective_attention, mix_by_recurrence, relu_l1
from mi_ref.analysis.lens import Cell, LogitLens
from mi_ref.analysis.logit_lens import logit_lens

__all__ = [
    "Cell",
    "LogitLens",
    "effective_attention",
    "logit_lens",
    "mix_by_recurrence",
    "relu_l1",
]
