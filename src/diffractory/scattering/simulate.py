"""Simulate the diffraction patterns of one crystal: the public entry to the physics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from diffractory.crystals.crystal import Crystal
from diffractory.scattering.beams import ReciprocalPoints, excitation_errors, reciprocal_points
from diffractory.scattering.form_factors import form_factors
from diffractory.scattering.orientations import check_orientations
from diffractory.scattering.peak_list import PeakList
from diffractory.scattering.solvers import Solver, propagate
from diffractory.scattering.structure_factors import StructureFactors, structure_factors
from diffractory.scattering.structure_matrix import structure_matrix
from diffractory.specs import SimulationSpec
from diffractory.units import electron_wavelength


@dataclass(frozen=True, eq=False)
class Scatterer:
    """A crystal prepared for one spec: everything that all its orientations share.

    Parameters
    ----------
    points : ReciprocalPoints
        Beams to choose from.
    factors : StructureFactors
        U_g up to 2 q_max.
    spec : SimulationSpec
    """

    points: ReciprocalPoints
    factors: StructureFactors
    spec: SimulationSpec

    @classmethod
    def prepare(cls, crystal: Crystal, spec: SimulationSpec) -> Self:
        """Tabulate the structure factors of a crystal and list its reciprocal-lattice points."""
        factors = structure_factors(crystal, 2.0 * spec.q_max, form_factors(crystal.numbers, spec))
        return cls(reciprocal_points(crystal, spec.q_max), factors, spec)

    def solve(self, orientation: NDArray[np.float64], solver: Solver = "auto") -> PeakList:
        """Solve one orientation, a rotation matrix of shape (3, 3), at every thickness."""
        wavelength = electron_wavelength(self.spec.energy_ev)
        errors = excitation_errors(self.points.g, orientation[:, 2], wavelength)
        chosen = np.abs(errors) <= self.spec.s_max
        hkl, g = self.points.hkl[chosen], self.points.g[chosen]
        matrix = structure_matrix(self.factors, hkl, errors[chosen], wavelength)
        waves = propagate(matrix, self.spec.thicknesses, solver)
        intensity: NDArray[np.float64] = np.square(np.abs(waves))
        return PeakList(hkl, g @ orientation[:, :2], intensity)


def simulate(
    crystal: Crystal, orientations: NDArray[np.float64], spec: SimulationSpec | None = None
) -> Sequence[PeakList]:
    """Simulate Bloch-wave diffraction patterns of a crystal.

    Parameters
    ----------
    crystal : Crystal
    orientations : ndarray of shape (N, 3, 3)
        Columns of each matrix are the lab axes x, y, z in the crystal's Cartesian frame; z is the
        zone axis and the foil normal.
    spec : SimulationSpec, optional
        Physics; the defaults are the paper's.

    Returns
    -------
    sequence of PeakList
        One for each orientation: ``hkl`` (n, 3), ``q`` (n, 2) in Å⁻¹, ``intensity``
        (n_thicknesses, n) as share of the incident beam; 000 comes first.

    Raises
    ------
    OrientationError
        If an orientation is not a finite rotation matrix.
    SimulationError
        If a solve gives numbers that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from diffractory import Crystal, SimulationSpec, simulate
    >>> copper = Crystal(3.61 * np.eye(3), [29] * 4, [[0, 0, 0], [0, .5, .5], [.5, 0, .5], [.5, .5, 0]])
    >>> pattern, = simulate(copper, np.eye(3)[None], SimulationSpec(thicknesses=(100.0, 200.0)))
    >>> pattern.hkl[0].tolist(), pattern.intensity.shape[0]
    ([0, 0, 0], 2)
    """
    return list(iterate_patterns(crystal, orientations, spec or SimulationSpec()))


def iterate_patterns(
    crystal: Crystal, orientations: NDArray[np.float64], spec: SimulationSpec
) -> Iterator[PeakList]:
    """Yield the pattern of each orientation as it is solved; arguments as in :func:`simulate`."""
    matrices = check_orientations(orientations)
    # One core a solve: workers are many, and threads of a BLAS would only fight over the cores.
    with threadpool_limits(limits=1, user_api="blas"):
        scatterer = Scatterer.prepare(crystal, spec)
        for matrix in matrices:
            yield scatterer.solve(matrix)
