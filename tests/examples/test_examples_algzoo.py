"""The examples on AlgZoo run offline and give the known findings."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples import longest_cycle, second_argmax, second_argmax_regions
from mi_ref import algzoo


def answers(x: Any) -> Any:
    return algzoo.load("second-argmax-h2-n2").logits(x).argmax(axis=1)


def wrong_by_counting() -> float:
    """Return the share of directions in which the smaller of two numbers is not found."""
    turn = np.linspace(0, 2 * np.pi, 360_000, endpoint=False) + 1e-9
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    return float(np.mean(answers(circle) != circle.argmin(axis=1)))


def test_accuracy_and_surprise_of_m22(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = second_argmax.main(picture=str(tmp_path / "plane.png"))
    assert (tmp_path / "plane.png").is_file()
    # A ray is right or wrong as a whole, so the share of the circle is the share of Gaussians.
    assert 1 - found.score.quality == pytest.approx(wrong_by_counting(), abs=1e-4)
    assert found.score.quality < 1
    assert found.surprise is not None
    assert 0.0005 < found.surprise.network / 100_000 < 0.003
    first, second, both = (cut.score for cut in found.cuts)
    assert first.quality == pytest.approx(0.853, abs=0.005)
    assert second.quality == pytest.approx(0.5, abs=0.01)
    # Neither neuron does it alone: confident errors cost more than guessing.
    assert isinstance(first, algzoo.ClassScore)
    assert isinstance(second, algzoo.ClassScore)
    assert min(first.surprise, second.surprise) > 1.5
    assert both.quality == second.quality
    printed = capsys.readouterr().out
    assert str(found) in "\n".join(line.rstrip() for line in printed.splitlines())
    assert printed.endswith(f"{found.conclusion()}\n")


def test_regions_tell_the_error_without_samples(capsys: pytest.CaptureFixture[str]) -> None:
    found, wrong = second_argmax_regions.main()
    assert len(found) == 6
    assert wrong == pytest.approx(wrong_by_counting(), abs=2 / 360_000)
    assert 0 < wrong < 1e-4
    changes = [angle for region in found for angle in second_argmax_regions.turns(region)]
    for angle in changes:
        sides = np.radians([angle - 1e-6, angle + 1e-6])
        before, after = answers(np.stack([np.cos(sides), np.sin(sides)], axis=1))
        assert before != after
    printed = capsys.readouterr().out
    assert "6 linear regions" in printed
    assert "wrong for 0.0077% of all inputs" in printed


def test_a_walk_is_no_cycle_for_139_of_256_functions(capsys: pytest.CaptureFixture[str]) -> None:
    shares = longest_cycle.main()
    assert shares == {"candle-mi": 117 / 256, "network": 1.0}
    assert capsys.readouterr().out.endswith(
        "candle-mi: 45.7% right, 139 of 256 wrong\nnetwork: 100.0% right, 0 of 256 wrong\n"
    )
    assert longest_cycle.longest_walk([1, 2, 3, 3]) == 4


def test_a_walk_is_as_long_as_a_cycle_where_there_is_nothing_else() -> None:
    for f in product(range(4), repeat=4):
        cycle = int(algzoo.longest_cycle(np.array([f]), xp=np)[0])
        assert longest_cycle.longest_walk(f) >= cycle
        if len(set(f)) == 4:
            assert longest_cycle.longest_walk(f) == cycle
