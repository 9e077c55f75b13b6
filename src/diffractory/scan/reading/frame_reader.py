"""Reads raw 4D-STEM frames of any known format as one lazy, calibrated :class:`FrameScan`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from diffractory.errors import ScanError
from diffractory.scan.frame_scan import FRAME_DIMENSIONS, FrameScan, scan_coordinates
from diffractory.scan.reading.array_files import (
    dectris_frames,
    hdf5_frames,
    hyperspy_frames,
    numpy_frames,
    py4dstem_frames,
    zarr_frames,
)
from diffractory.scan.reading.file_kinds import (
    BRAGG,
    DECTRIS,
    HDF5,
    HYPERSPY,
    NPY,
    PY4DSTEM,
    TVIPS,
    ZARR,
    kind_of,
    names_matching,
)
from diffractory.scan.reading.frame_calibration import (
    Calibrated,
    chosen,
    energy_of,
    pixel_size_of,
    semiangle_of,
    step_of,
)
from diffractory.scan.reading.raw_frames import Axis, RawFrames, check_layout, scan_array
from diffractory.scan.reading.rosettasciio_files import rosettasciio_frames
from diffractory.scan.reading.tvips_file import tvips_frames

_READERS = {
    NPY: numpy_frames,
    ZARR: zarr_frames,
    HDF5: hdf5_frames,
    HYPERSPY: hyperspy_frames,
    PY4DSTEM: py4dstem_frames,
    DECTRIS: dectris_frames,
    TVIPS: tvips_frames,
}


def read_frame_scan(
    path: Path,
    *,
    pixel_size: float | None = None,
    step: float | None = None,
    energy_ev: float | None = None,
    semiangle_mrad: float | None = None,
    scan_shape: tuple[int, int] | None = None,
    dataset: str | None = None,
) -> FrameScan:
    """Open a scan of raw frames; nothing but headers is read before frames are computed.

    What the file holds decides how it is read, not its suffix. What is given as an argument goes
    before what the file states; what neither states stays None.

    Parameters
    ----------
    path : Path
        py4DSTEM file with a DataCube, HyperSpy (.hspy, .zspy), DECTRIS master file, HDF5, NumPy
        (.npy), Zarr, or a format that RosettaSciIO reads (blo, mib, dm3, dm4, emd, tvips, …).
    pixel_size : float, optional
        Size of a detector pixel in Å⁻¹.
    step : float, optional
        Distance of neighbouring positions in Å.
    energy_ev : float, optional
        Beam energy in eV.
    semiangle_mrad : float, optional
        Semi-convergence angle in mrad.
    scan_shape : tuple of int, optional
        Rows and columns of the scan, for files that hold a stack of frames or state a wrong shape.
    dataset : str, optional
        Which data set to read, where the file holds several.

    Returns
    -------
    FrameScan
        Chunks of whole frames of at most 64 MiB. ``attrs`` holds ``format``, ``dataset``, ``stored_shape``,
        ``axis_order`` (which stored axes are scan_y, scan_x, q_row, q_column) and ``calibration``:
        where each number comes from, in words.

    Raises
    ------
    ScanError
        If the file is absent, empty, damaged, changed, no scan, or holds Bragg peaks instead of frames.
    """
    kind = kind_of(path)
    if kind == BRAGG:
        raise ScanError(
            f"{path} holds Bragg peaks, not frames",
            "disks were detected in it already",
            f"Map them with: diffractory map {path} --out FOLDER",
        )
    try:
        found = _READERS[kind](path) if kind in _READERS else rosettasciio_frames(path, kind, scan_shape)
        name, raw = _choose(found, dataset, path)
        order, shape = check_layout(raw, str(path), scan_shape)
        data = scan_array(raw, order, shape)
        # The last frame is missing where a file is cut off: better now than after an hour.
        data[-1, -1].compute(scheduler="synchronous")
    except (ScanError, MemoryError):
        raise
    except Exception as error:  # readers raise all kinds on damaged files
        raise _damaged(path, kind, error) from None
    stated = _calibration(raw, order, pixel_size, step, energy_ev, semiangle_mrad)
    attrs = {
        "format": kind,
        "dataset": name,
        "stored_shape": list(raw.shape),
        "axis_order": list(order),
        "calibration": {key: item.origin for key, item in stated.items()},
        **raw.attrs,
    }
    values = {key: item.value for key, item in stated.items()}
    frames = xr.DataArray(
        data, _coordinates(data.shape, values["pixel_size"], values["step"]), FRAME_DIMENSIONS, "frames"
    )
    return FrameScan(frames, **values, source=str(path), attrs=attrs)


def _choose(found: Mapping[str, RawFrames], dataset: str | None, path: Path) -> tuple[str, RawFrames]:
    """Return the one data set that is or may be a scan: four-dimensional before a stack before others."""
    names = ", ".join(f"'{name}'" for name in found)
    if dataset is not None:
        wanted = names_matching(found, dataset)
        if len(wanted) != 1:
            raise ScanError(f"{path} holds no single data set '{dataset}'", f"it holds {names or 'none'}")
        return wanted[0], found[wanted[0]]
    for dimensions in (4, 3):
        scans = [name for name, raw in found.items() if len(raw.shape) == dimensions]
        if len(scans) == 1:
            return scans[0], found[scans[0]]
        if scans:
            raise ScanError(
                f"{path} holds {len(scans)} data sets: {', '.join(repr(name) for name in scans)}",
                "it is not clear which one is the scan",
                "Name one with --dataset",
            )
    if not found:
        raise ScanError(f"{path} holds no array of frames", "", "Give a file of a 4D-STEM scan")
    name = max(found, key=lambda name: len(found[name].shape))
    return name, found[name]


def _damaged(path: Path, kind: str, error: Exception) -> ScanError:
    if isinstance(error, ValueError) and "allow_pickle" in str(error):
        return ScanError(
            f"{path} holds Python objects", "frames are real intensities", "Save them as an array of numbers"
        )
    if "No Zarr data type found" in str(error):
        return ScanError(
            f"{path} holds what is no array of numbers",
            "it may be a ragged signal, such as peaks or vectors of each position",
            "Give the file of the frames themselves; peaks: docs/how-to/other-tools.md",
        )
    text = " ".join(str(error).split())[:300] or type(error).__name__
    return ScanError(
        f"{path} cannot be read as a {kind} file: {text}",
        "it looks damaged or cut off",
        "Copy the file again, or save it in another format",
    )


def _calibration(
    raw: RawFrames,
    order: tuple[int, ...],
    pixel_size: float | None,
    step: float | None,
    energy_ev: float | None,
    semiangle_mrad: float | None,
) -> dict[str, Calibrated]:
    axes = tuple(raw.axes[i] for i in order) if raw.axes else (Axis(),) * len(order)
    energy = chosen("energy_ev", energy_ev, energy_of(raw.energy_ev))
    # The axis of a stack is time or a number, whatever its unit: no step of the scan.
    on_sample = axes[:-2] if len(axes) == 4 else ()
    on_detector = pixel_size_of(axes[-2:], energy.value, raw.camera_length_mm)
    return {
        "pixel_size": chosen("pixel_size", pixel_size, on_detector),
        "step": chosen("step", step, step_of(on_sample)),
        "energy_ev": energy,
        "semiangle_mrad": chosen("semiangle_mrad", semiangle_mrad, semiangle_of(raw.semiangle_mrad)),
    }


def _coordinates(
    shape: tuple[int, ...], pixel_size: float | None, step: float | None
) -> dict[str, xr.Variable]:
    units = "1" if pixel_size is None else "angstrom-1"
    what = "index of the detector pixel" if pixel_size is None else "distance from the first detector pixel"
    detector = {
        name: xr.Variable(
            name,
            np.arange(size) * (1.0 if pixel_size is None else pixel_size),
            {"units": units, "long_name": what},
        )
        for name, size in zip(FRAME_DIMENSIONS[2:], shape[2:], strict=True)
    }
    return {**scan_coordinates((shape[0], shape[1]), step), **detector}
