"""Names of hook points, printed and parsed; other dialects; cache keys."""

from __future__ import annotations

import copy
import pickle
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, strategies as st

from mi_ref import ArgumentError, GlobalSite, Hook, HookError, LayerSite, Model, at
from mi_ref.hooks.names import named_site, parse_point
from mi_ref.hooks.sites import ALL_SITES, LayerSpan, Point
from tests.fixtures.by_hand import equal

PROMPT = [[40, 12, 5, 14, 19], [39, 21, 4, 16, 28]]

points = st.builds(
    lambda site, layer: site if isinstance(site, GlobalSite) else site[layer],
    st.sampled_from(ALL_SITES),
    st.integers(0, 10**6),
)


@given(points)
def test_what_is_printed_parses_back(point: Point) -> None:
    assert parse_point(str(point)) == point
    assert eval(repr(point), {"at": at}) == point


@given(points)
def test_points_survive_pickle_and_deepcopy(point: Point) -> None:
    for again in (pickle.loads(pickle.dumps(point)), copy.deepcopy(point)):
        assert again == point
        assert again.site is point.site
        assert hash(again) == hash(point)


@given(st.text())
def test_a_string_is_a_known_name_or_an_error(text: str) -> None:
    with suppress(HookError):
        assert parse_point(text).site in ALL_SITES


def test_sites_stay_the_same_objects_and_own_ones_their_values() -> None:
    for site in ALL_SITES:
        assert pickle.loads(pickle.dumps(site)) is site
        assert copy.deepcopy(site) is site
    own = LayerSite("resid_post", "blocks.{layer}.hook_other", ("batch",))
    again = pickle.loads(pickle.dumps(own))
    assert again is not at.resid_post
    assert (again.name, again.string, again.axes) == (own.name, own.string, own.axes)


def test_no_two_sites_share_a_name() -> None:
    assert len({site.name for site in ALL_SITES}) == len(ALL_SITES)
    assert len({site.string for site in ALL_SITES}) == len(ALL_SITES)


# Copied from TransformerLens' documentation; tutorials and SAEs are written in these.
TRANSFORMER_LENS = {
    "hook_embed": at.embed,
    "hook_pos_embed": at.pos_embed,
    "blocks.3.hook_resid_pre": at.resid_pre[3],
    "blocks.3.hook_resid_mid": at.resid_mid[3],
    "blocks.3.hook_resid_post": at.resid_post[3],
    "blocks.3.hook_attn_out": at.attn_out[3],
    "blocks.3.hook_mlp_out": at.mlp_out[3],
    "blocks.3.ln1.hook_scale": at.ln1_scale[3],
    "blocks.3.ln1.hook_normalized": at.ln1_normalized[3],
    "blocks.3.ln2.hook_scale": at.ln2_scale[3],
    "blocks.3.ln2.hook_normalized": at.ln2_normalized[3],
    "blocks.3.attn.hook_q": at.q[3],
    "blocks.3.attn.hook_k": at.k[3],
    "blocks.3.attn.hook_v": at.v[3],
    "blocks.3.attn.hook_rot_q": at.rot_q[3],
    "blocks.3.attn.hook_rot_k": at.rot_k[3],
    "blocks.3.attn.hook_attn_scores": at.attn_scores[3],
    "blocks.3.attn.hook_pattern": at.pattern[3],
    "blocks.3.attn.hook_z": at.z[3],
    "blocks.3.attn.hook_result": at.result[3],
    "blocks.3.mlp.hook_pre": at.pre[3],
    "blocks.3.mlp.hook_pre_linear": at.pre_linear[3],
    "blocks.3.mlp.hook_post": at.post[3],
    "ln_final.hook_scale": at.ln_final_scale,
    "ln_final.hook_normalized": at.ln_final_normalized,
    "unembed.hook_in": at.unembed_in,
    "unembed.hook_out": at.logits,
}


@pytest.mark.parametrize(("name", "point"), TRANSFORMER_LENS.items())
def test_transformer_lens_names(name: str, point: Point) -> None:
    assert str(point) == name
    assert parse_point(name) == point


@pytest.mark.parametrize(
    ("alias", "point"),
    [
        ("blocks.2.hook_in", at.resid_pre[2]),
        ("blocks.2.hook_out", at.resid_post[2]),
        ("embed.hook_out", at.embed),
        ("hook_final_norm", at.unembed_in),
        ("embed", at.embed),
        ("logits", at.logits),
    ],
)
def test_names_of_other_dialects_that_mean_the_same(alias: str, point: Point) -> None:
    assert parse_point(alias) == point


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("blocks.2.attn.hook_scores", r"before soft-cap and mask; 'blocks\.2\.attn\.hook_attn_sc"),
        ("blocks.2.attn.k.hook_out", r"is flat \[batch, pos, head \* d_head\]; use 'blocks\.2\.at"),
        (
            "blocks.2.hook_attn_in",
            r"before the norm; use 'blocks\.2\.hook_resid_pre' or 'blocks\.2",
        ),
        ("blocks.2.hook_q_input", r"before the norm; use 'blocks\.2\.hook_resid_pre'"),
        ("blocks.2.hook_mlp_in", r"use 'blocks\.2\.hook_resid_mid' or 'blocks\.2\.mlp\.hook_in'"),
    ],
)
def test_names_of_other_dialects_that_mean_another_tensor(name: str, reason: str) -> None:
    with pytest.raises(HookError, match=rf"'{name}' is refused: .*{reason}"):
        parse_point(name)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("blocks.5.hook_resid_pots", "'blocks.5.hook_resid_post'"),
        ("blocks.5.attn.hook_patern", "'blocks.5.attn.hook_pattern'"),
        ("hook_embd", "'hook_embed'"),
        ("blocks.5.hook_embed", ""),
        ("blocks.-1.hook_resid_post", "'blocks.0.hook_resid_post'"),
        ("hook_resid_post", "'blocks.0.hook_resid_post'"),
        ("", ""),
    ],
)
def test_unknown_names_bring_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(HookError) as refusal:
        parse_point(name)
    assert str(refusal.value).startswith(f"no hook point is named {name!r}.")
    assert hint in str(refusal.value)


def test_sites_by_short_name() -> None:
    assert named_site("resid_post") is at.resid_post
    with pytest.raises(HookError, match=r"no hook site is named 'resid_pots'\. Did you mean 'resi"):
        named_site("resid_pots")


@pytest.mark.usefixtures("as_users_call")
def test_indexing_a_site() -> None:
    assert repr(at.pattern[2:8]) == "at.pattern[2:8]"
    assert repr(at.pattern[::2]) == "at.pattern[::2]"
    span = at.pattern[1:]
    assert isinstance(span, LayerSpan)
    assert list(span.layers(4)) == [1, 2, 3]
    assert at.z[1] == at.z[1]
    assert at.z[1] != at.q[1]
    wrong: Any
    with pytest.raises(TypeError, match="not iterable"):
        list(at.z)  # type: ignore[call-overload]
    for wrong in ("1", True, 1.0, None):
        with pytest.raises(
            ArgumentError, match=rf"at\.z\[{wrong!r}\]: expected a layer number or a slice"
        ):
            at.z[wrong]


def test_cache_keys(tiny: Model) -> None:
    run = tiny.run(PROMPT, capture=[at.logits, at.resid_post[:], at.pattern[-1], at.embed])
    cache = run.cache
    assert list(cache) == [at.embed, at.resid_post[0], at.pattern[1], at.resid_post[1], at.logits]
    for key in (at.pattern[1], at.pattern[-1], "blocks.1.attn.hook_pattern", ("pattern", 1),
                ("pattern", -1)):  # fmt: skip
        assert run[key] is cache[at.pattern[1]]
        assert key in cache
        assert cache.get(key) is cache[at.pattern[1]]
    assert cache["pattern", -1] is cache[at.pattern[1]]
    assert cache["embed"] is cache[("embed",)] is cache[at.embed]
    assert at.z[0] not in cache
    assert cache.get(at.z[0]) is None
    assert cache.get(at.z[0], 3) == 3
    message = (
        r"at\.z\[0\] was not captured; this run holds at\.embed, .* model\.run\(.*\[at\.z\[0\]"
    )
    with pytest.raises(HookError, match=message):
        cache[at.z[-2]]
    for wrong in ("blocks.0.hook_zz", at.z[9], ("zz", 0)):
        for ask in (cache.__getitem__, cache.get, cache.__contains__):
            with pytest.raises(HookError):
                ask(wrong)
    with pytest.raises(ArgumentError, match="does not name one hook point"):
        cache[at.z[:]]
    assert len(str(cache).splitlines()) >= 5
    assert "blocks.1.attn.hook_pattern" in str(cache)
    assert repr(cache) == "<Cache of 5 activations; print() lists them>"


@pytest.mark.bits
def test_run_with_cache_as_in_transformer_lens(tiny: Model) -> None:
    logits, cache = tiny.run_with_cache(PROMPT)
    assert equal(logits, tiny.run(PROMPT).logits)
    assert list(cache) == [e.point for e in tiny.hook_points if not e.lazy]
    by_list: list[Any] = ["blocks.0.hook_resid_post", at.z[1]]
    assert list(tiny.run_with_cache(PROMPT, names_filter=by_list)[1]) == [at.resid_post[0], at.z[1]]
    _, cache = tiny.run_with_cache(PROMPT, names_filter=lambda name: name.endswith("hook_z"))
    assert list(cache) == [at.z[0], at.z[1]]
    # TransformerLens once gave an empty cache for a string.
    _, cache = tiny.run_with_cache(PROMPT, names_filter="blocks.1.attn.hook_z")
    assert list(cache) == [at.z[1]]
    with pytest.raises(HookError, match="Did you mean"):
        tiny.run_with_cache(PROMPT, names_filter="blocks.1.attn.hook_zz")
    with pytest.raises(HookError, match="the predicate"):
        tiny.run_with_cache(PROMPT, names_filter=lambda name: "zz" in name)
    logits, cache = tiny.run_with_cache(PROMPT, names_filter=[at.z[0]], stop_at_layer=1)
    assert logits is None
    assert at.z[0] in cache


@pytest.mark.bits
def test_run_with_hooks_as_in_transformer_lens(tiny: Model) -> None:
    def zero(value: Any, hook: Hook) -> Any:
        value[:, :, 1, :] = 0.0
        return value

    plain = tiny.run(PROMPT).logits
    hooked = tiny.run_with_hooks(PROMPT, fwd_hooks=[("blocks.1.attn.hook_z", zero)])
    assert equal(hooked, tiny.run(PROMPT, edits={at.z[1]: zero}).logits)
    assert not equal(hooked, plain)
    assert equal(tiny.run_with_hooks(PROMPT), plain)
    with pytest.raises(HookError, match=r"no hook point is named 'blocks\.1\.attn\.hook_zz'"):
        tiny.run_with_hooks(PROMPT, fwd_hooks=[("blocks.1.attn.hook_zz", zero)])
