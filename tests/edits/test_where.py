"""Where an edit acts: axes and places, however they are written."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mi_ref import ArgumentError, Backend, Hook, HookError, Model, at, do, load_edits, save_edits
from mi_ref.edits.values import Scale
from mi_ref.edits.where import WORDS, Where, where_of
from tests.fixtures.by_hand import host

PROMPT = [[30, 12, 5, 14, 19], [39, 21, 4, 16, 28], [7, 7, 1, 0, 2]]


@pytest.fixture
def model(backend: Backend, load: Any) -> Model:
    loaded: Model = load("llama2", backend, "float64")
    return loaded


@pytest.mark.parametrize(
    ("point", "words", "axes"),
    [
        (at.z[1], {"positions": [1, -1], "heads": 2}, {"pos": [1, -1], "head": 2}),
        (at.k[0], {"heads": [1], "rows": 0}, {"kv_head": [1], "batch": 0}),
        (at.k[0], {"heads": [1]}, {"head": [1]}),
        (at.pattern[0], {"positions": 3, "keys": slice(0, 2)}, {"query_pos": 3, "key_pos": [0, 1]}),
        (at.post[1], {"neurons": slice(None, None, 2)}, {"d_mlp": slice(None, None, 2)}),
    ],
)
def test_keywords_are_short_for_axes(point: Any, words: Any, axes: Any, model: Model) -> None:
    runs = [
        model.run(PROMPT, capture=[point], edits=[(point, do.fill(0.25, **where))])
        for where in (words, {"where": axes})
    ]
    first, second = (host(model, run[point]) for run in runs)
    np.testing.assert_array_equal(first, second)
    assert (first == 0.25).any()
    assert not (first == 0.25).all()


def test_any_axis_of_a_site_can_be_named(model: Model) -> None:
    point = at.resid_mid[0]
    edits = [(point, do.zero(where={"d_model": [0, -1], "pos": 2}))]
    before = host(model, model.run(PROMPT, capture=[point])[point])
    after = host(model, model.run(PROMPT, capture=[point], edits=edits)[point])
    wanted = before.copy()
    wanted[:, 2, [0, -1]] = 0.0
    np.testing.assert_array_equal(after, wanted)


def test_one_mapping_is_behind_the_keywords() -> None:
    first_row: Any = np.int64(0)
    edit: Any = do.scale(0.5, heads=[2], rows=first_row, where={"expert": 1})
    assert edit.where == {"batch": (0,), "head": (2,), "expert": (1,)}
    assert (edit.heads, edit.rows, edit.positions, edit.neurons) == ((2,), (0,), None, None)
    assert repr(edit) == "scale(heads=(2,), rows=(0,), where={'expert': (1,)}, factor=0.5)"
    assert eval(repr(edit), {"scale": do.scale}) == edit
    assert edit == Scale(heads=[2], where=Where({"expert": [1], "batch": [0]}), factor=0.5)
    assert hash(edit) == hash(replace(edit, factor=0.5))
    assert replace(edit, rows=[1]).where["batch"] == (1,)
    assert edit.within(batch=None, expert=3).where == {"head": (2,), "expert": (3,)}
    assert pickle.loads(pickle.dumps(edit)) == edit


def test_mappings_are_equal_in_any_order() -> None:
    first, second = (
        Where({"pos": 1, "expert": [2], "abc": [0]}),
        Where({"abc": 0, "expert": 2, "pos": 1}),
    )
    assert first == second
    assert hash(first) == hash(second)
    assert list(first) == ["pos", "abc", "expert"]
    words: Any = dict.fromkeys(WORDS, 1)
    assert list(where_of(**words)) == list(WORDS.values())
    assert Where({"pos": None}) == Where()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"positions": 1, "where": {"pos": 2}}, r"positions= and where=\{'pos': …\} name the same"),
        ({"where": [1]}, r"where=\[1\]: expected a mapping from axes to places"),
        ({"where": {1: [1]}}, r"where=\{1: \[1\]\}: expected a mapping"),
        ({"where": {"expert": "a"}}, r"expert='a': expected an index, a slice"),
    ],
)
def test_what_is_no_mapping_is_refused(where: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        do.zero(**where)


def test_two_names_of_one_axis_are_refused(model: Model) -> None:
    edit = do.zero(where={"head": 0, "kv_head": 1})
    with pytest.raises(HookError, match=r"at at\.k\[0\].*its axis kv_head is restricted twice"):
        model.run(PROMPT, edits=[(at.k[0], edit)])
    with pytest.raises(HookError, match=r"at at\.q\[0\].*it has no kv_head to choose from"):
        model.run(PROMPT, edits=[(at.q[0], edit)])


@pytest.mark.parametrize(
    ("record", "edit"),
    [
        ({"kind": "scale", "factor": 0.5, "positions": [-1], "heads": [2]},
         do.scale(0.5, positions=-1, heads=2)),
        ({"kind": "fill", "value": 1.0, "neurons": {"start": 1, "stop": None, "step": 2}},
         do.fill(1.0, neurons=slice(1, None, 2))),
        ({"kind": "mean", "over": ["pos"], "rows": [True, False]},
         do.mean("pos", rows=[True, False])),
        ({"kind": "set_pattern", "positions": [3], "keys": [0], "weight": 0.25},
         do.set_pattern(0.25, 3, 0)),
        ({"kind": "scale_pattern", "positions": [3], "factor": 2.0, "renormalise": False},
         do.scale_pattern(2.0, 3, renormalise=False)),
    ],
)  # fmt: skip
def test_files_of_before_are_read(record: Any, edit: Any, tmp_path: Path) -> None:
    """What version 0.1 wrote, word by word; and what it could say is written as it wrote it."""
    path = tmp_path / "edits.json"
    old = {"format": "mi_ref.edits/1", "arrays_sha256": None,
           "edits": [{"selector": "hook_embed", "edit": record}]}  # fmt: skip
    path.write_text(json.dumps(old))
    assert load_edits(path) == [(at.embed, edit)]
    save_edits(path, [(at.embed, edit)])
    assert json.loads(path.read_text()) == old


def test_any_axis_goes_to_a_file_and_back(tmp_path: Path) -> None:
    path = tmp_path / "edits.json"
    edit = do.zero(rows=[0], where={"expert": [1], "feature": slice(2, None)})
    save_edits(path, [(at.expert_weights[0], edit)])
    record = json.loads(path.read_text())["edits"][0]["edit"]
    assert record["where"] == {"expert": [1], "feature": {"start": 2, "stop": None, "step": None}}
    assert load_edits(path) == [(at.expert_weights[0], edit)]


def test_an_intervention_says_whether_it_is_pure_and_row_by_row() -> None:
    axes, value = at.z.axes, np.ones((1, 5, 1, 4))
    shared = [do.zero(), do.fill(1.0), do.mean("pos"), do.add(value), do.replace(0.0),
              do.project_out(np.ones(4)), do.knockout(1), do.scale_pattern(2.0),
              do.set_pattern(0.1)]  # fmt: skip
    alone = [do.mean(), do.mean(("batch", "pos")), do.add(np.ones((2, 5, 1, 4))),
             do.replace([[1.0]]), do.apply(lambda x, hook: None)]  # fmt: skip
    assert all(edit.row_by_row(axes) for edit in shared)
    assert not any(edit.row_by_row(axes) for edit in alone)
    assert all(edit.pure for edit in (*shared, *alone))
    assert all(edit.in_files == (edit.name != "apply") for edit in (*shared, *alone))


def test_what_is_not_pure_gets_a_copy(model: Model) -> None:
    from dataclasses import dataclass
    from typing import ClassVar

    from mi_ref.edits.intervention import Intervention

    @dataclass(frozen=True, slots=True, repr=False)
    class Overwrite(Intervention):
        name: ClassVar[str] = "overwrite"

        def change(self, x: Any, hook: Hook) -> Any:
            x[...] = 0.0
            return x

    if model.backend.name == "numpy-readonly":
        pytest.skip("its arrays cannot be changed in place")
    plain = host(model, model.run(PROMPT, capture=[at.attn_out_raw[0]])[at.attn_out_raw[0]])
    run = model.run(
        PROMPT, capture=[at.attn_out_raw[0], at.attn_out[0]], edits=[(at.attn_out[0], Overwrite())]
    )
    assert not host(model, run[at.attn_out[0]]).any()
    np.testing.assert_array_equal(host(model, run[at.attn_out_raw[0]]), plain)


def test_keys_have_a_length_of_their_own(model: Model) -> None:
    """As they will after a state of keys and values: 3 queries that look at 7 positions."""
    backend, entry = model.backend, model.hook_points.at(at.pattern[0])
    assert entry.sizes(2, 3) == (2, 4, 3, 3)
    assert entry.sizes(2, 3, 7) == (2, 4, 3, 7)
    assert "2 × 4 × 3 × 7" in str(model.hook_points.table(2, 3, 7))
    assert "pos × key_pos" in str(model.hook_points)
    hook = Hook("pattern", 0, at.pattern[0], n_pos=3, first_pos=4, backend=backend)
    weights = np.random.default_rng(0).random((2, 4, 3, 7))
    for edit, keys in ((do.scale_pattern(0.0, -1, [0, 6], renormalise=False), [0, 6]),
                       (do.scale_pattern(0.0, 2, -1, renormalise=False), [6])):  # fmt: skip
        edit.check(entry, entry.sizes(2, 3, 7))
        wanted = weights.copy()
        wanted[:, :, 2, keys] = 0.0
        np.testing.assert_array_equal(host(model, edit(backend.from_host(weights), hook)), wanted)
    for edit, said in ((do.scale_pattern(2.0, 3), r"positions \[3\] of 3"),
                       (do.scale_pattern(2.0, 0, 7), r"keys \[7\] of 7")):  # fmt: skip
        with pytest.raises(HookError, match=said):
            edit.check(entry, entry.sizes(2, 3, 7))
