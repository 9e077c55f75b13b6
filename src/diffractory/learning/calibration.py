"""Probabilities that mean what they say, for one pattern and for several of one material.

Patterns of one material err together, so n of them tell less than n independent ones: their summed
evidence is divided by n to a power between 0 (independent) and 1 (all the same), which is fitted on
materials that no model was trained on.

References
----------
Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", ICML 2017 (temperature).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffractory.errors import ModelError
from diffractory.learning.aggregation import pool_evidence

#: Patterns pooled while the dependence is fitted.
_SIZES = (3, 10, 30)


@dataclass(frozen=True)
class Calibration:
    """How raw log-probabilities become calibrated ones.

    Parameters
    ----------
    temperature : float
        Log-probabilities of one pattern are divided by this.
    dependence : float
        0 … 1: evidence of n patterns counts n^(1 − dependence) times that of their mean.
    """

    temperature: float = 1.0
    dependence: float = 0.5

    def __post_init__(self) -> None:
        if not (0.01 <= self.temperature <= 100.0 and 0.0 <= self.dependence <= 1.0):
            raise ModelError(f"a calibration of {self} is out of range")

    @classmethod
    def fit(
        cls,
        log_probability: NDArray[np.float64],
        truth: NDArray[np.int64],
        materials: NDArray[np.int64],
        prior: NDArray[np.float64],
        seed: int = 0,
    ) -> Calibration:
        """Find what makes the truth most likely, first for one pattern, then for several.

        Parameters
        ----------
        log_probability : ndarray of shape (n, n_classes)
        truth : ndarray of shape (n,), int
            Column of the right class.
        materials : ndarray of shape (n,), int
        prior : ndarray of shape (n_classes,)
            Share of each class in training.
        seed : int
            Of the groups of patterns.
        """
        # Only fitting needs it, and it takes long to import.
        from scipy.optimize import minimize_scalar

        rows = np.arange(len(truth))

        def loss_of_temperature(log_temperature: float) -> float:
            cooled = scaled(log_probability, float(np.exp(log_temperature)))
            return -float(cooled[rows, truth].mean())

        found = minimize_scalar(loss_of_temperature, bounds=(np.log(0.2), np.log(5.0)), method="bounded")
        temperature = float(np.exp(found.x))
        cooled = scaled(log_probability, temperature)
        groups = [_groups(materials, size, seed) for size in _SIZES]
        groups = [group for group in groups if np.any(group >= 0)]
        if not groups:
            return cls(temperature)

        def loss_of_dependence(dependence: float) -> float:
            losses = []
            for group in groups:
                used = group >= 0
                _, pooled = pool_evidence(cooled[used], group[used], prior, dependence)
                first = np.unique(group[used], return_index=True)[1]
                losses.append(-np.log(pooled[np.arange(len(pooled)), truth[used][first]]).mean())
            return float(np.mean(losses))

        found = minimize_scalar(loss_of_dependence, bounds=(0.0, 1.0), method="bounded")
        return cls(temperature, float(found.x))


def scaled(log_probability: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Return log-probabilities at another temperature, normalised again."""
    cooled = log_probability / temperature
    top = cooled.max(axis=1, keepdims=True)
    return np.asarray(cooled - top - np.log(np.exp(cooled - top).sum(axis=1, keepdims=True)))


def _groups(materials: NDArray[np.int64], size: int, seed: int) -> NDArray[np.int64]:
    """Return disjoint random groups of so many patterns of one material; −1 for the rest."""
    order = np.lexsort((np.random.default_rng(seed).random(len(materials)), materials))
    ordered = materials[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    counts = np.diff(np.append(starts, len(ordered)))
    place = np.arange(len(ordered)) - np.repeat(starts, counts)
    full = place < np.repeat(counts // size * size, counts)
    number = np.repeat(np.cumsum(counts // size) - counts // size, counts) + place // size
    groups = np.full(len(materials), -1, dtype=np.int64)
    groups[order] = np.where(full, number, -1)
    return groups
