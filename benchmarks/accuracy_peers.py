"""Agreement of intensities with other Bloch-wave codes: py4DSTEM, abTEM and quantem, by crystal class.

All on our beams and in double precision, so that what is left are differences of physics. Part of
``accuracy.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from accuracy_samples import Sample, progress
from peers import PEERS, PeerJob, PeerReport, run_peers
from py4DSTEM.process.diffraction import Crystal as ReferenceCrystal
from py4DSTEM.process.diffraction.WK_scattering_factors import compute_WK_factor
from py4dstem_peer import py4dstem_crystal, py4dstem_intensities

from diffractory import Crystal, SimulationSpec
from diffractory.scattering import simulate
from diffractory.scattering.form_factors import (
    FormFactor,
    form_factors,
    lobato_table,
    weickenmeier_kohl_table,
)
from diffractory.scattering.illumination import Illumination
from diffractory.scattering.primitive import primitive_cell
from diffractory.scattering.simulate import Scatterer
from diffractory.scattering.solvers import propagate, tilted_matrix
from diffractory.scattering.structure_factors import structure_factors
from diffractory.units import electron_wavelength

SERIES = tuple(20.0 * i for i in range(1, 101))
ORIENTATIONS = ("on zone", "2 degrees off", "random")
#: Reach of py4DSTEM's couplings: 4 Å⁻¹ is enough for |g| ≤ 2 Å⁻¹; the others only fill in what it misses.
K_MAX = (4.0, 5.0, 6.0)
METHODS = {"wk-cp": "WK-CP", "lobato": "Lobato"}
PY4DSTEM_REST_ENERGY_EV = 5.109989461e5
#: Below this, quantem and the original routine take (1 − e⁻ˣ)/x as 1 − x/2.
LINEAR_BELOW = 0.1


def study_py4dstem(crystals: Sequence[Sample]) -> dict[str, Any]:
    """Compare with py4DSTEM as it is, with all couplings to 4 Å⁻¹, and with its constants besides."""
    rows = []
    for sample in crystals:
        row: dict[str, Any] = dict(sample.label)
        for model, method in METHODS.items():
            spec = SimulationSpec(thicknesses=SERIES, form_factors=model)
            scatterer = Scatterer.prepare(sample.crystal, spec)
            for k_max in K_MAX:
                theirs = py4dstem_crystal(sample.crystal, method, k_max)
                row[f"{model}, {k_max:g}"] = _largest(sample, scatterer, theirs)
                missing = shortest_missing(sample.crystal, theirs)
                row[f"shortest missing, {k_max:g}"] = missing
                if k_max > K_MAX[0] and missing is None:
                    break
            row[f"{model}, complete"] = row[f"{model}, {k_max:g}"]
            # Their wavelength comes from constants of seven digits.
            with mock.patch.object(simulate, "electron_wavelength", lambda _, t=theirs: t.wavelength):
                row[f"{model}, complete, its wavelength"] = _largest(sample, scatterer, theirs)
                table = structure_factors(
                    primitive_cell(sample.crystal).crystal, 4.0, _same_factors(sample.crystal, spec)
                )
                same = Scatterer(scatterer.points, table, spec)
                row[f"{model}, complete, same constants"] = _largest(sample, same, theirs)
        row["beams"] = max(int(scatterer.select_beams(sample.orientations[n])[0].sum()) for n in ORIENTATIONS)
        rows.append(row)
        progress(f"py4DSTEM: {sample.formula}, {row['beams']} beams")
    wavelengths = {"ours": electron_wavelength(300e3), "py4DSTEM": theirs.wavelength}
    return {
        "thicknesses": [SERIES[0], SERIES[-1]],
        "relative difference of wavelengths": wavelengths["py4DSTEM"] / wavelengths["ours"] - 1.0,
        "rows": rows,
        "tilted foil": _tilted_foil(crystals[0]),
    }


def _same_factors(crystal: Crystal, spec: SimulationSpec) -> dict[int, FormFactor]:
    """Return our form factors with py4DSTEM's rest energy, and absorption evaluated, not tabulated."""
    same: dict[int, FormFactor] = {}
    for number, ours in form_factors(crystal.numbers, spec).items():
        if spec.form_factors == "lobato":
            relativistic = 1.0 + spec.energy_ev / PY4DSTEM_REST_ENERGY_EV
            same[number] = replace(
                lobato_table(number, spec.energy_ev), relativistic=relativistic
            ).form_factor()
            continue

        def evaluated(g: np.ndarray, number: int = number, ours: FormFactor = ours) -> np.ndarray:
            with np.errstate(all="ignore"):
                theirs = compute_WK_factor(np.asarray(g), number, spec.energy_ev, spec.thermal_sigma)
            return ours(g).real + 1j * theirs.imag

        same[number] = evaluated
    return same


def _largest(sample: Sample, scatterer: Scatterer, theirs: ReferenceCrystal) -> float:
    """Return the largest |ΔI| over orientations, thicknesses and beams."""
    found = 0.0
    for name in ORIENTATIONS:
        orientation = sample.orientations[name]
        ours = scatterer.solve(orientation, precision="double")
        expected = py4dstem_intensities(theirs, ours.hkl, orientation[:, 2], SERIES)
        found = max(found, float(np.abs(ours.intensity - expected).max()))
    return found


def shortest_missing(crystal: Crystal, reference: ReferenceCrystal) -> float | None:
    """Return the length of the shortest coupling within 4 Å⁻¹ that py4DSTEM does not list, or None."""
    limits = np.ceil(4.0 * np.linalg.norm(crystal.lattice, axis=1)).astype(int)
    axes = np.meshgrid(*(np.arange(-n, n + 1) for n in limits), indexing="ij")
    hkl = np.stack(axes, axis=-1).reshape(-1, 3)
    length = np.linalg.norm(hkl @ crystal.reciprocal, axis=1)
    listed = np.array(list(reference.Ug_dict), dtype=int)
    base = 2 * int(max(limits.max(), np.abs(listed).max())) + 1
    code = np.array([base * base, base, 1])
    missing = (length <= 4.0) & ~np.isin(hkl @ code, listed @ code)
    return float(length[missing].min()) if missing.any() else None


def _tilted_foil(sample: Sample) -> dict[str, Any]:
    """Compare with py4DSTEM for a foil that leans: as we solve it, and with the cosine taken twice."""
    spec = SimulationSpec(q_max=1.2, foil_tilt_deg=(9.0, -14.0), thicknesses=(50.0, 200.0, 700.0))
    scatterer, lit = Scatterer.prepare(sample.crystal, spec), Illumination.of(spec)
    orientation = sample.orientations["random"]
    chosen, errors = scatterer.select_beams(orientation)
    ours = scatterer.solve(orientation, precision="double")
    share = 1.0 / lit.cosines()[0]
    twice = tilted_matrix(scatterer.coupling(chosen, "double"), share, share * errors[0])
    theirs = py4dstem_intensities(
        py4dstem_crystal(sample.crystal, "WK-CP", 5.0),
        ours.hkl,
        orientation[:, 2],
        spec.thicknesses,
        foil_normal_cartesian=orientation @ lit.foil_normal,
    )
    return {
        **sample.label,
        "foil_tilt_deg": spec.foil_tilt_deg,
        "difference": float(np.abs(ours.intensity - theirs).max()),
        "with_the_cosine_twice": float(np.abs(propagate(twice, spec.thicknesses).intensity - theirs).max()),
    }


def study_other_peers(crystals: Sequence[Sample], cache: Path | None) -> dict[str, Any]:
    """Compare with abTEM and quantem; what cannot be installed is named and left out."""
    ours = {
        f"{sample.name} {name}": (sample, _Ours(sample, name)) for sample in crystals for name in ORIENTATIONS
    }
    jobs = [
        PeerJob(job, sample.crystal, mine.orientation, mine.hkl, mine.spec)
        for job, (sample, mine) in ours.items()
    ]
    if cache is None:
        reports = {peer: PeerReport(unavailable="left out") for peer in PEERS}
    else:
        progress(f"abTEM and quantem: {len(jobs)} solves each")
        reports = run_peers(jobs, cache)
    rows = []
    for job, (sample, mine) in ours.items():
        row = {
            **sample.label,
            "orientation": mine.name,
            "beams": len(mine.hkl),
            "zero zone": mine.in_zero_zone,
        }
        for peer, compare in (("abtem", mine.against_abtem), ("quantem", mine.against_quantem)):
            if (result := reports[peer].results.get(job)) is not None:
                row |= compare(result.hkl, result.intensity_series)
        rows.append(row)
    return {
        "thicknesses": [SERIES[0], SERIES[-1]],
        "peers": {
            # Messages of an installer name folders, which say nothing to a reader.
            peer: {
                "versions": r.versions,
                "unavailable": r.unavailable.replace(str(cache), "CACHE"),
                "failures": r.failures,
            }
            for peer, r in reports.items()
        },
        "rows": rows,
    }


class _Ours:
    """One crystal in one orientation, solved with the physics of either peer."""

    def __init__(self, sample: Sample, name: str) -> None:
        self.name, self.orientation = name, sample.orientations[name]
        self.spec = SimulationSpec(thicknesses=SERIES, form_factors="lobato")
        self._scatterer = Scatterer.prepare(sample.crystal, self.spec)
        self._chosen, errors = self._scatterer.select_beams(self.orientation)
        self._errors = errors[0]
        self._along_beam = self._scatterer.points.g[self._chosen] @ self.orientation[:, 2]
        self._crystal = sample.crystal
        self.hkl = self._scatterer.points.hkl[self._chosen]

    @property
    def in_zero_zone(self) -> bool:
        """Whether all beams are in the zero-order Laue zone."""
        return bool(np.abs(self._along_beam).max() < 1e-9)

    def against_abtem(self, hkl: np.ndarray, expected: np.ndarray) -> dict[str, Any]:
        """Compare without and with the obliquity factor that abTEM divides couplings by."""
        same = self._columns(hkl)
        matrix = self._scatterer.coupling(self._chosen, "double")
        oblique = matrix / (1.0 - electron_wavelength(self.spec.energy_ev) * self._along_beam)[:, None]
        np.fill_diagonal(oblique, matrix.diagonal())
        return {
            key: float(np.abs(self._intensity(coupling)[:, same] - expected).max())
            for key, coupling in (("abtem", matrix), ("abtem, obliquity in", oblique))
        }

    def against_quantem(self, hkl: np.ndarray, expected: np.ndarray) -> dict[str, Any]:
        """Compare with form factors evaluated as quantem does, as published, and as py4DSTEM does."""
        same, found = self._columns(hkl), {}
        for key, linear_below in (
            ("quantem", LINEAR_BELOW),
            ("quantem, wk-cp-exact", 0.0),
            ("quantem, wk-cp", 1.0),
        ):
            numbers = np.unique(self._crystal.numbers)
            factors = {
                int(z): weickenmeier_kohl_table(
                    int(z), self.spec.energy_ev, self.spec.thermal_sigma, 4.0, True, linear_below
                ).form_factor()
                for z in numbers
            }
            table = structure_factors(primitive_cell(self._crystal).crystal, 4.0, factors)
            coupling = Scatterer(self._scatterer.points, table, self.spec).coupling(self._chosen, "double")
            found[key] = float(np.abs(self._intensity(coupling)[:, same] - expected).max())
        return found

    def _columns(self, hkl: np.ndarray) -> list[int]:
        place = {tuple(beam): column for column, beam in enumerate(self.hkl.tolist())}
        return [place[tuple(beam)] for beam in hkl.tolist()]

    def _intensity(self, coupling: np.ndarray) -> np.ndarray:
        matrix = tilted_matrix(np.asfortranarray(coupling.copy()), 1.0, self._errors)
        return propagate(matrix, self.spec.thicknesses).intensity
