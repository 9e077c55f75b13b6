"""From the votes for one pattern, and from several patterns, to one answer with its confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffractory.errors import ModelError


@dataclass(frozen=True, eq=False)
class AggregatedLabels:
    """One label for each group of patterns.

    Parameters
    ----------
    groups : ndarray of shape (n_groups,)
        The distinct groups, sorted.
    label : ndarray of shape (n_groups,)
        Label of each group.
    confidence : ndarray of shape (n_groups,)
        Share of the summed weight that the label has, 0 … 1.
    """

    groups: NDArray[Any]
    label: NDArray[Any]
    confidence: NDArray[np.float64]


def difference_confidence(votes: ArrayLike) -> NDArray[np.float64]:
    """Return how far the most voted class is ahead of the second, as a share of all trees.

    Parameters
    ----------
    votes : array_like of shape (n, n_classes)
        Votes for each class; a row without votes gives 0, a single class 1.

    Returns
    -------
    ndarray of shape (n,)
        (top − second) / trees; 47 against 20 of 80 trees gives 0.3375.

    Examples
    --------
    >>> from diffractory.learning.aggregation import difference_confidence
    >>> difference_confidence([[47, 20, 13]]).tolist()
    [0.3375]
    """
    counts = np.asarray(votes)
    ordered = np.sort(counts, axis=1)
    second = ordered[:, -2] if counts.shape[1] > 1 else np.zeros(len(counts), dtype=counts.dtype)
    trees = counts.sum(axis=1)
    return np.divide(ordered[:, -1] - second, trees, out=np.zeros(len(counts)), where=trees > 0)


def aggregate_labels(labels: ArrayLike, weights: ArrayLike, groups: ArrayLike) -> AggregatedLabels:
    """Give each group of patterns the label with the largest summed weight.

    Where all weights of a group are zero, each pattern counts the same: the label is the plain
    majority and its confidence the share of patterns. The lower label wins a tie.

    Parameters
    ----------
    labels : array_like of shape (n,)
        Label of each pattern.
    weights : array_like of shape (n,)
        Weight of each pattern, ≥ 0: its difference confidence.
    groups : array_like of shape (n,)
        Group of each pattern.

    Returns
    -------
    AggregatedLabels
        One for each group, sorted by group.

    Raises
    ------
    ModelError
        If the arrays differ in length, or a weight is negative or not finite.
    """
    names, patterns, weight = np.asarray(labels), np.asarray(groups), np.asarray(weights, dtype=np.float64)
    if not names.shape == patterns.shape == weight.shape or names.ndim != 1:
        raise ModelError(
            f"labels, weights and groups must be of one length, got {names.shape}, {weight.shape} "
            f"and {patterns.shape}"
        )
    if not np.all(np.isfinite(weight) & (weight >= 0.0)):
        raise ModelError("a weight is negative or not finite", "confidences lie between 0 and 1")
    group_ids, group = np.unique(patterns, return_inverse=True)
    label_ids, label = np.unique(names, return_inverse=True)
    shape = (len(group_ids), len(label_ids))
    weightless = np.bincount(group, weights=weight, minlength=shape[0]) == 0.0
    effective = np.where(weightless[group], 1.0, weight)
    sums = np.bincount(group * shape[1] + label, weights=effective, minlength=shape[0] * shape[1])
    table = sums.reshape(shape)
    if not len(names):
        return AggregatedLabels(group_ids, names, np.empty(0))
    top = table.argmax(axis=1)
    confidence = table[np.arange(shape[0]), top] / table.sum(axis=1)
    return AggregatedLabels(group_ids, label_ids[top], confidence)


def aggregate_lattice(lattice: ArrayLike, groups: ArrayLike) -> NDArray[np.float64]:
    """Return the median over the patterns of each group; patterns with NaN do not count.

    Parameters
    ----------
    lattice : array_like of shape (n, 3)
        a, b, c of each pattern in Å; NaN where there is none.
    groups : array_like of shape (n,)
        Group of each pattern.

    Returns
    -------
    ndarray of shape (n_groups, 3)
        In the order of the sorted distinct groups; NaN where a group has no value.

    Raises
    ------
    ModelError
        If there is not one group for each pattern.
    """
    values, patterns = np.asarray(lattice, dtype=np.float64), np.asarray(groups)
    if values.ndim != 2 or patterns.shape != (len(values),):
        raise ModelError(f"{values.shape} lattice values with {patterns.shape} groups")
    group_ids, group = np.unique(patterns, return_inverse=True)
    order = np.argsort(group, kind="stable")
    parts = np.split(values[order], np.cumsum(np.bincount(group, minlength=len(group_ids)))[:-1])
    result = np.full((len(group_ids), values.shape[1]), np.nan)
    for index, part in enumerate(parts[: len(group_ids)]):
        known = part[~np.isnan(part).any(axis=1)]
        if len(known):
            result[index] = np.median(known, axis=0)
    return result


@dataclass(frozen=True, eq=False)
class EvidenceRule:
    """How a model with calibrated probabilities pools patterns; see :func:`pool_evidence`.

    Parameters
    ----------
    systems : ndarray of shape (n_systems,), int
        Codes of the crystal systems, in the order of the columns of probabilities.
    prior : ndarray of shape (n_systems,)
        Their probabilities before anything is seen.
    dependence : float
        0 = independent patterns, 1 = all alike.
    """

    systems: NDArray[Any]
    prior: NDArray[np.float64]
    dependence: float

    def pool(self, share: ArrayLike, groups: ArrayLike, most: ArrayLike | None = None) -> AggregatedLabels:
        """Return the crystal system of each group of patterns, given probabilities (n, n_systems).

        Parameters
        ----------
        share : array_like of shape (n, n_systems)
            Calibrated probability of each crystal system for n patterns.
        groups : array_like of shape (n,)
            Group of each pattern.
        most : array_like of shape () or (n_groups,), optional
            The evidence of more patterns of a group counts as that of so many.

        Returns
        -------
        AggregatedLabels
            One for each group, sorted by group.

        Raises
        ------
        ModelError
            If the arrays do not fit each other.
        """
        logs = np.log(np.maximum(np.asarray(share, dtype=np.float64), np.finfo(float).tiny))
        ids, pooled = pool_evidence(logs, groups, self.prior, self.dependence, most)
        return AggregatedLabels(ids, self.systems[pooled.argmax(axis=1)], pooled.max(axis=1))


def pool_evidence(
    log_probability: ArrayLike,
    groups: ArrayLike,
    prior: ArrayLike,
    dependence: float,
    most: ArrayLike | None = None,
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return the probability of each class given all patterns of a group.

    Each pattern's evidence is its log-probability less that of the prior. The sum over the n patterns of
    a group is divided by n to the power of ``dependence``, since they are not independent.

    Parameters
    ----------
    log_probability : array_like of shape (n, n_classes)
        Calibrated for single patterns.
    groups : array_like of shape (n,)
        Group of each pattern.
    prior : array_like of shape (n_classes,)
        Probability of each class before anything is seen.
    dependence : float
        0 = independent patterns, 1 = all alike.
    most : array_like of shape () or (n_groups,), optional
        The evidence of more patterns than this counts as that of so many: positions of one grain repeat
        each other, and a dependence that was measured on few patterns says nothing of thousands.

    Returns
    -------
    groups : ndarray of shape (n_groups,)
        The distinct groups, sorted.
    probability : ndarray of shape (n_groups, n_classes)

    Raises
    ------
    ModelError
        If the arrays do not fit each other.
    """
    logs, patterns = np.asarray(log_probability, dtype=np.float64), np.asarray(groups)
    before = np.log(np.asarray(prior, dtype=np.float64))
    if logs.ndim != 2 or patterns.shape != (len(logs),) or before.shape != (logs.shape[1],):
        raise ModelError(
            f"{logs.shape} log-probabilities with {patterns.shape} groups and a prior of {before.shape}"
        )
    group_ids, group = np.unique(patterns, return_inverse=True)
    counts = np.bincount(group, minlength=len(group_ids))
    evidence = np.zeros((len(group_ids), logs.shape[1]))
    np.add.at(evidence, group, logs - before)
    evidence /= counts[:, None] ** dependence
    if most is not None:
        fewer = np.minimum(np.asarray(most, dtype=np.float64) / counts, 1.0)
        evidence *= fewer[:, None] ** (1.0 - dependence)
    posterior = evidence + before
    likelihood = np.exp(posterior - posterior.max(axis=1, keepdims=True))
    # Nothing is impossible: it must be possible to be proved wrong.
    shares = np.maximum(likelihood / likelihood.sum(axis=1, keepdims=True), 1e-12)
    return group_ids, shares / shares.sum(axis=1, keepdims=True)
