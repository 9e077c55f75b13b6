"""Features that a turn of the pattern, or its intensity scale, leaves as they are.

Three groups: the lattice read from the spots and how well each crystal family fits it; the radial
profile; and the magnitudes of the paper's radial basis. Intensities are shares of what is scattered,
so neither the exposure nor a saturated direct beam matters.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from diffractory.patterns.lattice_groups import LATTICE_FAMILIES
from diffractory.patterns.lattice_symmetry import fit_families
from diffractory.patterns.peak_table import PeakTable, refuse_not_finite
from diffractory.patterns.radial_basis import radial_basis
from diffractory.patterns.spot_lattice import SpotLattices, find_spot_lattices
from diffractory.specs import InvariantSpec, RadialBasisSpec

#: What stands for the decimal logarithm of a residual where there is no lattice: worse than any.
_NO_FIT = 1.0
_SMALLEST_MISFIT = 1e-9
#: A hexagonal fit is as good as a rhombohedral one up to this factor, as a decimal logarithm.
_AS_WELL = 0.3
_SPOT_NAMES = (
    "spots", "score", "explained_bright", "explained", "log_misfit", "excitation", "tolerance",
    "plane_a", "plane_b", "plane_cos", "in_plane", "volume",
)  # fmt: skip
_REDUCED_NAMES = ("reduced_a", "reduced_b", "reduced_c", "cos_alpha", "cos_beta", "cos_gamma")
_FIT_NAMES = ("log_residual", "log_across", "a", "b", "c", "cells")
_PAIRS = tuple(itertools.combinations(range(len(LATTICE_FAMILIES)), 2))


def invariant_features(
    table: PeakTable,
    spec: InvariantSpec = InvariantSpec(),  # noqa: B008
    lattices: SpotLattices | None = None,
    of_lattice: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Compute the rotation-invariant features of every pattern.

    Parameters
    ----------
    table : PeakTable
        Peaks of n patterns; positions in Å⁻¹ from the direct beam, intensities on any scale.
    spec : InvariantSpec
    lattices : SpotLattices, optional
        What :func:`invariant_lattices` found in the same patterns: four fifths of the time are saved.
    of_lattice : ndarray of shape (n, n_lattice_features), float32, optional
        What :func:`lattice_features` made of the features of the same patterns; ``lattices`` is not
        looked at then, and hardly any time is left.

    Returns
    -------
    ndarray of shape (n, n_features), float32
        Columns as :func:`invariant_names` tells; all finite.

    Raises
    ------
    DiffractoryError
        If a position or an intensity is not finite.
    """
    refuse_not_finite(table)
    scattered = _shares_of_scattered(table)
    basis = RadialBasisSpec(ring_width=spec.ring_width, n_rings=spec.n_rings, n_orders=spec.n_orders)
    magnitudes = radial_basis(scattered, basis)[:, : spec.n_rings * spec.n_orders]
    profile = np.zeros((len(table), _n_bins(spec)))
    _add_profile(scattered.q, scattered.intensity, table.offsets, table.direct, spec.profile_width, profile)
    if of_lattice is None:
        found = find_spot_lattices(scattered, spec) if lattices is None else lattices
        of_lattice = _describe_lattices(table.counts, found).astype(np.float32)
    return np.concatenate([of_lattice, profile.astype(np.float32), magnitudes], axis=1)


def lattice_features(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the columns that describe the lattice: a tenth of all, and most of the time they take."""
    n = len(_SPOT_NAMES) + len(_REDUCED_NAMES) + 1 + len(LATTICE_FAMILIES) * len(_FIT_NAMES) + len(_PAIRS)
    return features[:, :n]


def invariant_lattices(table: PeakTable, spec: InvariantSpec = InvariantSpec()) -> SpotLattices:  # noqa: B008
    """Find the lattice of every pattern that :func:`invariant_features` describes.

    Raises
    ------
    DiffractoryError
        If a position or an intensity is not finite.
    """
    refuse_not_finite(table)
    return find_spot_lattices(_shares_of_scattered(table), spec)


def invariant_names(spec: InvariantSpec = InvariantSpec()) -> tuple[str, ...]:  # noqa: B008
    """Return the name of every column of :func:`invariant_features`."""
    fits = [f"{family}_{name}" for family in LATTICE_FAMILIES for name in _FIT_NAMES]
    pairs = [f"log_residual_{LATTICE_FAMILIES[i]}_to_{LATTICE_FAMILIES[j]}" for i, j in _PAIRS]
    profile = [f"profile_{index}" for index in range(_n_bins(spec))]
    magnitudes = [f"magnitude_n{n}_m{m}" for n in range(spec.n_rings) for m in range(spec.n_orders)]
    return (*_SPOT_NAMES, *_REDUCED_NAMES, "monoclinic_cos", *fits, *pairs, *profile, *magnitudes)


def _n_bins(spec: InvariantSpec) -> int:
    return math.ceil(spec.ring_width * (spec.n_rings - 1) / spec.profile_width)


def _shares_of_scattered(table: PeakTable) -> PeakTable:
    pattern = np.repeat(np.arange(len(table)), table.counts)
    sums = np.bincount(pattern, np.where(table.scattered, table.intensity, 0.0), minlength=len(table))
    factors = np.divide(1.0, sums, out=np.ones(len(table)), where=sums > 0.0)
    return PeakTable(table.q, table.intensity * factors[pattern], table.offsets, table.direct)


def _describe_lattices(counts: NDArray[np.int64], found: SpotLattices) -> NDArray[np.float64]:
    n = len(counts)
    fits = fit_families(found.reciprocal)
    determinant = np.abs(np.linalg.det(found.reciprocal))
    volume = np.divide(1.0, determinant, out=np.zeros(n), where=determinant > 0.0)
    spots = np.column_stack(
        [
            counts, found.score, found.explained_bright, found.explained,
            np.log10(np.maximum(found.misfit, _SMALLEST_MISFIT)), found.excitation, found.tolerance,
            found.plane, found.in_plane, volume,
        ]
    )  # fmt: skip
    residual, across = (
        np.where(np.isnan(value), _NO_FIT, np.log10(value)) for value in (fits.residual, fits.residual_across)
    )
    per_family = np.concatenate(
        [
            residual[..., None],
            across[..., None],
            np.nan_to_num(fits.cell),
            np.nan_to_num(fits.cells)[..., None],
        ],
        axis=2,
    )
    first, second = np.array(_PAIRS).T
    return np.concatenate(
        [
            spots,
            np.nan_to_num(fits.reduced),
            np.nan_to_num(fits.cos_beta)[:, None],
            per_family.reshape(n, len(LATTICE_FAMILIES) * len(_FIT_NAMES)),
            residual[:, second] - residual[:, first],
        ],
        axis=1,
    )


@njit(nogil=True, cache=True)
def _add_profile(q, intensity, offsets, direct, width, profile):  # type: ignore[no-untyped-def]
    """Add each spot to the two nearest bins, in shares that fall off linearly."""
    n_bins = profile.shape[1]
    for pattern in range(len(profile)):
        for spot in range(offsets[pattern], offsets[pattern + 1]):
            if spot == direct[pattern]:
                continue
            position = math.sqrt(q[spot, 0] ** 2 + q[spot, 1] ** 2) / width
            if position >= n_bins:
                continue
            inner = int(position)
            profile[pattern, inner] += intensity[spot] * (1.0 - (position - inner))
            if inner + 1 < n_bins:
                profile[pattern, inner + 1] += intensity[spot] * (position - inner)


def cells_of_system(
    features: NDArray[np.float32],
    system: str,
    spec: InvariantSpec = InvariantSpec(),  # noqa: B008
) -> NDArray[np.float64]:
    """Return the conventional cell that a crystal system makes of the lattice found in each pattern.

    Parameters
    ----------
    features : ndarray of shape (n, n_features)
        As :func:`invariant_features` gives them.
    system : str
        Crystal system.
    spec : InvariantSpec

    Returns
    -------
    ndarray of shape (n, 3)
        a, b, c in Å; NaN where no lattice was found. Trigonal lattices are hexagonal ones where that
        fits as well, else rhombohedral ones in the hexagonal setting; triclinic ones are reduced.
    """
    column = {name: index for index, name in enumerate(invariant_names(spec))}

    def cells(prefix: str) -> NDArray[np.float64]:
        return features[:, [column[f"{prefix}_{axis}"] for axis in "abc"]].astype(np.float64)

    if system == "triclinic":
        found = cells("reduced")
    elif system == "trigonal":
        excess = features[:, column["log_residual_rhombohedral_to_hexagonal"]]
        found = np.where(excess[:, None] < _AS_WELL, cells("hexagonal"), cells("rhombohedral"))
    else:
        found = cells(system)
    return np.where(found > 0.0, found, np.nan)
