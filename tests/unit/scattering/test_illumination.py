from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from diffractory import Crystal, SimulationSpec, TiltSeries, simulate, simulate_tilts
from diffractory.errors import OrientationError, SimulationError, SpecError
from diffractory.scattering import simulate as simulate_module
from diffractory.scattering.illumination import Illumination
from diffractory.scattering.simulate import Scatterer
from diffractory.scattering.solvers import propagate, tilted_matrix
from diffractory.scattering.structure_matrix import coupling_matrix
from diffractory.units import electron_wavelength
from zoo import ZOO, random_rotation

NAMES = ["cubic-F-c-copper", "trigonal-P-a-quartz", "monoclinic-C-a-invented", "triclinic-P-a-invented"]
SPEC = SimulationSpec(q_max=1.2, thicknesses=(100.0, 200.0, 800.0))


def alone(crystal: Crystal, orientation: np.ndarray, spec: SimulationSpec, tilts: np.ndarray) -> np.ndarray:
    """Solve each tilt by itself on the union's beams, by the dense reference in double precision."""
    scatterer = Scatterer.prepare(crystal, spec)
    lit = Illumination.of(spec, tilts)
    chosen, errors = scatterer.select_beams(orientation, lit)
    coupling = coupling_matrix(
        scatterer.factors,
        scatterer.points.index[chosen],
        electron_wavelength(spec.energy_ev),
        "double",
    )
    return np.array(
        [
            propagate(tilted_matrix(coupling.copy(), share, error), spec.thicknesses, "dense").intensity
            for share, error in zip(1.0 / lit.cosines(), errors, strict=True)
        ]
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("foil_tilt", [(0.0, 0.0), (4.0, -7.0)])
def test_a_tilt_series_equals_each_tilt_alone(name: str, foil_tilt: tuple[float, float]) -> None:
    crystal, orientation = Crystal.from_structure(ZOO[name]), random_rotation(4)
    spec = SPEC.model_copy(update={"foil_tilt_deg": foil_tilt})
    tilts = np.random.default_rng(0).uniform(-2.0, 2.0, (7, 2))
    series = simulate_tilts(crystal, orientation, tilts, spec)
    assert isinstance(series, TiltSeries)
    assert series.intensity.shape == (7, 3, len(series.hkl))
    assert series.hkl[0].tolist() == [0, 0, 0]
    assert series.solver == "chebyshev"
    assert_allclose(series.intensity, alone(crystal, orientation, spec, tilts), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("angle", "azimuths"), [(0.3, 5), (1.0, 72), (3.0, 72)])
def test_precession_is_the_mean_over_the_cone(name: str, angle: float, azimuths: int) -> None:
    crystal, orientation = Crystal.from_structure(ZOO[name]), random_rotation(5)
    small = SPEC.model_copy(update={"q_max": 0.8, "thicknesses": (150.0,)})
    spec = small.model_copy(update={"precession_deg": angle, "precession_azimuths": azimuths})
    (pattern,) = simulate(crystal, orientation[None], spec)
    phi = 2.0 * np.pi * np.arange(azimuths) / azimuths
    sine = np.sin(np.deg2rad(angle))
    tilts = np.rad2deg(np.arcsin(sine * np.column_stack([np.cos(phi), np.sin(phi)])))
    expected = alone(crystal, orientation, small, tilts).mean(axis=0)
    assert_allclose(pattern.intensity, expected, rtol=0, atol=1e-5)


def test_precession_excites_more_beams_and_does_not_know_the_in_plane_angle() -> None:
    crystal, orientation = Crystal.from_structure(ZOO["cubic-F-a-GaAs"]), random_rotation(5)
    spec = SimulationSpec(q_max=1.5, precession_deg=2.0)
    # A turn by three of the cone's azimuths leads the cone into itself.
    angle = np.deg2rad(15.0)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    first, second = simulate(crystal, np.array([orientation, orientation @ turn]), spec)
    (still,) = simulate(crystal, orientation[None], spec.model_copy(update={"precession_deg": 0.0}))
    assert len(first) > 1.3 * len(still)
    assert np.array_equal(first.hkl, second.hkl)
    assert_allclose(second.q, first.q @ turn[:2, :2], atol=1e-12)
    assert_allclose(second.intensity, first.intensity, rtol=0, atol=2e-6)
    assert np.abs(first.intensity.max() - still.intensity.max()) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_tilting_the_beam_is_turning_crystal_and_foil_together(name: str) -> None:
    """The same experiment in two frames: the beam tilted, or everything else the other way."""
    crystal, orientation = Crystal.from_structure(ZOO[name]), random_rotation(6)
    angle = np.deg2rad(1.5)
    tilted = simulate_tilts(crystal, orientation, np.array([[1.5, 0.0]]), SPEC)
    # The wave vector leans to +x by 1.5°: in the beam's frame the foil's normal leans to +x as well.
    turn = np.array([[np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [np.sin(angle), 0, np.cos(angle)]])
    spec = SPEC.model_copy(update={"foil_tilt_deg": (1.5, 0.0)})
    (turned,) = simulate(crystal, (orientation @ turn)[None], spec)
    assert np.array_equal(tilted.hkl, turned.hkl)
    assert_allclose(tilted.intensity[0], turned.intensity, rtol=0, atol=2e-6)


@given(st.floats(-2.0, 2.0), st.floats(-2.0, 2.0), st.floats(-20.0, 20.0), st.floats(-20.0, 20.0))
def test_intensity_is_conserved_without_absorption_in_a_tilted_foil(
    x: float, y: float, foil_x: float, foil_y: float
) -> None:
    crystal = Crystal.from_structure(ZOO["cubic-F-a-GaAs"])
    spec = SimulationSpec(q_max=0.8, form_factors="wk", foil_tilt_deg=(foil_x, foil_y))
    series = simulate_tilts(crystal, random_rotation(1), np.array([[x, y]]), spec)
    assert_allclose(series.intensity.sum(axis=2), 1.0, atol=1e-5)


def test_many_tilts_are_solved_in_turn_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    crystal = Crystal.from_structure(ZOO["cubic-F-a-GaAs"])
    tilts = np.random.default_rng(3).uniform(-1.0, 1.0, (9, 2))
    at_once = simulate_tilts(crystal, np.eye(3), tilts, SPEC)
    propagate_some, groups = simulate_module.propagate_tilts, []

    def counted(coupling: np.ndarray, inverse_cosines: np.ndarray, *rest: object) -> object:
        groups.append(len(inverse_cosines))
        return propagate_some(coupling, inverse_cosines, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(simulate_module, "TILT_BYTES", 200_000)
    monkeypatch.setattr(simulate_module, "propagate_tilts", counted)
    in_turn = simulate_tilts(crystal, np.eye(3), tilts, SPEC)
    assert groups == [2, 2, 2, 2, 1]
    assert_allclose(in_turn.intensity, at_once.intensity, rtol=0, atol=2e-6)


def test_two_beams_in_a_tilted_foil_follow_the_analytic_solution() -> None:
    """In a foil tilted by θ, depth is counted along its normal: coupling grows by 1 / cos θ."""
    crystal = Crystal.from_structure(ZOO["cubic-P-c-CsCl"])
    spec = SimulationSpec(form_factors="wk", foil_tilt_deg=(20.0, 0.0), thicknesses=(137.0,))
    lit, wavelength = Illumination.of(spec), electron_wavelength(spec.energy_ev)
    scatterer = Scatterer.prepare(crystal, spec)
    hkl = np.array([[0, 0, 0], [1, 1, 0]])
    g = hkl @ crystal.reciprocal
    errors = lit.excitation_errors(g, wavelength)[0]
    coupling = coupling_matrix(scatterer.factors, hkl, wavelength, "double")
    found = propagate(tilted_matrix(coupling.copy(), 1.0 / lit.cosines()[0], errors), (137.0,)).intensity[
        0, 1
    ]
    # Where the diffracted wave meets the Ewald sphere along the normal: a quadratic equation.
    normal = np.array([np.sin(np.deg2rad(20.0)), 0.0, np.cos(np.deg2rad(20.0))])
    k = np.array([0.0, 0.0, -1.0 / wavelength]) + g[1]
    roots = np.roots([1.0, -2.0 * k @ normal, k @ k - 1.0 / wavelength**2])
    exact = roots[np.argmin(np.abs(roots))].real
    assert_allclose(errors[1], exact, rtol=2e-3)
    rate = abs(scatterer.factors.of(hkl[1])) * wavelength / np.cos(np.deg2rad(20.0))
    effective = np.hypot(errors[1], rate)
    assert_allclose(found, (rate / effective * np.sin(np.pi * 137.0 * effective)) ** 2, atol=1e-9)


@pytest.mark.parametrize(
    "tilts", [[0.0, 1.0], [[0.0, 1.0, 2.0]], [], [[np.nan, 0.0]], [[0.0, 31.0]], "steep", [["a", "b"]]]
)
def test_tilts_that_make_no_sense_are_refused(tilts: object) -> None:
    crystal = Crystal.from_structure(ZOO["cubic-F-c-copper"])
    with pytest.raises(SimulationError, match="tilts must be"):
        simulate_tilts(crystal, np.eye(3), tilts, SPEC)  # type: ignore[arg-type]


def test_a_beam_that_grazes_the_foil_is_refused() -> None:
    crystal = Crystal.from_structure(ZOO["cubic-F-c-copper"])
    spec = SPEC.model_copy(update={"foil_tilt_deg": (30.0, 30.0)})
    with pytest.raises(SimulationError, match="more than 60° from its normal"):
        simulate_tilts(crystal, np.eye(3), np.array([[30.0, 30.0]]), spec)


def test_a_tilt_series_that_memory_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    crystal = Crystal.from_structure(ZOO["cubic-F-c-copper"])
    monkeypatch.setattr(simulate_module, "machine_memory", lambda: 1_000_000)
    simulate_tilts(crystal, np.eye(3), np.zeros((2, 2)), SPEC)
    with pytest.raises(SimulationError, match=r"fewer thicknesses or tilts"):
        simulate_tilts(crystal, np.eye(3), np.zeros((20_000, 2)), SPEC)


def test_an_orientation_that_is_no_rotation_is_refused() -> None:
    crystal = Crystal.from_structure(ZOO["cubic-F-c-copper"])
    with pytest.raises(OrientationError):
        simulate_tilts(crystal, 2.0 * np.eye(3), np.zeros((1, 2)), SPEC)


@pytest.mark.parametrize(
    "values",
    [
        {"foil_tilt_deg": (31.0, 0.0)},
        {"foil_tilt_deg": (0.0,)},
        {"precession_deg": 5.1},
        {"precession_deg": -0.1},
        {"precession_azimuths": 0},
    ],
)
def test_specs_refuse_illuminations_out_of_range(values: dict) -> None:
    with pytest.raises(SpecError, match=next(iter(values))):
        SimulationSpec(**values)


@pytest.mark.parametrize("name", list(ZOO))
@pytest.mark.parametrize("form_factors", ["wk-cp", "wk"])
def test_reciprocity_the_way_back_is_as_bright_as_the_way_there(name: str, form_factors: str) -> None:
    """Source and detector exchanged: with beam g in Bragg position and the foil across it, I_g is the same.

    The beams h of the way there are the beams g − h of the way back, which |g| ≤ q_max would choose
    otherwise: so both are solved on beams chosen here.
    """
    spec = SimulationSpec(q_max=2.0, form_factors=form_factors, thicknesses=(80.0, 300.0, 900.0))
    scatterer = Scatterer.prepare(Crystal.from_structure(ZOO[name]), spec)
    wavelength, points = electron_wavelength(spec.energy_ev), scatterer.points
    strongest = 1 + int(np.argmax(np.abs(scatterer.factors.of(points.index[1:40]))))
    g = points.g[strongest]
    aside = np.cross(g, random_rotation(11)[:, 0])
    normal = aside / np.linalg.norm(aside)
    unit, half_angle = g / np.linalg.norm(g), np.arcsin(0.5 * wavelength * np.linalg.norm(g))
    there = np.cos(half_angle) * normal + np.sin(half_angle) * unit
    way_there, way_back = (
        Illumination(there[None], normal),
        Illumination((wavelength * g - there)[None], -normal),
    )
    near = np.abs(way_there.excitation_errors(points.g, wavelength)[0]) <= 0.06
    # Few enough that their differences from g stay within the table.
    near &= np.linalg.norm(points.g, axis=1) + np.linalg.norm(g) <= 2.0
    target = int(np.flatnonzero(near).tolist().index(strongest))
    beams, vectors = points.index[near], points.g[near]
    exchange = np.arange(len(beams))
    exchange[[0, target]] = target, 0
    seen = []
    for lit, hkl, h, of in (
        (way_there, beams, vectors, target),
        (way_back, (points.index[strongest] - beams)[exchange], (g - vectors)[exchange], target),
    ):
        assert not hkl[0].any()
        assert np.array_equal(hkl[of], points.index[strongest])
        errors = lit.excitation_errors(h, wavelength)[0]
        coupling = coupling_matrix(scatterer.factors, hkl, wavelength, "double")
        matrix = tilted_matrix(coupling, 1.0 / lit.cosines()[0], errors)
        seen.append(propagate(matrix, spec.thicknesses).intensity[:, of])
    assert len(beams) > 5
    assert seen[0].max() > 1e-4
    assert_allclose(seen[1], seen[0], rtol=0, atol=1e-9)
