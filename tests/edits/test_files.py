"""Experiments in files: loading returns what was saved, or raises an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import ArgumentError, Backend, HookError, Model, at, do, state_knockout, token_removal
from mi_ref.edits.files import load_edits, save_edits
from mi_ref.edits.intervention import Intervention

pytestmark = pytest.mark.usefixtures("as_users_call")

LOOSE: Any = do
PROMPT = [[3, 1, 4, 11, 5], [9, 2, 6, 35, 8]]
FLOATS = np.random.default_rng(0).normal(size=(24,)).astype(np.float32)
ODD = np.array([0.1, np.inf, -np.inf, np.nan, -0.0, 5e-324])

EVERY: list[Intervention] = [
    do.replace(FLOATS, positions=[-1, 0]),
    do.replace([0.1, 1e-300, float("inf")]),
    do.add(FLOATS.astype(np.float64), scale=-2.5, positions=slice(1, None, 2), rows=[True, False]),
    LOOSE.scale(0.1, heads=np.array([1, 0]), positions=np.int64(2)),
    do.zero(neurons=slice(None, -3)),
    do.fill(float("-inf"), rows=-1),
    do.mean(("batch", "pos"), heads=[2]),
    do.project_out(FLOATS),
    do.knockout(3, slice(0, 2), heads=[1]),
    do.scale_pattern(1.5, [2, 3], 1, renormalise=False),
    do.set_pattern(0.25, keys=[True, False, False, False, False]),
]


def round_trip(path: Path, edits: Any) -> list[Any]:
    save_edits(path / "edits.json", edits)
    return list(load_edits(path / "edits.json"))


def same_array(a: Any, b: Any) -> bool:
    return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())


@pytest.mark.parametrize("edit", EVERY, ids=lambda edit: str(edit.name))
def test_every_intervention_comes_back(edit: Any, tmp_path: Path) -> None:
    ((_, back),) = round_trip(tmp_path, [(at.z[1], edit)])
    assert type(back) is type(edit)
    assert back == edit
    for name in ("value", "direction"):
        own = getattr(edit, name, None)
        if isinstance(own, np.ndarray):
            assert same_array(getattr(back, name), own)
        else:
            assert getattr(back, name, None) == own
    assert repr(back) == repr(edit)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64"])
def test_arrays_come_back_bit_for_bit(dtype: str, tmp_path: Path) -> None:
    with np.errstate(all="ignore"):
        values = np.nan_to_num(ODD) if dtype == "int64" else ODD
        values = values.clip(-9e3, 9e3).astype(dtype) if dtype == "int64" else values.astype(dtype)
    strided = np.stack([values, values])[:, ::2].T
    edits = [
        (at.embed, values),
        (at.embed, do.add(strided)),
        (at.embed, do.add(np.array(values[0]))),
    ]
    back = round_trip(tmp_path, edits)
    assert same_array(back[0][1], values)
    assert same_array(back[1][1].value, np.ascontiguousarray(strided))
    assert same_array(back[2][1].value, np.asarray(values[0]))


@pytest.mark.parametrize(
    ("selector", "written", "comes_back"),
    [
        (at.resid_post[1], "blocks.1.hook_resid_post", at.resid_post[1]),
        ("blocks.1.hook_resid_post", "blocks.1.hook_resid_post", at.resid_post[1]),
        (at.embed, "hook_embed", at.embed),
        (("q", 1), {"site": "q", "layer": 1}, at.q[1]),
        (("embed",), "hook_embed", at.embed),
        (at.z[-1], {"site": "z", "layer": -1}, at.z[-1]),
        (at.z[1:], {"site": "z", "start": 1, "stop": None, "step": None}, at.z[1:]),
        (at.z[::-2], {"site": "z", "start": None, "stop": None, "step": -2}, at.z[::-2]),
        ("blocks.*.attn.hook_z", "blocks.*.attn.hook_z", "blocks.*.attn.hook_z"),
    ],
)
def test_selectors_are_written_as_names(
    selector: Any, written: Any, comes_back: Any, tmp_path: Path
) -> None:
    ((back, _),) = round_trip(tmp_path, [(selector, do.zero())])
    assert back == comes_back
    record = json.loads((tmp_path / "edits.json").read_text())
    assert record["edits"][0]["selector"] == written
    assert not (tmp_path / "edits.safetensors").exists()


@pytest.mark.bits
def test_a_loaded_experiment_gives_the_same_logits(
    backend: Backend, load: Any, tmp_path: Path
) -> None:
    model: Model = load("llama2", backend, "float32")
    own = model.run(PROMPT, capture=[at.attn_out[0]])[at.attn_out[0]]
    edits: Any = [
        (at.attn_out[0], own),
        (at.resid_mid[:], do.add(FLOATS, positions=[-1], scale=3.0)),
        ("blocks.1.attn.hook_attn_scores", do.knockout(slice(2, None), 1)),
        (at.post[-1], do.zero(neurons=[4, 2])),
    ]
    save_edits(tmp_path / "edits.json", edits, backend=backend)
    back = load_edits(tmp_path / "edits.json", backend=backend)
    first, second = (model.run(PROMPT, edits=e).logits for e in (edits, back))
    host = backend.to_host
    assert host(first).tobytes() == host(second).tobytes()
    assert not np.array_equal(host(model.run(PROMPT).logits), host(first))


@pytest.mark.bits
@pytest.mark.parametrize("case", ["rwkv6", "rwkv7"])
def test_state_edits_come_back(case: str, load: Any, tmp_path: Path) -> None:
    model: Model = load(case, mi_ref.get_backend("numpy"), "float64")
    edits = [*token_removal(model, [2]), *state_knockout([-1], layers=[1], heads=[0])]
    back = round_trip(tmp_path, edits)
    assert back == edits
    first, second = (model.run(PROMPT, edits=e).logits for e in (edits, back))
    assert first is not None
    assert second is not None
    assert first.tobytes() == second.tobytes()


def test_a_mapping_keeps_its_order(tmp_path: Path) -> None:
    edits = {at.z[1]: do.zero(), at.z[0]: do.scale(2.0)}
    assert round_trip(tmp_path, edits) == list(edits.items())


@pytest.mark.parametrize(
    ("selector", "edit", "message"),
    [
        (at.z[0], do.apply(lambda x, hook: x), r"apply\(.*calls a function, and a file of edits"),
        (at.z[0], lambda x, hook: x, r"<function .*calls a function.*use do\.replace"),
        (
            lambda name: True,
            do.zero(),
            r"is not a selector that a file can hold: functions have",
        ),
        (at.z, do.zero(), r"at\.z is not a selector that a file can hold"),
    ],
)
def test_functions_are_refused(selector: Any, edit: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "edits.json").write_text("before")
    with pytest.raises(HookError, match=message):
        save_edits(tmp_path / "edits.json", [(at.z[0], do.add(FLOATS)), (selector, edit)])
    assert (tmp_path / "edits.json").read_text() == "before"
    assert [each.name for each in tmp_path.iterdir()] == ["edits.json"]


def test_a_value_that_is_no_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="'text' is neither an array nor numbers"):
        save_edits(tmp_path / "edits.json", [(at.z[0], do.add("text"))])
    assert list(tmp_path.iterdir()) == []


def test_an_intervention_of_ones_own_is_refused(tmp_path: Path) -> None:
    class Half(type(do.scale(0.5))):  # type: ignore[misc]
        pass

    with pytest.raises(HookError, match=r"is a Half, which files cannot hold: they hold add, arr"):
        save_edits(tmp_path / "edits.json", [(at.z[0], Half())])


def entry(**edit: Any) -> str:
    edits = [{"selector": "hook_embed", "edit": edit}]
    return json.dumps({"format": "mi_ref.edits/1", "arrays_sha256": None, "edits": edits})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"edits\.json cannot be read as edits"),
        ("[]", r"is not a file of edits: expected 'mi_ref\.edits/1', got None"),
        ('{"format": "mi_ref.state/1"}', r"expected 'mi_ref\.edits/1', got 'mi_ref\.state/1'"),
        ('{"format": "mi_ref.edits/1"}', r"is damaged: it has no list of edits"),
        (entry(kind="explode"), r"edits\.json: 'explode' is not an intervention: files hold add"),
        (entry(kind="apply"), r"'apply' is not an intervention"),
        (entry(kind="scale"), r"scale lacks its factor"),
        (entry(kind="scale", factor=1.0, power=2), r"scale has no power"),
        (entry(kind="scale", factor="2"), r"damaged: ValueError: expected a number, got the text"),
        (entry(kind="scale", factor=1.0, heads=["a"]), r"heads=\('a',\): expected an index"),
        (entry(kind="scale", factor=1.0, heads=3), r"damaged: TypeError: 3 is not a list of"),
        (entry(kind="mean", over=["head"]), r"damaged: ArgumentError: over=\('head',\): expected"),
        (entry(kind="add", value={"array": "array.0"}, scale=1.0), r"KeyError: 'array\.0'"),
        (entry(kind="add", value=None, scale=1.0), r"None is neither an array nor numbers"),
        (entry(), r"is damaged: KeyError: 'kind'"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "edits.json").write_text(text)
    with pytest.raises(HookError, match=message):
        load_edits(tmp_path / "edits.json")


def test_arrays_of_another_save_are_refused(tmp_path: Path) -> None:
    path, beside = tmp_path / "edits.json", tmp_path / "edits.safetensors"
    save_edits(path, [(at.embed, do.add(FLOATS))])
    packed = bytearray(beside.read_bytes())
    packed[-1] ^= 1
    beside.write_bytes(packed)
    with pytest.raises(HookError, match=r"edits\.safetensors was not saved with edits\.json"):
        load_edits(path)
    beside.unlink()
    with pytest.raises(HookError, match=r"the arrays of edits\.json, cannot be read"):
        load_edits(path)


def test_only_json_files_hold_edits(tmp_path: Path) -> None:
    for call in (lambda p: save_edits(p, []), load_edits):
        with pytest.raises(ArgumentError, match=r"edits\.safetensors: expected a \.json file"):
            call(tmp_path / "edits.safetensors")
