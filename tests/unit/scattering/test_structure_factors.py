from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from diffractory import Crystal, SimulationSpec
from diffractory.scattering.form_factors import form_factors
from diffractory.scattering.structure_factors import index_limits, rows_inside, structure_factors
from zoo import ZOO, random_rotation

NAMES = ["cubic-F-c-copper", "triclinic-P-a-invented", "monoclinic-C-a-invented", "trigonal-P-a-quartz"]


def all_hkl(shape: tuple[int, ...]) -> np.ndarray:
    axes = [np.arange(n) - n // 2 for n in shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_table_equals_the_plain_sum(name: str) -> None:
    crystal = Crystal.from_structure(ZOO[name])
    factors = form_factors(crystal.numbers, SimulationSpec())
    table = structure_factors(crystal, 2.0, factors).table
    hkl = all_hkl(table.shape)
    length = np.linalg.norm(hkl @ crystal.reciprocal, axis=-1)
    expected = np.zeros_like(table)
    for z, frac in zip(crystal.numbers, crystal.frac_coords, strict=True):
        factor = factors[int(z)](length.ravel()).reshape(length.shape)
        expected += factor * np.exp(2j * np.pi * (hkl @ frac)) / crystal.volume
    expected[length > 2.0] = 0.0
    assert np.count_nonzero(length > 2.0) > 0
    assert_allclose(table, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_an_elastic_potential_is_real(name: str) -> None:
    crystal = Crystal.from_structure(ZOO[name])
    for model in ("wk", "lobato"):
        spec = SimulationSpec(form_factors=model)
        table = structure_factors(crystal, 2.0, form_factors(crystal.numbers, spec)).table
        assert_allclose(table[::-1, ::-1, ::-1], table.conj(), atol=1e-15)
        assert abs(table).max() == table[tuple(n // 2 for n in table.shape)].real


@pytest.mark.parametrize("name", ZOO)
def test_rows_hold_the_points_of_the_sphere_and_no_others(name: str) -> None:
    crystal = Crystal.from_structure(ZOO[name])
    limits = index_limits(crystal, 1.5)
    first, stop = rows_inside(crystal, 1.5, *(np.arange(-n, n + 1) for n in limits[:2]))
    hkl = all_hkl(tuple(2 * limits + 1))
    inside = np.linalg.norm(hkl @ crystal.reciprocal, axis=-1) <= 1.5 + 1e-9
    l = hkl[..., 2]
    assert np.array_equal((first[..., None] <= l) & (l < stop[..., None]), inside)


@pytest.mark.parametrize("seed", range(8))
def test_points_on_the_limit_are_in_whatever_the_frame(seed: int) -> None:
    # (8, 0, 0), (0, 8, 0) … of a cube of 4 Å lie at 2 Å⁻¹ but for rounding, which the frame decides.
    crystal = Crystal(4.0 * random_rotation(seed), [29], [[0.0, 0.0, 0.0]])
    factors = structure_factors(crystal, 2.0, form_factors(crystal.numbers, SimulationSpec()))
    assert factors.origin == (8, 8, 8)
    ends = 8 * np.concatenate([np.eye(3, dtype=int), -np.eye(3, dtype=int)])
    assert_allclose(factors.of(ends), factors.of(ends)[0], rtol=1e-6)
    assert abs(factors.of(ends)[0]) > 0.0
