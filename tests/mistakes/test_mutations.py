"""Planted mistakes: the golden files must catch each at the hook where it is made.

The table is the claim that the tolerances are tight enough; a mistake that passes them would pass
in the code too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mi_ref import Model, get_backend
from mi_ref.families import FAMILIES
from mi_ref.testing import GoldenCase, relative_error
from tests.mistakes.mutations import TOLERANCE, Mistake, Mutation, first_failing, operation
from tests.mistakes.mutations_rwkv import by_token, rewritten
from tests.mistakes.table import MISTAKES, rows

Load = Callable[..., Model]


@pytest.fixture(scope="session")
def table(repository: Path) -> dict[str, list[str]]:
    """The row of golden/README.md for each mistake."""
    readme = (repository / "golden" / "README.md").read_text("utf-8")
    return {cells[0]: cells[1:] for cells in rows(readme)}


@pytest.mark.filterwarnings("ignore:the prompt has 9 tokens")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.what for mistake in MISTAKES])
def test_a_mistake_is_seen_where_it_is_made(
    mistake: Mistake, dtype: str, load: Load, repository: Path, table: dict[str, list[str]]
) -> None:
    case = GoldenCase(repository / "golden" / "data" / mistake.case)
    right = load(mistake.case, get_backend("numpy"), dtype)
    site, error = first_failing(mistake.plant(right), case, TOLERANCE[dtype])
    assert site, f"{mistake.what!r} passes {mistake.case} in {dtype}"
    assert site == mistake.site
    named_case, named_site, *off = table[mistake.what]
    assert (named_case, named_site) == (mistake.case, mistake.site)
    # Two digits stand there.
    assert float(off[list(TOLERANCE).index(dtype)]) == pytest.approx(error, rel=0.06)


def test_the_readme_lists_every_mistake_and_no_other(table: dict[str, list[str]]) -> None:
    names = [mistake.what for mistake in MISTAKES]
    assert len(set(names)) == len(names)
    assert list(table) == names


def test_every_family_has_mistakes(load: Load) -> None:
    cases = {mistake.case for mistake in MISTAKES}
    backend = get_backend("numpy")
    assert {load(case, backend, "float64").cfg.model_type for case in cases} == set(FAMILIES)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", ["llama2", "phi-qk-norm", "gemma2", "mixtral", "rwkv6", "rwkv7"])
def test_the_definitions_unchanged_pass(
    case: str, dtype: str, load: Load, repository: Path
) -> None:
    model = operation()(load(case, get_backend("numpy"), dtype))
    golden = GoldenCase(repository / "golden" / "data" / case)
    assert first_failing(model, golden, TOLERANCE[dtype]) == ("", 0.0)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", ["rwkv6", "rwkv6-fla", "rwkv7", "rwkv7-plain"])
@pytest.mark.parametrize("mutation", [rewritten({}), by_token()], ids=["source", "loop"])
def test_what_recurrent_mistakes_start_from_passes(
    mutation: Mutation, case: str, dtype: str, load: Load, repository: Path
) -> None:
    model = mutation(load(case, get_backend("numpy"), dtype))
    golden = GoldenCase(repository / "golden" / "data" / case)
    assert first_failing(model, golden, TOLERANCE[dtype]) == ("", 0.0)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_soft_cap_of_logits_is_seen_in_what_run_returns(
    dtype: str, load: Load, repository: Path
) -> None:
    """It comes after the last hook point."""
    case = GoldenCase(repository / "golden" / "data" / "gemma2")
    right = load("gemma2", get_backend("numpy"), dtype)
    limit = 0.25
    capped = np.tanh(case.expected("unembed.hook_out") / limit) * limit

    def error(cap: float | None) -> float:
        model = replace(right, cfg=replace(right.cfg, softcap=cap))
        return relative_error(np.asarray(model.run(case.tokens).logits), capped)

    assert error(limit) <= TOLERANCE[dtype]
    assert error(None) > 0.5
    assert error(0.2499) > 10 * TOLERANCE[dtype]
