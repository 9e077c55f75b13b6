"""Raw frames from microscopes' own formats, read lazily through RosettaSciIO."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import rsciio
from rsciio import IO_PLUGINS

from diffractory.errors import ScanError
from diffractory.scan.reading.array_files import camera_length, number, text
from diffractory.scan.reading.raw_frames import Axis, RawFrames, axis_order, frame_chunks

#: Reader -> options it needs to give whole scans.
_OPTIONS: Final[dict[str, dict[str, Any]]] = {"EMD": {"stack_group": False}}
#: A block file is at least as long as its header.
_BLOCKFILE_HEADER: Final = 0x1000


def rosettasciio_frames(path: Path, kind: str, scan_shape: tuple[int, int] | None) -> dict[str, RawFrames]:
    """Return what RosettaSciIO finds in a file, by title.

    Parameters
    ----------
    path : Path
        The file.
    kind : str
        Name of the reader, from :func:`diffractory.scan.reading.file_kinds.kind_of`.
    scan_shape : tuple of int, optional
        For readers that want to know it.

    Raises
    ------
    ScanError
        If the reader refuses the file.
    """
    reader = _reader(kind)
    options: dict[str, Any] = {"lazy": True, **_OPTIONS.get(kind, {})}
    if kind == "QuantumDetector" and scan_shape is not None:
        options["navigation_shape"] = scan_shape[::-1]
    _check_before(path, kind)
    found = _read(reader, path, options)
    found = _in_whole_frames(reader, path, options, found)
    frames = {}
    for i, signal in enumerate(found):
        raw = _raw_frames(signal)
        title = _value(signal.get("metadata", {}), "General.title")
        name = str(title) if title and str(title) not in frames else f"{i}"
        frames[name] = raw
    _check_size(path, kind, found, frames)
    return frames


def _reader(kind: str) -> Callable[..., list[dict[str, Any]]]:
    plugin = next(plugin for plugin in IO_PLUGINS if plugin["name"] == kind)
    reader: Callable[..., list[dict[str, Any]]] = import_module(plugin["api"]).file_reader
    return reader


def _read(
    reader: Callable[..., list[dict[str, Any]]], path: Path, options: dict[str, Any]
) -> list[dict[str, Any]]:
    rsciio.set_log_level("ERROR")
    with warnings.catch_warnings():
        # What its readers warn of (a missing .hdr file, odd units) is told by `calibration` or an error.
        warnings.simplefilter("ignore")
        return list(reader(str(path), **options))


def _in_whole_frames(
    reader: Callable[..., list[dict[str, Any]]],
    path: Path,
    options: dict[str, Any],
    found: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Read again with chunks of whole frames, where the reader can be told and there is one scan."""
    if "chunks" not in inspect.signature(reader).parameters or len(found) != 1:
        return found
    data = found[0].get("data")
    if data is None or data.ndim not in (3, 4):
        return found
    order = axis_order(_axes(found[0]), data.ndim, str(path))
    frame_bytes = data.shape[order[-2]] * data.shape[order[-1]] * data.dtype.itemsize
    scan = [data.shape[i] for i in order[:-2]]
    chosen = frame_chunks((1, scan[0]) if len(scan) == 1 else (scan[0], scan[1]), frame_bytes)
    chunks = [-1] * data.ndim
    for axis, count in zip(order, chosen[-len(scan) :], strict=False):
        chunks[axis] = count
    return _read(reader, path, {**options, "chunks": tuple(chunks)})


def _raw_frames(signal: Mapping[str, Any]) -> RawFrames:
    metadata, original = signal.get("metadata", {}), signal.get("original_metadata", {})
    tem = dict(_value(metadata, "Acquisition_instrument.TEM") or {})
    for place, rule in signal.get("mapping", {}).items():
        target, convert = rule
        value = _value(original, place)
        if value is not None and target.startswith("Acquisition_instrument.TEM."):
            tem.setdefault(target.rsplit(".", 1)[1], convert(value) if convert else value)
    return RawFrames(
        signal["data"],
        _axes(signal),
        number(tem.get("beam_energy")),
        number(tem.get("convergence_angle")),
        camera_length(tem.get("camera_length")),
    )


def _axes(signal: Mapping[str, Any]) -> tuple[Axis, ...]:
    return tuple(
        Axis(number(axis.get("scale")), text(axis.get("units")), axis.get("navigate"))
        for axis in sorted(signal.get("axes", ()), key=lambda axis: axis.get("index_in_array", 0))
    )


def _value(tree: Any, place: str) -> Any:
    """Return what lies at a dotted place of nested dictionaries; blanks and underscores are the same."""
    for part in place.split("."):
        if not isinstance(tree, Mapping):
            return None
        tree = next(
            (tree[key] for key in tree if re.sub(r"\W", "_", str(key)) == re.sub(r"\W", "_", part)), None
        )
    return tree


def _check_before(path: Path, kind: str) -> None:
    """Refuse what a reader would misunderstand or leave open."""
    if kind == "Blockfile" and path.stat().st_size < _BLOCKFILE_HEADER:
        raise ScanError(f"{path} is cut off", "its header is not complete", "Copy the file again")
    if kind == "QuantumDetector" and path.suffix != ".mib":
        raise ScanError(
            f"{path} is a Merlin file of another name",
            "its reader looks for the header file beside it by the ending .mib",
            f"Rename it to {path.with_suffix('.mib').name}",
        )


def _check_size(path: Path, kind: str, found: list[dict[str, Any]], frames: Mapping[str, RawFrames]) -> None:
    """Refuse files shorter than their own header says, which some readers fill up or cut silently."""
    expected = frames_there = None
    original = found[0].get("original_metadata", {}) if found else {}
    if kind == "Blockfile":
        header = original["blockfile_header"]
        expected = int(header["NX"]) * int(header["NY"])
        frame_bytes = int(header["DP_SZ"]) ** 2 + 6  # each is preceded by its number
        frames_there = (path.stat().st_size - int(header["Data_offset_2"])) // frame_bytes
    elif kind == "QuantumDetector":
        raw = next(iter(frames.values()))
        frames_there = int(original["mib_properties"]["frame_number_in_file"])
        stated = number(_value(original, "hdr_file.Frames in Acquisition (Number)"))
        positions = raw.data.size // (raw.data.shape[-1] * raw.data.shape[-2])
        expected = int(stated) if stated else frames_there
        if expected <= frames_there != positions:
            raise ScanError(
                f"{path} holds {frames_there:,} frames, of which its time stamps make a scan of "
                + " × ".join(map(str, raw.data.shape[:-2])),
                "the shape of the scan is not certain",
                "Give rows and columns of the scan with --scan-shape ROWSxCOLUMNS",
            )
    if expected is not None and frames_there is not None and frames_there < expected:
        raise ScanError(
            f"{path} is cut off: {max(frames_there, 0):,} of {expected:,} frames are there",
            "it was copied in part, or the recording was interrupted",
            "Copy the file again"
            + ("; or give the shape of what is there with --scan-shape" if kind == "QuantumDetector" else ""),
        )
