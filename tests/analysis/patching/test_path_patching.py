"""Path patching compared with streams summed by hand, and on a planted circuit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import Backend, Model, at
from mi_ref.analysis.measure.metrics import logit_difference
from mi_ref.analysis.patching.activations import head_patching
from mi_ref.analysis.patching.grid import PatchingGrid
from mi_ref.analysis.patching.paths import Receiver, path_patching
from mi_ref.config.decoder import Layer
from mi_ref.hooks.decoder_points import decoder_hook_points
from mi_ref.params.params import LayerParams, Linear, MLPParams

CLEAN, CORRUPTED = [5, 17, 3, 39, 22, 8], [5, 17, 8, 39, 22, 8]
Load = Callable[[str, Backend, str], Model]


def exact(load: Load, case: str) -> Model:
    return load(case, mi_ref.get_backend("numpy"), "float64")


def difference(logits: Any) -> float:
    return float(logits[0, -1, 7] - logits[0, -1, 9])


class ByHand:
    """One sender at a time, whose change is added to streams of the base prompt."""

    def __init__(self, model: Model, sending: str, *, mlps_too: bool) -> None:
        self.model, self.sending, self._mlps_too = model, sending, mlps_too
        sites = (at.attn_out, at.mlp_out, at.resid_pre, at.resid_post)
        self.site = {"head": at.z, "attn": at.attn_out, "mlp": at.mlp_out}[sending]
        wanted = [site[:] for site in (*sites, at.z)]
        self.base, self.source = (model.run(ids, capture=wanted) for ids in (CORRUPTED, CLEAN))

    def sent(self, layer: int, head: int | None) -> tuple[Any, Any]:
        """Return what attention and MLP of the sender's layer add, the sender's part replaced."""
        attn, mlp = self.base[at.attn_out[layer]], self.base[at.mlp_out[layer]]
        if self.sending == "mlp":
            return attn, self.source[at.mlp_out[layer]]
        if head is None:
            return self.source[at.attn_out[layer]], mlp
        z = self.base[at.z[layer]].copy()
        z[:, :, head] = self.source[at.z[layer]][:, :, head]
        return self._written(layer, z), mlp

    def _written(self, layer: int, z: Any) -> Any:
        w, cfg = self.model.params.layers[layer], self.model.cfg.layers[layer]
        assert isinstance(w, LayerParams)
        assert isinstance(cfg, Layer)
        out = z.reshape(*z.shape[:2], -1) @ w.out.weight.T
        if w.out.bias is not None:
            out = out + w.out.bias
        if w.ln1_post is None or cfg.ln1_post is None:
            return out
        return (
            out / np.sqrt((out**2).mean(-1, keepdims=True) + cfg.ln1_post.eps) * (w.ln1_post.weight)
        )

    def streams(self, layer: int, head: int | None) -> tuple[list[Any], list[Any], Any]:
        """Return what enters each layer, what its attention adds, and the final stream."""
        entering, added = [], []
        stream = self.base[at.resid_pre[0]]
        for number in range(self.model.cfg.n_layers):
            entering.append(stream)
            attn, mlp = self.base[at.attn_out[number]], self.base[at.mlp_out[number]]
            if number == layer:
                attn, mlp = self.sent(layer, head)
            added.append(attn)
            if not self._mlps_too and number >= layer + (self.sending == "mlp"):
                step = self.model.run(
                    stream,
                    start_at_layer=number,
                    stop_at_layer=number + 1 if number + 1 < self.model.cfg.n_layers else None,
                    edits=[(at.attn_out[number], attn)],
                    capture=[at.mlp_out[number]],
                )
                mlp = step[at.mlp_out[number]]
            stream = stream + attn + mlp
        return entering, added, stream

    def direct(self, layer: int, head: int | None) -> float:
        stream = self.streams(layer, head)[2]
        return difference(np.asarray(self.model.project_to_vocab(stream)))

    def received(self, layer: int, head: int | None, receiver: Receiver) -> float:
        entering, added, _ = self.streams(layer, head)
        point, heads = receiver.point, receiver.heads
        end = point.layer  # type: ignore[union-attr]
        run = self.model.run(
            entering[end], start_at_layer=end, edits=[(at.attn_out[end], added[end])],
            capture=[point],
        )  # fmt: skip
        where = (slice(None), slice(None), *(() if heads is None else (heads,)))

        def put(x: Any, hook: Any) -> None:
            x[where] = run[point][where]

        return difference(self.model.run(CORRUPTED, edits=[(point, put)]).logits)

    def grid(self, cell: Callable[[int, int | None], float]) -> list[list[float]]:
        heads = range(self.model.cfg.n_heads) if self.sending == "head" else [None]
        return [[cell(n, head) for head in heads] for n in range(self.model.cfg.n_layers)]


CASES = ["gpt2", "gemma2", "gpt-neox-parallel", "olmo2"]


@pytest.mark.parametrize("freeze", ["attention", "all"])
@pytest.mark.parametrize("sending", ["head", "attn", "mlp"])
@pytest.mark.parametrize("case", CASES)
def test_direct_paths_are_changes_added_to_the_final_stream(
    load: Load, case: str, sending: Any, freeze: Any
) -> None:
    model = exact(load, case)
    found = path_patching(
        model, CLEAN, CORRUPTED, senders=sending, freeze=freeze, rows=5,
        metric=logit_difference(model, 7, 9),
    )  # fmt: skip
    hand = ByHand(model, sending, mlps_too=freeze == "all")
    np.testing.assert_allclose(found.values, hand.grid(hand.direct), rtol=1e-11, atol=1e-12)
    if freeze == "all" and sending != "head":
        # Only one output changes, so only a sum is left.
        last = hand.base[at.resid_post[model.cfg.n_layers - 1]]
        for layer, (value,) in enumerate(found.values):
            changed = hand.source[hand.site[layer]] - hand.base[hand.site[layer]]
            direct = difference(np.asarray(model.project_to_vocab(last + changed)))
            assert value == pytest.approx(direct, rel=1e-11, abs=1e-12)


@pytest.mark.parametrize("freeze", ["attention", "all"])
@pytest.mark.parametrize(
    ("case", "sending", "receiver"),
    [
        ("llama2", "head", Receiver(at.q[1], heads=(2,))),
        ("llama2", "mlp", Receiver(at.k[1], heads=(1,))),
        ("llama2", "head", Receiver(at.mlp_in[0])),
        ("gemma2", "head", Receiver(at.v[2])),
        ("gemma2", "attn", Receiver(at.mlp_in[1])),
        ("gpt-neox-parallel", "head", Receiver(at.mlp_in[1])),
        ("gpt-neox-parallel", "attn", Receiver(at.attn_in[1])),
        ("qwen3", "head", Receiver(at.rot_q[1], heads=(0, 3))),
    ],
)
def test_receivers_get_what_is_sent_and_pass_it_on_freely(
    load: Load, case: str, sending: Any, receiver: Receiver, freeze: Any
) -> None:
    model = exact(load, case)
    found = path_patching(
        model, CLEAN, CORRUPTED, senders=sending, receivers=receiver, freeze=freeze,
        metric=logit_difference(model, 7, 9),
    )  # fmt: skip
    hand = ByHand(model, sending, mlps_too=freeze == "all")
    expected = hand.grid(lambda layer, head: hand.received(layer, head, receiver))
    np.testing.assert_allclose(found.values, expected, rtol=1e-11, atol=1e-12)
    assert np.ptp(found.values) > 1e-9


@pytest.mark.parametrize(
    ("case", "receiver", "silent"),
    [
        ("llama2", Receiver(at.q[1]), [1]),
        ("llama2", Receiver(at.mlp_in[0]), [1]),
        ("gpt-neox-parallel", Receiver(at.mlp_in[1]), [1]),
        ("gemma2", Receiver(at.k[1:2]), [1, 2]),
    ],
)
def test_who_comes_after_the_receivers_is_exactly_zero(
    load: Load, case: str, receiver: Receiver, silent: list[int]
) -> None:
    model = exact(load, case)
    found = path_patching(
        model, CLEAN, CORRUPTED, receivers=[receiver], metric=logit_difference(model, 7, 9)
    )
    for layer in range(model.cfg.n_layers):
        assert (set(found.recovery[layer]) == {0.0}) == (layer in silent)
        assert (set(found.values[layer]) == {found.base}) == (layer in silent)


def planted(load: Load, *, through_mlp: bool) -> Model:
    """Return three layers in which only some heads read what others write.

    Dimensions 0 to 11 of the 24 hold the embedding, and everything reads them except these: queries
    of 2.0 read what head 0.0 writes, values of layer 1 read what 0.1 writes, and head 1.1 passes
    that to the queries. If asked for, the MLP of layer 0 does too. No norm mixes dimensions.
    """
    model, rng = exact(load, "llama2"), np.random.default_rng(0)
    word, first, second, rest = (slice(0, 12), slice(12, 16), slice(16, 20), slice(20, 24))

    def reads(rows: int, dims: slice) -> Any:
        w = np.zeros((rows, 24))
        w[:, dims] = rng.normal(0, 0.3, size=(rows, dims.stop - dims.start))
        return w

    def layer(number: int) -> LayerParams:
        own = model.params.layers[number % 2]
        assert isinstance(own, LayerParams)
        query = reads(24, word)
        query[:6] = reads(6, first) if number == 2 else query[:6]
        writes = {0: [first, second, rest, rest], 1: [rest, first, rest, rest], 2: [rest] * 4}
        out = np.concatenate([reads(6, dims).T for dims in writes[number]], axis=1)
        pair = through_mlp and number == 0
        mlp = MLPParams(
            gate=Linear(reads(20, second) * pair, None),
            into=Linear(reads(20, second) * pair, None),
            out=Linear(reads(20, first).T * pair, None),
        )
        return replace(
            own, ln1=None, ln2=None, query=Linear(query, None), mlp=mlp, out=Linear(out, None),
            key=Linear(reads(12, word), None),
            value=Linear(reads(12, second if number == 1 else word), None),
        )  # fmt: skip

    block = model.cfg.blocks[0]
    cfg = replace(model.cfg, layers=(replace(block, ln1=None, ln2=None),) * 3)
    params = replace(
        model.params, embed=reads(48, word), layers=tuple(layer(number) for number in range(3))
    )
    return replace(model, cfg=cfg, params=params, hook_points=decoder_hook_points(cfg))


def heard(found: PatchingGrid) -> set[str]:
    return {
        f"{layer}.{head}"
        for layer, row in enumerate(found.values)
        for head, value in enumerate(row)
        if abs(value - found.base) > 1e-9
    }


def test_a_planted_circuit_is_found_edge_by_edge(load: Load) -> None:
    model = planted(load, through_mlp=False)
    metric = logit_difference(model, 7, 9)

    def into(*receivers: Receiver) -> set[str]:
        return heard(path_patching(model, CLEAN, CORRUPTED, receivers=receivers, metric=metric))

    assert into(Receiver(at.q[2], heads=0)) == {"0.0", "1.1"}
    assert into(Receiver(at.v[1], heads=0)) == {"0.1"}
    assert into(Receiver(at.q[2], heads=slice(1, 4)), Receiver(at.k[:]), Receiver(at.q[:2])) == (
        set()
    )
    # Patching a head without regard to its receivers cannot separate the two paths.
    assert {"0.0", "0.1", "1.1"} < heard(head_patching(model, CLEAN, CORRUPTED, metric=metric))


def test_a_direct_path_may_lead_through_an_mlp_or_not(load: Load) -> None:
    model, receiver = planted(load, through_mlp=True), Receiver(at.q[2], heads=0)
    options: Any = {"receivers": receiver, "metric": logit_difference(model, 7, 9)}
    through = path_patching(model, CLEAN, CORRUPTED, **options)
    assert heard(through) == {"0.0", "0.1", "1.1"}
    alone = path_patching(model, CLEAN, CORRUPTED, freeze="all", **options)
    assert heard(alone) == {"0.0", "1.1"}
    mlps = path_patching(model, CLEAN, CORRUPTED, senders="mlp", **options)
    assert heard(mlps) == {"0.0"}
    assert (mlps.columns, mlps.axes) == (("mlp",), ("layer", "output"))
