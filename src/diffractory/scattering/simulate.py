"""Simulate the diffraction patterns of one crystal: the public entry to the physics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self, get_args

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from diffractory.crystals.crystal import Crystal
from diffractory.errors import SimulationError
from diffractory.scattering.beams import ReciprocalPoints, choose_beams, reciprocal_points
from diffractory.scattering.cost import TILT_BYTES, predicted_series_bytes
from diffractory.scattering.form_factors import form_factors
from diffractory.scattering.illumination import Illumination
from diffractory.scattering.orientations import check_orientations
from diffractory.scattering.peak_list import PeakList
from diffractory.scattering.primitive import primitive_cell
from diffractory.scattering.solvers import Solution, Solver, propagate, propagate_tilts, tilted_matrix
from diffractory.scattering.structure_factors import StructureFactors, index_limits, structure_factors
from diffractory.scattering.structure_matrix import Precision, coupling_matrix
from diffractory.settings import machine_memory
from diffractory.specs import SimulationSpec
from diffractory.units import electron_wavelength, human_bytes


@dataclass(frozen=True, eq=False)
class TiltSeries:
    """Bragg peaks of one crystal in one orientation, for many tilts of the beam.

    Parameters
    ----------
    hkl : ndarray of shape (n, 3), int
        Miller indices in the cell of the crystal that was handed in; 000 comes first.
    q : ndarray of shape (n, 2)
        Position relative to the direct beam in Å⁻¹.
    tilts_deg : ndarray of shape (n_tilts, 2)
        Angles of the incident waves along lab x and y in degrees.
    intensity : ndarray of shape (n_tilts, n_thicknesses, n)
        Share of each incident wave.
    solver : {"chebyshev", "dense"}
        What gave the intensities; "dense" where the series was asked for but did not converge.
    """

    hkl: NDArray[np.int64]
    q: NDArray[np.float64]
    tilts_deg: NDArray[np.float64]
    intensity: NDArray[np.float64]
    solver: Solver = "chebyshev"


@dataclass(frozen=True, eq=False)
class Scatterer:
    """A crystal prepared for one spec: everything that all its orientations share.

    Parameters
    ----------
    points : ReciprocalPoints
        Beams to choose from.
    factors : StructureFactors
        U_g up to 2 q_max, on the indices of the primitive cell.
    spec : SimulationSpec
    memory_bytes : float
        What one solve may use; more is refused before it is tried.
    """

    points: ReciprocalPoints
    factors: StructureFactors
    spec: SimulationSpec
    memory_bytes: float = math.inf

    @classmethod
    def prepare(cls, crystal: Crystal, spec: SimulationSpec, memory_bytes: float = math.inf) -> Self:
        """Tabulate the structure factors of a crystal and list its reciprocal-lattice points.

        Parameters
        ----------
        crystal : Crystal
        spec : SimulationSpec
        memory_bytes : float
            What one solve, and the table of structure factors, may use.

        Returns
        -------
        Scatterer

        Raises
        ------
        SimulationError
            If the table would need more than that.
        """
        cell = primitive_cell(crystal)
        size = 2 * index_limits(cell.crystal, 2.0 * spec.q_max) + 1
        # In double precision, and once more in single.
        if (needed := 24.0 * float(np.prod(size.astype(np.float64)))) > memory_bytes:
            raise SimulationError(
                f"the structure factors of {' × '.join(map(str, size))} beams need {human_bytes(needed)}",
                f"{human_bytes(memory_bytes)} may be used",
                "Take a smaller q_max, or a machine with more memory",
            )
        factors = structure_factors(cell.crystal, 2.0 * spec.q_max, form_factors(crystal.numbers, spec))
        return cls(reciprocal_points(cell, spec.q_max), factors, spec, memory_bytes)

    def solve(
        self,
        orientation: NDArray[np.float64],
        solver: Solver = "chebyshev",
        precision: Precision = "single",
    ) -> PeakList:
        """Solve one orientation, a rotation matrix of shape (3, 3), at every thickness.

        With precession, the mean over all azimuths, on the beams that any of them excites.

        Parameters
        ----------
        orientation : ndarray of shape (3, 3)
            Rotation matrix; it is not checked.
        solver : {"chebyshev", "dense"}
        precision : {"single", "double"}
            Of the matrix and of the series; the dense reference computes in double precision.

        Returns
        -------
        PeakList
        """
        illumination = Illumination.of(self.spec)
        chosen, errors = self.select_beams(orientation, illumination)
        coupling = self.coupling(chosen, precision)
        hkl, q = self.points.hkl[chosen], self.points.g[chosen] @ orientation[:, :2]
        inverse_cosines = 1.0 / illumination.cosines()
        if len(illumination) == 1:
            matrix = tilted_matrix(coupling, inverse_cosines[0], errors[0])
            solution = propagate(matrix, self.spec.thicknesses, solver)
            return PeakList(hkl, q, solution.intensity, solution.solver)
        total, used = np.zeros((len(self.spec.thicknesses), len(hkl))), solver
        for solution in _in_turn(coupling, inverse_cosines, errors, self.spec.thicknesses, solver):
            total += solution.intensity.sum(axis=2)
            used = solution.solver if solution.solver == "dense" else used
        return PeakList(hkl, q, total / len(illumination), used)

    def solve_tilts(
        self,
        orientation: NDArray[np.float64],
        tilts_deg: NDArray[np.float64],
        solver: Solver = "chebyshev",
        precision: Precision = "single",
    ) -> TiltSeries:
        """Solve one orientation for many tilts of the beam; arguments as in :func:`simulate_tilts`.

        Parameters
        ----------
        orientation : ndarray of shape (3, 3)
            Rotation matrix; it is not checked.
        tilts_deg : ndarray of shape (n_tilts, 2)
            Along lab x and y in degrees.
        solver : {"chebyshev", "dense"}
        precision : {"single", "double"}
            Of the matrix and of the series; the dense reference computes in double precision.

        Returns
        -------
        TiltSeries
        """
        illumination = Illumination.of(self.spec, tilts_deg)
        chosen, errors = self.select_beams(orientation, illumination)
        thicknesses, n = self.spec.thicknesses, errors.shape[1]
        coupling = self.coupling(chosen, precision, 8 * len(illumination) * len(thicknesses) * n)
        intensity = np.empty((len(illumination), len(thicknesses), n))
        used, done = solver, 0
        for solution in _in_turn(coupling, 1.0 / illumination.cosines(), errors, thicknesses, solver):
            some = solution.intensity.transpose(2, 0, 1)
            intensity[done : done + len(some)] = some
            done += len(some)
            used = solution.solver if solution.solver == "dense" else used
        return TiltSeries(
            self.points.hkl[chosen],
            self.points.g[chosen] @ orientation[:, :2],
            np.array(tilts_deg, dtype=np.float64),
            intensity,
            used,
        )

    def select_beams(
        self, orientation: NDArray[np.float64], illumination: Illumination | None = None
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Return which points any of the tilts excites, and their errors of shape (n_tilts, n) in Å⁻¹.

        Parameters
        ----------
        orientation : ndarray of shape (3, 3)
        illumination : Illumination, optional
            That of the spec by default.

        Returns
        -------
        chosen : ndarray of shape (len(points),), bool
        errors : ndarray of shape (n_tilts, n)
            Excitation errors of the chosen ones in Å⁻¹.
        """
        lit = illumination or Illumination.of(self.spec)
        chosen = choose_beams(self.points, orientation, self.spec, lit)
        g_lab = self.points.g[chosen] @ orientation
        return chosen, lit.excitation_errors(g_lab, electron_wavelength(self.spec.energy_ev))

    def coupling(
        self, chosen: NDArray[np.bool_], precision: Precision, result_bytes: int = 0
    ) -> NDArray[Any]:
        """Return the coupling of chosen points, in Å⁻¹; refuse what memory cannot hold.

        Parameters
        ----------
        chosen : ndarray of shape (len(points),), bool
        precision : {"single", "double"}
        result_bytes : int
            Of a result that is kept besides.

        Returns
        -------
        ndarray of shape (n, n), complex64 or complex128
            As :func:`~diffractory.scattering.structure_matrix.coupling_matrix` gives it.

        Raises
        ------
        SimulationError
            If the precision is unknown, or the solve would need more than ``memory_bytes``.
        """
        if precision not in get_args(Precision):
            raise SimulationError(f"precision {precision!r} is unknown", fix="Use single or double")
        width = 2 if precision == "double" else 1
        n, wavelength = int(np.count_nonzero(chosen)), electron_wavelength(self.spec.energy_ev)
        if (needed := width * predicted_series_bytes(n, self.spec) + result_bytes) > self.memory_bytes:
            raise SimulationError(
                f"an orientation excites {n} beams, whose solve needs {human_bytes(needed)}",
                f"{human_bytes(self.memory_bytes)} may be used",
                "Take a smaller q_max or s_max, fewer thicknesses or tilts, or a machine with more memory",
            )
        return coupling_matrix(self.factors, self.points.index[chosen], wavelength, precision)


def _in_turn(
    coupling: NDArray[Any],
    inverse_cosines: NDArray[np.float64],
    errors: NDArray[np.float64],
    thicknesses: tuple[float, ...],
    solver: Solver,
) -> Iterator[Solution]:
    """Solve as many tilts at a time as memory allows; ``errors`` of shape (n_tilts, n)."""
    alive = 16 * len(coupling) * (5 * len(thicknesses) + 100)
    step = max(1, TILT_BYTES // alive)
    for first in range(0, len(inverse_cosines), step):
        some = slice(first, first + step)
        yield propagate_tilts(coupling, inverse_cosines[some], errors[some].T, thicknesses, solver)


def simulate(
    crystal: Crystal,
    orientations: NDArray[np.float64],
    spec: SimulationSpec | None = None,
    device: str | None = None,
    precision: Precision = "single",
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
    device : str, optional
        GPU to solve on, as PyTorch calls it ("cuda"); the processor by default.
    precision : {"single", "double"}
        Of the arithmetic, on the processor. Intensities to 2000 Å are good to about 2e-6 in single
        precision and 1e-9 in double, which takes longer.

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
        If a solve needs more memory than the machine has, or gives numbers that are not finite, or
        the device cannot be used, or is asked for double precision.

    Examples
    --------
    >>> import numpy as np
    >>> from diffractory import Crystal, SimulationSpec, simulate
    >>> copper = Crystal(3.61 * np.eye(3), [29] * 4, [[0, 0, 0], [0, .5, .5], [.5, 0, .5], [.5, .5, 0]])
    >>> pattern, = simulate(copper, np.eye(3)[None], SimulationSpec(thicknesses=(100.0, 200.0)))
    >>> pattern.hkl[0].tolist(), pattern.intensity.shape[0]
    ([0, 0, 0], 2)
    """
    if device is not None and precision != "single":
        raise SimulationError(
            "a GPU solves in single precision only",
            fix="Leave device out, or precision",
        )
    if device is not None:
        # Built on this module, and PyTorch is optional.
        from diffractory.scattering.torch_solver import solve_batched

        scatterer = Scatterer.prepare(crystal, spec or SimulationSpec(), machine_memory())
        return list(solve_batched(((scatterer, o) for o in check_orientations(orientations)), device))
    return list(iterate_patterns(crystal, orientations, spec or SimulationSpec(), precision))


def simulate_tilts(
    crystal: Crystal,
    orientation: NDArray[np.float64],
    tilts_deg: NDArray[np.float64],
    spec: SimulationSpec | None = None,
) -> TiltSeries:
    """Simulate Bloch-wave diffraction of one orientation for many tilts of the incident beam.

    All tilts share the beams that any of them excites and one structure matrix, so that they are
    solved together as matrix-matrix products. A convergent-beam pattern is such a series, one tilt
    for each point of the disk.

    Parameters
    ----------
    crystal : Crystal
    orientation : ndarray of shape (3, 3)
        Columns are the lab axes x, y, z in the crystal's Cartesian frame; z is against the
        untilted beam.
    tilts_deg : ndarray of shape (n_tilts, 2)
        Angles of the incident waves along lab x and y in degrees, at most 30.
    spec : SimulationSpec, optional
        Physics; the defaults are the paper's. Its precession is not used.

    Returns
    -------
    TiltSeries

    Raises
    ------
    OrientationError
        If the orientation is not a finite rotation matrix.
    SimulationError
        If the tilts are not finite or too large, a solve needs more memory than the machine has, or
        it gives numbers that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from diffractory import Crystal, simulate_tilts
    >>> copper = Crystal(3.61 * np.eye(3), [29] * 4, [[0, 0, 0], [0, .5, .5], [.5, 0, .5], [.5, .5, 0]])
    >>> series = simulate_tilts(copper, np.eye(3), np.array([[0.0, 0.0], [0.5, 0.0]]))
    >>> series.intensity.shape[:2]
    (2, 1)
    """
    (matrix,) = check_orientations(np.asarray(orientation)[None])
    with threadpool_limits(limits=1, user_api="blas"):
        scatterer = Scatterer.prepare(crystal, spec or SimulationSpec(), machine_memory())
        return scatterer.solve_tilts(matrix, tilts_deg)


def iterate_patterns(
    crystal: Crystal,
    orientations: NDArray[np.float64],
    spec: SimulationSpec,
    precision: Precision = "single",
) -> Iterator[PeakList]:
    """Yield the pattern of each orientation as it is solved, so that none has to be kept.

    Parameters
    ----------
    crystal : Crystal
    orientations : ndarray of shape (N, 3, 3)
        As in :func:`simulate`.
    spec : SimulationSpec
    precision : {"single", "double"}
        Of the arithmetic.

    Yields
    ------
    PeakList
        In the order of the orientations.

    Raises
    ------
    OrientationError
        If an orientation is not a finite rotation matrix; before the first pattern.
    SimulationError
        If a solve needs more memory than the machine has, or gives numbers that are not finite.
    """
    matrices = check_orientations(orientations)
    # One core a solve: workers are many, and threads of a BLAS would only fight over the cores.
    with threadpool_limits(limits=1, user_api="blas"):
        scatterer = Scatterer.prepare(crystal, spec, machine_memory())
        for matrix in matrices:
            yield scatterer.solve(matrix, precision=precision)
