"""Which positions of a map are shown as examples."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from diffractory.crystals.systems import CRYSTAL_SYSTEMS
from diffractory.scan.mapping.label_map import label_confidence


def example_positions(dataset: xr.Dataset) -> NDArray[np.int64]:
    """Choose two positions of every crystal system in a map: the surest, and one of middling confidence.

    Parameters
    ----------
    dataset : xarray.Dataset
        Map made by :func:`diffractory.scan.mapping.label_map.to_dataset`.

    Returns
    -------
    ndarray of shape (2, n_systems), int64
        Row-major positions; a column a crystal system that occurs.
    """
    labels = dataset["crystal_system"].to_numpy().ravel()
    confidence = label_confidence(dataset).ravel()
    chosen = []
    for code in range(len(CRYSTAL_SYSTEMS)):
        rows = np.flatnonzero(labels == code)
        if len(rows):
            ranked = rows[np.argsort(-confidence[rows], kind="stable")]
            chosen.append((ranked[0], ranked[len(ranked) // 2]))
    return np.array(chosen, dtype=np.int64).reshape(-1, 2).T
