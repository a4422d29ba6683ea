"""Public names: listed once, sorted, documented, and importable from the top."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import mi_ref
from mi_ref import analysis
from mi_ref.errors import MiRefError
from mi_ref.hooks.sites import ALL_SITES, at

AXES = {"batch", "pos", "d_model", "head", "kv_head", "d_head", "query_pos", "key_pos", "d_mlp",
        "d_vocab", "expert", "d_key", "d_value", "1"}  # fmt: skip

# What users' code imports: a name may join these lists, and none may leave them.
NAMES = [
    "Backend",
    "BackendError",
    "Cache",
    "ConfigError",
    "GlobalSite",
    "Hook",
    "HookError",
    "HubError",
    "LayerSite",
    "LayerState",
    "MiRefError",
    "Model",
    "PairsError",
    "Run",
    "ShapeError",
    "State",
    "SweepError",
    "TokenError",
    "WeightError",
    "algzoo",
    "analysis",
    "at",
    "capture",
    "do",
    "from_pretrained",
    "get_backend",
    "inspect_checkpoint",
    "load_edits",
    "save_edits",
    "state_knockout",
    "state_steering",
    "testing",
    "token_removal",
]
ANALYSES = [
    "Ablation",
    "AccumulatedResidual",
    "AttentionDoseResponse",
    "AttentionKnockout",
    "AttentionPatterns",
    "BlockPatching",
    "BlockPatchingPairs",
    "Calibration",
    "CausalTrace",
    "Cell",
    "Change",
    "CharacterHelix",
    "Comparison",
    "DatasetAblation",
    "DoseResponse",
    "FactPair",
    "FactualRouting",
    "FactualRoutingPairs",
    "Feedback",
    "HalfLives",
    "HeadScores",
    "KnockoutGrid",
    "LeftOut",
    "LogitAttribution",
    "LogitLens",
    "PartEffects",
    "PatchingGrid",
    "Pca",
    "Probes",
    "Receiver",
    "RecurrentFeedback",
    "ResidualDecomposition",
    "Spread",
    "StateGrid",
    "StateNorms",
    "StateReads",
    "SteeringConvergence",
    "SteeringVector",
    "Sweep",
    "SweepCell",
    "TokenPositions",
    "ablation",
    "accumulated_residual",
    "activation_patching",
    "attention_dose_response",
    "attention_knockout",
    "attention_patterns",
    "block_patching",
    "block_patching_pairs",
    "calibrate",
    "causal_tracing",
    "character_helix",
    "compare",
    "convert_positions",
    "dataset_ablation",
    "dose_response",
    "effective_attention",
    "embedding_direction",
    "factual_routing",
    "factual_routing_pairs",
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
    "path_patching",
    "pca",
    "read_fact_pairs",
    "recurrent_feedback",
    "relu_l1",
    "repeated_tokens",
    "residual_decomposition",
    "state_knockout_sweep",
    "state_norms",
    "state_patching",
    "state_reads",
    "state_steering_sweep",
    "steering_convergence",
    "steering_vector",
    "sweep",
    "token_positions",
]


def modules() -> list[ModuleType]:
    names = [info.name for info in pkgutil.walk_packages(mi_ref.__path__, "mi_ref.")]
    return [importlib.import_module(name) for name in names if not name.endswith("__main__")]


def public(module: ModuleType) -> dict[str, Any]:
    """Return the classes and functions that a module defines for others."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    }


def seen_by_type_checkers(package: ModuleType) -> set[str]:
    """Return what a package's stub offers."""
    tree = ast.parse(Path(package.__file__ or "").with_suffix(".pyi").read_text("utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def test_all_is_sorted_and_is_what_there_is() -> None:
    assert mi_ref.__all__ == sorted(mi_ref.__all__) == dir(mi_ref)
    assert set(mi_ref.__all__) == seen_by_type_checkers(mi_ref)
    for name in mi_ref.__all__:
        value = getattr(mi_ref, name)
        # A lazily imported name is the object of its module.
        assert getattr(value, "__name__", name) in (name, f"mi_ref.{name}")
    with pytest.raises(AttributeError, match="No mi_ref attribute HookPoint"):
        mi_ref.HookPoint  # type: ignore[attr-defined]  # noqa: B018


def test_no_public_name_is_lost() -> None:
    assert [name for name in NAMES if name not in mi_ref.__all__] == []
    assert [name for name in ANALYSES if name not in analysis.__all__] == []


def test_analyses_are_functions_whoever_imported_their_files_before() -> None:
    assert analysis.__all__ == sorted(analysis.__all__) == dir(analysis)
    assert set(analysis.__all__) == seen_by_type_checkers(analysis)
    for info in pkgutil.walk_packages(analysis.__path__, "mi_ref.analysis."):
        importlib.import_module(info.name)
    found = {name: getattr(analysis, name) for name in analysis.__all__}
    assert [name for name, value in found.items() if isinstance(value, ModuleType)] == ["metrics"]
    assert all(
        value.__name__ in (name, "mi_ref.analysis.measure.metrics") for name, value in found.items()
    )
    with pytest.raises(AttributeError, match=r"No mi_ref\.analysis attribute ablate"):
        analysis.ablate  # type: ignore[attr-defined]  # noqa: B018


def test_analyses_load_on_first_use() -> None:
    code = (
        "import sys; from mi_ref import analysis; from mi_ref.analysis import pca;"
        "print(callable(pca), *(m for m in sys.modules if 'sweep' in m or 'probes' in m))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "True\n"


def test_every_error_is_public_and_caught_by_one_name() -> None:
    errors = public(importlib.import_module("mi_ref.errors"))
    assert set(errors) <= set(mi_ref.__all__)
    for error in errors.values():
        assert issubclass(error, MiRefError)
        assert str(error("as it was said")) == "as it was said"


def test_the_drawn_tree_of_errors_is_the_one_of_the_classes() -> None:
    module = importlib.import_module("mi_ref.errors")
    lines = re.findall(r"^    ([│├└─ ]*)(\w+)(?: \((\w+)\))?  +\S", module.__doc__ or "", re.M)
    above: list[str] = []
    drawn = {}
    for indent, error, builtin in lines:
        del above[len(indent) // 4 :]
        drawn[error] = (*above[-1:], *([builtin] if builtin else []))
        above.append(error)
    assert drawn == {
        error: tuple(base.__name__ for base in value.__bases__)
        for error, value in public(module).items()
    }


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.__name__)
def test_everything_public_is_documented(module: ModuleType) -> None:
    assert module.__doc__
    for name, value in public(module).items():
        assert inspect.getdoc(value), name
        if inspect.isclass(value):
            for member, method in vars(value).items():
                if callable(method) and not member.startswith("_"):
                    assert inspect.getdoc(method), f"{name}.{member}"


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.__name__)
def test_everything_public_is_annotated(module: ModuleType) -> None:
    for name, value in public(module).items():
        if not inspect.isfunction(value):
            continue
        signature = inspect.signature(value)
        assert signature.return_annotation is not inspect.Signature.empty, name
        for parameter in signature.parameters.values():
            assert parameter.annotation is not inspect.Parameter.empty, f"{name}({parameter})"


def test_every_site_has_axes_and_a_meaning() -> None:
    for site in ALL_SITES:
        assert site.axes[0] == "batch"
        assert set(site.axes) <= AXES
        assert site.doc.endswith(".")
        assert getattr(at, site.name) is site
        assert ("{layer}" in site.string) == site.string.startswith("blocks.")


def test_axes_come_position_before_head() -> None:
    for site in ALL_SITES:
        if "pos" in site.axes:
            assert site.axes[1] == "pos"
    assert at.q.axes == ("batch", "pos", "head", "d_head")
    assert at.k.axes == at.v.axes == ("batch", "pos", "kv_head", "d_head")
    assert at.pattern.axes == at.attn_scores.axes == ("batch", "head", "query_pos", "key_pos")
