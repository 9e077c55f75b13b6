"""What kind of scan a file holds, told by its content; the suffix only decides where content cannot.

Nothing but headers and the tree of names is read, and nothing in a file is evaluated or unpickled.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py

from diffractory.errors import ScanError

#: Kinds that are read here; every other one is the name of a reader of RosettaSciIO.
NPY, ZARR, HDF5, HYPERSPY, PY4DSTEM, DECTRIS, TVIPS, BRAGG = (
    "NumPy", "Zarr", "HDF5", "HyperSpy", "py4DSTEM", "DECTRIS", "TVIPS", "Bragg peaks"
)  # fmt: skip

#: Fields every list of Bragg peaks has.
PEAK_FIELDS: Final = ("qx", "qy", "intensity")
#: First bytes of a file -> reader of RosettaSciIO.
_MAGIC: Final = {
    b"IMGBLO": "Blockfile",
    b"MQ1,": "QuantumDetector",
    b"II\x97\x01": "TIA",
}
#: Formats without a mark of their own in the first bytes -> reader of RosettaSciIO.
_SUFFIXES: Final = {
    ".tvips": TVIPS,
    ".xml": "EMPAD",
    ".rpl": "Ripple",
    ".prz": "PantaRhei",
    ".emi": "TIA",
    ".mrc": "MRC",
}
_PICTURES: Final = {
    b"II*\x00": "TIFF", b"MM\x00*": "TIFF", b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG", b"GIF8": "GIF", b"BM": "BMP", b"%PDF": "PDF",
}  # fmt: skip
#: Names of which one is at the root of every Zarr store.
_ZARR_ROOTS: Final = (".zgroup", ".zarray", ".zmetadata", "zarr.json")
_DECTRIS_NAME: Final = re.compile(r"data_\d+")
#: Suffixes of HDF5 files whose own reader knows more than the search for an array.
_HDF5_SUFFIXES: Final = {".app5": "Topspin"}


@dataclass(frozen=True)
class FileState:
    """Size and time of change of a file, or of all files of a folder or recording, to notice that it changed.

    Parameters
    ----------
    path : Path
    files : int
        Number of files.
    size : int
        Bytes of all of them.
    changed_ns : int
        Times of the last change of all of them, in nanoseconds since 1970, added up: with the latest
        alone, an older file in the place of one would not be noticed.
    beside : tuple of Path
        Further files of a recording, counted with the first.
    """

    path: Path
    files: int
    size: int
    changed_ns: int
    beside: tuple[Path, ...] = ()

    @classmethod
    def of(cls, path: Path, beside: tuple[Path, ...] = ()) -> FileState:
        """Look at a file or folder, and the files that belong to it.

        Raises
        ------
        ScanError
            If it is not there.
        """
        try:
            names = _files_below(path) if path.is_dir() else map(str, (path, *beside))
            found = [os.stat(name) for name in names]  # noqa: PTH116 (stores have 10^5 files)
        except OSError as error:
            raise ScanError(f"{path} cannot be read", error.strerror or str(error)) from None
        changed = sum(stat.st_mtime_ns for stat in found)
        return cls(path, len(found), sum(stat.st_size for stat in found), changed, beside)

    def check(self) -> None:
        """Refuse to go on if the file is not what it was.

        Raises
        ------
        ScanError
            If the file has changed or gone.
        """
        if FileState.of(self.path, self.beside) != self:
            raise ScanError(
                f"{self.path} changed while it was read",
                "another program writes to it, so what was read of it does not fit together",
                "Wait until it is complete, then run the same command again",
            )


def _files_below(folder: Path) -> Iterator[str]:
    for parent, _, names in os.walk(folder):
        yield from (os.path.join(parent, name) for name in names)  # noqa: PTH118


def kind_of(path: Path) -> str:
    """Return what kind of scan a file or folder holds.

    Parameters
    ----------
    path : Path
        File, or folder of a Zarr store.

    Returns
    -------
    str
        One of the constants of this module, or the name of a reader of RosettaSciIO.

    Raises
    ------
    ScanError
        If it is absent, empty, unreadable, damaged, or nothing that a scan is stored in.
    """
    if path.is_dir():
        if any((path / name).is_file() for name in _ZARR_ROOTS):
            return ZARR
        raise ScanError(f"{path} is a folder and no Zarr store", "", "Give the path of a 4D-STEM file")
    start = _first_bytes(path)
    if start.startswith(b"\x93NUMPY"):
        return NPY
    if start.startswith(b"PK"):
        return _kind_of_zip(path)
    if h5py.is_hdf5(path):
        with hdf5_file(path) as file:
            return _kind_of_hdf5(file, path)
    for magic, name in _MAGIC.items():
        if start.startswith(magic):
            return name
    if start[:3] == b"\x00\x00\x00" and start[3:4] in (b"\x03", b"\x04"):
        return "DigitalMicrograph"
    if start[208:212] == b"MAP ":
        return "MRC"
    for magic, name in _PICTURES.items():
        if start.startswith(magic):
            raise ScanError(
                f"{path} is a {name} picture, not a scan",
                "a scan has four dimensions",
                "Save a stack of pictures as one array with numpy.save",
            )
    return _kind_by_suffix(path)


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            start = stream.read(256)
    except FileNotFoundError:
        raise ScanError(f"{path} does not exist", "", "Check the path") from None
    except OSError as error:
        raise ScanError(
            f"{path} cannot be read", error.strerror or str(error), "Check your permission to read it"
        ) from None
    if not start:
        raise ScanError(f"{path} is empty", "it has 0 bytes", "Copy the file again")
    return start


def _kind_by_suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    raise ScanError(
        f"{path} is not a 4D-STEM file that can be read",
        f"its first bytes are of no known format{f', nor of a {suffix} file' if suffix else ''}",
        "Read are py4DSTEM, HyperSpy, DECTRIS, NumPy and Zarr files, and what RosettaSciIO reads "
        "(blo, mib, dm4, emd, tvips, …); raw bytes can be saved with numpy.save",
    )


def _kind_of_zip(path: Path) -> str:
    if not zipfile.is_zipfile(path):
        raise ScanError(f"{path} is damaged", "its table of contents is missing: it looks cut off")
    names = zip_names(path)
    if zarr_folder(names) is not None:
        return ZARR
    if any(name.endswith(".npy") for name in names) and path.suffix.lower() == ".npz":
        raise ScanError(f"{path} is an archive of arrays", "", "Save the scan alone with numpy.save")
    return _kind_by_suffix(path)


def zip_names(path: Path) -> set[str]:
    """Return the names of the files in a zip file."""
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def zarr_folder(names: set[str]) -> str | None:
    """Return where in a zip file, by its names, a Zarr store begins: at the top ("") or in its only folder.

    HyperSpy writes the former; who packs the folder of a store makes the latter. None = nowhere.
    """
    tops = {name.split("/", 1)[0] for name in names}
    for folder in ("", *(f"{top}/" for top in tops if len(tops) == 1)):
        if names & {folder + root for root in _ZARR_ROOTS}:
            return folder.rstrip("/")
    return None


def hdf5_file(path: Path) -> h5py.File:
    """Open an HDF5 file to read.

    Raises
    ------
    ScanError
        If it is cut off or otherwise damaged.
    """
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ScanError(f"{path} is damaged: {error}", "it looks cut off", "Copy the file again") from None


def bragg_lists(file: h5py.File) -> dict[str, h5py.Group]:
    """Return the groups that hold Bragg peaks, by the name a user would call them."""
    found: dict[str, h5py.Group] = {}

    def visit(name: str, item: Any) -> None:
        if not (isinstance(item, h5py.Dataset) and item.ndim == 2 and name.split("/")[-1] == "data"):
            return
        dtype = h5py.check_vlen_dtype(item.dtype)
        if dtype is None or dtype.names is None or not set(dtype.names) >= set(PEAK_FIELDS):
            return
        # BraggVectors keep raw vectors one level down, version 13 a calibrated copy beside them.
        if item.parent.name.endswith("/_v_cal"):
            return
        is_vectors = item.parent.name.endswith("/_v_uncal")
        owner = item.parent.parent if is_vectors else item.parent
        found[owner.name.strip("/")] = owner

    file.visititems(visit)
    return found


def arrays(file: h5py.File, dimensions: int) -> dict[str, h5py.Dataset]:
    """Return the arrays of numbers with so many dimensions, by name; links are not followed."""
    found: dict[str, h5py.Dataset] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim == dimensions and item.dtype.kind in "biufc":
            found[name] = item

    file.visititems(visit)
    return found


def names_matching(names: Iterable[str], wanted: str) -> list[str]:
    """Return those names of data sets that a user may mean: the whole name, or how it ends."""
    plain = wanted.strip("/")
    return [name for name in names if name == plain or name.endswith(f"/{plain}")]


def dectris_parts(file: h5py.File) -> list[str]:
    """Return the names of the parts of a DECTRIS recording, in order; none for another file."""
    group = file.get("entry/data")
    if not isinstance(group, h5py.Group):
        return []
    return sorted(f"entry/data/{name}" for name in group if _DECTRIS_NAME.fullmatch(name))


def data_cubes(file: h5py.File) -> dict[str, h5py.Dataset]:
    """Return the data cubes that py4DSTEM saved, by the name a user would call them."""
    found = {}
    for name, dataset in arrays(file, 4).items():
        group = dataset.parent
        kinds = (group.attrs.get("python_class"), group.attrs.get("py4dstem_class"))
        is_cube = any(kind in ("DataCube", b"DataCube") for kind in kinds)
        if name.split("/")[-1] in ("data", "datacube") and (is_cube or "/datacubes/" in f"/{name}"):
            found[group.name.strip("/")] = dataset
    return found


def _kind_of_hdf5(file: h5py.File, path: Path) -> str:
    if path.suffix.lower() in _HDF5_SUFFIXES:
        return _HDF5_SUFFIXES[path.suffix.lower()]
    if isinstance(file.get("Experiments"), h5py.Group):
        return HYPERSPY
    if dectris_parts(file):
        return DECTRIS
    if data_cubes(file):
        return PY4DSTEM
    if bragg_lists(file) and not arrays(file, 4):
        return BRAGG
    if ("Version" in file and "Data" in file) or _is_berkeley(file):
        return "EMD"
    return "NeXus" if arrays(file, 4) and _is_nexus(file) else HDF5


def _is_berkeley(file: h5py.File) -> bool:
    """Tell whether this is an EMD file as Berkeley's detectors and HyperSpy write it."""
    return any(
        dataset.parent.attrs.get("emd_group_type") == 1
        for dimensions in (4, 3)
        for dataset in arrays(file, dimensions).values()
    )


def _is_nexus(file: h5py.File) -> bool:
    return any(
        isinstance(group, h5py.Group) and group.attrs.get("NX_class") in ("NXentry", b"NXentry")
        for group in file.values()
    )
