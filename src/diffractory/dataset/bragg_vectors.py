"""Bragg peaks as py4DSTEM's BraggVectors, in memory and as a file."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from emdfile import Metadata
from numpy.typing import NDArray

from diffractory.patterns.peak_table import PeakTable
from diffractory.storage import atomic_path

if TYPE_CHECKING:
    # py4DSTEM takes seconds to import, and only those who want its own object need it.
    from py4DSTEM.braggvectors import BraggVectors

#: Detector pixel of written Bragg vectors, in Å⁻¹: fine enough to look like a detector to py4DSTEM.
WRITTEN_PIXEL_SIZE = 0.01
_FIELDS = np.dtype([(name, "float64") for name in ("qx", "qy", "intensity")])


def bragg_vectors_of(peaks: PeakTable, shape: tuple[int, int]) -> BraggVectors:
    """Return patterns as BraggVectors with their calibration.

    The positions become detector pixels with an origin and a pixel size, as an instrument's would be.

    Parameters
    ----------
    peaks : PeakTable
        One pattern a position, row by row.
    shape : tuple of int
        Rows and columns.
    """
    from py4DSTEM.braggvectors import BraggVectors

    half = _half_width(peaks)
    vectors = BraggVectors(shape, (2 * half, 2 * half), name="braggvectors")
    calibration = vectors.calibration
    calibration.set_origin((float(half), float(half)))
    calibration.set_Q_pixel_size(WRITTEN_PIXEL_SIZE)
    calibration.set_Q_pixel_units("A^-1")
    for index, (y, x) in enumerate(np.ndindex(*shape)):
        # py4DSTEM names the slow direction x.
        vectors._v_uncal[y, x].add(_on_detector(peaks, index, index + 1, half))
    return vectors


def write_bragg_vectors(
    peaks: PeakTable,
    shape: tuple[int, int],
    path: Path,
    notes: Mapping[str, Any],
    step: float | None = None,
) -> None:
    """Write patterns as the file that ``py4DSTEM.save`` makes of their BraggVectors, whole or not at all.

    An EMD 1.0 file, written row by row: py4DSTEM takes seconds to import, holds an object a position,
    and draws progress bars.

    Parameters
    ----------
    peaks : PeakTable
        One pattern a position, row by row.
    shape : tuple of int
        Rows and columns.
    path : Path
    notes : mapping
        Metadata under the name "diffractory": what py4DSTEM has no place for.
    step : float, optional
        Of the scan, in Å.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    half = _half_width(peaks)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(
            emd_group_type="file", version_major=1, version_minor=0, UUID=str(uuid.uuid4()),
            authoring_program="diffractory", authoring_user="",
        )  # fmt: skip
        root = _group(file, "braggvectors_root", "root", "Root")
        bundle = _group(root, "metadatabundle", "metadatabundle")
        Metadata("calibration", _calibration(half, step)).to_h5(bundle)
        bundle["calibration"].attrs["python_class"] = "Calibration"
        node = _group(root, "braggvectors", "custom", "BraggVectors")
        bundle = _group(node, "metadatabundle", "metadatabundle")
        shapes = {"Rshape": tuple(shape), "Qshape": (2 * half, 2 * half)}
        Metadata("_braggvectors_shape", shapes).to_h5(bundle)
        Metadata("diffractory", dict(notes)).to_h5(bundle)
        lists = _group(node, "_v_uncal", "custom_pointlistarray", "PointListArray")
        stored = lists.create_dataset("data", shape, h5py.vlen_dtype(_FIELDS))
        for y in range(shape[0]):
            first = y * shape[1]
            points = _on_detector(peaks, first, first + shape[1], half)
            ends = peaks.offsets[first : first + shape[1] + 1] - peaks.offsets[first]
            row = np.empty((1, shape[1]), dtype=stored.dtype)
            for x in range(shape[1]):
                row[0, x] = points[ends[x] : ends[x + 1]]
            # Not stored[y] = row: of lists of equal length, h5py makes an array of two dimensions.
            place = stored.id.get_space()
            place.select_hyperslab((y, 0), row.shape)
            stored.id.write(h5py.h5s.create_simple(row.shape), place, row)


def _half_width(peaks: PeakTable) -> int:
    """Return half of a detector's width in pixels, on which all peaks lie around its middle."""
    return math.ceil(float(np.abs(peaks.q).max(initial=0.0)) / WRITTEN_PIXEL_SIZE) + 2


def _on_detector(peaks: PeakTable, first: int, stop: int, half: int) -> NDArray[np.void]:
    """Return the peaks of some patterns in detector pixels, one after the other."""
    rows = slice(int(peaks.offsets[first]), int(peaks.offsets[stop]))
    points = np.zeros(rows.stop - rows.start, dtype=_FIELDS)
    points["qx"], points["qy"] = (peaks.q[rows] / WRITTEN_PIXEL_SIZE + half).T
    points["intensity"] = peaks.intensity[rows]
    return points


def _group(parent: h5py.Group, name: str, kind: str, python_class: str | None = None) -> h5py.Group:
    """Make a group of an EMD file; the class is the one that py4DSTEM makes of it."""
    group = parent.create_group(name)
    group.attrs["emd_group_type"] = kind
    if python_class is not None:
        group.attrs["python_class"] = python_class
    return group


def _calibration(half: int, step: float | None) -> dict[str, Any]:
    """Return what py4DSTEM's Calibration holds: an origin in the middle, a pixel size, the scan's step."""
    center = float(half)
    return {
        "Q_pixel_size": WRITTEN_PIXEL_SIZE,
        "Q_pixel_units": "A^-1",
        "R_pixel_size": 1 if step is None else float(step),
        "R_pixel_units": "pixels" if step is None else "A",
        "QR_flip": False,
        "_root_treepath": "",
        "_target_paths": ["/braggvectors"],
        **{f"{axis}{what}": center for axis in ("qx0", "qy0") for what in ("", "_mean")},
        "qx0_shift": 0.0,
        "qy0_shift": 0.0,
    }
