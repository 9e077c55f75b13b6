"""Raw frames of TVIPS recordings.

Read here and not through RosettaSciIO, whose lazy arrays begin as NumPy's, which Dask copies into memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from diffractory.errors import ScanError
from diffractory.scan.reading.raw_frames import RawFrames

#: The fields of the file's header that are needed, all little-endian.
_HEADER: Final = np.dtype(
    {
        "names": ["size", "version", "columns", "rows", "bits", "voltage", "frame_header"],
        "formats": ["<u4"] * 7,
        "offsets": [0, 4, 8, 12, 16, 40, 48],
        "itemsize": 256,
    }
)
#: Version 1 does not state how long the header of a frame is.
_FRAME_HEADER_1: Final = 12
#: Byte of a frame's header from which on the number within the scan is stored; 0 outside a scan.
_ROTATOR: Final = 48
_ENDING: Final = "000.tvips"


def tvips_frames(path: Path) -> dict[str, RawFrames]:
    """Return the frames of a recording as a stack, memory-mapped, with those of its further files.

    The shape of the scan is not in the file, nor are its step and the size of a detector pixel. Frames
    recorded before and after the scan are left out if they are marked as such.

    Parameters
    ----------
    path : Path
        First file, named ...000.tvips.

    Raises
    ------
    ScanError
        If this is not the first file, or its header makes no sense.
    """
    name = path.name.lower()
    if not name.endswith(_ENDING):
        raise ScanError(f"{path} is not the first file of a recording", f"that one ends with {_ENDING}")
    if path.stat().st_size < _HEADER.itemsize:
        raise ScanError(f"{path} is cut off", "its header is not complete", "Copy the file again")
    header = np.fromfile(path, _HEADER, 1)[0]
    length = _FRAME_HEADER_1 if header["version"] == 1 else int(header["frame_header"])
    if (
        header["version"] not in (1, 2)
        or header["bits"] not in (8, 16)
        or not _FRAME_HEADER_1 <= length < 2**16
    ):
        raise ScanError(f"{path} is no TVIPS recording", "its header makes no sense", "Check the file")
    frame = (int(header["rows"]), int(header["columns"]))
    record = np.dtype([("header", np.uint8, (length,)), ("data", f"<u{header['bits'] // 8}", frame)])
    files = [path, *following_files(path)]
    parts = [
        np.memmap(file, record, "r", offset=int(header["size"]) if file == path else 0) for file in files
    ]
    return {path.stem: RawFrames(_of_the_scan(parts), energy_ev=float(header["voltage"]) or None)}


def following_files(path: Path) -> list[Path]:
    """Return the further files of a recording whose first file this is: …001.tvips, …002.tvips, …"""
    found: list[Path] = []
    while (
        following := path.with_name(f"{path.name[: -len(_ENDING)]}{len(found) + 1:03d}{path.suffix}")
    ).is_file():
        found.append(following)
    return found


def _of_the_scan(parts: list[Any]) -> list[Any]:
    """Return the frames from the one numbered 1 to the one with the largest number, if all are there."""
    if parts[0].dtype["header"].shape[0] < _ROTATOR + 4:
        return [part["data"] for part in parts]
    fields = (part["header"][:, _ROTATOR : _ROTATOR + 4] for part in parts)
    numbers = np.concatenate([np.ascontiguousarray(field).view("<u4")[:, 0] for field in fields])
    last = int(numbers.argmax())
    first = last - int(numbers[last]) + 1
    numbered = numbers[last] > 0 and first >= 0 and bool(np.all(np.diff(numbers[first : last + 1]) == 1))
    if not numbered:
        return [part["data"] for part in parts]
    starts = np.cumsum([0, *(len(part) for part in parts)])
    cut = [
        part["data"][max(first - start, 0) : max(last + 1 - start, 0)]
        for part, start in zip(parts, starts[:-1].tolist(), strict=True)
    ]
    return [part for part in cut if len(part)]
