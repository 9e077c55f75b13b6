"""Comparisons of trained trees, for tests."""

from __future__ import annotations

import numpy as np

from diffractory.learning.trees import TreeArrays


def assert_same_trees(first: TreeArrays, second: TreeArrays) -> None:
    """Assert that two forests are the same to the last bit."""
    assert first.to_arrays().keys() == second.to_arrays().keys()
    for name, array in first.to_arrays().items():
        np.testing.assert_array_equal(second.to_arrays()[name], array, err_msg=name)


def same_trees(first: TreeArrays, second: TreeArrays) -> bool:
    """Tell whether two forests are the same to the last bit."""
    pairs = zip(first.to_arrays().values(), second.to_arrays().values(), strict=True)
    return all(np.array_equal(*pair) for pair in pairs)
