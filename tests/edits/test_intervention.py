"""Interventions compared with plain NumPy, at every kind of site, wherever they may act."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mi_ref import ArgumentError, Backend, Hook, HookError, Model, Run, ShapeError, at, capture, do
from mi_ref.edits.intervention import Intervention
from mi_ref.hooks.sites import Point
from tests.fixtures.by_hand import host

pytestmark = pytest.mark.usefixtures("as_users_call")

LOOSE: Any = do
"""The same, for what only NumPy's users write."""
PROMPT = [[30, 12, 5, 14, 19], [39, 21, 4, 16, 28], [7, 7, 1, 0, 2]]
RNG = np.random.default_rng(3)
AXES = {
    "positions": ("pos", "query_pos"),
    "heads": ("head", "kv_head"),
    "neurons": ("d_mlp",),
    "rows": ("batch",),
}
# One site of every set of axes that a transformer or a recurrent model has.
SITES: list[tuple[str, Point]] = [
    ("llama2", at.embed), ("llama2", at.ln1_scale[0]), ("llama2", at.q[1]), ("llama2", at.k[0]),
    ("llama2", at.attn_scores[1]), ("llama2", at.pattern[0]), ("llama2", at.result[1]),
    ("llama2", at.post[0]), ("llama2", at.logits), ("gemma2", at.attn_out[1]),
    ("qwen3", at.k_norm_scale[0]), ("mixtral", at.router_logits[1]), ("rwkv7", at.rwkv_decay[1]),
    ("rwkv7", at.rwkv_write[1]), ("rwkv6", at.rwkv_wkv[0]), ("rwkv7", at.rwkv_state[1]),
]  # fmt: skip
WHERE: dict[str, dict[str, Any]] = {
    "everywhere": {},
    "a position": {"positions": 2},
    "the last": {"positions": -1},
    "several": {"positions": [0, -2]},
    "a slice": {"positions": slice(1, None, 2)},
    "a mask": {"positions": [False, True, True, False, False]},
    "numpy's numbers": {"positions": np.array([3, 1]), "rows": np.int64(-1)},
    "numpy's mask": {"rows": np.array([True, False, True])},
    "a list of numpy's": {"rows": [np.True_, np.False_, np.True_], "positions": [np.int32(4)]},
    "a head": {"heads": -1},
    "heads and positions": {"heads": slice(0, 1), "positions": [4, 1], "rows": [0, 2]},
    "neurons": {"neurons": [3, -1]},
}


def chosen(where: Any, size: int) -> np.ndarray[Any, Any]:
    """Return a mask by NumPy's own indexing."""
    flags = np.zeros(size, dtype=bool)
    flags[np.asarray(where) if isinstance(where, list) else where] = True
    return flags


def mask_of(where: dict[str, Any], axes: tuple[str, ...], shape: tuple[int, ...]) -> Any:
    mask = np.ones(shape, dtype=bool)
    for what, places in where.items():
        axis = next(n for n, name in enumerate(axes) if name in AXES[what])
        flags = chosen(places, shape[axis])
        mask &= flags.reshape([-1 if n == axis else 1 for n in range(len(shape))])
    return mask


def direction_of(width: int) -> Any:
    return np.random.default_rng(width).normal(size=width)


def wanted(name: str, x: Any) -> tuple[Intervention, Any]:
    """Return the arguments of an intervention and its expected result on `x`."""
    value = direction_of(x.shape[-1])
    along = np.einsum("...d,d->...", x, value)[..., None] * value / (value @ value)
    return {
        "replace": (do.replace(value), np.broadcast_to(value, x.shape)),
        "add": (do.add(value, scale=-2.0), x - 2.0 * value),
        "scale": (do.scale(-1.5), -1.5 * x),
        "zero": (do.zero(), np.zeros_like(x)),
        "fill": (do.fill(0.25), np.full_like(x, 0.25)),
        "mean": (do.mean(), np.broadcast_to(x.mean(axis=0, keepdims=True), x.shape)),
        "project_out": (do.project_out(value), x - along),
        "apply": (do.apply(lambda y, hook: y * y), x * x),
    }[name]


def fits(where: dict[str, Any], point: Point) -> bool:
    return all(any(a in point.site.axes for a in AXES[what]) for what in where)


NAMES = ("replace", "add", "scale", "zero", "fill", "mean", "project_out", "apply")


def names_at(point: Point, turn: int) -> list[str]:
    """Return which interventions take their turn: all of them, over restrictions and sites."""
    if point.site is at.attn_scores:
        return ["fill"]  # Most other interventions turn minus infinity into NaN.
    if point.site.axes[-1] == "1":
        return ["add", "scale", "fill", "mean"]  # A denominator must not be zero.
    return [NAMES[(turn + step) % len(NAMES)] for step in (0, 3)]


@pytest.mark.bits
@pytest.mark.parametrize(("case", "point"), SITES, ids=lambda value: str(value))
def test_it_acts_where_it_says_and_nowhere_else(
    case: str, point: Point, backend: Backend, load: Any
) -> None:
    model: Model = load(case, backend, "float64")
    stop = None if point.layer is None else point.layer + 1
    before = host(model, model.run(PROMPT, capture=[point], stop_at_layer=stop)[point])
    finite = np.where(np.isfinite(before), before, 0.0)
    turn = SITES.index((case, point))
    for label, where in WHERE.items():
        turn += 1
        for name in names_at(point, turn) if fits(where, point) else ():
            edit, after = wanted(name, finite)
            mask = mask_of(where, point.site.axes, before.shape)
            edits = [(point, replace(edit, **where))]
            run = model.run(PROMPT, capture=[point], edits=edits, stop_at_layer=stop)
            found, own = host(model, run[point]), before
            if point.site is at.rwkv_state:
                # Later states inherit what an edit did; up to the first one named all is plain.
                first = int(np.argmax(mask.any(axis=(0, 2, 3, 4)))) + 1
                found, after, mask, own = (a[:, :first] for a in (found, after, mask, own))
            what = f"{name}, {label}"
            np.testing.assert_array_equal(found[~mask], own[~mask], err_msg=what)
            np.testing.assert_allclose(found[mask], after[mask], 1e-12, 1e-13, err_msg=what)


def changed(model: Model, edits: Any, point: Point) -> tuple[Any, Any]:
    before = model.run(PROMPT, capture=[point])
    after = model.run(PROMPT, capture=[point], edits=edits)
    return host(model, before[point]), host(model, after[point])


@pytest.fixture
def model(backend: Backend, load: Any) -> Model:
    loaded: Model = load("llama2", backend, "float64")
    return loaded


def test_they_act_in_the_order_given(model: Model) -> None:
    point, one = at.resid_mid[0], np.ones(24)
    x, first = changed(model, [(point, do.add(one)), (point, do.scale(2.0))], point)
    _, second = changed(model, [(point, do.scale(2.0)), (point, do.add(one))], point)
    np.testing.assert_allclose(first, (x + 1) * 2, rtol=1e-13)
    np.testing.assert_allclose(second, x * 2 + 1, rtol=1e-13)
    edits: Any = [
        (point, do.zero()),
        (point, lambda y, hook: y + 3.0),
        (point, do.scale(2.0, rows=0)),
    ]
    _, third = changed(model, edits, point)
    assert (third[0] == 6).all()
    assert (third[1:] == 3).all()


def test_means_are_over_what_they_say(model: Model) -> None:
    point = at.z[0]
    x, by_pos = changed(model, [(point, do.mean("pos"))], point)
    np.testing.assert_allclose(by_pos, np.broadcast_to(x.mean(1, keepdims=True), x.shape))
    _, both = changed(model, [(point, do.mean(("batch", "pos"), positions=[2]))], point)
    np.testing.assert_allclose(both[:, 2], np.stack([x.mean(axis=(0, 1))] * 3))
    np.testing.assert_array_equal(both[:, :2], x[:, :2])


def test_means_over_what_a_site_lacks_are_refused_before_any_compute(
    model: Model, load: Any
) -> None:
    def never(x: Any, hook: Hook) -> None:
        raise AssertionError("something was computed before the refusal")

    first: Any = (at.embed, never)
    with pytest.raises(
        HookError, match=r"at at\.pattern\[0\], which has no axis pos: its axes are"
    ):
        model.run(PROMPT, edits=[first, (at.pattern[0], do.mean("pos"))])
    recurrent: Model = load("rwkv7", model.backend, "float64")
    with pytest.raises(HookError, match="positions are edited one by one here"):
        recurrent.run(PROMPT, edits=[first, (at.rwkv_state[0], do.mean("pos"))])
    for wrong in ("head", (), ("batch", "row")):
        with pytest.raises(ArgumentError, match=r"over=.*: expected 'batch', 'pos' or both"):
            LOOSE.mean(wrong)


def test_what_is_projected_out_is_gone(model: Model) -> None:
    direction = RNG.normal(size=24)
    _, after = changed(model, [(at.resid_mid[1], do.project_out(direction))], at.resid_mid[1])
    assert abs(after @ direction).max() < 1e-12
    with pytest.raises(ArgumentError, match=r"project_out\(.*the direction is zero"):
        model.run(PROMPT, edits=[(at.resid_mid[1], do.project_out(np.zeros(24)))])


@pytest.mark.bits
def test_grouped_heads_are_counted_as_the_site_has_them(model: Model) -> None:
    """The model has 4 heads of queries and 2 of keys: head 3 is no head of its values."""
    model.run(PROMPT, edits=[(at.q[0], do.zero(heads=3))])
    x, after = changed(model, [(at.v[0], do.zero(heads=1))], at.v[0])
    assert not after[:, :, 1].any()
    np.testing.assert_array_equal(after[:, :, 0], x[:, :, 0])
    with pytest.raises(HookError, match=r"at at\.v\[0\]: heads \[3\] of 2: .* from -2 to 1"):
        model.run(PROMPT, edits=[(at.v[0], do.zero(heads=3))])


@pytest.mark.parametrize(
    ("point", "edit", "message"),
    [
        (at.z[0], do.zero(positions=5), r"positions \[5\] of 5: expected indices from -5 to 4\."),
        (at.z[0], do.zero(positions=[0, -6]), r"positions \[-6\] of 5"),
        (at.z[0], do.zero(rows=3), r"rows \[3\] of 3"),
        (at.z[0], do.zero(positions=[True]), r"positions are a mask of 1 for 5"),
        (at.z[0], do.zero(positions=slice(5, None)), r"selects none of its 5 positions"),
        (at.z[0], do.zero(heads=[]), r"selects none of its 4 heads"),
        (at.z[0], do.zero(neurons=1), r"it has no neurons to choose from"),
        (at.embed, do.zero(heads=1), r"axes are batch pos d_model: it has no heads to choose"),
        (at.embed, do.add(np.ones(23)), r"has shape \(23,\); expected one that broadcasts to"),
        (at.embed, do.add(np.ones((2, 24)), positions=[1, 2, 3]), r"an entry for each of posi"),
        (at.embed, do.replace(np.ones((5, 24)), positions=[4, 3, 2, 1, 0]), r"in their own order"),
        (at.embed, do.replace([[1.0], [2.0, 3.0]]), r"ragged: it holds shapes \[\(1,\), \(2,\)\]"),
        (at.embed, do.project_out(np.ones(1)), r"shape \(1,\); expected .* to \(3, 5, 24\)"),
        (at.logits, do.zero(positions=5), r"positions \[5\] of 5"),
    ],
)  # fmt: skip
def test_what_there_is_not_is_refused_before_any_compute(
    point: Point, edit: Any, message: str, model: Model
) -> None:
    passed: list[str] = []

    def watch(x: Any, hook: Hook) -> None:
        passed.append(hook.name)

    with pytest.raises((HookError, ShapeError), match=message):
        model.run(PROMPT, edits=[(at.embed, watch), (point, edit)])
    assert passed == []


@pytest.mark.parametrize("places", [1.5, "12", [1, "a"], True, [True, 2], [0.0]])
def test_places_that_are_none_are_refused(places: Any) -> None:
    for what in AXES:
        with pytest.raises(
            ArgumentError, match=rf"{what}=.*(expected an index, a slice|mixes indices)"
        ):
            do.zero(**{what: places})


def test_the_last_logits_alone_have_one_position(model: Model) -> None:
    run = model.run(PROMPT, logits="last", edits=[(at.logits, do.zero(positions=0))])
    assert not host(model, run.logits).any()
    with pytest.raises(HookError, match=r"positions \[3\] of 1"):
        model.run(PROMPT, logits="last", edits=[(at.logits, do.zero(positions=3))])


@pytest.mark.bits
def test_an_edit_of_one_row_leaves_the_others(model: Model) -> None:
    plain, edited = (model.run(PROMPT, edits=e) for e in ((), [(at.z[0], do.zero(rows=[-1]))]))
    a, b = host(model, plain.logits), host(model, edited.logits)
    np.testing.assert_array_equal(a[:2], b[:2])
    assert not np.array_equal(a[2], b[2])


def test_it_prints_as_the_call_that_makes_it() -> None:
    shown = {
        repr(do.scale(0.5, heads=[2])): "scale(heads=(2,), factor=0.5)",
        repr(LOOSE.zero(positions=np.int64(-1))): "scale(positions=(-1,), factor=0.0)",
        repr(do.add(np.ones(3), positions=slice(1, 3))):
            "add(positions=slice(1, 3, None), value=<ndarray>, scale=1.0)",
        repr(do.mean(("pos",), rows=[True, False])): "mean(rows=(True, False), over=('pos',))",
        repr(LOOSE.knockout(3, np.array([0, 1]))): "knockout(queries=(3,), keys=(0, 1))",
        repr(do.set_pattern(0.5)): "set_pattern(weight=0.5)",
    }  # fmt: skip
    assert list(shown) == list(shown.values())


def test_equal_is_what_does_the_same() -> None:
    assert LOOSE.zero(heads=np.array([1])) == do.scale(0.0, heads=[1])
    assert do.zero(heads=1) != do.zero(heads=2)
    assert len({do.scale(1.0), do.scale(1.0), do.scale(2.0)}) == 2


def test_no_run_no_call() -> None:
    hook = Hook("hook_embed", None, at.embed)
    with pytest.raises(HookError, match=r"hook_embed: this hook has no backend"):
        do.fill(1.0)(np.ones((1, 1, 2)), hook)


def test_a_capture_before_edits_shows_what_was(model: Model) -> None:
    run: Run = model.run(
        PROMPT, capture=[capture(at.z[0], before_edits=True)], edits=[(at.z[0], do.zero())]
    )
    assert host(model, run[at.z[0]]).any()
