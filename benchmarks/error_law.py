"""The law that errors follow as training materials and orientations grow, and how it is fitted."""

from __future__ import annotations

import numpy as np
from scipy.optimize import curve_fit

LAW = "error = floor + a (materials / 1000)^-alpha + b orientations^-beta"


def law(sizes: np.ndarray, floor: float, a: float, alpha: float, b: float, beta: float) -> np.ndarray:
    """Return the error at numbers of materials and of orientations, of shape (2, n)."""
    return floor + a * (sizes[0] / 1000.0) ** -alpha + b * sizes[1] ** -beta


def fit_law(sizes: np.ndarray, errors: np.ndarray, scale: float) -> tuple[np.ndarray, float]:
    """Fit the law, beginning with terms of this scale; return its five numbers and the largest residual."""
    bounds = ([0.0, 0.0, 0.05, 0.0, 0.05], [1.0, 2.0, 2.0, 2.0, 2.0])
    start = [scale, scale, 0.5, scale, 0.5]
    best, _ = curve_fit(law, sizes, errors, p0=start, bounds=bounds, max_nfev=20_000)
    return best, float(np.abs(law(sizes, *best) - errors).max())
