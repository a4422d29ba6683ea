"""Every analysis on a model of every family: an answer, or the reason why there is none.

`REFUSED` lists the combinations that are refused: a new refusal fails, and so does a new answer.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import Backend, Model, analysis
from mi_ref.errors import BackendError, HookError, ShapeError
from mi_ref.output.result import Result
from tests.fixtures.analysis_calls import CALLS, TEXT_CALLS

Load = Callable[[str, Backend, str], Model]
# A thousand calls: as fast as a user's, without the type checker of the other tests.
pytestmark = pytest.mark.usefixtures("as_users_call")

# One value for all calls: models are kept by case and backend.
NUMPY = mi_ref.get_backend("numpy")
RECURRENT = {"rwkv6", "rwkv6-fla", "rwkv7", "rwkv7-plain"}
PARALLEL = {"gpt-neox-parallel", "phi"}
EXPERTS = {"mixtral", "qwen3-moe"}
CASES = ["gemma", "gemma2", "gemma3", "gpt-neox-parallel", "gpt2", "llama2", "mistral-window",
         "mixtral", "olmo2", "phi", "phi3-window", "qwen2-window", "qwen3-moe", "qwen3-window",
         "rwkv6", "rwkv6-fla", "rwkv7", "rwkv7-plain", "starcoder2-window"]  # fmt: skip
ATTEND = set(CASES) - RECURRENT

_STATE = r"does not exist in this model: this recurrent model has no attention; see at\.rwkv_r"
_ATTENTION = r"does not exist in this model: this model has attention and no recurrent state; see"
_EXPERTS = r"each token has neurons in its own few experts; see at\.expert_weights"
_PARALLEL = r"at\.resid_mid does not exist.* in parallel; use at\.resid_pre"

REFUSED: dict[str, tuple[set[str], str]] = {
    # Layer 1 of qwen3-moe has one MLP, which has neurons.
    "ablation neurons": ({"mixtral"}, _EXPERTS),
    "accumulated_residual mid": (PARALLEL, _PARALLEL),
    "activation_patching mid": (PARALLEL, _PARALLEL),
    "attention_dose_response": (RECURRENT, _STATE),
    "attention_knockout": (RECURRENT, _STATE),
    "attention_patterns": (RECURRENT, _STATE),
    "calibrate": (RECURRENT, _STATE),
    "effective_attention": (ATTEND, _ATTENTION),
    "factual_routing": (RECURRENT, _STATE),
    "factual_routing_pairs": (RECURRENT, _STATE),
    "half_lives": (ATTEND, _ATTENTION),
    "head_scores": (RECURRENT, _STATE),
    "knockout_grid": (RECURRENT, _STATE),
    "logit_attribution heads": (RECURRENT, _STATE),
    "logit_attribution neurons": ({"mixtral"}, _EXPERTS),
    "mix_by_recurrence": (ATTEND, r"attends: its matrix is at\.pattern"),
    "neuron_patching": (EXPERTS, _EXPERTS),
    "path_patching values": (RECURRENT, _STATE),
    "relu_l1": (ATTEND, _ATTENTION),
    "residual_decomposition heads": (RECURRENT, _STATE),
    "residual_decomposition neurons": (EXPERTS, _EXPERTS),
    "state_knockout_sweep": (ATTEND, _ATTENTION),
    "state_norms": (ATTEND, _ATTENTION),
    "state_patching": (ATTEND, "attends and has no recurrent state: patch its residual stream"),
    "state_reads": (ATTEND, _ATTENTION),
    "state_steering_sweep": (ATTEND, _ATTENTION),
}
"""By call: the models that refuse, and what they say."""


def exact(load: Load, case: str) -> Model:
    return load(case, NUMPY, "float64")


def check(found: Any, folder: Path) -> None:
    """Check what every result promises: a table, strict JSON, numbers."""
    if isinstance(found, analysis.Calibration):
        found = np.asarray([found.source, found.target])
    if isinstance(found, np.ndarray | tuple):
        assert len(found) > 0
        assert isinstance(found, tuple) or np.isfinite(found).all()
        return
    assert len(str(found).splitlines()) > 2
    found.save(folder / "found.json")
    record = json.loads((folder / "found.json").read_text("utf-8"), parse_constant=_refuse)
    assert record["format"].startswith("mi_ref.")
    assert record["provenance"]
    assert not {"NaN", "Infinity", "-Infinity"} & set(_leaves(record))


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def _leaves(value: Any) -> list[str]:
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return [leaf for each in inner for leaf in _leaves(each)]
    return [value] if isinstance(value, str) else []


def test_every_analysis_and_every_family_is_here(repository: Path) -> None:
    functions = {n for n in analysis.__all__ if inspect.isfunction(getattr(analysis, n))}
    named = {call.split()[0] for call in (*CALLS, *TEXT_CALLS)}
    # It reads a file and no model.
    assert functions == named | {"read_fact_pairs"}
    assert set(REFUSED) <= set(CALLS)
    folders = [repository / "golden" / "data" / case for case in CASES]
    kinds = {json.loads((f / "config.json").read_text("utf-8"))["model_type"] for f in folders}
    assert kinds == set(mi_ref.families.FAMILIES)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("call", CALLS)
def test_it_answers_or_says_why_not(load: Load, tmp_path: Path, call: str, case: str) -> None:
    model = exact(load, case)
    refusing, reason = REFUSED.get(call, (set[str](), ""))
    if case not in refusing:
        check(CALLS[call](model), tmp_path)
        return
    with pytest.raises((HookError, ShapeError, BackendError), match=reason):
        CALLS[call](model)


@pytest.mark.parametrize("name", ["atlas", "atlas-rwkv7"])
@pytest.mark.parametrize("call", TEXT_CALLS)
def test_it_reads_text(tmp_path: Path, call: str, name: str) -> None:
    check(TEXT_CALLS[call](mi_ref.from_pretrained(name)), tmp_path)


@pytest.mark.parametrize("call", TEXT_CALLS)
def test_text_without_a_tokenizer_is_refused(tiny: Model, call: str) -> None:
    with pytest.raises(mi_ref.TokenError, match=r"has no tokenizer\.json\. Pass token ids"):
        TEXT_CALLS[call](tiny)


@pytest.mark.parametrize("call", [*CALLS, *TEXT_CALLS])
def test_it_draws_itself(load: Load, tmp_path: Path, call: str) -> None:
    pytest.importorskip("matplotlib")
    if call in TEXT_CALLS:
        found = TEXT_CALLS[call](mi_ref.from_pretrained("atlas"))
    else:
        refusing = REFUSED.get(call, (set[str](), ""))[0]
        found = CALLS[call](exact(load, next(c for c in ("llama2", "rwkv7") if c not in refusing)))
    if isinstance(found, np.ndarray | tuple | analysis.Calibration):
        return
    if type(found).plot is Result.plot:
        with pytest.raises(NotImplementedError, match="has no picture; it prints and saves"):
            found.plot(tmp_path / "found.png")
        return
    found.plot(tmp_path / "found.png")
    assert (tmp_path / "found.png").stat().st_size > 1000
