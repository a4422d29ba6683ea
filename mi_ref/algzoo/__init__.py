"""AlgZoo's tiny networks taken apart: loaded, asked, standardised, cut, probed and counted.

An RNN of ten weights finds the place of the second largest of two numbers; a transformer of 176
measures the longest cycle of a function. `load` reads one, `report` says everything at once, and
each question has a function of its own. See https://github.com/alignment-research-center/alg-zoo.
"""

from __future__ import annotations

from mi_ref.algzoo.ablation import Cut, ablate
from mi_ref.algzoo.activation_patterns import (
    PatternCounts,
    count_patterns,
    linear_map,
    patterns,
)
from mi_ref.algzoo.attention import Attention
from mi_ref.algzoo.networks import Network
from mi_ref.algzoo.plane import Region, regions
from mi_ref.algzoo.probing import Role, probe
from mi_ref.algzoo.reports import AlgZooReport, report
from mi_ref.algzoo.rnn import Rnn
from mi_ref.algzoo.scores import ClassScore, Surprise, ValueScore, score, surprise
from mi_ref.algzoo.standard_form import standardise
from mi_ref.algzoo.tasks import TASKS, Task, argmedian, longest_cycle, median, second_argmax
from mi_ref.algzoo.weight_files import BUNDLED, load

__all__ = [
    "BUNDLED",
    "TASKS",
    "AlgZooReport",
    "Attention",
    "ClassScore",
    "Cut",
    "Network",
    "PatternCounts",
    "Region",
    "Rnn",
    "Role",
    "Surprise",
    "Task",
    "ValueScore",
    "ablate",
    "argmedian",
    "count_patterns",
    "linear_map",
    "load",
    "longest_cycle",
    "median",
    "patterns",
    "probe",
    "regions",
    "report",
    "score",
    "second_argmax",
    "standardise",
    "surprise",
]
