"""Writes one small scan of frames in every format that can be written here."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr
from numpy.typing import NDArray
from rsciio import blockfile, emd, hspy, nexus, tvips

#: Rows and columns of the scan and of the detector; all different, so that no mix-up goes unnoticed.
SHAPE = (5, 4, 16, 16)
STEP, PIXEL, ENERGY, SEMIANGLE = 20.0, 0.02, 200e3, 1.5


def example(shape: tuple[int, ...] = SHAPE, dtype: str = "u1", seed: int = 0) -> NDArray[Any]:
    """Return frames with a direct beam at (7, 9), a spot that only every other position has, and noise."""
    frames = np.random.default_rng(seed).poisson(2.0, shape).astype(dtype)
    rows, columns = np.ogrid[: shape[-2], : shape[-1]]
    frames[..., np.hypot(rows - 7, columns - 9) <= 2.1] += np.array(150, dtype)
    frames[:, ::2, 3, 3] += np.array(60, dtype)
    return frames


def _axis(size: int, scale: float, units: str, navigate: bool, index: int) -> dict[str, Any]:
    return {
        "name": "yxqk"[index], "scale": scale, "offset": 0.0, "units": units, "size": size,
        "navigate": navigate, "index_in_array": index, "_type": "UniformDataAxis", "is_binned": False,
    }  # fmt: skip


def signal(frames: NDArray[Any], pixel: float = PIXEL, units: str = "1/Å", **changes: Any) -> dict[str, Any]:
    """Return what HyperSpy would hand to a writer of RosettaSciIO."""
    scales = (STEP / 10.0, STEP / 10.0, pixel, pixel)
    unit = ("nm", "nm", units, units)
    axes = [
        _axis(n, scale, u, i < 2, i)
        for i, (n, scale, u) in enumerate(zip(frames.shape, scales, unit, strict=True))
    ]
    tem = {"beam_energy": ENERGY / 1e3, "convergence_angle": SEMIANGLE}
    return {
        "data": frames, "axes": axes,
        "metadata": {"General": {"title": "scan"}, "Acquisition_instrument": {"TEM": tem}, "Signal": {}},
        "original_metadata": {}, "learning_results": {}, "attributes": {"_lazy": False}, "models": {},
        "package_info": {}, "package": "", "package_version": "", "tmp_parameters": {}, **changes,
    }  # fmt: skip


def write_hspy(path: Path, frames: NDArray[Any], **changes: Any) -> Path:
    """Write HyperSpy's HDF5 format."""
    hspy.file_writer(str(path), signal(frames, **changes), show_progressbar=False)
    return path


def write_blo(path: Path, frames: NDArray[Any]) -> Path:
    """Write a NanoMegas block file: 1 mm pixels at a camera length of 200 mm, 200 kV."""
    header = {"Beam_energy": 200_000, "Camera_length": 2000, "Note": ""}
    content = signal(frames, 0.1, "cm", original_metadata={"blockfile_header": header})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        blockfile.file_writer(str(path), content, navigator=None, show_progressbar=False)
    return path


def write_tvips(path: Path, frames: NDArray[Any]) -> Path:
    """Write a TVIPS file; its name must end with 000.tvips."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tvips.file_writer(str(path), signal(frames, 10 * PIXEL, "1/nm"), mode=2, show_progressbar=False)
    return path


def write_emd(path: Path, frames: NDArray[Any]) -> Path:
    """Write Berkeley's EMD format."""
    emd.file_writer(str(path), signal(frames))
    return path


def write_nexus(path: Path, frames: NDArray[Any]) -> Path:
    """Write NeXus."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nexus.file_writer(str(path), signal(frames))
    return path


def write_zspy(path: Path, frames: NDArray[Any], store: Any = None) -> Path:
    """Write HyperSpy's Zarr 2 format; RosettaSciIO's own writer needs Zarr 2 for it."""
    root = zarr.create_group(path if store is None else store, zarr_format=2)
    root.attrs.update({"file_format": "ZSpy", "file_format_version": "3.3"})
    group = root.create_group("Experiments").create_group("scan")
    data = group.create_array(
        "data", shape=frames.shape, dtype=frames.dtype, chunks=(3, 2, *frames.shape[2:])
    )
    data[...] = frames
    content = signal(frames, units="$A^{-1}$")
    for i, axis in enumerate(content["axes"]):
        group.create_group(f"axis-{i}").attrs.update(axis)
    tem = group.create_group("metadata/Acquisition_instrument/TEM")
    tem.attrs.update(content["metadata"]["Acquisition_instrument"]["TEM"])
    return path


def write_zspy_zip(path: Path, frames: NDArray[Any]) -> Path:
    """Write HyperSpy's Zarr format into one zip file."""
    with zarr.storage.ZipStore(path, mode="w") as store, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each attribute is written under its name once more
        return write_zspy(path, frames, store)


def write_npy(path: Path, frames: NDArray[Any]) -> Path:
    """Write a NumPy file."""
    np.save(path, frames)
    return path


def write_zarr(path: Path, frames: NDArray[Any]) -> Path:
    """Write one Zarr 3 array."""
    zarr.save_array(path, frames)
    return path


def write_hdf5(path: Path, frames: NDArray[Any]) -> Path:
    """Write an HDF5 file of no known layout."""
    with h5py.File(path, "w") as file:
        file.create_dataset("some/where", data=frames, chunks=(1, 1, *frames.shape[-2:]), compression="gzip")
        file["other"] = np.zeros(3)
    return path


def write_datacube(path: Path, frames: NDArray[Any]) -> Path:
    """Write a py4DSTEM data cube with its calibration, laid out as py4DSTEM 0.14 does."""
    with h5py.File(path, "w") as file:
        file.attrs.update({"emd_group_type": "file", "version_major": 1, "version_minor": 0})
        cube = file.create_group("root/datacube")
        cube.attrs.update({"emd_group_type": "array", "python_class": "DataCube"})
        cube["data"] = frames
        calibration = file.create_group("root/metadatabundle/calibration")
        stated = {"Q_pixel_size": PIXEL, "Q_pixel_units": "A^-1", "R_pixel_size": STEP, "R_pixel_units": "A"}
        for key, value in stated.items():
            calibration[key] = value
    return path


def write_dectris(path: Path, frames: NDArray[Any], parts: int = 2) -> Path:
    """Write a DECTRIS master file, whose frames lie in files beside it."""
    stack = frames.reshape(-1, *frames.shape[-2:])
    with h5py.File(path, "w") as master:
        for i, part in enumerate(np.array_split(stack, parts), 1):
            beside = path.with_name(f"{path.stem}_data_{i:06d}.h5")
            with h5py.File(beside, "w") as file:
                file["entry/data/data"] = part
            master[f"entry/data/data_{i:06d}"] = h5py.ExternalLink(beside.name, "entry/data/data")
    return path


def write_mib(path: Path, frames: NDArray[Any], rows_in_time: bool = True, header: bool = False) -> Path:
    """Write a Merlin file; a pause after each row of the scan tells its shape."""
    n_y, n_x, rows, columns = frames.shape
    seconds = 0.0
    with path.open("wb") as stream:
        for y in range(n_y):
            for x in range(n_x):
                stamp = f"2024-01-01T00:00:{seconds:012.9f}Z"
                number = f"{y * n_x + x + 1:06d}"
                start = f"MQ1,{number},00384,01,{columns:04d},{rows:04d},U16,   1x1,01"
                # The reader counts time stamp and exposure from the end.
                stream.write(f"{start},{stamp},1000000ns,12,".ljust(384, "\0").encode())
                stream.write(frames[y, x, ::-1].astype(">u2").tobytes())
                seconds += 0.001
            seconds += 0.1 if rows_in_time else 0.0
    if header:
        text = (
            f"HDR\nFrames per Trigger (Number):\t{n_x}\nFrames in Acquisition (Number):\t{n_y * n_x}\nEnd\t\n"
        )
        path.with_suffix(".hdr").write_text(text)
    return path


def write_dm4(path: Path, frames: NDArray[Any], transposed: bool = False) -> Path:
    """Write a minimal DigitalMicrograph 4 file; ``transposed`` puts the detector's axes before the scan's."""
    scan, detector = [(STEP / 10.0, "nm")] * 2, [(10.0 * PIXEL, "1/nm")] * 2
    stored = frames.transpose(2, 3, 0, 1) if transposed else frames
    axes = [*detector, *scan] if transposed else [*scan, *detector]
    # DigitalMicrograph names the fastest axis first.
    dimensions = [{"Origin": 0.0, "Scale": scale, "Units": unit} for scale, unit in axes[::-1]]
    image = {
        "ImageData": {
            "Calibrations": {
                "Brightness": {"Origin": 0.0, "Scale": 1.0, "Units": ""}, "Dimension": dimensions,
            },
            "Data": np.ascontiguousarray(stored.astype("<u2")).ravel(),
            "DataType": 10,
            "Dimensions": [int(n) for n in stored.shape[::-1]],
        },
        "ImageTags": {"Microscope Info": {"Voltage": ENERGY, "STEM Camera Length": 100.0}},
        "Name": "scan",
    }  # fmt: skip
    content = _dm4_group({"ImageList": [image]}, root=True)
    path.write_bytes(struct.pack(">IQI", 4, len(content), 1) + content + bytes(8))
    return path


def _dm4_group(tags: dict[str, Any] | list[Any], root: bool = False) -> bytes:
    named = list(tags.items()) if isinstance(tags, dict) else [("", tag) for tag in tags]
    content = b"".join(_dm4_tag(name, value) for name, value in named)
    size = b"" if root else struct.pack(">Q", 8 + len(content))
    return struct.pack(">BB", 1, 0) + size + struct.pack(">Q", len(named)) + content


def _dm4_tag(name: str, value: Any) -> bytes:
    header = struct.pack(">H", len(name)) + name.encode()
    if isinstance(value, dict | list):
        return b"\x14" + header + _dm4_group(value)
    if isinstance(value, str):
        value = np.frombuffer(value.encode("utf-16-le"), "<u2")
    if isinstance(value, np.ndarray):
        info, data = (20, 4, value.size), value.tobytes()
    elif isinstance(value, int):
        info, data = (5,), struct.pack("<I", value)
    else:
        info, data = (7,), struct.pack("<d", value)
    body = b"%%%%" + struct.pack(f">{1 + len(info)}Q", len(info), *info) + data
    return b"\x15" + header + struct.pack(">Q", len(body)) + body


#: File name -> writer, of formats that are four-dimensional without being told.
FOUR_DIMENSIONAL: dict[str, Callable[[Path, NDArray[Any]], Path]] = {
    "scan.hspy": write_hspy, "scan.zspy": write_zspy, "zipped.zspy": write_zspy_zip, "scan.blo": write_blo,
    "scan.emd": write_emd, "scan.nxs": write_nexus, "scan.npy": write_npy, "scan.zarr": write_zarr,
    "plain.h5": write_hdf5, "cube.h5": write_datacube, "scan.mib": write_mib,
    "scan.dm4": write_dm4,
}  # fmt: skip
