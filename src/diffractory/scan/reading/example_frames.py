"""The recorded frames of a scan of Bragg peaks: found again by what was noted, a few of them read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from diffractory.errors import ScanError
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.frame_places import FramePlaces, PlacedFrame
from diffractory.scan.frame_scan import FrameScan
from diffractory.scan.reading.file_kinds import FileState
from diffractory.scan.reading.frame_blocks import FrameSource, read_places
from diffractory.scan.reading.frame_reader import read_frame_scan
from diffractory.scan.reading.recording_files import files_beside

#: Frames with a longer side are binned: no picture shows more.
_LONGEST_SIDE: Final = 512
#: Options that say which frames of a file are meant, not what their numbers mean.
_READ_WITH: Final = ("dataset", "scan_shape")


def record_of(source: FrameSource) -> dict[str, Any]:
    """Return what is noted of a file of frames beside its peaks, so that the frames are found again.

    Parameters
    ----------
    source : FrameSource

    Returns
    -------
    dict
        JSON values: ``path``, number of ``files`` and their ``bytes``, and the options they are read with.
    """
    options = {name: value for name, value in source.options if name in _READ_WITH and value is not None}
    state = source.state
    return {"path": str(state.path.absolute()), "files": state.files, "bytes": state.size, **options}


def recorded_frames(scan: BraggScan) -> FrameScan:
    """Open the frames that the peaks of a scan were found in: where they were, or beside the scan's file.

    Parameters
    ----------
    scan : BraggScan

    Returns
    -------
    FrameScan
        Nothing but headers is read.

    Raises
    ------
    ScanError
        If no frames are noted, or they are gone, changed since, or unreadable.
    """
    record = _record(scan)
    if not record:
        raise ScanError("the file of peaks notes no recorded frames")
    recorded = Path(str(record["path"]))
    beside = Path(scan.source).absolute().parent / recorded.name
    there = [path for path in dict.fromkeys((recorded, beside)) if path.exists()]
    if not there:
        raise ScanError(f"{recorded.name} is neither where it was nor beside the file of peaks")
    for path in there:
        state = FileState.of(path, files_beside(path))
        # Not by its time, which copying changes.
        if (state.files, state.size) == (record.get("files"), record.get("bytes")):
            frames = read_frame_scan(path, **_options(record))
            places_in(scan, frames)
            return frames
    raise ScanError(f"{recorded.name} has changed since the peaks were found in it")


def named_frames(scan: BraggScan, path: Path) -> FrameScan:
    """Open the frames of a scan of peaks that somebody names.

    Parameters
    ----------
    scan : BraggScan
    path : Path
        File of frames, perhaps in another format than the one the peaks were found in.

    Returns
    -------
    FrameScan
        Nothing but headers is read.

    Raises
    ------
    ScanError
        If the file cannot be read, or does not fit the peaks.
    """
    if not path.exists():
        raise ScanError(f"--frames {path} does not exist", "", "Check the path")
    problem: ScanError | None = None
    # In another format a data set has another name, and a stack does not know the shape of the scan.
    for options in (_options(_record(scan)), {}, {"scan_shape": scan.shape}):
        try:
            frames = read_frame_scan(path, **options)
        except ScanError as error:
            problem = problem or error
            continue
        places_in(scan, frames)
        return frames
    assert problem is not None
    raise problem


def places_in(scan: BraggScan, frames: FrameScan) -> FramePlaces:
    """Return where peaks lie in frames, if they are those of the scan by their shapes.

    Parameters
    ----------
    scan : BraggScan
    frames : FrameScan

    Returns
    -------
    FramePlaces

    Raises
    ------
    ScanError
        If the scan does not tell it, or the shapes differ.
    """
    name = Path(frames.source).name
    places = scan.places
    if places is None:
        raise ScanError(
            "the file of peaks does not tell where in a frame they lie",
            "it was written by other means than 'diffractory detect', or an earlier version",
            f"Detect disks again with: diffractory detect {frames.source} --out SCAN.h5",
        )
    for what, here, wanted in (
        ("positions", frames.shape, scan.shape),
        ("pixels a frame", frames.frame_shape, places.frame_shape),
    ):
        if wanted is not None and here != wanted:
            raise ScanError(
                f"{name} has {here[0]} × {here[1]} {what}, the peaks were found in {wanted[0]} × {wanted[1]}",
                "it is not the file of their frames",
                "Give that one with --frames, or leave the option out",
            )
    return places


def read_examples(scan: BraggScan, frames: FrameScan, positions: Iterable[int]) -> dict[int, PlacedFrame]:
    """Read the frames of a few positions, and nothing else.

    Parameters
    ----------
    scan : BraggScan
    frames : FrameScan
        Its frames.
    positions : iterable of int
        In row-major order.

    Returns
    -------
    dict of int to PlacedFrame
        By position; large frames binned.

    Raises
    ------
    ScanError
        If the file is damaged there, or does not fit the scan.
    """
    places = places_in(scan, frames)
    side = min(-(-max(frames.frame_shape) // _LONGEST_SIDE), *frames.frame_shape)
    found = {}
    for position in map(int, positions):
        y, x = divmod(position, scan.shape[1])
        # One at a time, and a copy: a view would keep the whole chunk of the file in memory.
        pixels = read_places(frames, [(slice(y, y + 1), slice(x, x + 1))])[0][0, 0].astype(np.float32)
        if side > 1:
            rows, columns = (n // side for n in pixels.shape)
            pixels = pixels[: rows * side, : columns * side].reshape(rows, side, columns, side).mean((1, 3))
        found[position] = places.place(position, pixels, side)
    return found


def _record(scan: BraggScan) -> Mapping[str, Any]:
    provenance = scan.attrs.get("provenance")
    if not isinstance(provenance, Mapping):
        return {}
    record = provenance.get("frames_file")
    if isinstance(record, Mapping) and "path" in record:
        return record
    return {}


def _options(record: Mapping[str, Any]) -> dict[str, Any]:
    options = {name: record[name] for name in _READ_WITH if record.get(name) is not None}
    if "scan_shape" in options:
        rows, columns = options["scan_shape"]
        options["scan_shape"] = int(rows), int(columns)
    return options
