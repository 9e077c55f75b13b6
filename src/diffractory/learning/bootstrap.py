"""95 % bootstrap intervals that resample materials.

Patterns of one material are alike: resampling patterns would give far too narrow intervals.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

#: Resampled sets of materials held at once; bounds their memory.
_RESAMPLED_AT_ONCE = 100


def bootstrap_interval(
    right: NDArray[np.bool_], materials: NDArray[np.int64], n_bootstrap: int, seed: int
) -> list[float] | None:
    """Return the 95 % bootstrap interval of an accuracy.

    Parameters
    ----------
    right : ndarray of shape (n,), bool
    materials : ndarray of shape (n,), int
    n_bootstrap : int
    seed : int

    Returns
    -------
    list of two floats, or None
        Percentiles 2.5 and 97.5; None for fewer than two materials.
    """
    names, material = np.unique(materials, return_inverse=True)
    if len(names) < 2:
        return None
    totals = np.bincount(material).astype(np.float64)
    rights = np.bincount(material, weights=right)
    accuracies = [
        rights[drawn].sum(axis=1) / totals[drawn].sum(axis=1)
        for drawn in _resampled(len(names), n_bootstrap, seed)
    ]
    low, high = np.percentile(np.concatenate(accuracies), [2.5, 97.5])
    return [float(low), float(high)]


def bootstrap_median_interval(
    values: NDArray[np.float64], materials: NDArray[np.int64], n_bootstrap: int, seed: int
) -> list[float] | None:
    """Return the 95 % bootstrap interval of a median.

    Parameters
    ----------
    values : ndarray of shape (n,)
        May be infinite, not NaN.
    materials : ndarray of shape (n,), int
    n_bootstrap : int
    seed : int

    Returns
    -------
    list of two floats, or None
        Percentiles 2.5 and 97.5; None for fewer than two materials, or where one of them is infinite.
    """
    names, material = np.unique(materials, return_inverse=True)
    if len(names) < 2:
        return None
    order = np.argsort(values, kind="stable")
    ordered, owner = values[order], material[order]
    generator = np.random.default_rng([seed, len(names)])
    medians = np.empty(n_bootstrap)
    for index in range(n_bootstrap):
        drawn = np.bincount(generator.integers(len(names), size=len(names)), minlength=len(names))
        # As often as its material was drawn; the mean of the middle two where their number is even.
        reached = np.cumsum(drawn[owner])
        middle = [(reached[-1] - 1) // 2, reached[-1] // 2]
        medians[index] = ordered[np.searchsorted(reached, middle, side="right")].mean()
    ranks = np.sort(medians)[[int(0.025 * (n_bootstrap - 1)), math.ceil(0.975 * (n_bootstrap - 1))]]
    return [float(value) for value in ranks] if np.all(np.isfinite(ranks)) else None


def bootstrap_calibration_interval(
    right: NDArray[np.bool_],
    place: NDArray[np.int64],
    confidence: NDArray[np.float64],
    materials: NDArray[np.int64],
    n_bootstrap: int,
    seed: int,
) -> list[float] | None:
    """Return an interval that holds an expected calibration error with 95 % or more.

    The error is a sum of distances over bins, which chance makes larger, so that percentiles of resampled
    errors would lie too high. What chance does to the bins themselves is resampled instead: by the triangle
    inequality the error that is seen is no further from the true one than the distances over bins between
    what is seen and what is true, whose 95th percentile is taken off and added.

    Parameters
    ----------
    right : ndarray of shape (n,), bool
    place : ndarray of shape (n,), int
        Bin of confidence of each answer, from 0.
    confidence : ndarray of shape (n,)
    materials : ndarray of shape (n,), int
    n_bootstrap : int
    seed : int

    Returns
    -------
    list of two floats, or None
        None for fewer than two materials.
    """
    names, material = np.unique(materials, return_inverse=True)
    if len(names) < 2:
        return None
    n_bins = int(place.max()) + 1
    # How much too sure the answers of each material are, by bin; distances are taken after resampling.
    excess = np.bincount(material * n_bins + place, confidence - right, len(names) * n_bins)
    excess = excess.reshape(len(names), n_bins)
    totals = np.bincount(material).astype(np.float64)
    seen = excess.sum(axis=0) / totals.sum()
    apart = np.concatenate(
        [
            np.abs(excess[drawn].sum(axis=1) / totals[drawn].sum(axis=1)[:, None] - seen).sum(axis=1)
            for drawn in _resampled(len(names), n_bootstrap, seed)
        ]
    )
    estimate, reach = float(np.abs(seen).sum()), float(np.percentile(apart, 95.0))
    return [max(estimate - reach, 0.0), min(estimate + reach, 1.0)]


def _resampled(n_materials: int, n_bootstrap: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Give sets of materials drawn with replacement, many sets (rows) at a time."""
    generator = np.random.default_rng([seed, n_materials])
    for first in range(0, n_bootstrap, _RESAMPLED_AT_ONCE):
        size = (min(_RESAMPLED_AT_ONCE, n_bootstrap - first), n_materials)
        yield generator.integers(n_materials, size=size)
