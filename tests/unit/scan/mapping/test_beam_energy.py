"""Scans of another beam energy than the model's."""

import numpy as np
import pytest

from diffractory import Crystal, simulate
from diffractory.errors import ModelError, ScanError
from diffractory.patterns.peak_table import PeakTable
from diffractory.patterns.spot_lattice import find_spot_lattices
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.mapping.beam_energy import features_at_energy
from diffractory.specs import InvariantSpec, RadialBasisSpec, SimulationSpec

NOTHING = PeakTable.from_lists([np.zeros((1, 2))], [np.ones(1)], [0])


def scan(energy_ev):
    return BraggScan(NOTHING, (1, 1), 20.0, energy_ev, "a.h5")


def test_the_same_energy_is_not_spoken_of():
    assert features_at_energy(InvariantSpec(), scan(302e3), 300e3) == (InvariantSpec(), None)


def test_lattices_are_read_at_the_energy_of_the_scan():
    features, note = features_at_energy(InvariantSpec(n_rings=40), scan(200e3), 300e3)
    assert features == InvariantSpec(n_rings=40, energy_ev=200e3)
    assert "recorded at 200 keV" in note
    assert "trained at 300 keV" in note


def test_an_unknown_energy_is_assumed_and_told():
    features, note = features_at_energy(InvariantSpec(), scan(None), 300e3)
    assert features == InvariantSpec()
    assert "300 keV is assumed" in note
    assert "give it with --energy" in note
    assert "detect" not in note


def test_an_energy_that_lattices_cannot_be_read_at():
    with pytest.raises(ScanError, match=r"200000 keV.*between 30 and 1,000 keV.*--energy"):
        features_at_energy(InvariantSpec(), scan(2e8), 300e3)


def test_features_that_know_no_energy_are_refused():
    with pytest.raises(
        ModelError, match=r"recorded at 200 keV.*trained at 300 keV.*the model that is included"
    ):
        features_at_energy(RadialBasisSpec(), scan(200e3), 300e3)


def test_a_wrong_sphere_makes_a_wrong_cell():
    """What is at stake: at 80 keV the cell of caesium chloride, read as at 300, is half as large."""
    z = np.array([1.0, 4.0, 9.0]) / 98**0.5
    x = np.cross([0.0, 1.0, 0.0], z) / np.linalg.norm(np.cross([0.0, 1.0, 0.0], z))
    crystal = Crystal(4.12 * np.eye(3), [55, 17], [[0, 0, 0], [0.5, 0.5, 0.5]])
    turn = np.stack([x, np.cross(z, x), z], axis=1)[None]
    (pattern,) = simulate(crystal, turn, SimulationSpec(energy_ev=80e3))
    table = PeakTable.from_lists([pattern.q], [pattern.intensity[0]], [0])

    def volume(energy_ev):
        features, _ = features_at_energy(InvariantSpec(), scan(energy_ev), 300e3)
        return 1.0 / abs(np.linalg.det(find_spot_lattices(table, features).reciprocal[0])) / 4.12**3

    assert volume(80e3) == pytest.approx(1.0, abs=0.15)
    assert not 0.7 < volume(None) < 1.3
