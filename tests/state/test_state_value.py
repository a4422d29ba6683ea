"""States as values: rows, layers, patches, norms, files and errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import mi_ref
from mi_ref import Backend, LayerState, Model, ShapeError, State, at, get_backend
from mi_ref.state.state import PARTS
from mi_ref.testing import relative_error
from tests.fixtures.rwkv_models import BOUND, CASES, LONG, handed, state_of

Load = Callable[..., Model]
TAILS = [[5, 1, 30], [2, 2, 9], [8, 30, 11]]


@pytest.fixture(params=CASES)
def model(request: pytest.FixtureRequest, load: Load) -> Model:
    return load(request.param, get_backend("numpy"), "float64")


@pytest.fixture
def state(model: Model) -> State:
    """A state of three different rows."""
    return handed(model, 3)


def other_state(model: Model) -> State:
    return state_of(model.run([LONG[:5], LONG[5:10], LONG[9:14]]))


def arrays(state: State) -> dict[tuple[int, str], Any]:
    host = state.backend.to_host
    return {(n, name): host(getattr(part, name)) for n, part in state.layers.items()
            for name in PARTS}  # fmt: skip


def test_its_arrays_are_what_the_last_token_hands_on(model: Model) -> None:
    sites = {"wkv": at.rwkv_state, "attn_shift": at.attn_in, "mlp_shift": at.mlp_in}
    run = model.run(LONG, capture=[site[:] for site in sites.values()])
    found = arrays(state_of(run))
    assert set(found) == {(n, name) for n in range(model.cfg.n_layers) for name in PARTS}
    for (n, name), array in found.items():
        assert relative_error(array, np.asarray(run[sites[name][n]])[:, -1]) <= BOUND


def test_it_keeps_no_whole_stream_in_memory(model: Model) -> None:
    for array in arrays(state_of(model.run(LONG))).values():
        assert array.base is None or array.base.size <= 2 * array.size


@pytest.mark.parametrize("rows", [[2, 0, 0], [-1], (1, 1), [0, 1, 2]])
def test_rows(rows: Any, model: Model, state: State) -> None:
    chosen = state.rows(rows)
    assert chosen.batch == len(rows)
    for key, array in arrays(state).items():
        assert np.array_equal(arrays(chosen)[key], array[list(rows)])
    tails = [TAILS[row % 3] for row in rows]
    whole = np.asarray(model.run(TAILS, state=state).logits)
    found = np.asarray(model.run(tails, state=chosen).logits)
    assert relative_error(found, whole[list(rows)]) <= BOUND


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([3], r"rows=\[3\] of a state of 3: name some of those"),
        ([0, -4], r"rows=\[0, -4\] of a state of 3"),
        ([], r"rows=\[\] of a state of 3"),
    ],
)
def test_rows_that_there_are_not(rows: Any, message: str, state: State) -> None:
    with pytest.raises(ShapeError, match=message):
        state.rows(rows)


@pytest.mark.parametrize("layer", [0, -1])
def test_a_layers_arrays_replaced(layer: int, model: Model, state: State) -> None:
    before = {key: array.copy() for key, array in arrays(state).items()}
    number = layer % state.cfg.n_layers
    for name in PARTS:
        new = before[number, name] * 2 + 1
        given: Any = {name: new}
        changed = state.with_layer(layer, **given)
        for key, array in arrays(changed).items():
            wanted = new if key == (number, name) else before[key]
            assert np.array_equal(array, wanted), key
        assert changed[layer] is changed[number]
        logits = np.asarray(model.run(TAILS, state=changed).logits)
        plain = np.asarray(model.run(TAILS, state=state).logits)
        assert relative_error(logits, plain) > 1e-6
    for key, array in arrays(state).items():
        assert np.array_equal(array, before[key]), "the state itself was changed"


@pytest.mark.usefixtures("as_users_call")
def test_arrays_that_do_not_fit_a_layer(state: State) -> None:
    own, n_layers = state[1].wkv, state.cfg.n_layers
    shape = re.escape(str(own.shape))
    wrong: list[tuple[int, Any, str]] = [
        (1, own[:2], rf"wkv of layer 1 is \(2, .*; it must be {shape}"),
        (1, own.astype("float32"), "wkv of layer 1 is float32 on cpu; it must be float64 on cpu"),
        (1, own.tolist(), rf"wkv of layer 1 is list; it must be {shape}"),
        (n_layers, own, rf"no layer {n_layers}; it has 0, 1"),
        (-n_layers - 1, own, rf"no layer {-n_layers - 1}; it has 0, 1"),
    ]
    for layer, array, message in wrong:
        with pytest.raises(ShapeError, match=message):
            state.with_layer(layer, wkv=array)
    with pytest.raises(ShapeError, match=r"mlp_shift of layer 0 is \(2,\); it must be"):
        state.with_layer(0, mlp_shift=np.zeros(2))


def test_patches(model: Model, state: State) -> None:
    source = other_state(model)
    own, other = arrays(state), arrays(source)
    choices: list[tuple[Any, Callable[[int, str], bool]]] = [
        ({}, lambda n, name: True),
        ({"layers": [-1]}, lambda n, name: n == state.cfg.n_layers - 1),
        ({"parts": ["wkv"]}, lambda n, name: name == "wkv"),
        ({"parts": ["attn_shift", "mlp_shift"], "layers": (0,)},
         lambda n, name: n == 0 and name != "wkv"),
    ]  # fmt: skip
    for options, taken in choices:
        patched = state.patched(source, **options)
        for key, array in arrays(patched).items():
            assert np.array_equal(array, (other if taken(*key) else own)[key]), (options, key)
    by_heads = state.patched(source, heads=[-1], parts=["wkv"], layers=[1])
    for key, array in arrays(by_heads).items():
        wanted = own[key].copy()
        if key == (1, "wkv"):
            wanted[:, -1] = other[key][:, -1]
        assert np.array_equal(array, wanted), key
    everything = state.patched(source, heads=range(state.cfg.n_heads), parts=["wkv"])
    assert np.array_equal(arrays(everything)[0, "wkv"], other[0, "wkv"])


@pytest.mark.bits
def test_a_whole_patch_makes_the_rest_what_it_is_after_the_other_text(
    model: Model, state: State
) -> None:
    source = other_state(model)
    found = model.run(TAILS, state=state.patched(source)).logits
    wanted = model.run(TAILS, state=source).logits
    assert np.array_equal(np.asarray(found), np.asarray(wanted))


def test_patches_that_make_no_sense(model: Model, state: State) -> None:
    source, n_heads = other_state(model), state.cfg.n_heads
    options: list[tuple[dict[str, Any], str]] = [
        ({"parts": ["wkv", "shift"]},
         r"parts=\['shift'\]: a state has wkv, attn_shift, mlp_shift"),
        ({"heads": [0]}, r"heads= chooses matrices: pass parts=\['wkv'\] with it"),
        ({"heads": [n_heads], "parts": ["wkv"]},
         rf"heads=\[{n_heads}\]: layer 0 has heads 0 to {n_heads - 1}"),
        ({"layers": [7]}, "this state has no layer 7; it has 0, 1"),
        ({"layers": []}, "layers, heads or parts names nothing; leave it out for all"),
        ({"parts": []}, "layers, heads or parts names nothing"),
        ({"heads": [], "parts": ["wkv"]}, "layers, heads or parts names nothing"),
    ]  # fmt: skip
    for given, message in options:
        with pytest.raises(ShapeError, match=message):
            state.patched(source, **given)
    for heads in (None, [0]):
        parts: Any = ["wkv"]
        with pytest.raises(ShapeError, match=r"wkv of layer 0 is \(1, .*; it must be \(3, "):
            state.patched(source.rows([0]), heads=heads, parts=parts)


def test_norms_and_how_it_prints(state: State) -> None:
    norms, heads = state.norms(), state.cfg.n_heads
    for n, part in state.layers.items():
        wanted = np.sqrt((np.asarray(part.wkv) ** 2).sum(axis=(-2, -1)))
        assert np.allclose(norms[n], wanted, rtol=1e-14, atol=0.0)
    lines = str(state).splitlines()
    assert lines[0].split() == ["layer", "head", "0", "head", "1", "head", "2"][: 1 + 2 * heads]
    for n, line in enumerate(lines[2:]):
        assert line.split() == [str(n), *(f"{norm:.3f}" for norm in norms[n][0])]
    last = str(state.table(row=-1)).splitlines()
    assert last[2].split() == ["0", *(f"{norm:.3f}" for norm in norms[0][2])]
    name, n_layers = state.origin.name, state.cfg.n_layers
    assert repr(state) == f"<State of {name}: 3 rows, {n_layers} layers>"
    assert f"{norms[0][0][0]:.3f}" in state._repr_html_()


@pytest.mark.bits
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", ["rwkv6", "rwkv7"])
def test_files_keep_every_bit(
    case: str, dtype: str, backend: Backend, load: Load, tmp_path: Path
) -> None:
    model = load(case, backend, dtype)
    state, host = handed(model, 3), backend.to_host
    state.save(tmp_path / "state.safetensors")
    found = State.load(tmp_path / "state.safetensors", model)
    assert list(found.layers) == list(state.layers)
    for key, array in arrays(state).items():
        assert arrays(found)[key].dtype == array.dtype
        assert np.array_equal(arrays(found)[key], array)
    runs = [model.run(TAILS, state=each).logits for each in (state, found)]
    assert np.array_equal(host(runs[0]), host(runs[1]))
    # The same weights in another precision, elsewhere: the file serves there too.
    other = load(case, get_backend("numpy"), "float64")
    wide = arrays(State.load(tmp_path / "state.safetensors", other))
    for key, array in arrays(state).items():
        assert wide[key].dtype == np.float64
        assert np.array_equal(wide[key], array.astype("float64"))


def test_files_of_some_layers(model: Model, tmp_path: Path) -> None:
    state = state_of(model.run(model.run(LONG, stop_at_layer=1), start_at_layer=1))
    for kept in (state, state_of(model.run(LONG, stop_at_layer=1))):
        kept.save(tmp_path / "some")
        assert list(State.load(tmp_path / "some", model).layers) == list(kept.layers)


def test_files_that_are_no_state_of_this_model(
    model: Model, state: State, load: Load, tmp_path: Path, repository: Path
) -> None:
    path = tmp_path / "state.safetensors"
    state.save(path)
    others = (name for name in CASES if not model.source.name.endswith(f"golden/data/{name}"))
    other = load(next(others), get_backend("numpy"), "float64")
    own, foreign = model.source.sha256()[:12], other.source.sha256()[:12]
    message = (
        rf"was made by {re.escape(model.source.name)} \(weights {own}…\); this model is"
        rf" {re.escape(other.source.name)} \(weights {foreign}…\), to which it means nothing"
    )
    with pytest.raises(ShapeError, match=message):
        State.load(path, other)
    save_file(load_file(path), tmp_path / "bare")
    (tmp_path / "text").write_text("a state")
    weights = repository / "golden" / "data" / "rwkv6" / "model.safetensors"
    for file, text in (
        (tmp_path / "bare", "is not a saved state: expected the format 'mi_ref.state/1', got None"),
        (weights, "is not a saved state"),
        (tmp_path / "text", "cannot be read as a state"),
        (tmp_path / "absent", "cannot be read as a state"),
    ):
        with pytest.raises(ShapeError, match=f"{re.escape(str(file))} {text}"):
            State.load(file, model)


@pytest.mark.bits
@pytest.mark.usefixtures("as_users_call")
def test_a_state_from_which_this_call_cannot_go_on(
    model: Model, state: State, repository: Path
) -> None:
    name = "rwkv6-fla" if model.origin.name.endswith("golden/data/rwkv6") else "rwkv6"
    elsewhere = mi_ref.from_pretrained(repository / "golden" / "data" / name, dtype="float64")
    half = state_of(model.run(TAILS, stop_at_layer=1))
    wrong = LayerState(state[1].wkv.astype("float32"), state[1].attn_shift, state[1].mlp_shift)
    refused: list[tuple[State, str]] = [
        (state.rows([0, 1]), r"the state has 2 rows, the prompt 3: state\.rows\(\[0\] \* 3\)"),
        (handed(elsewhere, 3), rf"is of .*golden/data/{name} as loaded elsewhere, not of this model"
                               r".*pass State\(state\.layers, model\)"),
        (half, "the state lacks layers 1(, 2)?, which this call runs: it comes from a run that"),
        (State({**state.layers, 1: wrong}, model), "wkv of layer 1 is float32 on cpu; it must be"),
        (State({**state.layers, 1: replace(state[1], mlp_shift=np.zeros((3, 2)))}, model),
         r"mlp_shift of layer 1 is \(3, 2\); it must be \(3, \d+\)"),
    ]  # fmt: skip
    for given, message in refused:
        with pytest.raises(ShapeError, match=message):
            model.run(TAILS, state=given, edits=[(at.embed, _never)])
    # Another model with the same weights, explicitly allowed.
    again = mi_ref.from_pretrained(model.source.name, dtype="float64")
    found = again.run(TAILS, state=State(state.layers, again)).logits
    assert np.array_equal(np.asarray(found), np.asarray(model.run(TAILS, state=state).logits))
    assert model.run(TAILS, state=half, stop_at_layer=1).state is not None


@pytest.mark.usefixtures("as_users_call")
def test_what_is_no_state(model: Model, state: State) -> None:
    wrong: list[Any] = [model.run(LONG), dict(state.layers), [state[0]], state[0]]
    for given in wrong:
        message = f"state= is a {type(given).__name__}: pass a State, such as run.state"
        with pytest.raises(ShapeError, match=message):
            model.run(TAILS, state=given)


def test_a_transformer_has_none(tiny: Model, state: State) -> None:
    assert tiny.run([1, 2, 3]).state is None
    message = "llama2 attends and has no recurrent state; pass a recurrent model"
    with pytest.raises(ShapeError, match=f"state=: .*{message}"):
        tiny.run(TAILS, state=state, edits=[(at.embed, _never)])
    with pytest.raises(ShapeError, match=rf"State\.empty: .*{message}"):
        State.empty(tiny)


def _never(x: Any, hook: Any) -> Any:
    raise AssertionError("something was computed before the refusal")
