"""How a map and its particles are written: Zarr, NetCDF, CSV and Parquet, each whole or not at all."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from diffractory.errors import ScanError
from diffractory.storage import atomic_path

#: What :func:`write_particles` writes.
PARTICLE_FILES = ("particles.csv", "particles.parquet")
#: Attributes that CF wants in the type of their variable.
_TYPED = ("flag_values", "flag_masks", "valid_range")


def write_map(dataset: xr.Dataset, path: Path) -> None:
    """Write a map as a Zarr 3 store that ``xarray.open_zarr`` reads.

    Parameters
    ----------
    dataset : xarray.Dataset
        As :func:`diffractory.scan.mapping.label_map.to_dataset` makes it.
    path : Path
        Store to write.

    Raises
    ------
    ScanError
        If the store cannot be written.
    """
    with _written(path) as temporary, warnings.catch_warnings():
        # Not yet in the Zarr 3 specification, but without it xarray warns at every opening.
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        dataset.to_zarr(temporary, mode="w-", zarr_format=3, consolidated=True)


def write_netcdf(dataset: xr.Dataset, path: Path) -> None:
    """Write a map as a classic NetCDF file (64-bit offsets) that ``xarray.open_dataset`` reads.

    The classic format needs nothing but SciPy, here and where the file is read.

    Parameters
    ----------
    dataset : xarray.Dataset
        As :func:`diffractory.scan.mapping.label_map.to_dataset` makes it.
    path : Path
        File to write.

    Raises
    ------
    ScanError
        If the file cannot be written.
    """
    copy = dataset.copy()
    for name, variable in copy.variables.items():
        for key in _TYPED:
            if key in variable.attrs:
                copy[name].attrs[key] = np.array(variable.attrs[key], dtype=variable.dtype)
    with _written(path) as temporary:
        copy.to_netcdf(temporary, engine="scipy", format="NETCDF3_64BIT")


def write_particles(table: pd.DataFrame, folder: Path) -> None:
    """Write a table of particles as ``particles.csv`` and ``particles.parquet``.

    Parameters
    ----------
    table : pandas.DataFrame
        As :func:`diffractory.scan.mapping.particle_table.particle_table` makes it.
    folder : Path
        Where they go; it exists.

    Raises
    ------
    ScanError
        If a file cannot be written.
    """
    with _written(folder / PARTICLE_FILES[0]) as temporary:
        table.to_csv(temporary, index=False)
    with _written(folder / PARTICLE_FILES[1]) as temporary:
        table.to_parquet(temporary, index=False)


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    try:
        with atomic_path(path) as temporary:
            yield temporary
    except OSError as error:
        raise ScanError(f"cannot write {path}", str(error), "Choose a folder you may write to") from None
