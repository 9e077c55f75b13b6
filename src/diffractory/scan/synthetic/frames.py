"""Synthetic raw frames with known truth: what a detector shows of Bragg peaks.

Every frame draws its noise from a generator seeded with the scan's seed and the position's number, so
that a frame depends neither on how the scan is cut into blocks nor on which blocks are computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from diffractory.errors import ScanError
from diffractory.patterns.lab_protocol import deformation
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.frame_scan import FRAME_DIMENSIONS, FrameScan
from diffractory.specs import FrameEffectsSpec

#: The detector's own random numbers and those of single frames come from different streams.
_FRAME_STREAM, _DETECTOR_STREAM = 0, 1
#: What a pixel of 16 bits holds.
_LARGEST_COUNT = 2**16 - 1
#: Bytes of one block of frames: what a worker holds at once.
_BLOCK_BYTES = 32 * 2**20


@dataclass(frozen=True, eq=False)
class FrameTruth:
    """What is true of synthetic frames.

    Parameters
    ----------
    peaks : PeakTable
        Peaks of each position in Å⁻¹, all of them: beyond the detector and too weak to be seen too.
    pixels : ndarray of shape (n_peaks, 2)
        Where they lie on the detector: row and column in pixels.
    center : ndarray of shape (n_y, n_x, 2)
        Position of the direct beam of each frame in pixels.
    distortion : ndarray of shape (2, 2)
        Elliptical distortion: measured position = matrix @ true position.
    hot : ndarray of shape (rows, columns), bool
        Pixels that always show the same value.
    effects : FrameEffectsSpec
        Pixel size and everything else.
    """

    peaks: PeakTable
    pixels: NDArray[np.float64]
    center: NDArray[np.float64]
    distortion: NDArray[np.float64]
    hot: NDArray[np.bool_]
    effects: FrameEffectsSpec


def synthetic_frames(scan: BraggScan, effects: FrameEffectsSpec, seed: int) -> tuple[FrameScan, FrameTruth]:
    """Make raw frames of a scan of Bragg peaks, lazily, and their truth.

    Every peak becomes a disk with a soft edge that holds its share of the electrons. The background
    falls off exponentially around the direct beam. Frames are counts (uint16, cut off at its end)
    with Poisson noise, and expectations (float32) without.

    Parameters
    ----------
    scan : BraggScan
        Peaks in Å⁻¹ with intensities as share of the incident beam.
    effects : FrameEffectsSpec
        The detector and everything it does.
    seed : int
        Determines noise, hot pixels and the direction of the drift.

    Returns
    -------
    frames : FrameScan
        Nothing is rendered before it is computed.
    truth : FrameTruth

    Raises
    ------
    ScanError
        If an intensity or the seed is negative.
    """
    if seed < 0 or np.any(scan.peaks.intensity < 0.0):
        raise ScanError("the seed and all intensities of synthetic frames must be 0 or above")
    generator = np.random.default_rng([seed, _DETECTOR_STREAM])
    center = _centers(scan.shape, effects, generator)
    hot = np.zeros(effects.frame_shape, dtype=bool)
    hot.ravel()[generator.choice(hot.size, min(effects.hot_pixels, hot.size), replace=False)] = True
    distortion = deformation(1.0, effects.ellipticity, np.radians(effects.ellipse_angle))
    origins = np.repeat(center.reshape(-1, 2), scan.peaks.counts, axis=0)
    pixels = origins + scan.peaks.q @ distortion.T / effects.pixel_size
    truth = FrameTruth(scan.peaks, pixels, center, distortion, hot, effects)
    frames = xr.DataArray(_lazy_frames(scan.shape, truth, seed), dims=FRAME_DIMENSIONS)
    attrs = {
        "generator": "diffractory.scan.synthetic.frames",
        "seed": seed,
        **effects.model_dump(mode="json"),
    }
    source = f"synthetic frames, seed {seed}"
    return FrameScan(frames, effects.pixel_size, scan.step, scan.energy_ev, None, source, attrs), truth


def render_frame(
    pixels: NDArray[np.float64],
    intensity: NDArray[np.float64],
    center: NDArray[np.float64],
    effects: FrameEffectsSpec,
) -> NDArray[np.float64]:
    """Return the expectation of one frame in electrons, without hot pixels.

    Parameters
    ----------
    pixels : ndarray of shape (n, 2)
        Row and column of every disk.
    intensity : ndarray of shape (n,)
        Share of the incident beam in each.
    center : ndarray of shape (2,)
        Row and column of the direct beam.
    effects : FrameEffectsSpec

    Returns
    -------
    ndarray of shape (rows, columns)
    """
    rows, columns = effects.frame_shape
    frame = effects.electrons * effects.background * _background(center, effects)
    inverse = np.linalg.inv(deformation(1.0, effects.ellipticity, np.radians(effects.ellipse_angle)))
    half = int(np.ceil(1.3 * effects.disk_radius + 5.0 * effects.edge_width)) + 1
    # A disk's electrons, whether or not all of it lies on the detector.
    full = _disk(np.zeros(2), np.arange(-half, half + 1), np.arange(-half, half + 1), inverse, effects).sum()
    for position, share in zip(pixels, intensity, strict=True):
        row, column = np.rint(position).astype(int)
        r = np.arange(max(row - half, 0), min(row + half + 1, rows))
        c = np.arange(max(column - half, 0), min(column + half + 1, columns))
        if r.size and c.size:
            disk = _disk(position, r, c, inverse, effects)
            frame[r[0] : r[-1] + 1, c[0] : c[-1] + 1] += effects.electrons * share / full * disk
    return frame


def score_peaks(
    found: PeakTable,
    truth: FrameTruth,
    weakest: float,
    tolerance: float = 2.0,
    strongest: float = math.inf,
) -> dict[str, float | int | None]:
    """Compare detected peaks with the true ones.

    Parameters
    ----------
    found : PeakTable
        In detector pixels, one pattern a position.
    truth : FrameTruth
    weakest : float
        True peaks below this share of the incident beam need not be found, and neither need those
        whose disk is cut off by the frame's edge; to find them is no mistake.
    tolerance : float
        A peak within so many pixels of a true one is that one.
    strongest : float
        True peaks of this share and above need not be found either, and are no mistake.

    Returns
    -------
    dict
        JSON values: wanted (number of true peaks), recall, precision, false_a_frame, and median_error,
        error_90 (pixels, of the wanted ones); None where there is nothing to divide by.

    Raises
    ------
    ScanError
        If the two differ in their number of positions.
    """
    if len(found) != len(truth.peaks):
        raise ScanError(f"{len(found)} patterns cannot be compared with a truth of {len(truth.peaks)}")
    edge = truth.effects.disk_radius + 1.0
    end = np.array(truth.effects.frame_shape) - 1.0 - edge
    inside = np.all((truth.pixels >= edge) & (truth.pixels <= end), axis=1)
    want = inside & (truth.peaks.intensity >= weakest) & (truth.peaks.intensity < strongest)
    seen = np.zeros(len(want), dtype=bool)
    errors, false = [np.empty(0)], 0
    for index in range(len(found)):
        q, _ = found.pattern(index)
        start, stop = truth.peaks.offsets[index : index + 2]
        if not len(q) or start == stop:
            false += len(q)
            continue
        distance, nearest = cKDTree(truth.pixels[start:stop]).query(q)
        good = distance <= tolerance
        seen[start + nearest[good]] = True
        false += int((~good).sum())
        errors.append(distance[good & want[start + nearest]])
    error = np.concatenate(errors)
    return {
        "wanted": int(want.sum()),
        "recall": float(seen[want].mean()) if want.any() else None,
        "precision": 1.0 - false / len(found.intensity) if len(found.intensity) else None,
        "false_a_frame": false / len(found) if len(found) else None,
        "median_error": float(np.median(error)) if error.size else None,
        "error_90": float(np.quantile(error, 0.9)) if error.size else None,
    }


def _disk(
    position: NDArray[np.float64],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    inverse: NDArray[np.float64],
    effects: FrameEffectsSpec,
) -> NDArray[np.float64]:
    """Return the profile of a disk, 1 inside, on some rows and columns; the distortion shapes it too."""
    y, x = np.meshgrid(rows - position[0], columns - position[1], indexing="ij")
    radius = np.hypot(inverse[0, 0] * y + inverse[0, 1] * x, inverse[1, 0] * y + inverse[1, 1] * x)
    profile: NDArray[np.float64] = 0.5 - 0.5 * np.tanh(
        2.0 * (radius - effects.disk_radius) / effects.edge_width
    )
    return profile


def _background(center: NDArray[np.float64], effects: FrameEffectsSpec) -> NDArray[np.float64]:
    """Return the background around a centre; over an endless detector it sums to 1."""
    width = effects.background_width / effects.pixel_size
    rows, columns = (np.arange(n) - middle for n, middle in zip(effects.frame_shape, center, strict=True))
    radius = np.hypot(rows[:, None], columns[None, :])
    profile: NDArray[np.float64] = np.exp(-radius / width) / (2.0 * np.pi * width**2)
    return profile


def _centers(
    shape: tuple[int, int], effects: FrameEffectsSpec, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return the direct beam of every position: a plane over the scan, as imperfect descan makes it."""
    middle = effects.center or ((effects.frame_shape[0] - 1) / 2.0, (effects.frame_shape[1] - 1) / 2.0)
    towards, along = generator.uniform(0.0, 2.0 * np.pi, 2)
    u, v = (np.linspace(-0.5, 0.5, n) if n > 1 else np.zeros(1) for n in shape)
    place = np.cos(along) * u[:, None] + np.sin(along) * v[None, :]
    place = place / max(np.ptp(place), 1e-12)
    centers: NDArray[np.float64] = np.array(middle) + effects.drift * place[..., None] * np.array(
        [np.cos(towards), np.sin(towards)]
    )
    return centers


def _lazy_frames(shape: tuple[int, int], truth: FrameTruth, seed: int) -> da.Array:
    effects = truth.effects
    dtype = np.dtype(np.uint16 if effects.poisson else np.float32)
    bytes_of_frame = dtype.itemsize * effects.frame_shape[0] * effects.frame_shape[1]
    width = min(shape[1], max(1, _BLOCK_BYTES // bytes_of_frame))
    height = max(1, _BLOCK_BYTES // (bytes_of_frame * width)) if width == shape[1] else 1
    number = np.arange(shape[0] * shape[1]).reshape(shape)
    render = dask.delayed(_render_block, pure=True)
    rows: list[da.Array] = []
    for y in range(0, shape[0], height):
        row: list[da.Array] = []
        for x in range(0, shape[1], width):
            block = number[y : y + height, x : x + width]
            chosen = block.ravel()
            pixels = [truth.pixels[slice(*truth.peaks.offsets[i : i + 2])] for i in chosen]
            intensity = [truth.peaks.pattern(i)[1] for i in chosen]
            center = truth.center.reshape(-1, 2)[chosen]
            task = render(block, pixels, intensity, center, truth.hot, effects, seed)
            row.append(da.from_delayed(task, (*block.shape, *effects.frame_shape), dtype))
        rows.append(da.concatenate(row, axis=1))
    return da.concatenate(rows, axis=0)


def _render_block(
    number: NDArray[np.int64],
    pixels: list[NDArray[np.float64]],
    intensity: list[NDArray[np.float64]],
    center: NDArray[np.float64],
    hot: NDArray[np.bool_],
    effects: FrameEffectsSpec,
    seed: int,
) -> NDArray[np.generic]:
    """Render the frames of a block of positions."""
    frames: NDArray[Any] = np.empty(
        (number.size, *effects.frame_shape), np.uint16 if effects.poisson else np.float32
    )
    for i, position in enumerate(number.ravel()):
        frame = render_frame(pixels[i], intensity[i], center[i], effects)
        if effects.poisson:
            counts = np.random.default_rng([seed, _FRAME_STREAM, int(position)]).poisson(frame)
            frame = counts.astype(np.float64)
        frame[hot] = effects.hot_value
        frames[i] = np.minimum(frame, _LARGEST_COUNT) if effects.poisson else frame
    return frames.reshape(*number.shape, *effects.frame_shape)
