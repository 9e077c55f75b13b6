"""A scan of Bragg peaks: one pattern a position, calibrated; and how it is written for py4DSTEM."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffractory.dataset.bragg_vectors import write_bragg_vectors
from diffractory.errors import ScanError
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.frame_places import FramePlaces

#: No detected spot lies further out, in Å⁻¹: 10 Å⁻¹ is 200 mrad at 300 keV.
MAX_REACH = 10.0
#: A spot further from the origin than this is not the direct beam, in Å⁻¹: one ring of the radial
#: basis, and less than any reflection of a cell up to 20 Å.
DIRECT_RADIUS = 0.05


@dataclass(frozen=True, eq=False)
class BraggScan:
    """Calibrated Bragg peaks of a scan.

    Parameters
    ----------
    peaks : PeakTable
        One pattern a position, in row-major order: scan_y slow, scan_x fast. ``q`` in Å⁻¹, with the
        direct beam at the origin; its two columns are py4DSTEM's qx and qy.
    shape : tuple of int
        Number of positions (n_y, n_x).
    step : float or None
        Distance of neighbouring positions in Å; None = unknown.
    energy_ev : float or None
        Beam energy in eV; None = unknown.
    source : str
        Where the scan came from, for messages and provenance.
    attrs : mapping
        Further provenance, JSON values only.
    status : ndarray of shape (n_y * n_x,), int8, or None
        What became of each position's frame, codes of
        :data:`~diffractory.scan.inspection.frame_checks.FRAME_STATUS` (0 = good); None = not known.
    places : FramePlaces or None
        Where the peaks lie in the frames they were found in; None = not known.

    Raises
    ------
    ScanError
        If the table does not fit the shape, or a value is not finite or out of range.
    """

    peaks: PeakTable
    shape: tuple[int, int]
    step: float | None = None
    energy_ev: float | None = None
    source: str = ""
    attrs: Mapping[str, Any] = field(default_factory=dict)
    status: NDArray[np.int8] | None = None
    places: FramePlaces | None = None

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        object.__setattr__(self, "shape", shape)
        if len(shape) != 2 or min(shape) < 1:
            raise ScanError(f"a scan has two dimensions with at least one position each, got {shape}")
        if len(self.peaks) != shape[0] * shape[1]:
            raise ScanError(
                f"{len(self.peaks)} patterns for a scan of {shape[0]} × {shape[1]} positions",
                "every position needs exactly one pattern, if an empty one",
            )
        for name, value, unit in (("step", self.step, "Å"), ("energy_ev", self.energy_ev, "eV")):
            if value is not None and not (math.isfinite(value) and value > 0.0):
                raise ScanError(f"{name} = {value} {unit}", "it must be finite and above 0, or None")
        if self.status is not None and self.status.shape != (len(self.peaks),):
            raise ScanError(f"{len(self.peaks)} positions with a status of shape {self.status.shape}")
        if self.places is not None and len(self.places.origin) != len(self.peaks):
            raise ScanError(f"{len(self.peaks)} positions with origins of {len(self.places.origin)} frames")
        _check_peaks(self.peaks)

    def __len__(self) -> int:
        return len(self.peaks)

    def to_emd(self, path: Path) -> None:
        """Write this scan as a py4DSTEM file; see :func:`write_bragg_emd`.

        Parameters
        ----------
        path : Path
            File to write; one that is there is replaced.
        """
        write_bragg_emd(self, path)


def _check_peaks(peaks: PeakTable) -> None:
    if not (np.all(np.isfinite(peaks.q)) and np.all(np.isfinite(peaks.intensity))):
        raise ScanError("the scan holds peaks with a position or intensity that is not finite")
    reach = float(np.abs(peaks.q).max(initial=0.0))
    if reach > MAX_REACH:
        raise ScanError(
            f"peaks reach {reach:.4g} Å⁻¹ from the direct beam",
            f"nothing is detected beyond {MAX_REACH:g} Å⁻¹, so the calibration is wrong",
            "Give the size of a detector pixel with --pixel-size (in Å⁻¹)",
        )


def measured_peaks(
    q: NDArray[np.float64], intensity: NDArray[np.float64], counts: NDArray[np.int64]
) -> tuple[PeakTable, int]:
    """Make a table of measured peaks: what is no peak is left out, the direct beam is told.

    Parameters
    ----------
    q : ndarray of shape (n_peaks, 2)
        In Å⁻¹ from the direct beam, pattern by pattern.
    intensity : ndarray of shape (n_peaks,)
    counts : ndarray of shape (n_patterns,), int
        Number of peaks of each pattern.

    Returns
    -------
    peaks : PeakTable
        The direct beam of a pattern is the peak nearest the origin, if that is near it.
    dropped : int
        How many peaks were left out: not finite, or without an intensity above 0.
    """
    usable = np.isfinite(q).all(axis=1) & np.isfinite(intensity) & (intensity > 0.0)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    dropped = int((~usable).sum())
    if dropped:
        # A large scan is copied only if it must be.
        offsets = np.concatenate([[0], np.cumsum(usable)])[offsets]
        q, intensity = q[usable], intensity[usable]
    return PeakTable(q, intensity, offsets, _direct_beams(q, offsets)), dropped


def _direct_beams(q: NDArray[np.float64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the peak nearest the origin of each pattern; -1 where none is near it."""
    radius = np.hypot(*q.T)
    nearest = np.full(len(offsets) - 1, -1, dtype=np.int64)
    filled = np.flatnonzero(np.diff(offsets) > 0)
    if len(filled):
        least = np.minimum.reduceat(radius, offsets[filled])
        is_nearest = np.flatnonzero(radius == np.repeat(least, np.diff(offsets)[filled]))
        owners = np.searchsorted(offsets, is_nearest, side="right") - 1
        # Of equally near ones the first, which is written last.
        nearest[owners[::-1]] = is_nearest[::-1]
        nearest[filled[least > DIRECT_RADIUS]] = -1
    return nearest


def write_bragg_emd(scan: BraggScan, path: Path) -> None:
    """Write a scan as a py4DSTEM EMD 1.0 file with BraggVectors and their calibration.

    The positions are stored as detector pixels with an origin and a pixel size, as an instrument's
    would be; :func:`diffractory.scan.reading.emd_reader.read_bragg_scan` and ``py4DSTEM.read`` give them
    back in Å⁻¹. Which spot is the direct beam is not part of the format: readers take the one
    nearest the origin.

    Parameters
    ----------
    scan : BraggScan
        What to write.
    path : Path
        Target; the file is whole or not there.

    Raises
    ------
    ScanError
        If the file cannot be written.
    """
    # JSON, because emdfile's own nested values do not all come back as they were.
    notes: dict[str, Any] = {
        "energy_ev": scan.energy_ev,
        "source": scan.source,
        "provenance": json.dumps(dict(scan.attrs)),
    }
    if scan.status is not None:
        notes["frame_status"] = np.asarray(scan.status, dtype=np.int8)
    if (places := scan.places) is not None and places.matrix.ndim == 2 and places.frame_shape is not None:
        notes["frame_origin"] = places.origin.astype(np.float32)
        notes["frame_matrix"] = places.matrix
        notes["frame_shape"] = np.array(places.frame_shape)
        notes["disk_radius"] = math.nan if places.disk_radius is None else places.disk_radius
    try:
        write_bragg_vectors(scan.peaks, scan.shape, path, notes, scan.step)
    except OSError as error:
        raise ScanError(f"cannot write {path}", str(error), "Choose a folder you may write to") from None
