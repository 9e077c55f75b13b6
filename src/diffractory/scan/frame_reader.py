"""Reads raw frames from NumPy files; other formats are read elsewhere."""

from __future__ import annotations

from pathlib import Path

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from diffractory.errors import ScanError
from diffractory.scan.frame_scan import FRAME_DIMENSIONS, FrameScan

_CHUNK_BYTES = 32 * 2**20


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
    """Read a four-dimensional NumPy file lazily; a stack of frames with ``scan_shape``.

    Raises
    ------
    ScanError
        If the file is absent, damaged, or does not hold real numbers in four dimensions.
    """
    del dataset
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ScanError(f"cannot read {path}", str(error), "Give a .npy file of four dimensions") from None
    shape = array.shape
    if scan_shape is not None and array.ndim == 3:
        shape = (*scan_shape, *array.shape[1:])
    if not isinstance(array, np.ndarray) or len(shape) != 4 or array.dtype.kind not in "iuf":
        raise ScanError(
            f"{path} has shape {array.shape}", "a 4D-STEM scan has four dimensions", "Give --scan-shape"
        )
    if np.prod(shape) != array.size or not array.size:
        raise ScanError(f"{path} holds {array.shape}, not {shape}", fix="Give --scan-shape ROWS COLUMNS")
    rows = max(1, _CHUNK_BYTES // max(array.nbytes // shape[0], 1))
    heights = tuple(min(rows, shape[0] - start) for start in range(0, shape[0], rows))
    frames = da.map_blocks(
        _read_rows,
        str(path),
        shape,
        dtype=array.dtype,
        chunks=(heights, *((n,) for n in shape[1:])),
        meta=array[:0],
    )
    named = xr.DataArray(frames, dims=FRAME_DIMENSIONS)
    return FrameScan(named, pixel_size, step, energy_ev, semiangle_mrad, str(path))


def _read_rows(
    path: str, shape: tuple[int, ...], block_info: dict[None, dict[str, list[tuple[int, int]]]]
) -> NDArray[np.generic]:
    start, stop = block_info[None]["array-location"][0]
    return np.array(np.load(path, mmap_mode="r", allow_pickle=False).reshape(shape)[start:stop])
