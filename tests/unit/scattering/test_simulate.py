from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from diffractory import Crystal, PeakList, SimulationSpec, simulate
from diffractory.errors import OrientationError, SimulationError
from diffractory.scattering import simulate as simulate_module
from diffractory.scattering.beams import count_beams, reciprocal_points
from diffractory.scattering.form_factors import form_factors
from diffractory.scattering.illumination import Illumination
from diffractory.scattering.primitive import primitive_cell
from diffractory.scattering.simulate import Scatterer
from diffractory.scattering.structure_factors import structure_factors
from diffractory.units import electron_wavelength
from zoo import ACENTRIC, CENTRIC, ZOO, random_rotation

SMALL = SimulationSpec(q_max=1.2, thicknesses=(100.0, 400.0))


def by_hkl(pattern: PeakList, sign: int = 1) -> dict[tuple[int, ...], np.ndarray]:
    return {tuple(sign * row): pattern.intensity[:, i] for i, row in enumerate(pattern.hkl)}


def assert_same(a: dict, b: dict, tolerance: float = 3e-6) -> None:
    assert a.keys() == b.keys()
    for key in a:
        assert_allclose(a[key], b[key], rtol=0, atol=tolerance)


@given(name=st.sampled_from(list(ZOO)), seed=st.integers(0, 10_000))
@settings(max_examples=30)
def test_intensity_is_conserved_without_absorption_and_lost_with_it(name: str, seed: int) -> None:
    crystal = Crystal.from_structure(ZOO[name])
    orientation = random_rotation(seed)[None]
    elastic = simulate(crystal, orientation, SMALL.model_copy(update={"form_factors": "wk"}))[0]
    lossy = simulate(crystal, orientation, SMALL)[0]
    assert_allclose(elastic.intensity.sum(axis=1), 1.0, atol=1e-5)
    assert np.all(lossy.intensity >= 0.0)
    assert np.all(np.diff(np.concatenate([[1.0], lossy.intensity.sum(axis=1)])) < 0.0)


@pytest.mark.parametrize("name", CENTRIC)
def test_centric_crystals_obey_friedel(name: str) -> None:
    crystal = Crystal.from_structure(ZOO[name])
    there = random_rotation(1)
    back = there * np.array([-1.0, 1.0, -1.0])
    assert_same(
        by_hkl(simulate(crystal, there[None], SMALL)[0]), by_hkl(simulate(crystal, back[None], SMALL)[0], -1)
    )


@pytest.mark.parametrize("name", ACENTRIC)
def test_acentric_crystals_break_friedel(name: str) -> None:
    crystal = Crystal.from_structure(ZOO[name])
    there = random_rotation(1)
    back = there * np.array([-1.0, 1.0, -1.0])
    a = by_hkl(simulate(crystal, there[None], SMALL)[0])
    b = by_hkl(simulate(crystal, back[None], SMALL)[0], -1)
    assert max(np.abs(a[key] - b[key]).max() for key in a) > 1e-4


@pytest.mark.parametrize("name", list(ZOO))
def test_symmetry_equivalent_orientations_give_equal_patterns(name: str) -> None:
    structure = ZOO[name]
    crystal = Crystal.from_structure(structure)
    operations = SpacegroupAnalyzer(structure, 1e-3).get_point_group_operations(cartesian=True)
    proper = [op.rotation_matrix for op in operations if np.linalg.det(op.rotation_matrix) > 0]
    orientation = random_rotation(2)
    first = simulate(crystal, orientation[None], SMALL)[0]
    for rotation in proper[:6]:
        other = simulate(crystal, (rotation @ orientation)[None], SMALL)[0]
        # Same spots in the same places, under other indices.
        order, turned = (np.lexsort(np.round(p.q, 5).T) for p in (first, other))
        assert_allclose(other.q[turned], first.q[order], atol=1e-4)
        assert_allclose(np.sort(other.intensity, axis=1), np.sort(first.intensity, axis=1), atol=1e-5)


@pytest.mark.parametrize("name", ["cubic-F-a-GaAs", "monoclinic-C-a-invented", "triclinic-P-a-invented"])
def test_thin_foils_scatter_kinematically(name: str) -> None:
    crystal = Crystal.from_structure(ZOO[name])
    spec = SimulationSpec(thicknesses=(0.5,), form_factors="wk")
    orientation = random_rotation(7)
    pattern = simulate(crystal, orientation[None], spec)[0]
    wavelength = electron_wavelength(spec.energy_ev)
    factors = structure_factors(crystal, 4.0, form_factors(crystal.numbers, spec))
    g = pattern.hkl @ crystal.reciprocal
    s = Illumination.of(spec).excitation_errors(g @ orientation, wavelength)[0]
    expected = (np.pi * wavelength * 0.5 * np.abs(factors.of(pattern.hkl)) * np.sinc(0.5 * s)) ** 2
    assert_allclose(pattern.intensity[0, 1:], expected[1:], atol=0.03 * expected[1:].max())


def test_structure_factors_equal_the_plain_sum() -> None:
    crystal = Crystal.from_structure(ZOO["triclinic-P-a-invented"])
    factors = form_factors(crystal.numbers, SimulationSpec())
    table = structure_factors(crystal, 4.0, factors)
    for hkl in ([0, 0, 0], [1, 0, 0], [-1, 0, 0], [2, -3, 1], [-4, 1, 5]):
        length = np.array([np.linalg.norm(hkl @ crystal.reciprocal)])
        total = sum(
            factors[int(z)](length)[0] * np.exp(2j * np.pi * (frac @ hkl))
            for z, frac in zip(crystal.numbers, crystal.frac_coords, strict=True)
        )
        assert_allclose(table.of(np.array(hkl)), total / crystal.volume, rtol=1e-10)


def test_only_the_direct_beam_is_a_valid_pattern() -> None:
    pattern = simulate(
        Crystal.from_structure(ZOO["cubic-F-c-copper"]), np.eye(3)[None], SimulationSpec(q_max=0.01)
    )[0]
    assert pattern.hkl.tolist() == [[0, 0, 0]]
    crystal = Crystal.from_structure(ZOO["cubic-F-c-copper"])
    spec = SimulationSpec()
    u_zero = structure_factors(crystal, 4.0, form_factors(crystal.numbers, spec)).of(np.zeros(3, dtype=int))
    absorbed = np.exp(-2.0 * np.pi * 200.0 * electron_wavelength(spec.energy_ev) * u_zero.imag)
    assert_allclose(pattern.intensity[0, 0], absorbed, rtol=1e-5)


@pytest.mark.parametrize("name", ["cubic-F-c-copper", "trigonal-R-c-bismuth", "orthorhombic-A-a-KNbO3"])
def test_a_centred_cell_and_its_primitive_cell_give_one_pattern(name: str) -> None:
    centred = ZOO[name]
    translations = len(centred) // len(centred.get_primitive_structure())
    points = reciprocal_points(primitive_cell(Crystal.from_structure(centred)), 2.0)
    volume = centred.volume / translations
    assert len(points) == pytest.approx(volume * 4 / 3 * np.pi * 8, rel=0.12)
    # A super-cell is the same crystal: nothing else may be seen.
    single = simulate(Crystal.from_structure(centred), random_rotation(3)[None], SMALL)[0]
    double = simulate(Crystal.from_structure(centred * (2, 1, 1)), random_rotation(3)[None], SMALL)[0]
    assert len(single) == len(double)
    order = [np.lexsort(np.round(p.q, 6).T) for p in (single, double)]
    assert_allclose(double.q[order[1]], single.q[order[0]], atol=1e-6)
    assert_allclose(double.intensity[:, order[1]], single.intensity[:, order[0]], atol=1e-6)


def test_beams_are_counted_without_solving() -> None:
    crystal = Crystal.from_structure(ZOO["monoclinic-P-c-zirconia"])
    orientations = np.array([random_rotation(i) for i in range(4)])
    spec = SimulationSpec()
    points = reciprocal_points(primitive_cell(crystal), 2.0)
    counts, _ = count_beams(points, orientations, spec)
    assert counts.tolist() == [len(p) for p in simulate(crystal, orientations, spec)]


@pytest.mark.parametrize(
    ("orientations", "message"),
    [
        (np.eye(3), "shape"),
        (np.full((1, 3, 3), np.nan), "NaN"),
        (2.0 * np.eye(3)[None], "not a rotation"),
        (-np.eye(3)[None], "not a rotation"),
        ("abc", "not matrices of numbers"),
        ([[1.0, 2.0], [3.0]], "not matrices of numbers"),
    ],
)
def test_bad_orientations_are_refused(orientations: np.ndarray, message: str) -> None:
    with pytest.raises(OrientationError, match=message):
        simulate(Crystal.from_structure(ZOO["cubic-F-c-copper"]), orientations)


@pytest.mark.parametrize("more", [{}, {"precession_deg": 1.0}])
def test_a_solve_that_memory_cannot_hold_is_refused(more: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    crystal = Crystal.from_structure(ZOO["triclinic-P-a-invented"])
    monkeypatch.setattr(simulate_module, "machine_memory", lambda: 1_400_000)
    many = tuple(float(t) for t in range(10, 2001, 10))
    with pytest.raises(
        SimulationError, match=r"excites \d+ beams, whose solve needs .*1.4 MB may be used.*q_max"
    ):
        simulate(crystal, np.eye(3)[None], SimulationSpec(thicknesses=many, **more))


def test_a_table_that_memory_cannot_hold_is_refused_before_it_is_made() -> None:
    crystal = Crystal(40.0 * np.eye(3), [29], [[0, 0, 0]])
    says = r"factors of 961 × 961 × 961 beams need 21\.\d GB\. 1\.0 GB may"
    with pytest.raises(SimulationError, match=says):
        Scatterer.prepare(crystal, SimulationSpec(q_max=6.0), 1e9)


@pytest.mark.parametrize("tilts", [False, True])
def test_an_unknown_solver_is_refused(tilts: bool) -> None:
    copper = Crystal.from_structure(ZOO["cubic-F-c-copper"])
    scatterer, wrong = Scatterer.prepare(copper, SimulationSpec(q_max=0.6)), "chebychev"
    with pytest.raises(SimulationError, match=r"'chebychev' is unknown.*chebyshev or dense"):
        _ = (
            scatterer.solve_tilts(np.eye(3), np.zeros((2, 2)), wrong)
            if tilts
            else scatterer.solve(np.eye(3), wrong)
        )


@pytest.mark.parametrize("energy", [60e3, 120e3, 400e3])
@pytest.mark.parametrize("form_factors", ["wk-cp", "wk"])
def test_other_energies_agree_with_the_dense_reference(energy: float, form_factors: str) -> None:
    spec = SimulationSpec(q_max=1.2, energy_ev=energy, form_factors=form_factors, thicknesses=(55.0, 1234.5))
    scatterer = Scatterer.prepare(Crystal.from_structure(ZOO["trigonal-P-a-quartz"]), spec)
    orientation = random_rotation(3)
    reference = scatterer.solve(orientation, "dense", "double")
    assert reference.solver == "dense"
    assert_allclose(scatterer.solve(orientation).intensity, reference.intensity, rtol=0, atol=2e-6)


def test_double_precision_is_there_for_who_asks() -> None:
    crystal, orientations = Crystal.from_structure(ZOO["triclinic-P-a-invented"]), np.eye(3)[None]
    spec = SimulationSpec(q_max=1.2, thicknesses=(200.0, 1000.0))
    (single,), (double,) = (simulate(crystal, orientations, spec, precision=p) for p in ("single", "double"))
    reference = Scatterer.prepare(crystal, spec).solve(orientations[0], "dense", "double")
    error = np.abs(double.intensity - reference.intensity).max()
    assert error < 1e-9 < np.abs(single.intensity - reference.intensity).max() < 1e-5


def test_double_precision_on_a_gpu_is_refused() -> None:
    crystal = Crystal.from_structure(ZOO["triclinic-P-a-invented"])
    with pytest.raises(SimulationError, match="single precision only"):
        simulate(crystal, np.eye(3)[None], device="cuda", precision="double")


def test_an_unknown_precision_is_named() -> None:
    crystal = Crystal.from_structure(ZOO["triclinic-P-a-invented"])
    with pytest.raises(SimulationError, match=r"precision 'half' is unknown.*single or double"):
        simulate(crystal, np.eye(3)[None], precision="half")
