"""Bragg peaks from pyxem's ``DiffractionVectors``, whatever made them.

pyxem need not be installed: only attributes of its signals are read. Vectors point from the pattern's centre,
in the units of the pattern's axes; columns tell by their unit what they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from diffractory.errors import ScanError
from diffractory.scan.bragg_scan import BraggScan, measured_peaks
from diffractory.scan.reading.frame_calibration import Calibrated, energy_of, pixel_size_of, step_of
from diffractory.scan.reading.raw_frames import Axis

_INTENSITY: Final = "intensity"
#: Positions of a list lie on a grid if none is further from it than this share of a step.
_OFF_GRID: Final = 0.05
#: Vectors in one quadrant alone, but for this share of their reach, are not centred.
_BEYOND: Final = 0.05
_CALIBRATE: Final = (
    "Set the pattern's calibration in 1/Å, 1/nm or mrad before vectors are found, such as "
    "signal.calibration(scale=0.01, units='1/Å')"
)


def scan_of_vectors(vectors: Any, *, energy_ev: float | None = None) -> BraggScan:
    """Turn a pyxem ``DiffractionVectors`` object into a scan of Bragg peaks.

    Parameters
    ----------
    vectors : pyxem.signals.DiffractionVectors or DiffractionVectors2D
        One of: a ragged signal over the scan; a signal with equally many vectors everywhere; one list of
        shape (n, columns), of a single pattern, or with the scan's coordinates as columns too, as
        ``flatten_diffraction_vectors()`` makes it. Without an intensity column all spots count
        alike, which no model was trained on. Lazy signals are computed.
    energy_ev : float, optional
        Beam energy in eV; goes before the one in the metadata. Needed for vectors in mrad.

    Returns
    -------
    BraggScan
        Positions in Å⁻¹: first the coordinate along the detector's rows (ky), then along its columns (kx).
        The direct beam is the vector nearest the centre. A list with scan coordinates covers the
        rectangle of positions that have vectors.

    Raises
    ------
    ScanError
        If it is no such object, its units are not those of reciprocal lengths or of angles, its scan has
        more than two axes, or the coordinates in a list are on no grid.
    """
    names, units = _columns(vectors)
    energy = energy_ev if energy_ev is not None else energy_of(_stated_energy(vectors)).value
    row, column, size = _position_columns(names, units, energy)
    data = vectors.data.compute() if hasattr(vectors.data, "compute") else np.asarray(vectors.data)
    ragged = data.dtype.kind == "O"
    if not ragged and data.ndim == 2:
        lists, shape, step = _by_position(_rows(data, names), _scan_columns(names, (row, column)), units)
    else:
        scan_shape = data.shape if ragged else data.shape[:-2]
        if len(scan_shape) > 2:
            raise ScanError(
                f"vectors over {len(scan_shape)} scan axes", "a scan has two", "Choose one with vectors.inav"
            )
        shape = _two(scan_shape)
        parts = data.ravel() if ragged else data.reshape(-1, *data.shape[-2:])
        lists = [_rows(part, names) for part in parts]
        axes = vectors.axes_manager.navigation_axes
        step = step_of(tuple(Axis(float(axis.scale), str(axis.units)) for axis in axes))
    table = np.concatenate([np.empty((0, len(names))), *lists])
    intensity = table[:, names.index(_INTENSITY)] if _INTENSITY in names else np.ones(len(table))
    counts = np.array([len(part) for part in lists])
    peaks, dropped = measured_peaks(table[:, [row, column]] * size, intensity, counts)
    if not len(peaks.intensity):
        raise ScanError("the vectors hold no usable peak", "all lists are empty, or no intensity is above 0")
    if np.all(peaks.q.min(axis=0) > -_BEYOND * np.abs(peaks.q).max()):
        raise ScanError(
            "all vectors lie in one quadrant",
            "so they do not point from the direct beam",
            "Centre the signal, or set the offsets of its axes, before vectors are found",
        )
    attrs = {
        "columns": names, "units": units, "step_from": step.origin, "dropped_peaks": dropped,
        "with_intensity": _INTENSITY in names,
    }  # fmt: skip
    return BraggScan(peaks, shape, step.value, energy, "pyxem diffraction vectors", attrs)


def _columns(vectors: Any) -> tuple[list[str], list[str]]:
    """Return names and units of the columns."""
    missing = [
        name for name in ("data", "column_names", "units", "axes_manager") if not hasattr(vectors, name)
    ]
    if missing:
        raise ScanError(
            f"a {type(vectors).__name__} is no pyxem DiffractionVectors",
            f"it has no {', '.join(missing)}",
            "Hand over what signal.get_diffraction_vectors() returns",
        )
    names, units = ([str(text) for text in texts] for texts in (vectors.column_names, vectors.units))
    return names, units


def _stated_energy(vectors: Any) -> float | None:
    metadata = getattr(vectors, "metadata", None)
    value = None if metadata is None else metadata.get_item("Acquisition_instrument.TEM.beam_energy", None)
    return None if value is None else float(value)


def _position_columns(
    names: Sequence[str], units: Sequence[str], energy_ev: float | None
) -> tuple[int, int, float]:
    """Return the columns of the vectors along the detector's rows and columns, and their unit in Å⁻¹."""
    sizes = [pixel_size_of((Axis(1.0, unit),), energy_ev, None) for unit in units]
    found = [index for index, size in enumerate(sizes) if size.value is not None]
    if len(found) != 2 or "r" in (names[index] for index in found):
        needs_energy = any("--energy" in size.origin for size in sizes)
        raise ScanError(
            f"vectors with the columns {', '.join(f'{n} ({u})' for n, u in zip(names, units, strict=True))}",
            "angles need the beam energy" if needs_energy and energy_ev is None
            else "two of them must be components in units of reciprocal length or angle",
            "Give energy_ev" if needs_energy and energy_ev is None else _CALIBRATE,
        )  # fmt: skip
    values = [sizes[index].value for index in found]
    assert values[0] is not None
    assert values[1] is not None
    if not math.isclose(values[0], values[1]):
        raise ScanError(f"components in {units[found[0]]} and in {units[found[1]]}", "", _CALIBRATE)
    # pyxem puts the rows' coordinate first; who names them the other way round means it.
    first, second = (names[index].lower() for index in found)
    if first.endswith("x") and second.endswith("y"):
        found.reverse()
    return found[0], found[1], values[0]


def _scan_columns(names: Sequence[str], position: tuple[int, int]) -> list[int]:
    """Return the columns of a list that hold scan coordinates: y and x, or one of them, or none."""
    found = [index for index, name in enumerate(names) if index not in position and name != _INTENSITY]
    if len(found) > 2:
        raise ScanError(
            f"a list of vectors with the columns {', '.join(names)}",
            "besides components and intensity there may be two coordinates of the scan",
            "Hand over the signal before it was flattened",
        )
    # pyxem puts x first; who names them the other way round means it.
    as_named = [names[index].lower()[-1:] for index in found]
    return found if as_named == ["y", "x"] else found[::-1]


def _by_position(
    data: NDArray[np.float64], columns: Sequence[int], units: Sequence[str]
) -> tuple[list[NDArray[np.float64]], tuple[int, int], Calibrated]:
    """Sort the rows of a list by the scan position that they belong to."""
    pattern, shape, axes = np.zeros(len(data), dtype=np.int64), [], []
    for column in columns:
        index, step = _grid(data[:, column])
        shape.append(int(index.max(initial=0)) + 1)
        pattern = pattern * shape[-1] + index
        if step is not None:
            axes.append(Axis(step, units[column]))
    ends = np.cumsum(np.bincount(pattern, minlength=math.prod(shape)))
    order = np.argsort(pattern, kind="stable")
    return np.split(data[order], ends[:-1]), _two(shape), step_of(tuple(axes))


def _grid(values: NDArray[np.float64]) -> tuple[NDArray[np.int64], float | None]:
    """Return the number of each value on an even grid, and the grid's step; None for one value alone."""
    distinct = np.unique(values)
    gaps = np.diff(distinct)
    gaps = gaps[gaps > 1e-6 * max(float(np.abs(distinct).max(initial=0.0)), 1e-12)]
    if not len(gaps):
        return np.zeros(len(values), dtype=np.int64), None
    step = float(gaps.min())
    places = (values - distinct[0]) / step
    if not np.all(np.abs(places - np.rint(places)) <= _OFF_GRID):
        raise ScanError(
            "the scan coordinates of the vectors lie on no even grid",
            f"their smallest distance is {step:g}",
            "Hand over the signal before it was flattened",
        )
    return np.rint(places).astype(np.int64), step


def _two(shape: Sequence[int]) -> tuple[int, int]:
    """Return a scan's shape as rows and columns: a line is one row."""
    rows, columns = (1, 1, *shape)[-2:]
    return int(rows), int(columns)


def _rows(part: Any, names: Sequence[str]) -> NDArray[np.float64]:
    """Return a list of vectors as numbers, one row each; an empty list may have any shape."""
    try:
        array = np.asarray(part, dtype=np.float64)
    except (TypeError, ValueError):
        raise ScanError("a list of vectors does not consist of numbers") from None
    if array.size == 0:
        return np.empty((0, len(names)))
    if array.ndim != 2 or array.shape[1] != len(names):
        raise ScanError(
            f"vectors of shape {array.shape} with {len(names)} named columns",
            "every vector needs one number a column",
        )
    return array
