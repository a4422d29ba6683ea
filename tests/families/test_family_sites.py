"""Sites that a family lacks, in all layers or in some, and the reasons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mi_ref import HookError, Model, at, get_backend

Load = Callable[..., Model]


@pytest.mark.parametrize(
    ("case", "selector", "reason"),
    [
        ("phi", at.resid_mid[0], "attention and MLP read the same stream in parallel; use"),
        ("gpt-neox-parallel", at.resid_mid[:], r"at\.resid_mid does not exist .* in parallel"),
        ("phi", at.ln2_scale[0], r"the MLP reads attention's normed input: see at\.ln1_scale"),
        ("phi", at.pre_linear[0], r"the MLP has no gate: at\.pre is its only branch"),
        (
            "gpt2",
            at.rot_q[1],
            r"no rotary embedding: the dot product is that of at\.q and at\.k",
        ),
        ("gpt2", at.rot_k[:], "there is no rotary embedding"),
        ("mixtral", at.pre[0], r"each token has neurons in its own few experts; see at\.expert_w"),
        ("mixtral", at.post[:], "each token has neurons in its own few experts"),
        ("qwen3-moe", at.router_logits[1], r"at\.router_logits\[1\] does not exist .*mixture"),
        ("qwen3-moe", at.pre[0], r"at\.pre\[0\] does not exist .* its own few experts"),
        (
            "olmo2",
            at.ln1_scale[0],
            r"attention's input has no norm; .* one, at at\.ln1_post_scale",
        ),
        ("olmo2", at.ln2_normalized[0], r"the MLP's input has no norm; .*at\.ln2_post_scale"),
        ("gemma", at.pos_embed, r"positions enter by rotation, at at\.rot_q and at\.rot_k"),
        ("gemma", at.ln1_post_scale[0], "attention's output is added without a norm"),
        ("gemma2", at.q_norm_scale[0], "queries and keys have no norm"),
        ("llama2", at.ln2_post_scale[1], "the MLP's output is added without a norm"),
        ("llama2", at.router_logits[:], "the MLP is not a mixture of experts"),
    ],
)
@pytest.mark.usefixtures("as_users_call")
def test_absent_sites_give_their_reason(case: str, selector: Any, reason: str, load: Load) -> None:
    model = load(case, get_backend("numpy"), "float32")
    for options in ({"capture": [selector]}, {"edits": [(selector, lambda x, hook: x)]}):
        with pytest.raises(HookError, match=reason):
            model.run([[1, 2, 3]], **options)


def test_a_slice_means_the_layers_that_have_the_site(load: Load) -> None:
    model = load("qwen3-moe", get_backend("numpy"), "float32")
    run = model.run([1, 2, 3], capture=[at.router_logits[:], at.pre[:], at.post[1]])
    assert list(run.cache) == [at.router_logits[0], at.pre[1], at.post[1], at.router_logits[2]]
    table = str(model.hook_points.table())
    assert "Only in layers 0, 2." in table
    assert "Only in layers 1." in table
    with pytest.raises(HookError, match=r"at\.router_logits\[1\] does not exist in this model"):
        model.run([1, 2, 3], capture=[at.router_logits[1:2]])
