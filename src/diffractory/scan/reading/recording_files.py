"""Which further files belong to a recording that is opened by one of them."""

from __future__ import annotations

from glob import escape
from pathlib import Path
from typing import Final

import h5py

from diffractory.scan.reading.file_kinds import DECTRIS, TVIPS, dectris_parts, hdf5_file, kind_of
from diffractory.scan.reading.tvips_file import following_files

#: Kind of a file -> pattern of the names of those beside it that hold its frames, or its header.
_BESIDE: Final = {
    "EMPAD": "*.raw",
    "Ripple": "{stem}.raw",
    "TIA": "{stem}_*.ser",
    "QuantumDetector": "{stem}.hdr",
}


def files_beside(path: Path) -> tuple[Path, ...]:
    """Return the files that a recording consists of besides the one it is opened by, in order.

    Parameters
    ----------
    path : Path
        A file, or the folder of a Zarr store, whose own files are not told here.

    Raises
    ------
    ScanError
        If it is nothing that a scan is stored in.
    """
    kind = kind_of(path)
    if kind == TVIPS:
        return tuple(following_files(path))
    if kind == DECTRIS:
        with hdf5_file(path) as file:
            links = [file.get(name, getlink=True) for name in dectris_parts(file)]
        names = [link.filename for link in links if isinstance(link, h5py.ExternalLink)]
        return tuple(beside for name in dict.fromkeys(names) if (beside := path.parent / name).is_file())
    if kind in _BESIDE and not path.is_dir():
        pattern = _BESIDE[kind].format(stem=escape(path.stem))
        found = sorted(beside for beside in path.parent.glob(pattern) if beside != path)
        if kind == "EMPAD":
            # Other recordings may lie in the folder; this one names its own.
            text = path.read_text(encoding="utf-8", errors="replace")
            found = [beside for beside in found if beside.name in text]
        return tuple(found)
    return ()
