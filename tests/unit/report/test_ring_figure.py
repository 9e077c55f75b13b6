"""Radii of spots with the rings of a cubic lattice."""

import numpy as np
import pytest

from diffractory.patterns.cubic_rings import allowed_numbers
from diffractory.report.ring_figure import figure_of_cubic_rings, miller_indices


@pytest.mark.parametrize(
    ("centring", "names"),
    [
        ("P", "100 110 111 200 210 211 220 300 310"),
        ("I", "110 200 211 220 310 222 321"),
        ("F", "111 200 220 311 222 400 331"),
    ],
)
def test_rings_have_their_usual_names(centring, names):
    numbers = allowed_numbers(centring, 100)[: len(names.split())]
    assert [miller_indices(int(number), centring) for number in numbers] == names.split()


@pytest.mark.parametrize("centring", ["P", "I", "F"])
def test_every_ring_has_a_name_of_its_lattice(centring):
    for number in allowed_numbers(centring, 400).tolist():
        name = miller_indices(number, centring)
        h, k, l = (int(part) for part in (name.split() if " " in name else name))
        assert h * h + k * k + l * l == number
        assert h >= k >= l >= 0


def test_an_absent_ring_has_none():
    with pytest.raises(ValueError, match="no reflection of N = 7"):
        miller_indices(7, "P")
    with pytest.raises(ValueError, match="no reflection of N = 5"):
        miller_indices(5, "F")


def test_spots_are_counted_and_first_rings_named():
    a = 4.0
    radius = np.repeat(np.sqrt([3.0, 4.0, 8.0]) / a, [5, 3, 2])
    axes = figure_of_cubic_rings(radius, a, "F", "10 spots of particle 1").axes[0]
    assert sum(patch.get_height() for patch in axes.patches) == 10
    assert {text.get_text() for text in axes.texts} >= {"111", "200", "220"}
    assert "10 spots of particle 1" in axes.get_title(loc="left")
    assert "a = 4.000 Å" in axes.get_title(loc="left")
    low, high = axes.get_xlim()
    assert (low, high) == (0.0, pytest.approx(1.0))
    # Without spots in reach there are the rings alone.
    assert figure_of_cubic_rings(np.empty(0), a, "P", "0 spots").axes[0].texts
