from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from diffractory import Crystal, SimulationSpec, simulate
from diffractory.scattering.beams import choose_beams, count_beams, reciprocal_points
from diffractory.scattering.illumination import Illumination
from diffractory.scattering.orientations import minimal_rotations
from diffractory.scattering.primitive import centring_translations, primitive_cell
from diffractory.units import electron_wavelength
from zoo import ZOO, random_rotation

#: A straight beam, a foil that leans, and a precessed beam in such a foil.
SPECS = {
    "straight": SimulationSpec(),
    "slow electrons": SimulationSpec(energy_ev=30e3),
    "tilted foil": SimulationSpec(foil_tilt_deg=(20.0, -10.0)),
    "precession": SimulationSpec(
        q_max=1.2, foil_tilt_deg=(5.0, 0.0), precession_deg=1.5, precession_azimuths=7
    ),
}


def crystal_of(name: str, times: tuple[int, int, int] = (1, 1, 1)) -> Crystal:
    return Crystal.from_structure(ZOO[name] * times)


@pytest.mark.parametrize("times", [(1, 1, 1), (1, 2, 1)])
@pytest.mark.parametrize("name", ZOO)
def test_points_are_the_allowed_ones_by_length_then_by_hkl(name: str, times: tuple[int, int, int]) -> None:
    crystal = crystal_of(name, times)
    points = reciprocal_points(primitive_cell(crystal), 1.5)
    reach = np.ceil(1.5 * np.linalg.norm(crystal.lattice, axis=1)).astype(int)
    hkl = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), -1).reshape(-1, 3)
    phase = hkl @ centring_translations(crystal).T
    hkl = hkl[np.all(np.abs(phase - np.round(phase)) < 0.01, axis=1)]
    length = np.linalg.norm(hkl @ crystal.reciprocal, axis=1)
    hkl, length = hkl[length <= 1.5], length[length <= 1.5]
    expected = hkl[np.lexsort((*hkl.T[::-1], np.round(length, 9)))]
    assert np.array_equal(points.hkl, expected)
    assert not points.hkl[0].any()


@pytest.mark.parametrize("name", ZOO)
def test_both_indices_name_the_same_vector(name: str) -> None:
    cell = primitive_cell(crystal_of(name))
    points = reciprocal_points(cell, 1.5)
    assert_allclose(points.hkl @ cell.given.reciprocal, points.g, atol=1e-12)
    assert_allclose(points.index @ cell.crystal.reciprocal, points.g, atol=1e-12)


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("name", ["cubic-F-c-copper", "monoclinic-P-c-zirconia", "triclinic-P-a-invented"])
def test_chosen_beams_are_those_near_the_ewald_sphere(name: str, kind: str) -> None:
    spec = SPECS[kind]
    points = reciprocal_points(primitive_cell(crystal_of(name)), 2.0)
    for seed in range(10):
        orientation = random_rotation(seed)
        errors = Illumination.of(spec).excitation_errors(
            points.g @ orientation, electron_wavelength(spec.energy_ev)
        )
        assert np.array_equal(choose_beams(points, orientation, spec), np.any(np.abs(errors) <= 0.06, axis=0))


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("name", ["cubic-F-c-copper", "trigonal-R-c-bismuth", "triclinic-P-a-invented"])
def test_counted_beams_are_the_solved_ones(name: str, kind: str) -> None:
    crystal, spec = crystal_of(name), SPECS[kind]
    axes = np.array([[0.0, 0.0, 1.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    on_zone = minimal_rotations(axes / np.linalg.norm(axes, axis=1)[:, None])
    orientations = np.concatenate([on_zone, [random_rotation(seed) for seed in range(5)]])
    points = reciprocal_points(primitive_cell(crystal), spec.q_max)
    counts, ranges = count_beams(points, orientations, spec)
    lit, wavelength = Illumination.of(spec), electron_wavelength(spec.energy_ev)
    for orientation, found in zip(orientations, ranges, strict=True):
        g = points.g[choose_beams(points, orientation, spec)]
        assert_allclose(found, np.ptp(lit.excitation_errors(g @ orientation, wavelength)), atol=1e-12)
    assert counts.tolist() == [len(p) for p in simulate(crystal, orientations, spec)]
    assert len(set(counts.tolist())) > 1


def test_a_cell_of_one_point_within_reach_has_one_beam() -> None:
    points = reciprocal_points(primitive_cell(crystal_of("cubic-F-c-copper")), 0.01)
    assert points.hkl.tolist() == points.index.tolist() == [[0, 0, 0]]
    counts, ranges = count_beams(points, np.eye(3)[None], SimulationSpec())
    assert (counts.tolist(), ranges.tolist()) == ([1], [0.0])


@pytest.mark.parametrize("seed", range(5))
def test_equivalent_points_at_the_limit_come_together_in_any_frame(seed: int) -> None:
    # |g| = 9 / 4.5 Å for (9, 0, 0), (8, 4, 1), (7, 4, 4) and (6, 6, 3): what rounding makes of it is chance.
    lattice = 4.5 * np.eye(3) @ random_rotation(seed).T
    points = reciprocal_points(primitive_cell(Crystal(lattice, [29], [[0, 0, 0]])), 2.0)
    assert np.sum((points.hkl**2).sum(axis=1) == 81) == 6 + 48 + 24 + 24
    assert (points.hkl**2).sum(axis=1).max() == 81
