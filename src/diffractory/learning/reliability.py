"""Whether a confidence can be taken at its word: how often answers given with it are right."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from diffractory.errors import ModelError
from diffractory.learning.bootstrap import bootstrap_calibration_interval


def reliability(
    right: ArrayLike,
    confidence: ArrayLike,
    materials: ArrayLike | None = None,
    *,
    n_bins: int = 10,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare confidence with accuracy in bins of confidence.

    Parameters
    ----------
    right : array_like of shape (n,), bool
        Whether each answer is right.
    confidence : array_like of shape (n,)
        Confidence each was given with, 0 … 1.
    materials : array_like of shape (n,), int, optional
        Whose pattern each answer is about; without them there is no interval.
    n_bins : int
        Bins of equal width over 0 … 1.
    n_bootstrap : int
        Resamplings of the materials behind the interval.
    seed : int
        Of resampling.

    Returns
    -------
    dict
        ``expected_calibration_error``: mean distance of accuracy and mean confidence over the bins,
        weighted by their answers, None without answers (Naeini et al., AAAI 2015); ``interval``: its 95 %
        bootstrap interval over materials, None for fewer than two; ``bins``: one dict with ``n``,
        ``confidence`` and ``accuracy`` (None where empty) for each.

    Raises
    ------
    ModelError
        If the arrays differ in length, a confidence is not within 0 … 1, or there is no bin.
    """
    hits, values = np.asarray(right, dtype=bool), np.asarray(confidence, dtype=np.float64)
    if hits.shape != values.shape or hits.ndim != 1 or n_bins < 1:
        raise ModelError(f"{hits.shape} answers with {values.shape} confidences in {n_bins} bins")
    if not np.all((values >= 0.0) & (values <= 1.0)):
        raise ModelError("a confidence is not between 0 and 1")
    # A confidence of 1 belongs to the last bin.
    place = np.minimum((values * n_bins).astype(np.int64), n_bins - 1)
    counts = np.bincount(place, minlength=n_bins)
    sums = (np.bincount(place, weights=weights, minlength=n_bins) for weights in (values, hits))
    means, shares = (np.divide(total, counts, out=np.zeros(n_bins), where=counts > 0) for total in sums)
    error = float(np.sum(counts * np.abs(shares - means)) / len(hits)) if len(hits) else None
    interval = None
    if materials is not None:
        owners = np.asarray(materials)
        if owners.shape != hits.shape:
            raise ModelError(f"{hits.shape} answers about materials of shape {owners.shape}")
        interval = bootstrap_calibration_interval(hits, place, values, owners, n_bootstrap, seed)
    return {
        "expected_calibration_error": error,
        "interval": interval,
        "bins": [
            {
                "n": int(count),
                "confidence": float(mean) if count else None,
                "accuracy": float(share) if count else None,
            }
            for count, mean, share in zip(counts, means, shares, strict=True)
        ],
    }
