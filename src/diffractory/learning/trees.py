"""Forests as plain arrays: what a fitted forest needs to predict, and nothing else.

A scikit-learn forest can be stored only as a pickle, and averages its trees. Here all trees lie one
after another in flat arrays, which can be checked, hashed and read back without running code, and
every tree casts its own vote.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

from diffractory.errors import ModelError

#: Rows that go through one tree after another together: their features stay in the cache.
_BLOCK = 256
#: Leaves of a boosted tree whose rows are worked on beside each other: one bit each. One fewer than
#: there are bits, so that a shift by their number is defined.
_MOST_LEAVES = 63
#: Products with this number differ in their six highest bits for every power of 2: where a lone bit is.
_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
_BIT = np.zeros(64, dtype=np.int64)
_BIT[[(((1 << bit) * int(_DE_BRUIJN)) % 2**64) >> 58 for bit in range(64)]] = np.arange(64)


@dataclass(frozen=True, eq=False)
class TreeArrays:
    """All trees of one forest, concatenated. Exactly one of ``leaf_class`` and ``leaf_value`` is set.

    Parameters
    ----------
    left, right : ndarray of shape (n_nodes,), int32
        Child of each node, counted from the first node of its tree; −1 at leaves. A row goes left
        where ``feature <= threshold``.
    feature : ndarray of shape (n_nodes,), int32
        Column that a node compares; −1 at leaves.
    threshold : ndarray of shape (n_nodes,), float64
    offsets : ndarray of shape (n_trees + 1,), int64
        First node of each tree; ends with n_nodes.
    leaf_class : ndarray of shape (n_nodes,), int32, or None
        Index of the class that a leaf votes for; −1 at inner nodes.
    leaf_value : ndarray of shape (n_nodes, n_outputs), float64, or None
        Prediction of a leaf; 0 at inner nodes.
    """

    left: NDArray[np.int32]
    right: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    offsets: NDArray[np.int64]
    leaf_class: NDArray[np.int32] | None = None
    leaf_value: NDArray[np.float64] | None = None

    @property
    def n_trees(self) -> int:
        """Number of trees."""
        return len(self.offsets) - 1

    @classmethod
    def from_trees(cls, trees: Sequence[Any], *, classifier: bool) -> Self:
        """Take fitted scikit-learn trees (their ``tree_``), of classifiers or of regressors."""
        if classifier:
            leaf_class = [
                np.where(tree.children_left < 0, tree.value[:, 0, :].argmax(axis=1), -1) for tree in trees
            ]
            return cls(**_structure(trees), leaf_class=np.concatenate(leaf_class).astype(np.int32))
        leaf_value = [np.where(tree.children_left[:, None] < 0, tree.value[:, :, 0], 0.0) for tree in trees]
        return cls(**_structure(trees), leaf_value=np.concatenate(leaf_value))

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Join the trees of several parts of one forest, in order."""
        starts = np.cumsum([0, *(part.offsets[-1] for part in parts)])
        offsets = [part.offsets[1:] + start for part, start in zip(parts, starts, strict=False)]
        joined = {
            name: np.concatenate([part.to_arrays()[name] for part in parts])
            for name in parts[0].to_arrays()
            if name != "offsets"
        }
        return cls(**joined, offsets=np.concatenate([np.zeros(1, dtype=np.int64), *offsets]))

    @classmethod
    def interleave(cls, parts: Sequence[Self]) -> Self:
        """Join forests so that tree i of part j becomes tree i × n_parts + j; short ones end in zeros."""
        longest = max(part.n_trees for part in parts)
        padded = [part._single_trees() + [cls.constant()] * (longest - part.n_trees) for part in parts]
        return cls.concatenate([trees[index] for index in range(longest) for trees in padded])

    @classmethod
    def constant(cls) -> Self:
        """Return one tree that is 0 everywhere."""
        none = np.full(1, -1, dtype=np.int32)
        offsets = np.array([0, 1], dtype=np.int64)
        return cls(none, none, none, np.zeros(1), offsets, leaf_value=np.zeros((1, 1)))

    def _single_trees(self) -> list[Self]:
        arrays = {name: array for name, array in self.to_arrays().items() if name != "offsets"}
        return [
            type(self)(
                **{name: array[first:stop] for name, array in arrays.items()},
                offsets=np.array([0, stop - first], dtype=np.int64),
            )
            for first, stop in itertools.pairwise(self.offsets.tolist())
        ]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name, ready for ``numpy.savez``."""
        return {name: array for name, array in vars(self).items() if array is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], n_features: int, n_outputs: int) -> Self:
        """Build a forest from stored arrays after checking every index in them.

        Parameters
        ----------
        arrays : mapping
            As given by :meth:`to_arrays`.
        n_features : int
            Number of columns the forest will be applied to.
        n_outputs : int
            Number of classes of a classifier, of targets of a regressor.

        Raises
        ------
        ModelError
            If an array is missing, has another type or shape, or an index in it could lead
            outside an array or round in a circle.
        """
        if set(arrays) not in (_COMMON | {"leaf_class"}, _COMMON | {"leaf_value"}):
            raise ModelError(f"a forest with arrays {sorted(arrays)} is not complete")
        for name, array in arrays.items():
            if array.dtype != _DTYPES[name] or array.ndim != (2 if name == "leaf_value" else 1):
                raise ModelError(f"array {name!r} of a forest has {array.dtype} {array.shape}")
        trees = cls(**{name: np.ascontiguousarray(array) for name, array in arrays.items()})
        _check_layout(trees, n_outputs)
        _check_indices(trees, n_features, n_outputs)
        return trees


_COMMON = {"left", "right", "feature", "threshold", "offsets"}
_DTYPES = {
    "left": np.int32,
    "right": np.int32,
    "feature": np.int32,
    "threshold": np.float64,
    "offsets": np.int64,
    "leaf_class": np.int32,
    "leaf_value": np.float64,
}


def _structure(trees: Sequence[Any]) -> dict[str, Any]:
    leaf = np.concatenate([tree.children_left for tree in trees]) < 0
    return {
        "left": np.concatenate([tree.children_left for tree in trees]).astype(np.int32),
        "right": np.concatenate([tree.children_right for tree in trees]).astype(np.int32),
        "feature": np.where(leaf, -1, np.concatenate([tree.feature for tree in trees])).astype(np.int32),
        "threshold": np.where(leaf, 0.0, np.concatenate([tree.threshold for tree in trees])),
        "offsets": np.concatenate([[0], np.cumsum([tree.node_count for tree in trees])]).astype(np.int64),
    }


def _check_layout(trees: TreeArrays, n_outputs: int) -> None:
    n_nodes = len(trees.left)
    sizes = {len(array) for name, array in trees.to_arrays().items() if name != "offsets"}
    offsets = trees.offsets
    if sizes != {n_nodes} or n_nodes == 0:
        raise ModelError(f"the arrays of a forest have different lengths {sorted(sizes)}")
    if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != n_nodes or np.any(offsets[1:] <= offsets[:-1]):
        raise ModelError(f"the tree offsets of a forest do not cover its {n_nodes} nodes")
    if trees.leaf_value is not None and trees.leaf_value.shape[1] != n_outputs:
        raise ModelError(f"the leaves hold {trees.leaf_value.shape[1]} values, expected {n_outputs}")


def _check_indices(trees: TreeArrays, n_features: int, n_outputs: int) -> None:
    sizes = np.diff(trees.offsets)
    node = np.arange(len(trees.left)) - np.repeat(trees.offsets[:-1], sizes)
    size = np.repeat(sizes, sizes)
    leaf = trees.left == -1
    # Children come after their parent: so every walk ends, and ends inside its tree.
    children_fit = np.all([(child > node) & (child < size) for child in (trees.left, trees.right)], axis=0)
    if not np.all(np.where(leaf, trees.right == -1, children_fit)):
        raise ModelError("a node of a forest has children outside its tree")
    # Compiled code numbers the leaves from the root down: each node is to be met, and met once.
    start = np.repeat(trees.offsets[:-1], sizes)
    children = np.concatenate([(child + start)[~leaf] for child in (trees.left, trees.right)])
    if not np.array_equal(np.bincount(children, minlength=len(node)), node > 0):
        raise ModelError("a node of a forest is the child of none or of several")
    if not np.all(leaf | ((trees.feature >= 0) & (trees.feature < n_features))):
        raise ModelError(f"a node of a forest compares a feature outside 0 … {n_features - 1}")
    if trees.leaf_class is not None:
        fits = (trees.leaf_class >= 0) & (trees.leaf_class < n_outputs)
        if not np.all(fits[leaf]):
            raise ModelError(f"a leaf of a forest votes for a class outside 0 … {n_outputs - 1}")
    numbers = trees.threshold if trees.leaf_value is None else trees.leaf_value
    if not (np.all(np.isfinite(trees.threshold)) and np.all(np.isfinite(numbers))):
        raise ModelError("a threshold or a leaf of a forest is not finite")


def vote(X: NDArray[np.float32], trees: TreeArrays, n_classes: int) -> NDArray[np.int32]:
    """Let every tree vote for one class.

    Parameters
    ----------
    X : ndarray of shape (n, n_features), float32
        Finite features, C-contiguous.
    trees : TreeArrays
        With ``leaf_class``.
    n_classes : int

    Returns
    -------
    ndarray of shape (n, n_classes), int32
        Number of trees that vote for each class; rows sum to the number of trees.
    """
    if trees.leaf_class is None:
        raise ValueError("these trees predict values, not classes")
    votes = np.zeros((len(X), n_classes), dtype=np.int32)
    _vote(X, trees.left, trees.right, trees.feature, trees.threshold, trees.offsets, trees.leaf_class, votes)
    return votes


def median(X: NDArray[np.float32], trees: TreeArrays) -> NDArray[np.float64]:
    """Return the median over trees of what each predicts.

    Parameters
    ----------
    X : ndarray of shape (n, n_features), float32
        Finite features, C-contiguous.
    trees : TreeArrays
        With ``leaf_value``.

    Returns
    -------
    ndarray of shape (n, n_outputs), float64
        Each output by itself; the mean of the two middle values for an even number of trees.
    """
    values = trees.leaf_value
    if values is None:
        raise ValueError("these trees predict classes, not values")
    result = np.empty((len(X), values.shape[1]))
    _median(X, trees.left, trees.right, trees.feature, trees.threshold, trees.offsets, values, result)
    return result


def add_up(X: NDArray[np.float32], trees: TreeArrays, n_outputs: int) -> NDArray[np.float64]:
    """Add up what boosted trees predict.

    Parameters
    ----------
    X : ndarray of shape (n, n_features), float32
        Finite features, C-contiguous.
    trees : TreeArrays
        With ``leaf_value`` of one column; tree i adds to output i modulo ``n_outputs``.
    n_outputs : int

    Returns
    -------
    ndarray of shape (n, n_outputs), float64
    """
    values = trees.leaf_value
    if values is None or values.shape[1] != 1:
        raise ValueError("these trees are not boosted ones")
    sums = np.zeros((len(X), n_outputs))
    _add_up(X, trees.left, trees.right, trees.feature, trees.threshold, trees.offsets, values[:, 0], sums)
    return sums


@njit(nogil=True, cache=True, inline="always")
def _leaf(row, first, left, right, feature, threshold):  # type: ignore[no-untyped-def]
    node = first
    while left[node] >= 0:
        child = left[node] if row[feature[node]] <= threshold[node] else right[node]
        node = first + child
    return node


@njit(nogil=True, cache=True)
def _vote(X, left, right, feature, threshold, offsets, leaf_class, votes):  # type: ignore[no-untyped-def]
    n_rows = X.shape[0]
    for start in range(0, n_rows, _BLOCK):
        stop = min(start + _BLOCK, n_rows)
        for tree in range(len(offsets) - 1):
            for row in range(start, stop):
                leaf = _leaf(X[row], offsets[tree], left, right, feature, threshold)
                votes[row, leaf_class[leaf]] += 1


@njit(nogil=True, cache=True)
def _add_up(X, left, right, feature, threshold, offsets, leaf_value, sums):  # type: ignore[no-untyped-def]
    n_rows, n_outputs = sums.shape
    largest = np.max(offsets[1:] - offsets[:-1])
    leaves, first_leaf = np.empty(largest, dtype=np.int64), np.empty(largest, dtype=np.int64)
    values, reachable = np.empty(largest), np.empty(_BLOCK, dtype=np.uint64)
    columns = np.empty((X.shape[1], min(n_rows, _BLOCK)), dtype=np.float32)
    for start in range(0, n_rows, _BLOCK):
        count = min(_BLOCK, n_rows - start)
        # Feature by feature: a node compares one feature of all rows.
        for row in range(count):
            for column in range(X.shape[1]):
                columns[column, row] = X[start + row, column]
        for tree in range(len(offsets) - 1):
            first, size = offsets[tree], offsets[tree + 1] - offsets[tree]
            output = tree % n_outputs
            _number_leaves(left, right, first, size, leaves, first_leaf)
            if leaves[0] > _MOST_LEAVES:
                for row in range(count):
                    leaf = _leaf(X[start + row], first, left, right, feature, threshold)
                    sums[start + row, output] += leaf_value[leaf]
                continue
            # Instead of walking down, which waits for each comparison: every node whose comparison fails
            # rules its left leaves out, and the leftmost leaf that remains is where the walk would end
            # (QuickScorer; Lucchese et al., SIGIR 2015).
            reachable[:count] = ~np.uint64(0)
            for node in range(size):
                if left[first + node] < 0:
                    values[first_leaf[node]] = leaf_value[first + node]
                    continue
                n_left = np.uint64(leaves[left[first + node]])
                ruled_out = ((np.uint64(1) << n_left) - np.uint64(1)) << np.uint64(first_leaf[node])
                _rule_out(
                    reachable, columns[feature[first + node]], threshold[first + node], ~ruled_out, count
                )
            for row in range(count):
                rest = reachable[row]
                lowest = rest & (~rest + np.uint64(1))
                sums[start + row, output] += values[_BIT[(lowest * _DE_BRUIJN) >> np.uint64(58)]]


@njit(nogil=True, cache=True)
def _rule_out(reachable, column, threshold, kept, count):  # type: ignore[no-untyped-def]
    everything = ~np.uint64(0)
    for row in range(count):
        reachable[row] &= kept if column[row] > threshold else everything


@njit(nogil=True, cache=True)
def _number_leaves(left, right, first, size, leaves, first_leaf):  # type: ignore[no-untyped-def]
    """Number the leaves of a tree from left to right; children come after their parent."""
    for node in range(size - 1, -1, -1):
        child = left[first + node]
        leaves[node] = 1 if child < 0 else leaves[child] + leaves[right[first + node]]
    first_leaf[0] = 0
    for node in range(size):
        child = left[first + node]
        if child >= 0:
            first_leaf[child] = first_leaf[node]
            first_leaf[right[first + node]] = first_leaf[node] + leaves[child]


@njit(nogil=True, cache=True)
def _median(X, left, right, feature, threshold, offsets, leaf_value, result):  # type: ignore[no-untyped-def]
    n_rows, n_trees, n_outputs = X.shape[0], len(offsets) - 1, leaf_value.shape[1]
    predicted = np.empty((_BLOCK, n_outputs, n_trees))
    middle = n_trees // 2
    for start in range(0, n_rows, _BLOCK):
        stop = min(start + _BLOCK, n_rows)
        for tree in range(n_trees):
            for row in range(start, stop):
                leaf = _leaf(X[row], offsets[tree], left, right, feature, threshold)
                for output in range(n_outputs):
                    predicted[row - start, output, tree] = leaf_value[leaf, output]
        for row in range(start, stop):
            for output in range(n_outputs):
                ordered = np.sort(predicted[row - start, output])
                if n_trees % 2:
                    result[row, output] = ordered[middle]
                else:
                    result[row, output] = (ordered[middle - 1] + ordered[middle]) / 2.0
