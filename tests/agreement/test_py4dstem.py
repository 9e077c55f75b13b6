"""Our intensities against py4DSTEM's, every crystal of the zoo, every thickness to 2000 Å."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from py4DSTEM.process.diffraction.WK_scattering_factors import WK_A_param, WK_B_param, compute_WK_factor
from py4DSTEM.process.utils import single_atom_scatter

from diffractory import Crystal, SimulationSpec, simulate
from diffractory.scattering.form_factors import form_factors, lobato_table, weickenmeier_kohl_table
from diffractory.scattering.illumination import Illumination
from diffractory.scattering.orientations import minimal_rotations
from diffractory.scattering.simulate import Scatterer
from diffractory.scattering.solvers import propagate, tilted_matrix
from py4dstem_reference import reference_crystal, reference_intensities
from zoo import ZOO, random_rotation

#: The bound of the project.
BOUND = 1e-5
#: Root-mean-square displacement of all atoms in Å, as in the default spec.
THERMAL_SIGMA = 0.08
SERIES = tuple(float(t) for t in range(20, 2001, 20))


def test_parameters_are_py4dstem_s() -> None:
    for number in range(1, 99):
        table = weickenmeier_kohl_table(number, 300e3, THERMAL_SIGMA, 1.0, absorption=False)
        assert np.array_equal(table.amplitudes, WK_A_param[number - 1])
        assert np.array_equal(table.widths, WK_B_param[number - 1])
    for number, expected in enumerate(single_atom_scatter().e_scattering_factors, start=1):
        lobato = lobato_table(number, 300e3)
        assert np.array_equal(np.stack([lobato.amplitudes, lobato.widths], 1).ravel(), expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("energy_ev", "sigma"), [(80e3, 0.05), (300e3, THERMAL_SIGMA), (1e6, 0.15)])
def test_absorptive_form_factors_are_py4dstem_s(energy_ev: float, sigma: float) -> None:
    for number in range(1, 99, 7):
        table = weickenmeier_kohl_table(number, energy_ev, sigma, 6.0, absorption=True)
        expected = compute_WK_factor(table.g, number, energy_ev, sigma)
        # py4DSTEM has Euler's constant in seven digits, which the widest electron shells multiply.
        assert_allclose(table.absorptive, expected.imag, rtol=0, atol=2e-5 * expected.imag.max())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ZOO)
def test_intensities_equal_py4dstem_at_every_thickness(name: str) -> None:
    crystal = Crystal.from_structure(ZOO[name])
    orientation = random_rotation(len(name))
    (pattern,) = simulate(crystal, orientation[None], SimulationSpec(thicknesses=SERIES))
    reference = reference_crystal(crystal, "WK-CP", thermal_sigma=THERMAL_SIGMA)
    expected = reference_intensities(reference, pattern.hkl, orientation[:, 2], SERIES)
    assert len(pattern) > 10
    assert pattern.solver == "chebyshev"
    assert_allclose(pattern.intensity, expected, rtol=0, atol=BOUND)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["cubic-F-a-GaAs", "monoclinic-C-a-invented", "trigonal-P-a-quartz"])
@pytest.mark.parametrize("zone", [[0.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
def test_on_zone_and_elastic_intensities_equal_py4dstem(name: str, zone: list[float]) -> None:
    crystal = Crystal.from_structure(ZOO[name])
    axis = np.array(zone) / np.linalg.norm(zone)
    spec = SimulationSpec(thicknesses=(200.0, 777.7), form_factors="wk")
    (pattern,) = simulate(crystal, minimal_rotations(axis[None]), spec)
    reference = reference_crystal(crystal, "WK", thermal_sigma=THERMAL_SIGMA)
    expected = reference_intensities(reference, pattern.hkl, axis, spec.thicknesses)
    assert_allclose(pattern.intensity, expected, rtol=0, atol=BOUND)


@pytest.mark.filterwarnings("ignore")
def test_dropping_extinct_beams_changes_nothing() -> None:
    crystal = Crystal.from_structure(ZOO["cubic-F-c-copper"])
    orientation = random_rotation(5)
    (pattern,) = simulate(crystal, orientation[None])
    kept = {tuple(row) for row in pattern.hkl}
    near = np.array(list(np.ndindex(5, 5, 5))) - 2
    extinct = np.array([row for row in near if len({index % 2 for index in row}) == 2])
    assert len(extinct) > 50
    assert not kept & {tuple(row) for row in extinct}
    all_beams = np.concatenate([pattern.hkl, extinct])
    reference = reference_crystal(crystal, "WK-CP", thermal_sigma=THERMAL_SIGMA)
    expected = reference_intensities(reference, all_beams, orientation[:, 2], (200.0,))
    assert_allclose(pattern.intensity, expected[:, : len(pattern)], rtol=0, atol=BOUND)
    assert expected[:, len(pattern) :].max() < 1e-12


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", [1, 6, 26, 79, 98])
def test_form_factors_equal_py4dstem(number: int) -> None:
    # No lattice has a |g| under 0.01 besides 0, where the core part has a logarithmic singularity.
    # Random points: the elastic fit is piecewise, so a grid could hide a jump at the wrong place.
    g = np.random.default_rng(number).uniform(0.01, 4.0, 3000)
    factor = form_factors(np.array([number]), SimulationSpec())[number](g)
    expected = compute_WK_factor(g, number, 300e3, THERMAL_SIGMA)
    assert_allclose(factor.real, expected.real, rtol=1e-7)
    # The absorptive part is tabulated and has kinks and 1e-4 jumps of its own in the reference.
    error = np.abs(factor.imag - expected.imag)
    assert np.median(error) < 1e-8
    assert error.max() < 2e-3 * expected.imag.max()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["cubic-F-c-copper", "trigonal-P-a-quartz", "triclinic-P-a-invented"])
def test_a_tilted_foil_differs_from_py4dstem_only_by_its_second_cosine(name: str) -> None:
    """py4DSTEM divides excitation errors that are along the normal already by the cosine once more."""
    crystal, orientation = Crystal.from_structure(ZOO[name]), random_rotation(8)
    spec = SimulationSpec(q_max=1.2, foil_tilt_deg=(9.0, -14.0), thicknesses=(50.0, 200.0, 700.0))
    scatterer, lit = Scatterer.prepare(crystal, spec), Illumination.of(spec)
    chosen, errors = scatterer.select_beams(orientation)
    share = 1.0 / lit.cosines()[0]
    reference = reference_crystal(crystal, "WK-CP", k_max=4.0, thermal_sigma=THERMAL_SIGMA)
    g = scatterer.points.g[chosen] @ orientation
    theirs = reference.excitation_errors(g.T, foil_normal=-lit.foil_normal)
    assert_allclose(errors[0], theirs, rtol=0, atol=1e-8)
    normal = orientation @ lit.foil_normal
    expected = reference_intensities(
        reference, scatterer.points.hkl[chosen], orientation[:, 2], spec.thicknesses, normal
    )
    coupling = scatterer.coupling(chosen, "double")
    as_theirs = propagate(tilted_matrix(coupling, share, share * errors[0]), spec.thicknesses)
    assert_allclose(as_theirs.intensity, expected, rtol=0, atol=BOUND)
    ours = scatterer.solve(orientation).intensity
    assert 1e-4 < np.abs(ours - expected).max() < 0.3
