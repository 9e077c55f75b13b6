"""Raw frames from files whose arrays can be sliced: NumPy, Zarr, HDF5 of HyperSpy, py4DSTEM, DECTRIS, others.

HyperSpy's two formats are read here and not through RosettaSciIO: its lazy arrays have one task for
each stored chunk of about a megabyte, and its reader of .zspy is made for Zarr 2.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 (registers the compressions of DECTRIS and HyperSpy files)
import numpy as np
import zarr
from zarr.storage import ZipStore

from diffractory.errors import ScanError
from diffractory.scan.reading.file_kinds import (
    arrays,
    data_cubes,
    dectris_parts,
    hdf5_file,
    zarr_folder,
    zip_names,
)
from diffractory.scan.reading.raw_frames import Axis, RawFrames

#: Where HyperSpy and pyxem keep what is needed here, below a signal's metadata.
_TEM = "Acquisition_instrument/TEM"
#: A camera length below this is in metres: none has that few millimetres, none that many metres.
_LONGEST_IN_METRES = 10.0
#: Keys of py4DSTEM's calibration that name the energy and the semi-convergence angle, where users set them.
_ENERGY_KEYS = ("energy_ev", "energy", "accelerating_voltage", "beam_energy")
_SEMIANGLE_KEYS = ("semiangle_mrad", "convergence_semiangle_mrad", "probe_semiangle")


def numpy_frames(path: Path) -> dict[str, RawFrames]:
    """Return the array of a .npy file, memory-mapped; pickled objects are refused by NumPy itself."""
    return {path.stem: RawFrames(np.load(path, mmap_mode="r", allow_pickle=False))}


def zarr_frames(path: Path) -> dict[str, RawFrames]:
    """Return the arrays of a Zarr store or of HyperSpy's .zspy, in a folder or a zip file, by name."""
    packed = zipfile.is_zipfile(path)
    store: Any = ZipStore(path, mode="r") if packed else path
    node: Any = zarr.open(store, mode="r", path=zarr_folder(zip_names(path)) if packed else None)
    if isinstance(node, zarr.Array):
        return {path.stem: RawFrames(node, _dimension_axes(node, None))}
    if "Experiments" in node:
        return _signals(node["Experiments"], zarr.Group)
    return {
        name: RawFrames(array, _dimension_axes(array, node))
        for name, array in _zarr_arrays(node)
        if array.ndim >= 2
    }


def _zarr_arrays(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, node in sorted(group.members()):
        if isinstance(node, zarr.Array):
            yield prefix + name, node
        else:
            yield from _zarr_arrays(node, f"{prefix}{name}/")


def _dimension_axes(array: Any, group: Any) -> tuple[Axis, ...]:
    """Return axes from named dimensions and their coordinates, as xarray writes them."""
    names = array.metadata.to_dict().get("dimension_names") or array.attrs.get("_ARRAY_DIMENSIONS")
    if not names or group is None:
        return ()
    axes = []
    for name in names:
        coordinate = group.get(name) if name else None
        navigate = {"scan": True, "q_": False}.get(
            next((p for p in ("scan", "q_") if str(name).startswith(p)), "")
        )
        if isinstance(coordinate, zarr.Array) and coordinate.ndim == 1 and coordinate.shape[0] > 1:
            first, second = np.asarray(coordinate[:2], dtype=float)
            axes.append(Axis(float(second - first), str(coordinate.attrs.get("units", "")), navigate))
        else:
            axes.append(Axis(navigate=navigate))
    stated = all(axis.navigate is not None for axis in axes)
    return tuple(axes if stated else (Axis(a.scale, a.units) for a in axes))


def hyperspy_frames(path: Path) -> dict[str, RawFrames]:
    """Return the signals of a HyperSpy HDF5 file, by name."""
    return _signals(hdf5_file(path)["Experiments"], h5py.Group)


def _signals(experiments: Any, group_type: Any) -> dict[str, RawFrames]:
    found = {}
    for name in experiments:
        group = experiments[name]
        if not isinstance(group, group_type) or "data" not in group:
            continue
        data = group["data"]
        axes = [_hyperspy_axis(group[f"axis-{i}"].attrs) for i in range(data.ndim) if f"axis-{i}" in group]
        place = next(
            (f"{top}/{_TEM}" for top in ("metadata", "mapped_parameters") if f"{top}/{_TEM}" in group), ""
        )
        tem: Mapping[str, Any] = group[place].attrs if place else {}
        found[name] = RawFrames(
            data,
            tuple(axes) if len(axes) == data.ndim else (),
            number(tem.get("beam_energy")),
            number(tem.get("convergence_angle")),
            camera_length(tem.get("camera_length")),
        )
    return found


def _hyperspy_axis(attrs: Mapping[str, Any]) -> Axis:
    navigate = attrs.get("navigate")
    return Axis(
        number(attrs.get("scale")), text(attrs.get("units")), None if navigate is None else bool(navigate)
    )


def py4dstem_frames(path: Path) -> dict[str, RawFrames]:
    """Return the data cubes of a py4DSTEM file with their calibration, by name."""
    return {name: _data_cube(cube) for name, cube in data_cubes(hdf5_file(path)).items()}


def _data_cube(cube: h5py.Dataset) -> RawFrames:
    stated = _py4dstem_calibration(cube.parent)
    size, unit = number(stated.get("Q_pixel_size")), text(stated.get("Q_pixel_units"))
    step, step_unit = number(stated.get("R_pixel_size")), text(stated.get("R_pixel_units"))
    scan = Axis(step, step_unit, True)
    detector = Axis(size, unit, False)
    energy, semiangle = (
        next((value for key in keys if (value := number(stated.get(key))) is not None), None)
        for keys in (_ENERGY_KEYS, _SEMIANGLE_KEYS)
    )
    return RawFrames(cube, (scan, scan, detector, detector), energy, semiangle)


def _py4dstem_calibration(group: h5py.Group) -> dict[str, Any]:
    """Return the single numbers and texts of the calibration next to or above a data cube."""
    while True:
        found = group.get("metadatabundle/calibration")
        if found is None:
            groups = (item for item in group.values() if isinstance(item, h5py.Group))
            named = (g for g in groups if text(g.attrs.get("py4dstem_class")) == "Calibration")
            found = next(named, None)
        if found is not None:
            scalars = {k: v for k, v in found.items() if isinstance(v, h5py.Dataset) and v.shape == ()}
            return {key: value[()] for key, value in scalars.items()}
        if group.name == "/":
            return {}
        group = group.parent


def dectris_frames(path: Path) -> dict[str, RawFrames]:
    """Return a DECTRIS recording (Arina and others), whose parts lie in files beside its master file.

    Raises
    ------
    ScanError
        If one of these files is missing.
    """
    file = hdf5_file(path)
    parts = []
    for name in dectris_parts(file):
        try:
            parts.append(file[name])
        except (KeyError, OSError):
            link = file.get(name, getlink=True)
            beside = getattr(link, "filename", name)
            raise ScanError(
                f"{path} refers to {beside}, which cannot be read",
                "DECTRIS keeps frames in files beside the master file",
                "Copy these files into the same folder",
            ) from None
    # Some programs write all parts of a 4D recording as such already.
    data = parts[0] if len(parts) == 1 else parts
    energy = file.get("entry/instrument/beam/incident_energy")
    value = number(energy[()]) if isinstance(energy, h5py.Dataset) and energy.shape in ((), (1,)) else None
    return {"entry/data": RawFrames(data, energy_ev=value)}


def hdf5_frames(path: Path) -> dict[str, RawFrames]:
    """Return the arrays of an HDF5 file of no known layout, by name."""
    file = hdf5_file(path)
    return {
        name: RawFrames(dataset)
        for dimensions in (4, 3, 2)
        for name, dataset in arrays(file, dimensions).items()
    }


def camera_length(value: Any) -> float | None:
    """Return a camera length in mm: blockfiles state metres, everything else millimetres."""
    stated = number(value)
    return stated * 1e3 if stated is not None and stated < _LONGEST_IN_METRES else stated


def number(value: Any) -> float | None:
    """Return a finite number that a file states, None for anything else."""
    try:
        result = float(np.asarray(value).reshape(-1)[0]) if np.size(value) == 1 else float("nan")
    except (TypeError, ValueError):
        return None
    return result if np.isfinite(result) else None


def text(value: Any) -> str:
    """Return a text that a file states, empty for anything else."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) and value not in ("_None_", "<undefined>", "t.Undefined") else ""
