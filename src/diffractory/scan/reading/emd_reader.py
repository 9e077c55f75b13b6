"""Reads Bragg-peak scans from py4DSTEM files: EMD 1.0 BraggVectors and the older PointListArray.

The peaks themselves are read with h5py some rows at a time, because all versions of the format keep them
in the same kind of dataset (a grid of variable-length lists with fields qx, qy, intensity), because
``py4DSTEM.read`` chooses its reader by the file's suffix, loads everything else in the file too and
draws progress bars. Neither h5py nor emdfile evaluates or unpickles anything from the file: emdfile looks
class names up in a table of EMD classes. The search for peaks follows no links, so it stays inside the
file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from emdfile import Metadata

from diffractory.errors import ScanError
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.bragg_scan import BraggScan, measured_peaks
from diffractory.scan.reading.bragg_calibration import Calibration, apply_calibration
from diffractory.scan.reading.file_kinds import PEAK_FIELDS, bragg_lists, names_matching
from diffractory.scan.reading.frame_calibration import Calibrated, chosen, overruled
from diffractory.scan.reading.peak_places import foreign_places, own_places, stated_frame_shape
from diffractory.scan.reading.unit_texts import length_unit

#: Reach up to which centred positions without any stated unit are taken as Å⁻¹.
_REACH_OF_INVERSE_ANGSTROM: Final = 6.0

#: Positions whose lists are read at once: each is a Python object until its peaks are in the table.
_POSITIONS_AT_ONCE: Final = 8192

_PIXEL_FIX = "Give the size of a detector pixel with --pixel-size (in Å⁻¹; 1 if they are in Å⁻¹ already)"


def read_bragg_scan(
    path: Path,
    *,
    pixel_size: float | None = None,
    center: tuple[float, float] | None = None,
    dataset: str | None = None,
    step: float | None = None,
    energy_ev: float | None = None,
) -> BraggScan:
    """Read a scan of Bragg peaks and apply its calibration.

    What the file holds decides how it is read, not its suffix. Calibrations (origin, ellipse, pixel
    size, rotation) are those stored in the file, applied as py4DSTEM does. A file without any is accepted
    as it is only if its numbers leave no doubt: positions centred on the origin that reach no
    further than 6, which no detector does in pixels.

    Parameters
    ----------
    path : Path
        EMD 1.0 file with BraggVectors, or an older py4DSTEM file with a PointListArray.
    pixel_size : float, optional
        Size of a detector pixel in Å⁻¹; goes before the one in the file.
    center : tuple of float, optional
        Position (qx, qy) of the direct beam in the file's own units; goes before the one in the file.
    dataset : str, optional
        Which set of Bragg peaks to read, where the file holds several.
    step : float, optional
        Distance of neighbouring positions in Å; goes before the one in the file.
    energy_ev : float, optional
        Beam energy in eV; goes before the one in the file.

    Returns
    -------
    BraggScan
        Peaks in Å⁻¹, with the direct beam at the origin. ``attrs`` holds the sha256 of the file,
        the name of the data set, how the units were settled, where step and energy come from
        (``calibration``), ``notes`` on what the file states otherwise, how many unusable peaks were left
        out, and ``provenance``, the attributes of the scan that this package wrote; ``status`` is that
        scan's too.

    Raises
    ------
    ScanError
        If the file is absent, not HDF5, damaged, holds no Bragg peaks or several sets of them, or
        lacks the calibration.
    """
    _check_options(pixel_size, center)
    with _open(path) as file:
        name, group = _choose(bragg_lists(file), dataset, path)
        raw, shape = _raw_peaks(group, name, path)
        calibration = _calibration(group)
        notes = _own_notes(group)
        frame_shape = stated_frame_shape(group)
    if not len(raw.intensity):
        raise ScanError(
            f"{path} holds no Bragg peak: all {shape[0] * shape[1]} positions of '{name}' are empty"
        )
    stated = calibration is not None
    calibration = calibration if calibration is not None else Calibration({})
    settled = _settled({"step": (_step(calibration), step), "energy_ev": (notes.get("energy_ev"), energy_ev)})
    stored = calibration.origin, calibration.pixel_size
    units = _settle_units(calibration, stated, raw, pixel_size, center, path)
    try:
        apply_calibration(raw, shape, calibration)
        places = (
            own_places(notes, stored, calibration, shape)
            if notes
            else foreign_places(calibration, shape, frame_shape)
        )
    except (IndexError, ValueError, TypeError) as error:
        raise ScanError(
            f"the calibration in {path} does not fit its {shape[0]} × {shape[1]} positions",
            str(error),
            "Calibrate the peaks again with py4DSTEM",
        ) from None
    peaks, dropped = measured_peaks(raw.q, raw.intensity, raw.counts)
    attrs = {
        "sha256": _sha256(path),
        "dataset": name,
        "units_from": units,
        "dropped_peaks": dropped,
        "calibration": {name: used.origin for name, (_, used) in settled.items()},
        "notes": [text for name, pair in settled.items() if (text := overruled(name, *pair))],
    }
    if notes.get("provenance"):
        attrs["provenance"] = _json_of(notes["provenance"])
    status = notes.get("frame_status")
    if status is not None:
        status = np.asarray(status, dtype=np.int8).ravel()
    in_angstrom, in_ev = (settled[name][1].value for name in ("step", "energy_ev"))
    return BraggScan(peaks, shape, in_angstrom, in_ev, str(path), attrs, status, places)


def read_settings(path: Path) -> dict[str, Any] | None:
    """Return how a scan of Bragg peaks was made, without reading its peaks; None = not by this package.

    Parameters
    ----------
    path : Path
        Any file.

    Returns
    -------
    dict or None
        What :func:`read_bragg_scan` gives as ``provenance``, with ``energy_ev`` and ``step``.
    """
    try:
        with _open(path) as file:
            _, group = _choose(bragg_lists(file), None, path)
            notes, calibration = _own_notes(group), _calibration(group)
    except ScanError:
        return None
    provenance = _json_of(notes.get("provenance"))
    if not isinstance(provenance, dict):
        return None
    step = None if calibration is None else _step(calibration)
    return {**provenance, "energy_ev": notes.get("energy_ev"), "step": step}


def _check_options(pixel_size: float | None, center: tuple[float, float] | None) -> None:
    if pixel_size is not None and not (np.isfinite(pixel_size) and pixel_size > 0.0):
        raise ScanError(f"--pixel-size {pixel_size}", "it must be finite and above 0", "Give it in Å⁻¹")
    if center is not None and not np.all(np.isfinite(center)):
        raise ScanError(f"--center {center}", "it must be two finite numbers: qx and qy")


@contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ScanError(
            f"{path} {what}",
            "",
            "Give the path of a py4DSTEM file with Bragg peaks; 'diffractory detect' makes one of raw frames",
        )
    try:
        readable = h5py.is_hdf5(path)
        file = h5py.File(path, "r") if readable else None
    except OSError as error:
        raise ScanError(
            f"{path} is damaged: {error}", "it looks cut off", "Copy the file again, or use another one"
        ) from None
    if file is None:
        raise ScanError(
            f"{path} is not an HDF5 file",
            "Bragg-peak scans are read from py4DSTEM's HDF5 files (.h5, .emd)",
            "Detect Bragg peaks with py4DSTEM first and save them with py4DSTEM.save",
        )
    with file:
        try:
            yield file
        except ScanError:
            raise
        except Exception as error:  # h5py and emdfile raise all kinds, bare Exception too
            raise ScanError(
                f"{path} is damaged: {error}", "a part of it cannot be read", "Copy the file again"
            ) from None


def _choose(groups: dict[str, h5py.Group], dataset: str | None, path: Path) -> tuple[str, h5py.Group]:
    names = ", ".join(f"'{name}'" for name in groups)
    if not groups:
        raise ScanError(
            f"{path} holds no Bragg peaks",
            "no grid of lists with the fields qx, qy and intensity is inside",
            "Detect Bragg peaks with py4DSTEM first and save them with py4DSTEM.save",
        )
    if dataset is not None:
        chosen = names_matching(groups, dataset)
        if len(chosen) != 1:
            raise ScanError(f"{path} has no single set of Bragg peaks '{dataset}'", f"it holds {names}")
        return chosen[0], groups[chosen[0]]
    if len(groups) > 1:
        raise ScanError(
            f"{path} holds {len(groups)} sets of Bragg peaks: {names}",
            "it is not clear which one to map",
            "Name one with --dataset",
        )
    return next(iter(groups.items()))


def _raw_peaks(group: h5py.Group, name: str, path: Path) -> tuple[PeakTable, tuple[int, int]]:
    """Read all lists as one table in the file's own units, and the shape of the scan."""
    data = group["_v_uncal/data"] if "_v_uncal" in group else group["data"]
    n_y, n_x = data.shape
    if 0 in data.shape:
        raise ScanError(f"{path} holds an empty scan: '{name}' has {n_y} × {n_x} positions")
    rows = max(1, _POSITIONS_AT_ONCE // n_x)
    counts, parts = [], []
    for start in range(0, n_y, rows):
        lists = data[start : start + rows].ravel()
        counts.append(np.array([len(peaks) for peaks in lists]))
        # Without the type, it is worked out list by list, which takes longer than to read them.
        joined = np.concatenate(lists, dtype=lists[0].dtype)
        parts.append(tuple(np.asarray(joined[field], dtype=np.float64) for field in PEAK_FIELDS))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    q, intensity = np.empty((offsets[-1], 2)), np.empty(offsets[-1])
    place = 0
    # Parts are let go one by one: two copies of a large scan are not held.
    for qx, qy, values in iter(lambda: parts.pop(0) if parts else None, None):
        here = slice(place, place + len(values))
        q[here, 0], q[here, 1], intensity[here] = qx, qy, values
        place += len(values)
    return PeakTable(q, intensity, offsets, np.full(n_y * n_x, -1)), (n_y, n_x)


def _calibration(group: h5py.Group) -> Calibration | None:
    """Return the calibration next to or above a group; None without one."""
    while True:
        if "metadatabundle/calibration" in group:
            return Calibration(Metadata.from_h5(group["metadatabundle/calibration"])._params)
        for child in group.values():
            if isinstance(child, h5py.Group) and child.attrs.get("py4dstem_class") == "Calibration":
                # Takes seconds to import, and few files need it.
                legacy = import_module("py4DSTEM.io.legacy.legacy13").Calibration
                return Calibration(legacy.from_h5(child)._params)
        if group.name == "/":
            return None
        group = group.parent


def _own_notes(group: h5py.Group) -> dict[str, Any]:
    """Return what this package wrote beside the peaks; py4DSTEM has no field for the beam energy."""
    if "metadatabundle/diffractory" not in group:
        return {}
    notes: dict[str, Any] = Metadata.from_h5(group["metadatabundle/diffractory"])._params
    return notes


def _json_of(text: Any) -> Any:
    try:
        return json.loads(str(text))
    except ValueError:
        return str(text)


def _settle_units(
    calibration: Calibration,
    stated: bool,
    peaks: PeakTable,
    pixel_size: float | None,
    center: tuple[float, float] | None,
    path: Path,
) -> str:
    """Complete the calibration from the options, and say where the units come from."""
    size = calibration.pixel_size
    if not (size is not None and np.isfinite(size) and size > 0.0):
        raise ScanError(f"{path} states a detector pixel of {size}", "it must be above 0", _PIXEL_FIX)
    if center is not None:
        calibration.set_origin(center)
    if pixel_size is not None:
        calibration.set_pixel_size(pixel_size)
        origin_known = calibration.origin is not None
        return "option" if origin_known else f"option; {_check_centred(peaks, path)}"
    units = calibration.pixel_units
    if not stated:
        if center is None:
            _check_centred(peaks, path)
        if _reach(peaks) <= _REACH_OF_INVERSE_ANGSTROM:
            return "positions (centred and within 6: taken as Å⁻¹)"
    elif units == "A^-1":
        return "file" if calibration.origin is not None else f"file; {_check_centred(peaks, path)}"
    raise ScanError(
        f"{path} has no calibration in Å⁻¹",
        f"its positions are in {units} and reach {_reach(peaks):.4g}",
        _PIXEL_FIX,
    )


def _reach(peaks: PeakTable) -> float:
    # Numbers that are none are left out later.
    return float(np.fmax.reduce(np.hypot(*peaks.q.T), initial=0.0))


def _check_centred(peaks: PeakTable, path: Path) -> str:
    """Refuse positions whose origin is evidently not the direct beam."""
    filled = peaks.offsets[:-1][peaks.counts > 0]
    nearest = np.fmin.reduceat(np.hypot(*peaks.q.T), filled)
    if np.median(nearest) > 0.05 * _reach(peaks):
        raise ScanError(
            f"{path} does not say where the direct beam is",
            "no origin is stored, and the positions are not centred on 0",
            f"Give it with --center (qx and qy, in the file's units). {_PIXEL_FIX}",
        )
    return "origin as stored"


def _settled(
    numbers: dict[str, tuple[float | None, float | None]],
) -> dict[str, tuple[Calibrated, Calibrated]]:
    """Return what the file states and what is used of each number, given as (file's, option's)."""
    result = {}
    for name, (in_file, option) in numbers.items():
        stated = Calibrated() if in_file is None else Calibrated(float(in_file), "file")
        result[name] = stated, chosen(name, option, stated)
    return result


def _step(calibration: Calibration) -> float | None:
    factor = length_unit(str(calibration.step_units))
    size = calibration.step
    return None if factor is None or not size else float(size) * factor


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
