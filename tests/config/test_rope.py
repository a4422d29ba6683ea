"""Rotary frequencies compared with numbers from transformers and rules from the papers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from mi_ref import get_backend
from mi_ref.config.rope import (
    DefaultRope,
    DynamicRope,
    LinearRope,
    Llama3Rope,
    LongRope,
    Rope,
    Rotary,
    YarnRope,
)
from mi_ref.families.reading.config_file import HfConfig
from mi_ref.families.reading.rope_keys import read_rope
from mi_ref.forward.rotary import rotary_tables
from mi_ref.text.padding import Padding

LLAMA32 = Llama3Rope(
    theta=500_000.0, factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_n_ctx=8192
)
YARN = YarnRope(theta=10_000.0, factor=4.0, original_n_ctx=1024, beta_fast=32.0, beta_slow=1.0,
                attention_factor=1.138629436111989, truncate=True)  # fmt: skip
LONG = LongRope(theta=10_000.0, short_factors=(1.0, 2.0), long_factors=(4.0, 8.0),
                original_n_ctx=3, attention_factor=1.25)  # fmt: skip

# inv_freq of LlamaRotaryEmbedding in transformers 5.23, to seven digits.
LLAMA32_FREQUENCIES = """
    1 0.6636013 0.4403666 0.2922278 0.1939228 0.1286874 0.0853971 0.05666962 0.03760603 0.02495541
    0.01656044 0.01098953 0.007292665 0.004839421 0.003211446 0.001290548 0.0004295567 9.708286e-05
    1.946164e-05 1.291477e-05 8.570256e-06 5.687232e-06 3.774054e-06 2.504467e-06 1.661967e-06
    1.102884e-06 7.318749e-07 4.856731e-07 3.222933e-07 2.138742e-07 1.419272e-07 9.418306e-08
"""
YARN_FREQUENCIES = "1 0.3162278 0.08125 0.01976424 0.004375 0.0007905695 0.00025 7.905695e-05"


def tables(
    rope: Rope, dims: int, n_pos: int, padding: Padding | None = None, dtype: Any = np.float64
) -> tuple[Any, Any]:
    rotary = Rotary(rope=rope, dims=dims)
    return rotary_tables(rotary, n_pos, padding, dtype=dtype, backend=get_backend("numpy"))


def frequencies(rope: Rope, dims: int, n_pos: int = 2) -> tuple[Any, float]:
    """Read frequencies and factor off the tables, at position 1."""
    cos, sin = tables(rope, dims, n_pos)
    assert cos.shape == sin.shape == (n_pos, dims // 2)
    factor = float(cos[0, 0])
    assert (cos[0] == factor).all()
    assert (sin[0] == 0.0).all()
    return np.arctan2(sin[1], cos[1]), factor


@pytest.mark.parametrize(
    ("rope", "dims", "literal", "factor"),
    [
        (DefaultRope(theta=10_000.0), 8, "1 0.1 0.01 0.001", 1.0),
        (DefaultRope(theta=500_000.0), 4, "1 0.001414213562", 1.0),
        (LinearRope(theta=10_000.0, factor=4.0), 8, "0.25 0.025 0.0025 0.00025", 1.0),
        (LLAMA32, 64, LLAMA32_FREQUENCIES, 1.0),
        (YARN, 16, YARN_FREQUENCIES, 1.138629436111989),
        (LONG, 4, "1 0.005", 1.25),
    ],
)
def test_frequencies_are_those_of_huggingface(
    rope: Rope, dims: int, literal: str, factor: float
) -> None:
    found, found_factor = frequencies(rope, dims)
    assert found.tolist() == pytest.approx([float(text) for text in literal.split()], rel=6e-7)
    assert found_factor == factor


def test_llama3_by_wavelengths() -> None:
    """Meta's rule depends on how often a wave fits into the original context, 1 and 4 times."""
    expected = []
    for pair in range(32):
        turn = 500_000 ** (-pair / 32)
        fits = 8192 * turn / math.tau
        if fits >= 4:
            expected.append(turn)
        elif fits <= 1:
            expected.append(turn / 32)
        else:
            share = (fits - 1) / 3
            expected.append(turn * share + turn / 32 * (1 - share))
    found, _ = frequencies(LLAMA32, 64)
    assert found.tolist() == pytest.approx(expected, rel=1e-12)


def test_dynamic_base_grows_with_the_prompt() -> None:
    """The stretched base makes the slowest pair turn as with positions divided by the stretch."""
    rope = DynamicRope(theta=10_000.0, factor=3.0, original_n_ctx=6)
    for n_pos in (2, 6):
        assert frequencies(rope, 8, n_pos)[0].tolist() == pytest.approx([1, 0.1, 0.01, 0.001])
    # 12 positions of 6 at factor 3: alpha = 3 * 12 / 6 - 2 = 4.
    found, _ = frequencies(rope, 8, 12)
    assert found[0] == pytest.approx(1.0, rel=1e-14)
    assert found[-1] == pytest.approx(0.001 / 4, rel=1e-12)
    assert found[1] == pytest.approx(0.1 / 4 ** (1 / 3), rel=1e-12)


@pytest.mark.parametrize("rope", [LLAMA32, YARN, LONG, DynamicRope(theta=1e4, factor=3.0,
                                                                  original_n_ctx=6)])  # fmt: skip
@pytest.mark.parametrize("padding", [None, Padding((0, 3), (8, 8), 8), Padding((0, 0), (8, 5), 8)])
def test_tables_from_any_first_position_are_the_end_of_all(
    rope: Rope, padding: Padding | None
) -> None:
    rotary, numpy = Rotary(rope=rope, dims=4), get_backend("numpy")
    whole = tables(rope, 4, 8, padding)
    for first in range(8):
        part = rotary_tables(rotary, 8, padding, first=first, dtype=np.float64, backend=numpy)
        for found, expected in zip(part, whole, strict=True):
            assert found.shape == expected[..., first:, :].shape
            assert found == pytest.approx(expected[..., first:, :], rel=1e-15, abs=1e-15)


def test_yarn_without_rounding_and_with_other_betas() -> None:
    """A pair's share of interpolation is linear in its number, between two numbers of turns."""
    rope = YarnRope(theta=10_000.0, factor=4.0, original_n_ctx=512, beta_fast=8.0, beta_slow=2.0,
                    attention_factor=1.0, truncate=False)  # fmt: skip
    # The pair that turns n times in 512 positions: 10000 ** (-pair / 6) * 512 = 2 pi n.
    first, last = (6 * math.log(512 / (math.tau * n), 10_000) for n in (8, 2))
    expected = []
    for pair in range(6):
        share = min(max((pair - first) / (last - first), 0.0), 1.0)
        turn = 10_000 ** (-pair / 6)
        expected.append(share * turn / 4 + (1 - share) * turn)
    found, factor = frequencies(rope, 12)
    assert found.tolist() == pytest.approx(expected, rel=1e-12)
    assert factor == 1.0


def test_yarn_touches_nothing_or_all_outside_its_ramp() -> None:
    found, _ = frequencies(YARN, 16)
    plain = [10_000 ** (-pair / 8) for pair in range(8)]
    assert found[:2].tolist() == pytest.approx(plain[:2], rel=1e-14)
    assert found[6:].tolist() == pytest.approx([turn / 4 for turn in plain[6:]], rel=1e-12)


def test_float32_tables_are_rounded_float64_tables() -> None:
    """Computed in float32, an angle at position 2000 would be off by 1e-4."""
    exact, _ = tables(LLAMA32, 64, 2048)
    rounded, _ = tables(LLAMA32, 64, 2048, dtype=np.float32)
    assert rounded.dtype == np.float32
    assert np.array_equal(rounded, exact.astype(np.float32))
    assert exact[2000, 1] == pytest.approx(math.cos(2000 * 500_000 ** (-1 / 32)), abs=1e-12)


def test_longrope_takes_its_long_factors_beyond_the_original_length_only() -> None:
    """Then at all positions, with the same factor on cosine and sine."""
    for n_pos, turns in ((2, [1.0, 0.005]), (3, [1.0, 0.005]), (4, [0.25, 0.00125])):
        found, factor = frequencies(LONG, 4, n_pos)
        assert found.tolist() == pytest.approx(turns, rel=1e-12)
        assert factor == 1.25


@pytest.mark.parametrize(
    "rope",
    [DefaultRope(theta=100.0), LONG, YARN, DynamicRope(theta=9.0, factor=3.0, original_n_ctx=3)],
)
def test_a_padded_row_has_the_tables_of_its_own_length(rope: Rope) -> None:
    padding = Padding(starts=(2, 0, 0), stops=(5, 5, 2), n_pos=5)
    padded = tables(rope, 4, 5, padding)
    for row, (start, stop) in enumerate(zip(padding.starts, padding.stops, strict=True)):
        alone = tables(rope, 4, stop - start)
        for together, single in zip(padded, alone, strict=True):
            assert together.shape == (3, 5, 2)
            assert together[row, start:stop] == pytest.approx(single, rel=1e-14, abs=1e-14)


def read_rotary(raw: dict[str, Any], n_ctx: int = 4096, **options: Any) -> Rotary:
    config = HfConfig(raw, source="config.json", family="llama")
    rotary = read_rope(config, n_ctx=n_ctx, d_head=8, default_theta=10_000.0, **options)
    config.done()
    return rotary


def read(raw: dict[str, Any], n_ctx: int = 4096) -> Rope:
    return read_rotary(raw, n_ctx).rope


def test_how_much_of_a_head_turns() -> None:
    for raw, dims in (
        ({}, 4),
        ({"part": 0.25}, 2),
        ({"part": 0.25, "rope_parameters": {"partial_rotary_factor": 0.75}}, 6),
        # Rounded down to whole coordinates, as HuggingFace does.
        ({"part": 0.3}, 2),
    ):
        assert read_rotary(raw, partial_key="part", default_partial=0.5).dims == dims
    assert read_rotary({}).dims == 8


LONG_RAW = {"short_factor": [1, 2, 3, 4], "long_factor": [5, 6, 7, 8],
            "original_max_position_embeddings": 1024}  # fmt: skip


@pytest.mark.parametrize("kind", [{"type": "su"}, {"type": "longrope"}, {"rope_type": "longrope"}])
def test_longrope_is_read(kind: dict[str, str]) -> None:
    rope = read({"rope_scaling": LONG_RAW | kind})
    # arXiv:2402.13753: sqrt(1 + ln(stretch) / ln(original length)).
    factor = math.sqrt(1 + math.log(4) / math.log(1024))
    assert rope == LongRope(theta=10_000.0, short_factors=(1.0, 2.0, 3.0, 4.0),
                            long_factors=(5.0, 6.0, 7.0, 8.0), original_n_ctx=1024,
                            attention_factor=factor)  # fmt: skip
    given = read({"rope_scaling": LONG_RAW | kind | {"attention_factor": 1.5}})
    assert isinstance(given, LongRope)
    assert given.attention_factor == 1.5
    unstretched = read({"rope_scaling": LONG_RAW | kind}, n_ctx=1024)
    assert isinstance(unstretched, LongRope)
    assert unstretched.attention_factor == 1.0


YARN_RAW = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}


@pytest.mark.parametrize(
    ("raw", "factor"),
    [
        ({}, 0.1 * math.log(4) + 1),
        ({"attention_factor": 1.25}, 1.25),
        ({"mscale": 1.5, "mscale_all_dim": 0.5},
         (0.15 * math.log(4) + 1) / (0.05 * math.log(4) + 1)),
        # HuggingFace uses mscale only if both keys are present.
        ({"mscale": 1.5}, 0.1 * math.log(4) + 1),
        ({"factor": 0.5}, 1.0),
    ],
)  # fmt: skip
def test_yarn_attention_factor(raw: dict[str, Any], factor: float) -> None:
    rope = read({"rope_scaling": YARN_RAW | raw})
    assert isinstance(rope, YarnRope)
    assert rope.attention_factor == pytest.approx(factor, rel=1e-15)


def test_spellings_of_rope() -> None:
    old = {"rope_theta": 7.0, "rope_scaling": {"type": "linear", "factor": 2}}
    new = {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 7}}
    assert read(old) == read(new) == LinearRope(theta=7.0, factor=2.0)
    # Where both give a key, rope_scaling wins, and of two spellings of the type the newer one.
    both = {"rope_scaling": {"type": "yarn", "rope_type": "linear", "factor": 3.0}}
    assert read(new | both) == LinearRope(theta=10_000.0, factor=3.0)
    assert read({"rope_scaling": {}, "rope_theta": 5.0}) == DefaultRope(theta=5.0)
    assert read({"rope_scaling": None, "rope_parameters": None}) == DefaultRope(theta=10_000.0)


def test_lengths_that_yarn_starts_from() -> None:
    without = {key: value for key, value in YARN_RAW.items() if key.startswith(("rope", "factor"))}
    outer = {"original_max_position_embeddings": 2048}
    for raw, length in (
        ({"rope_scaling": YARN_RAW}, 1024),
        ({"rope_scaling": without}, 4096),
        ({"rope_scaling": YARN_RAW} | outer, 2048),
    ):
        rope = read(raw)
        assert isinstance(rope, YarnRope)
        assert rope.original_n_ctx == length
    by_ratio = read({"rope_scaling": YARN_RAW | {"factor": None}})
    assert isinstance(by_ratio, YarnRope)
    assert by_ratio.factor == 4096 / 1024
    dynamic = read({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, n_ctx=77)
    assert dynamic == DynamicRope(theta=10_000.0, factor=2.0, original_n_ctx=77)
