"""Bad frames and bad pixels: found, flagged and, for pixels, filled in, so that the rest proceeds."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from diffractory.errors import ScanError

#: What became of a position's frame; the code is the index.
FRAME_STATUS: Final = (
    "good", "empty", "not finite", "saturated", "no peaks", "no direct beam",
)  # fmt: skip
GOOD, EMPTY, NOT_FINITE, SATURATED, NO_PEAKS, NO_DIRECT_BEAM = range(len(FRAME_STATUS))
#: Of frames in which nothing was looked for.
UNUSABLE: Final = (EMPTY, NOT_FINITE, SATURATED)

#: Above this share of pixels at the detector's end a frame is saturated; bright beams alone stay below it.
SATURATED_SHARE: Final = 0.05
#: A hot pixel stands out of its second brightest neighbour, on average over frames, by this factor: the
#: sharpest disk does not, since a probe covers more than one pixel …
_HOT_FACTOR: Final = 4.0
#: … and by this many standard deviations of counting.
_HOT_SIGMA: Final = 8.0
_NEIGHBOURS: Final = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx)


def check_frames(
    frames: NDArray[np.generic], bad_pixels: NDArray[np.bool_], saturation: float | None
) -> NDArray[np.int8]:
    """Return the status of each frame, before anything is looked for in it.

    Parameters
    ----------
    frames : ndarray of shape (n, rows, columns)
    bad_pixels : ndarray of shape (rows, columns), bool
        Left out of the judgement.
    saturation : float or None
        Value at which the detector's pixels end; None = it has no end.

    Returns
    -------
    ndarray of shape (n,), int8
        GOOD, EMPTY (all pixels alike), NOT_FINITE or SATURATED.
    """
    pixels: NDArray[Any] = frames.reshape(len(frames), -1)
    if bad_pixels.any():
        pixels = pixels[:, ~bad_pixels.ravel()]
    status = np.full(len(frames), GOOD, dtype=np.int8)
    if saturation is not None:
        status[(pixels >= saturation).mean(axis=1) > SATURATED_SHARE] = SATURATED
    status[pixels.min(axis=1) == pixels.max(axis=1)] = EMPTY
    if saturation is not None:
        status[pixels.min(axis=1) >= saturation] = SATURATED
    if frames.dtype.kind == "f":
        status[~np.isfinite(pixels).all(axis=1)] = NOT_FINITE
    return status


def saturation_of(frames: NDArray[np.generic]) -> float | None:
    """Return where pixels of this type end: the largest integer, None for floating point."""
    return float(np.iinfo(frames.dtype.name).max) if frames.dtype.kind in "iu" else None


def find_bad_pixels(frames: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Find pixels that are hot, or not a number, in a whole sample of frames.

    Parameters
    ----------
    frames : ndarray of shape (n, rows, columns)
        Frames from all over the scan.

    Returns
    -------
    ndarray of shape (rows, columns), bool
        A pixel is hot if its mean exceeds that of its second brightest neighbour four times and
        by eight standard deviations, which is more than any disk's edge does.
    """
    values = np.asarray(frames, dtype=np.float64)
    dead = ~np.isfinite(values).any(axis=0)
    finite = np.isfinite(values)
    mean = np.where(finite, values, 0.0).sum(axis=0) / np.maximum(finite.sum(axis=0), 1)
    around = _second_neighbour(np.where(dead, 0.0, mean))
    # Counts are assumed where the scale is unknown: it only matters for frames with next to nothing in them.
    error = np.sqrt(np.maximum(around, 1.0 / len(values)) / len(values))
    hot = (mean > _HOT_FACTOR * around) & (mean - around > _HOT_SIGMA * error)
    found: NDArray[np.bool_] = hot | dead
    return found


def _second_neighbour(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the second brightest of the eight neighbours: the brightest may be hot too."""
    rows, columns = image.shape
    padded = np.pad(image, 1, constant_values=-np.inf)
    around = [padded[1 + dy : 1 + dy + rows, 1 + dx : 1 + dx + columns] for dy, dx in _NEIGHBOURS]
    second: NDArray[np.float64] = np.partition(np.stack(around), -2, axis=0)[-2]
    return second


def fill_bad_pixels(frames: NDArray[np.generic], bad_pixels: NDArray[np.bool_]) -> NDArray[np.generic]:
    """Return frames in which bad pixels hold the median of their good neighbours.

    Parameters
    ----------
    frames : ndarray of shape (n, rows, columns)
    bad_pixels : ndarray of shape (rows, columns), bool

    Returns
    -------
    ndarray of shape (n, rows, columns)
        The same array where no pixel is bad; else a copy, of the same type where that is one of integers, or
        float64.

    Raises
    ------
    ScanError
        If the mask has another shape.
    """
    if bad_pixels.shape != frames.shape[1:]:
        raise ScanError(f"a mask of {bad_pixels.shape} bad pixels for frames of {frames.shape[1:]}")
    if not bad_pixels.any():
        return frames
    filled = frames.astype(np.float64)
    for row, column in np.argwhere(bad_pixels):
        for reach in range(1, max(bad_pixels.shape)):
            window = (
                slice(max(row - reach, 0), row + reach + 1),
                slice(max(column - reach, 0), column + reach + 1),
            )
            good = ~bad_pixels[window]
            if good.any():
                filled[:, row, column] = np.median(filled[:, *window][:, good], axis=1)
                break
    # What is clipped is told by the type: integers stay integers.
    return np.rint(filled).astype(frames.dtype) if frames.dtype.kind in "iu" else filled
