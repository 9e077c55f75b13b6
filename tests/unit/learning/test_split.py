from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffractory.errors import ModelError
from diffractory.learning.split import split_materials


@given(
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32),
)
def test_every_system_with_two_materials_is_on_both_sides(counts: list[int], fraction: float, seed: int):
    systems = np.repeat(np.arange(len(counts)), counts)
    test = split_materials([f"m{i}" for i in range(len(systems))], systems, fraction, seed)
    for system, count in enumerate(counts):
        n_test = int(test[systems == system].sum())
        if count == 1:
            assert n_test == 0
        else:
            assert 1 <= n_test <= count - 1
            assert abs(n_test - fraction * count) <= 1.0


@given(order=st.permutations(range(20)), seed=st.integers(0, 5))
def test_order_of_materials_does_not_matter(order: list[int], seed: int):
    ids = np.array([f"mp-{i}" for i in range(20)])
    systems = np.array(["cubic", "trigonal"])[np.arange(20) % 2]
    test = split_materials(ids.tolist(), systems, 0.25, seed)
    np.testing.assert_array_equal(
        split_materials(ids[order].tolist(), systems[order], 0.25, seed), test[order]
    )


def test_another_seed_gives_another_split():
    ids = [f"mp-{i}" for i in range(40)]
    first, second = (split_materials(ids, np.zeros(40), 0.25, seed) for seed in (0, 1))
    assert first.sum() == second.sum() == 10
    assert not np.array_equal(first, second)


def test_split_is_the_same_on_every_machine_and_version():
    test = split_materials([f"mp-{i}" for i in range(8)], np.zeros(8), 0.25, 0)
    assert np.flatnonzero(test).tolist() == [2, 7]


def test_bad_input_is_refused():
    with pytest.raises(ModelError, match=r"material 'b' appears twice.*both sides"):
        split_materials(["a", "b", "b"], [0, 0, 0], 0.25, 0)
    with pytest.raises(ModelError, match="3 materials with crystal systems of shape"):
        split_materials(["a", "b", "c"], [0, 0], 0.25, 0)
    for fraction in (0.0, 1.0, float("nan")):
        with pytest.raises(ModelError, match="not between 0 and 1"):
            split_materials(["a", "b"], [0, 0], fraction, 0)
