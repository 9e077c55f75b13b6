"""Which materials are held out: by material, stratified by crystal system, decided by a hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffractory.errors import ModelError


def split_materials(
    material_ids: Sequence[str], systems: ArrayLike, test_fraction: float, seed: int
) -> NDArray[np.bool_]:
    """Choose the test materials.

    All patterns of a material are on one side, or a model would be tested on what it has seen. The
    choice follows from ids, systems and seed through a hash; the order of the materials is without
    effect.

    Parameters
    ----------
    material_ids : sequence of str
        Distinct id of each material.
    systems : array_like of shape (n_materials,)
        Crystal system of each material, as code or name.
    test_fraction : float
        Share of test materials within each crystal system, above 0 and below 1. Both sides get at
        least one material of a system that has two; a single material is trained on.
    seed : int

    Returns
    -------
    ndarray of shape (n_materials,), bool
        True for test materials.

    Raises
    ------
    ModelError
        If an id appears twice, the lengths differ, or the fraction is out of range.

    Examples
    --------
    >>> from diffractory.learning.split import split_materials
    >>> ids, systems = [f"mp-{n}" for n in range(8)], ["cubic"] * 4 + ["hexagonal"] * 4
    >>> test = split_materials(ids, systems, test_fraction=0.25, seed=0)
    >>> int(test[:4].sum()), int(test[4:].sum())
    (1, 1)
    """
    strata = np.asarray(systems)
    ids = [str(material_id) for material_id in material_ids]
    _check(ids, strata, test_fraction)
    ranks = np.array([_hash(material_id, seed) for material_id in ids], dtype="S32")
    test = np.zeros(len(ids), dtype=bool)
    for system in np.unique(strata):
        members = np.flatnonzero(strata == system)
        if len(members) < 2:
            continue
        n_test = min(max(int(test_fraction * len(members) + 0.5), 1), len(members) - 1)
        test[members[np.argsort(ranks[members])][:n_test]] = True
    return test


def _hash(material_id: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\n{material_id}".encode()).hexdigest()[:32]


def _check(ids: list[str], strata: NDArray[np.generic], test_fraction: float) -> None:
    if strata.shape != (len(ids),):
        raise ModelError(f"{len(ids)} materials with crystal systems of shape {strata.shape}")
    if not 0.0 < test_fraction < 1.0:
        raise ModelError(f"test_fraction = {test_fraction} is not between 0 and 1")
    if len(set(ids)) != len(ids):
        twice = next(material_id for index, material_id in enumerate(ids) if material_id in ids[:index])
        raise ModelError(
            f"material {twice!r} appears twice",
            "it could land on both sides of the split",
            "Remove duplicates from the catalogue",
        )
