"""The cubic constant of test materials, told by the model and by the lattices of their patterns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from diffractory.errors import ModelError
from diffractory.learning.evaluation import evaluate
from diffractory.learning.hierarchy import Targets
from diffractory.patterns.peak_table import PeakTable
from diffractory.patterns.spot_lattice import SpotLattices
from scripted_model import ScriptedModel

TETRAGONAL, CUBIC = 3, 6


def _lattices(constants: list[float]) -> SpotLattices:
    """Return the exact primitive lattices of simple cubic crystals, each turned; 0 = none was found."""
    generator, n = np.random.default_rng(2), len(constants)
    turns = [np.linalg.qr(generator.normal(size=(3, 3)))[0] for _ in constants]
    reciprocal = np.array([turn / a if a else 0.0 * turn for turn, a in zip(turns, constants, strict=True)])
    score, ones = (np.array(constants) > 0.0).astype(float), np.ones(n)
    return SpotLattices(reciprocal, score, ones, ones, 0.002 * ones, ones, ones, np.zeros((n, 3)), ones)


def _spots(constants: list[float]) -> PeakTable:
    """Return a plane of the same lattices, 25 spots each; of none where none was found."""
    plane = np.stack(np.meshgrid(np.arange(-2, 3), np.arange(-2, 3), indexing="ij"), -1).reshape(-1, 2)
    q = [plane / a if a else np.zeros((25, 2)) for a in constants]
    return PeakTable.from_lists(q, [np.ones(25)] * len(q), [12] * len(q))


def _evaluated(rows: list[tuple[Any, ...]], **options: Any) -> dict[str, Any]:
    """Evaluate rows of material, its system, its a, the system and a that are told, and a of the lattice."""
    material, system, a, told, answer, read = map(list, zip(*rows, strict=True))
    groups = np.where(np.array(system) == CUBIC, 225, 123)
    targets = Targets.from_labels(np.array(system), groups, np.array(a)[:, None] * np.ones(3))
    features = np.array([(code, 9, 225, value) for code, value in zip(told, answer, strict=True)], np.float32)
    chosen: dict[str, Any] = {"lattices": _lattices(read), "peaks": _spots(read)} | options
    return evaluate(ScriptedModel(), features, targets, material, n_bootstrap=50, **chosen)


ROWS = [
    # Two of three patterns of this one show its lattice, and the model is off by factors.
    (0, CUBIC, 5.0, CUBIC, 10.0, 5.0),
    (0, CUBIC, 5.0, CUBIC, 2.5, 5.0),
    (0, CUBIC, 5.0, CUBIC, 5.2, 0.0),
    # The model knows, and no lattice was found.
    (1, CUBIC, 4.0, CUBIC, 4.1, 0.0),
    (1, CUBIC, 4.0, CUBIC, 4.2, 0.0),
    (1, CUBIC, 4.0, CUBIC, 4.3, 0.0),
    # Called tetragonal by two of three: it counts by itself once, and not as three.
    (2, CUBIC, 6.0, TETRAGONAL, 6.0, 6.0),
    (2, CUBIC, 6.0, TETRAGONAL, 6.0, 6.0),
    (2, CUBIC, 6.0, CUBIC, 6.0, 6.0),
    # Not cubic, whatever is said of it.
    *[(3, TETRAGONAL, 7.0, CUBIC, 7.0, 7.0)] * 3,
]


def test_one_pattern_and_three_by_hand():
    found = _evaluated(ROWS)["cubic_constant"]
    one, three = found["1"], found["3"]
    assert (one["n"], one["n_materials"]) == (7, 3)
    # Errors 5, 2.5, 0.2 | 0.1, 0.2, 0.3 | 0.
    assert one["median"]["error"] == pytest.approx(0.2, abs=1e-5)
    assert one["median"]["within_2_percent"] == pytest.approx(1 / 7)
    assert one["pooled"]["without"] == 4
    assert one["pooled"]["error"] is None
    assert one["pooled"]["within_2_percent"] == pytest.approx(3 / 7)
    assert (three["n"], three["n_materials"]) == (2, 2)
    assert three["median"]["error"] == pytest.approx(0.2, abs=1e-5)
    assert three["median"]["without"] == 0
    assert three["pooled"]["without"] == 1
    assert three["pooled"]["within_2_percent"] == pytest.approx(0.5)
    # Of the second material the model's 4.2 alone is known.
    assert three["both"]["without"] == 0
    assert three["both"]["error"] == pytest.approx(0.1, abs=0.01)
    for answer in ("median", "pooled", "both"):
        low, high = one[answer]["within_interval"]
        assert low <= one[answer]["within_2_percent"] <= high
    assert found["10"]["n"] == found["30"]["n"] == 0
    assert found["10"]["pooled"]["error"] is None


def test_it_is_the_condition_that_errors_of_lattices_have():
    result = _evaluated(ROWS, group_size=3)
    for part, number in (("single", "1"), ("aggregated", "3")):
        known, found = result[part]["lattice"]["cubic"], result["cubic_constant"][number]
        assert found["n"] == known["n"]
        assert found["median"]["error"] == pytest.approx(known["median_error"]["a"])


def test_without_lattices_nothing_is_said_and_those_of_other_patterns_are_refused():
    assert _evaluated(ROWS, lattices=None)["cubic_constant"] is None
    with pytest.raises(ModelError, match="12 rows of features with 2 lattices and 12 lists of peaks"):
        _evaluated(ROWS, lattices=_lattices([4.0, 5.0]))
    with pytest.raises(ModelError, match="for the same patterns"):
        _evaluated(ROWS, peaks=None)
