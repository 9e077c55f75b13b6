"""Where the Bragg peaks of a file lie in the frames they were found in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import h5py
import numpy as np
from emdfile import Metadata
from numpy.typing import NDArray

from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.frame_places import FramePlaces
from diffractory.scan.reading.bragg_calibration import Calibration, apply_calibration

#: What :func:`diffractory.scan.bragg_scan.write_bragg_emd` writes of it.
_NOTED: Final = {"frame_origin", "frame_matrix", "frame_shape", "disk_radius"}


def own_places(
    notes: Mapping[str, Any], stored: tuple[Any, Any], used: Calibration, shape: tuple[int, int]
) -> FramePlaces | None:
    """Return where the peaks of a file that was written here lie in their frames.

    Parameters
    ----------
    notes : mapping
        What was written beside the peaks.
    stored : tuple
        Origin (qx, qy) and pixel size by the file.
    used : Calibration
        What is applied, which options may have changed.
    shape : tuple of int
        Scan shape (n_y, n_x).

    Returns
    -------
    FramePlaces or None
        None where it was not written: of simulations, and by versions before 0.4.
    """
    if not notes.keys() >= _NOTED or stored[0] is None or used.origin is None:
        return None
    origin = np.asarray(notes["frame_origin"], dtype=np.float64)
    matrix = np.asarray(notes["frame_matrix"], dtype=np.float64)
    if origin.shape != (shape[0] * shape[1], 2) or matrix.shape != (2, 2):
        return None
    (row, column), size = stored
    # Another origin or pixel size moves what is 0 and what is 1 Å⁻¹, and leaves the peaks where they are.
    moved = size * np.array([used.origin[0] - row, used.origin[1] - column], dtype=np.float64)
    rows, columns = np.asarray(notes["frame_shape"], dtype=np.int64).tolist()
    radius = float(notes["disk_radius"])
    return FramePlaces(
        origin + matrix @ moved,
        matrix * (size / used.pixel_size),
        (rows, columns),
        radius if radius > 0.0 else None,
    )


def foreign_places(
    used: Calibration, shape: tuple[int, int], frame_shape: tuple[int, int] | None
) -> FramePlaces | None:
    """Return where the peaks of a py4DSTEM file lie in their frames: they are stored in pixels.

    Parameters
    ----------
    used : Calibration
        What is applied to the peaks.
    shape : tuple of int
        Scan shape (n_y, n_x).
    frame_shape : tuple of int or None
        Rows and columns of the frames, by the file.

    Returns
    -------
    FramePlaces or None
        None where the stored positions have no origin, so that they are no pixels.
    """
    if used.origin is None:
        return None
    origin = np.stack(
        [np.broadcast_to(np.asarray(value, np.float64), shape).ravel() for value in used.origin], -1
    )
    try:
        return FramePlaces(origin, np.linalg.inv(_linear_part(used, shape)), frame_shape)
    except np.linalg.LinAlgError:
        return None


def stated_frame_shape(group: h5py.Group) -> tuple[int, int] | None:
    """Return the rows and columns of frames that py4DSTEM wrote beside the peaks found in them.

    Parameters
    ----------
    group : h5py.Group
        Holds the peaks.

    Returns
    -------
    tuple of int or None
    """
    if "metadatabundle/_braggvectors_shape" not in group:
        return None
    stated = Metadata.from_h5(group["metadatabundle/_braggvectors_shape"])._params.get("Qshape")
    return None if np.shape(stated) != (2,) else (int(stated[0]), int(stated[1]))


def _linear_part(used: Calibration, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return the matrix from pixels to Å⁻¹, that of each position where they differ."""
    differ = used.ellipse is not None and any(np.ndim(value) for value in used.ellipse)
    grid = shape if differ else (1, 1)
    n = grid[0] * grid[1]
    units = PeakTable(np.tile(np.eye(2), (n, 1)), np.ones(2 * n), 2 * np.arange(n + 1), np.full(n, -1))
    apply_calibration(units, grid, used.without_origin())
    images = units.q.reshape(n, 2, 2).swapaxes(1, 2)
    return images if differ else images[0]
