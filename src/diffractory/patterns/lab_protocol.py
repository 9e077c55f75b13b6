"""The lab protocol: what a laboratory does to a simulated pattern.

Each pattern draws from its own counter-based generator (Philox, keyed with the pattern's seed), so
its result depends on that seed alone: not on the other patterns, their order or their number.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffractory.errors import DiffractoryError, SpecError
from diffractory.patterns.peak_table import PeakTable
from diffractory.specs import LabProtocolSpec

#: Second half of the Philox key: one stream for each purpose, so that they never share numbers.
_PATTERN_STREAM = 0
_THICKNESS_STREAM = 1
_SPREAD_STREAM = 2
#: Above this many electrons in a spot Poisson noise is below a millionth and numpy's range nears.
_NOISELESS_COUNT = 1e12


def apply_lab_protocol(
    table: PeakTable, spec: LabProtocolSpec, seeds: NDArray[np.uint64] | ArrayLike
) -> PeakTable:
    """Apply the lab protocol to simulated patterns.

    In this order: random in-plane rotation, scale error, area-preserving stretch along a random
    axis, position noise, Poisson noise. Lost are the spots whose true intensity lies below
    ``spec.intensity_floor`` and those that no electron hits.

    Parameters
    ----------
    table : PeakTable
        Simulated patterns: positions in Å⁻¹, intensities as share of the incident beam.
    spec : LabProtocolSpec
        Size of every effect.
    seeds : array_like of shape (n_patterns,), uint64
        Seed of each pattern.

    Returns
    -------
    PeakTable
        Patterns in the same order with the surviving spots in the same order; ``direct`` is −1
        where the direct beam is lost.

    Raises
    ------
    DiffractoryError
        If the number of seeds differs from the number of patterns, or an intensity is negative
        or not finite.

    Examples
    --------
    >>> from diffractory.patterns.lab_protocol import apply_lab_protocol
    >>> from diffractory.patterns.peak_table import PeakTable
    >>> from diffractory.specs import LabProtocolSpec
    >>> table = PeakTable.from_lists([[[0.0, 0.0], [0.5, 0.0], [1.0, 0.0]]], [[0.9, 0.05, 1e-6]], [0])
    >>> apply_lab_protocol(table, LabProtocolSpec(), [7]).counts.tolist()  # a spot of 1e-6 is lost
    [2]
    """
    keys = _as_seeds(seeds, len(table))
    if not np.all(np.isfinite(table.intensity) & (table.intensity >= 0.0)):
        raise DiffractoryError(
            "a simulated intensity is negative or not finite",
            "Poisson noise needs the share of the incident beam in every spot",
            "Run 'diffractory verify' on the dataset",
        )
    q, intensity = np.empty_like(table.q), np.empty_like(table.intensity)
    for pattern, key in enumerate(keys):
        peaks = slice(table.offsets[pattern], table.offsets[pattern + 1])
        generator = _generator(key, _PATTERN_STREAM)
        sigma = spec.position_sigma * spec.position_spread ** _generator(key, _SPREAD_STREAM).uniform(
            -1.0, 1.0
        )
        q[peaks] = _measured_positions(table.q[peaks], spec, sigma, generator)
        intensity[peaks] = _measured_intensity(table.intensity[peaks], spec, generator)
    survives = (table.intensity >= spec.intensity_floor) & (intensity > 0.0)
    return _keep(PeakTable(q, intensity, table.offsets, table.direct), survives)


def draw_thickness(
    available: ArrayLike, spec: LabProtocolSpec, seeds: NDArray[np.uint64] | ArrayLike
) -> NDArray[np.int64]:
    """Draw a thickness for each pattern, uniformly among those inside the protocol's range.

    Parameters
    ----------
    available : array_like of shape (n_thicknesses,)
        Simulated thicknesses in Å.
    spec : LabProtocolSpec
        Holds ``thickness_range`` in Å, both ends included.
    seeds : array_like of shape (n_patterns,), uint64
        Seed of each pattern; may be the seeds of :func:`apply_lab_protocol`.

    Returns
    -------
    ndarray of shape (n_patterns,), int64
        Index into ``available``.

    Raises
    ------
    SpecError
        If no available thickness lies inside the range.
    DiffractoryError
        If the seeds are not a one-dimensional array of unsigned integers.
    """
    thicknesses = np.atleast_1d(np.asarray(available, dtype=np.float64))
    low, high = spec.thickness_range
    inside = np.flatnonzero((thicknesses >= low) & (thicknesses <= high))
    if inside.size == 0:
        raise SpecError(
            f"no simulated thickness lies in thickness_range = {low:g} … {high:g} Å "
            f"(simulated: {', '.join(f'{t:g}' for t in thicknesses) or 'none'})",
            "the lab protocol draws a thickness from that range",
            "Widen thickness_range, or simulate thicknesses inside it",
        )
    keys = _as_seeds(seeds, None)
    drawn = [int(_generator(key, _THICKNESS_STREAM).integers(inside.size)) for key in keys]
    return inside[np.asarray(drawn, dtype=np.int64)]


def _as_seeds(seeds: ArrayLike, n_patterns: int | None) -> NDArray[np.uint64]:
    array = np.asarray(seeds)
    is_integer = array.dtype.kind == "u" or (array.dtype.kind == "i" and bool(np.all(array >= 0)))
    if array.ndim != 1 or not (is_integer or array.size == 0):
        raise DiffractoryError(
            f"seeds must be a one-dimensional array of unsigned integers, got {array.dtype} of "
            f"shape {array.shape}"
        )
    if n_patterns is not None and len(array) != n_patterns:
        raise DiffractoryError(f"{n_patterns} patterns need as many seeds, got {len(array)}")
    return array.astype(np.uint64)


def _generator(seed: np.uint64, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, stream], dtype=np.uint64)))


def deformation(scale: float, ellipticity: float, axis: float) -> NDArray[np.float64]:
    """Return the matrix of a wrong pixel size and an elliptical projection.

    Parameters
    ----------
    scale : float
        Factor on all positions.
    ellipticity : float
        Ratio of the axes minus one; the area is kept.
    axis : float
        Angle of the long axis, in radians.

    Returns
    -------
    ndarray of shape (2, 2)
        q measured = matrix @ q.
    """
    ratio = np.sqrt(1.0 + ellipticity)
    along = np.array([np.cos(axis), np.sin(axis)])
    matrix: NDArray[np.float64] = scale * (np.eye(2) / ratio + np.outer(along, along) * (ratio - 1.0 / ratio))
    return matrix


def _measured_positions(
    q: NDArray[np.float64], spec: LabProtocolSpec, sigma: float, generator: np.random.Generator
) -> NDArray[np.float64]:
    # All numbers are always drawn: switching one effect off leaves the others as they were.
    turn, scale, stretch, axis = generator.random(4)
    angle = 2.0 * np.pi * turn if spec.rotate else 0.0
    factor = 1.0 + spec.scale_error * (2.0 * scale - 1.0)
    deform = deformation(factor, spec.ellipticity * stretch, np.pi * axis)
    rotate = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    noise = generator.standard_normal(q.shape) * sigma
    measured: NDArray[np.float64] = q @ (deform @ rotate).T + noise
    return measured


def _measured_intensity(
    intensity: NDArray[np.float64], spec: LabProtocolSpec, generator: np.random.Generator
) -> NDArray[np.float64]:
    expected = intensity * spec.electrons
    counts = generator.poisson(np.minimum(expected, _NOISELESS_COUNT))
    return np.where(expected > _NOISELESS_COUNT, expected, counts) / spec.electrons


def _keep(table: PeakTable, survives: NDArray[np.bool_]) -> PeakTable:
    # rank[j] = number of survivors before peak j, which is also its index afterwards.
    rank = np.concatenate([[0], np.cumsum(survives)])
    alive = (table.direct >= 0) & np.append(survives, False)[table.direct]
    direct = np.where(alive, rank[table.direct], -1)
    return PeakTable(table.q[survives], table.intensity[survives], rank[table.offsets], direct)
