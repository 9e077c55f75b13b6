"""Kinematical diffraction: every beam is scattered once, out of a beam that nothing weakens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffractory.crystals.crystal import Crystal
from diffractory.scattering.illumination import Illumination
from diffractory.scattering.orientations import check_orientations
from diffractory.scattering.peak_list import PeakList
from diffractory.scattering.simulate import Scatterer
from diffractory.specs import SimulationSpec
from diffractory.units import electron_wavelength


def simulate_kinematic(
    crystal: Crystal, orientations: NDArray[np.float64], spec: SimulationSpec | None = None
) -> list[PeakList]:
    """Simulate what patterns would be without multiple scattering, to stand beside :func:`simulate`.

    The first Born approximation, good for foils of a few Å only: beyond, intensities grow past the
    incident beam, because nothing is taken from it. Absorption is left out.

    Parameters
    ----------
    crystal : Crystal
    orientations : ndarray of shape (N, 3, 3)
        As for :func:`simulate`.
    spec : SimulationSpec, optional
        Physics; the defaults are the paper's. With precession, the mean over all azimuths.

    Returns
    -------
    list of PeakList
        One for each orientation, on the beams that :func:`simulate` uses: |π λ U_g t sinc(s_g t)|² as
        share of the incident beam; that of the direct beam, which comes first, is 1.

    Raises
    ------
    OrientationError
        If an orientation is not a finite rotation matrix.

    References
    ----------
    De Graef, *Introduction to Conventional Transmission Electron Microscopy* (2003), sect. 2.6.

    Examples
    --------
    >>> import numpy as np
    >>> from diffractory import Crystal, SimulationSpec, simulate_kinematic
    >>> copper = Crystal(3.61 * np.eye(3), [29] * 4, [[0, 0, 0], [0, .5, .5], [.5, 0, .5], [.5, .5, 0]])
    >>> pattern, = simulate_kinematic(copper, np.eye(3)[None], SimulationSpec(thicknesses=(100.0, 200.0)))
    >>> pattern.intensity[:, 0].tolist()
    [1.0, 1.0]
    """
    spec = spec or SimulationSpec()
    scatterer, illumination = Scatterer.prepare(crystal, spec), Illumination.of(spec)
    return [_pattern(scatterer, illumination, matrix) for matrix in check_orientations(orientations)]


def _pattern(scatterer: Scatterer, illumination: Illumination, orientation: NDArray[np.float64]) -> PeakList:
    spec, points = scatterer.spec, scatterer.points
    chosen, errors = scatterer.select_beams(orientation, illumination)
    # Without its absorptive part U_g is Hermitian: half the sum of U_g and the conjugate of U_−g.
    index = points.index[chosen]
    elastic = 0.5 * (scatterer.factors.of(index) + scatterer.factors.of(-index).conj())
    thickness = np.array(spec.thicknesses)[:, None, None]
    path = thickness / illumination.cosines()[:, None]
    # Of shape (n_thicknesses, n_tilts, n).
    amplitude = np.pi * electron_wavelength(spec.energy_ev) * np.abs(elastic) * path
    intensity = np.square(amplitude * np.sinc(errors * thickness)).mean(axis=1)
    intensity[:, 0] = 1.0
    return PeakList(points.hkl[chosen], points.g[chosen] @ orientation[:, :2], intensity, "kinematic")
