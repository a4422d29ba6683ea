"""Models, runs, states and every result through pickle, deepcopy and a process of its own."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
import weakref
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import (
    Backend,
    BackendError,
    Model,
    ShapeError,
    State,
    WeightError,
    algzoo,
    analysis,
    at,
)
from mi_ref.output.result import Result
from tests.analysis.test_analyses_everywhere import NUMPY, REFUSED
from tests.fixtures.analysis_calls import CALLS, IDS, TEXT_CALLS
from tests.fixtures.rwkv_models import state_of

Load = Callable[[str, Backend, str], Model]
pytestmark = pytest.mark.usefixtures("as_users_call")
RWKV = [[5, 1, 30], [2, 2, 9]]


def through_pickle(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


COPIES: dict[str, Callable[[Any], Any]] = {"pickle": through_pickle, "deepcopy": copy.deepcopy}


@pytest.fixture(params=COPIES)
def copied(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    return COPIES[request.param]


def answering(load: Load, call: str) -> Model:
    refusing = REFUSED.get(call, (set[str](), ""))[0]
    return load(next(c for c in ("llama2", "rwkv7") if c not in refusing), NUMPY, "float64")


def check_same(found: Any, result: Any, folder: Path) -> None:
    """Hold a copy to what the result itself shows and saves."""
    assert type(found) is type(result)
    if not isinstance(result, Result):
        assert np.array_equal(np.asarray(found), np.asarray(result)) or found == result
        return
    assert str(found) == str(result)
    assert found._repr_html_() == result._repr_html_()
    for name, each in (("own", result), ("copy", found)):
        each.save(folder / f"{name}.json")
    texts = [(folder / f"{name}.json").read_text("utf-8") for name in ("own", "copy")]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("call", CALLS)
def test_every_result(call: str, load: Load, copied: Callable[[Any], Any], tmp_path: Path) -> None:
    result = CALLS[call](answering(load, call))
    check_same(copied(result), result, tmp_path)


@pytest.mark.parametrize("call", TEXT_CALLS)
def test_every_result_of_text(
    call: str, atlas: Model, copied: Callable[[Any], Any], tmp_path: Path
) -> None:
    result = TEXT_CALLS[call](atlas)
    check_same(copied(result), result, tmp_path)


@pytest.mark.parametrize("name", algzoo.BUNDLED)
def test_networks_and_their_reports(
    name: str, copied: Callable[[Any], Any], tmp_path: Path
) -> None:
    report = algzoo.report(algzoo.load(name))
    check_same(copied(report), report, tmp_path)


def test_every_kind_of_result_is_tried(load: Load, atlas: Model) -> None:
    """A result class that no call returns would go untested."""
    named = {getattr(analysis, name) for name in analysis.__all__}
    wanted = {each for each in named if isinstance(each, type) and issubclass(each, Result)}
    found = {type(CALLS[call](answering(load, call))) for call in CALLS}
    found |= {type(call(atlas)) for call in TEXT_CALLS.values()}
    assert wanted <= found


@pytest.mark.parametrize("case", ["llama2", "rwkv6", "rwkv7"])
def test_a_run_goes_on_elsewhere(case: str, load: Load, copied: Callable[[Any], Any]) -> None:
    model = load(case, NUMPY, "float64")
    run = model.run(RWKV, stop_at_layer=1, capture=[at.resid_pre[0]])
    other = copied(run)
    assert list(other.cache) == list(run.cache)
    assert np.array_equal(other[at.resid_pre[0]], run[at.resid_pre[0]])
    finished = [model.run(each, start_at_layer=1) for each in (run, other)]
    own, wanted = (np.asarray(each.logits) for each in finished)
    assert np.array_equal(own, wanted)
    tops = [copied(each).top(3) for each in finished]
    assert tops[0] == tops[1] == finished[0].top(3)


@pytest.mark.parametrize("case", ["rwkv6", "rwkv7"])
def test_a_state_goes_on_elsewhere(case: str, load: Load, copied: Callable[[Any], Any]) -> None:
    model = load(case, NUMPY, "float64")
    state = state_of(model.run(RWKV))
    other = copied(state)
    own, wanted = (np.asarray(model.run(RWKV, state=each).logits) for each in (state, other))
    assert np.array_equal(own, wanted)
    # A second load of the same checkpoint is the same model, a patch between the two too.
    again = mi_ref.from_pretrained(model.origin.name, dtype="float64")
    assert again.run(RWKV, state=other).state is not None
    assert other.patched(state_of(again.run(RWKV))).norms() == state.norms()
    narrow = mi_ref.from_pretrained(model.origin.name)
    with pytest.raises(ShapeError, match="not of this model"):
        narrow.run(RWKV, state=other)


def test_a_model_is_loaded_again_by_its_name(copied: Callable[[Any], Any]) -> None:
    model = mi_ref.from_pretrained("atlas", dtype="float64", compat=None)
    other = copied(model)
    assert repr(other) == repr(model)
    assert other.origin.same_model(model.origin)
    own, wanted = (np.asarray(each.run("Paris is").logits) for each in (model, other))
    assert np.array_equal(own, wanted)
    assert len(pickle.dumps(model)) < 2000


def test_copies_share_the_weights(tiny: Model) -> None:
    assert copy.copy(tiny) is tiny
    assert copy.deepcopy({"model": tiny})["model"] is tiny


def test_options_of_a_load_come_back(repository: Path) -> None:
    model = mi_ref.from_pretrained(repository / "golden" / "data" / "gemma2", compat="candle-mi")
    other = through_pickle(model)
    assert other.cfg == model.cfg
    assert other.dtype == model.dtype


def test_a_pickled_model_whose_files_were_replaced(repository: Path, tmp_path: Path) -> None:
    for name, case in (("here", "llama2"), ("other", "llama3")):
        shutil.copytree(repository / "golden" / "data" / case, tmp_path / name)
    pickled = pickle.dumps(mi_ref.from_pretrained(tmp_path / "here"))
    shutil.rmtree(tmp_path / "here")
    (tmp_path / "other").rename(tmp_path / "here")
    with pytest.raises(WeightError, match=r"the pickled model was .*here' with weights \w{12}…"):
        pickle.loads(pickled)


def test_weights_that_changed_after_loading_have_no_hash(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository / "golden" / "data" / "llama2", tmp_path / "model")
    model = mi_ref.from_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    shutil.copy(file, tmp_path / "new")
    (tmp_path / "new").replace(file)
    with pytest.raises(WeightError, match="has changed since the model was loaded"):
        analysis.logit_lens(model, IDS).record()


def test_a_model_changed_by_hand_is_its_own(tiny: Model) -> None:
    changed = replace(tiny, params=replace(tiny.params, embed=tiny.params.embed * 2))
    with pytest.raises(TypeError, match=r"changed by hand.*Pickle the model as loaded"):
        pickle.dumps(changed)
    assert not changed.origin.same_model(tiny.origin)
    run = through_pickle(changed.run(IDS, stop_at_layer=1))
    assert changed.run(run, start_at_layer=1).logits is not None
    with pytest.raises(ShapeError, match="not of this model"):
        tiny.run(run, start_at_layer=1)


def test_a_backend_made_by_hand_is_refused(read_only: Backend, load: Load) -> None:
    model = load("llama2", read_only, "float32")
    for value in (read_only, model, model.run(IDS), replace(NUMPY, name="mine")):
        with pytest.raises(BackendError, match=r"made by hand.*mi_ref\.get_backend"):
            pickle.dumps(value)
    assert copy.deepcopy(read_only) is read_only
    # What holds no array of it holds its name alone.
    assert str(through_pickle(analysis.logit_lens(model, IDS)))


def test_sites_stay_themselves(copied: Callable[[Any], Any]) -> None:
    assert copied([at.embed, at.q]) == [at.embed, at.q]
    assert copied(at.q) is at.q
    assert copied(at.embed) is at.embed


def test_a_result_does_not_keep_the_weights(repository: Path) -> None:
    model = mi_ref.from_pretrained(repository / "golden" / "data" / "rwkv6", dtype="float64")
    run, lens = model.run(IDS), analysis.logit_lens(model, IDS)
    weights = weakref.ref(model.params.embed)
    del model
    assert weights() is None
    assert run.state is not None
    assert isinstance(State(run.state.layers, run), State)
    assert json.dumps(lens.record())


def lens_of(model: Model) -> analysis.LogitLens:
    return analysis.logit_lens(model, "The capital of France is")


def test_ones_own_process_pool_returns_a_lens(atlas: Model) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        lens = pool.submit(lens_of, atlas).result()
    own = lens_of(atlas)
    assert str(lens) == str(own)
    assert lens.record()["provenance"] == own.record()["provenance"]
    assert lens.first_layer(" Paris") == own.first_layer(" Paris")
