"""Chooses the parameters of disk detection on a sample of frames, by rules that can be stated.

* **Trench**: to two disk radii and two pixels: what is subtracted around a disk of few pixels would
  otherwise lie on its own edge.
* **Smallest spacing**: 1.5 disk radii, at least 2 pixels: disks may overlap by a quarter, and the slope
  of a bright disk's correlation does not count as another disk.
* **Edge**: one disk radius: a disk with its middle nearer to the edge is cut off and would be misplaced.
* **Noise**: frames of neighbouring positions differ in little but noise. The scatter of the difference of
  their correlations, against the local intensity, gives a constant (the detector's) and a gain (counting).
  The half of the pairs that is most alike counts; if even they show different crystals, pixels are
  compared with those beside them instead. Where that is no line it is raised until it covers nine tenths of
  what was measured. A camera's pedestal, which does not count, is looked for; it is taken to be the same all
  over the scan.
* **Threshold**: a peak must exceed so many standard deviations of that noise that in a frame without
  disks the chosen number of false peaks is found. For a smooth Gaussian field the number of maxima
  above z is known (Adler 1981, *The Geometry of Random Fields*, §6.2).
* **Weakest peak**: besides, 2e-4 of the frame's strongest peak, for frames without noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter, uniform_filter
from scipy.optimize import brentq, nnls

from diffractory.scan.detection.disk_detection import Correlator, DiskKernel, find_maxima, noise_kernel
from diffractory.scan.detection.ring_background import ring_background
from diffractory.specs import DetectionSpec

#: False peaks a frame that are accepted by default.
FALSE_PEAKS: Final = 0.05
#: Outer radius, in disk radii, of the kernel that noise is measured with, and what is added to it, in pixels,
#: for the one that disks are found with.
NARROW_TRENCH: Final = 2.0
_TRENCH_IN_PIXELS: Final = 2.0
_SPACING_IN_RADII: Final = 1.5
_MIN_SPACING: Final = 2.0
_MIN_RELATIVE: Final = 2e-4
#: Bins of local intensity in which noise is measured, and the share of pixels, from the dimmest, they
#: cover: the brightest ones belong to disks, which do differ between neighbours.
_NOISE_BINS: Final = 24
_NOISE_SHARE: Final = 0.9
#: Less than this share of the largest value is rounding.
_ROUNDING: Final = 1e-9
#: Pairs of frames whose correlations differ by so many times the variance that their pixels' noise
#: would give show different crystals; a camera's smear alone stays below.
_UNLIKE: Final = 4.0
#: Rounds and width of clipping differences that are not noise.
_CLIPS, _CLIP_SIGMA = 5, 4.0
#: If the line is below the noise by this factor in a tenth of the bins, it is raised.
_POOR_FIT: Final = 1.5
#: Pedestals that are tried, and the share of what is left over that one must leave at most.
_PEDESTALS: Final = 20
_CLEARLY: Final = 0.6
#: Largest number of pixels of a frame that are looked at.
_PIXELS: Final = 16_384


@dataclass(frozen=True, eq=False)
class NoiseModel:
    """Variance of the correlation by noise: ``variance + gain * max(local - pedestal, 0)``.

    Parameters
    ----------
    variance, gain, pedestal : float
    local : ndarray of shape (n,)
        Local intensity of each bin: frame correlated with the squared kernel.
    measured : ndarray of shape (n,)
        Variance measured in each bin.
    """

    variance: float
    gain: float
    local: NDArray[np.float64]
    measured: NDArray[np.float64]
    pedestal: float = 0.0

    def at(self, local: ArrayLike) -> NDArray[np.float64]:
        """Return the variance at local intensities."""
        counted = np.maximum(np.asarray(local, dtype=np.float64) - self.pedestal, 0.0)
        return np.asarray(self.variance + self.gain * counted)

    def scaled(self, factor: float) -> NoiseModel:
        """Return the noise of a correlation with a kernel whose squares sum to so many times as much."""
        return NoiseModel(
            self.variance * factor, self.gain, self.local * factor, self.measured * factor,
            self.pedestal * factor,
        )  # fmt: skip


def measure_noise(
    first: NDArray[np.generic], second: NDArray[np.generic], kernel: DiskKernel, spec: DetectionSpec
) -> NoiseModel:
    """Measure the noise of the correlation.

    From pairs of frames that differ in little else; where there are none, or they show different
    grains all over the scan, from how single pixels differ from those beside them.

    Parameters
    ----------
    first, second : ndarray of shape (n, rows, columns)
        Frames of neighbouring positions; ``second`` may be empty.
    kernel : DiskKernel
    spec : DetectionSpec

    Returns
    -------
    NoiseModel
    """
    alone = _noise_of_pixels(first, kernel, spec)
    if not len(second):
        return alone
    correlate = Correlator(kernel, spec)
    local_part = Correlator(DiskKernel(noise_kernel(kernel, spec), kernel.radius), DetectionSpec())
    edge = min(math.ceil(kernel.radius) + 1, min(kernel.values.shape) // 4)
    stride = max(1, math.isqrt(kernel.values.size // _PIXELS))
    inner = (slice(edge, -edge, stride), slice(edge, -edge, stride))
    difference, local = [], []
    for one, other in zip(first, second, strict=True):
        difference.append((correlate.signed(one) - correlate.signed(other))[inner].ravel())
        both = 0.5 * (np.asarray(one, np.float64) + np.asarray(other, np.float64))
        local.append(np.maximum(local_part.signed(both)[inner].ravel(), 0.0))
    # The half of the pairs that is most alike, in relation to what counting would make of them.
    unlike = [
        float(np.abs(d).mean() / max(np.sqrt(m).mean(), 1e-300))
        for d, m in zip(difference, local, strict=True)
    ]
    alike = np.argsort(unlike, kind="stable")[: -(-len(unlike) // 2)]
    noise = _fit_noise(
        np.concatenate([difference[i] for i in alike]), np.concatenate([local[i] for i in alike])
    )
    typical = float(np.median(noise.local)) if noise.local.size else 0.0
    if alone.at(typical) > 0.0 and noise.at(typical) > _UNLIKE * alone.at(typical):
        return alone
    return noise


def _noise_of_pixels(frames: NDArray[np.generic], kernel: DiskKernel, spec: DetectionSpec) -> NoiseModel:
    """Measure the noise of single pixels, and take it to be independent from pixel to pixel."""
    residual, level = [], []
    stride = max(1, kernel.values.size // _PIXELS)
    for frame in frames:
        pixels = np.asarray(frame, dtype=np.float64)
        beside = 0.5 * (pixels[1:-1, :-2] + pixels[1:-1, 2:])
        around = uniform_filter(pixels, 5)[1:-1, 1:-1]
        residual.append((pixels[1:-1, 1:-1] - beside).ravel()[::stride])
        level.append(around.ravel()[::stride])
    # Of three independent pixels, two of them by half: 1.5 times the variance of one; a pair's is 2.
    pixel = _fit_noise(np.concatenate(residual) * math.sqrt(2.0 / 1.5), np.concatenate(level))
    return pixel.scaled(float(noise_kernel(kernel, spec).sum()))


def _fit_noise(difference: NDArray[np.float64], local: NDArray[np.float64]) -> NoiseModel:
    # Where no electron came there is no noise either, but the rounding of transforms.
    hit = local > _ROUNDING * local.max(initial=0.0)
    if hit.sum() < _NOISE_BINS:
        return NoiseModel(0.0, 0.0, np.empty(0), np.empty(0))
    difference, local = difference[hit], local[hit]
    edges = np.quantile(local, np.linspace(0.0, _NOISE_SHARE, _NOISE_BINS + 1))
    bins = np.clip(np.searchsorted(edges, local, side="right") - 1, 0, _NOISE_BINS)
    middle, variance = [], []
    for index in range(_NOISE_BINS):
        chosen = bins == index
        if chosen.sum() < 30:
            continue
        middle.append(float(local[chosen].mean()))
        variance.append(_scatter(difference[chosen]) ** 2 / 2.0)  # of a difference of two
    x, v = np.array(middle), np.array(variance)
    seen = v > _ROUNDING * v.max(initial=0.0)
    if not seen.any():
        return NoiseModel(0.0, 0.0, x, v)
    constant, gain, residual = _fit_line(x[seen], v[seen])
    pedestal = 0.0
    # A camera may add a pedestal, no more than the dimmest pixels hold, if the line is clearly better for it.
    several = seen.sum() >= _NOISE_BINS // 2
    for tried in np.linspace(0.0, float(x[0]), _PEDESTALS + 1)[1:] if several else ():
        other = _fit_line(np.maximum(x[seen] - tried, 0.0), v[seen])
        if other[2] < (residual if pedestal else _CLEARLY * residual):
            (constant, gain, residual), pedestal = other, float(tried)
    if pedestal:
        # It may be lower elsewhere: what lies below it is no less noisy than the quietest that was seen.
        constant = max(constant, float(v[seen].min()))
    line = constant + gain * np.maximum(x[seen] - pedestal, 0.0)
    # Where a line does not describe the noise (a camera's dark corners), nearly the noisiest bins decide.
    short = float(np.quantile(v[seen] / np.maximum(line, 1e-300), 0.9))
    if short > _POOR_FIT:
        constant, gain = constant * short, gain * short
    return NoiseModel(constant, gain, x, v, pedestal)


def _fit_line(x: NDArray[np.float64], v: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return constant and gain, neither below 0, and what they leave over, each variance by its own size."""
    equations = np.stack([np.ones(len(x)), x], axis=1) / v[:, None]
    scale = np.maximum(np.abs(equations).max(axis=0), 1e-300)
    solution, residual = nnls(equations / scale, np.ones(len(x)))
    constant, gain = solution / scale
    return float(constant), float(gain), float(residual)


def _scatter(values: NDArray[np.float64]) -> float:
    """Return the standard deviation about 0, without the few that differ for another reason."""
    low, high = np.quantile(values, [0.1587, 0.8413])
    # Where frames hold few electrons most differences are exactly 0: then there is no range to start from.
    deviation, whole = 0.5 * float(high - low), float(np.sqrt((values**2).mean()))
    if deviation < _ROUNDING * whole:
        deviation = whole
    for _ in range(_CLIPS):
        kept = values[np.abs(values) <= _CLIP_SIGMA * deviation]
        deviation = float(np.sqrt((kept**2).mean())) if kept.size else 0.0
    return deviation


def significance_for(false_peaks: float, kernel: DiskKernel, spec: DetectionSpec) -> float:
    """Return how many standard deviations noise alone exceeds in so many places of a frame.

    Parameters
    ----------
    false_peaks : float
        Expected number of maxima of noise above the threshold in a frame.
    kernel : DiskKernel
    spec : DetectionSpec
        Holds the smoothing.

    Returns
    -------
    float
        At least 1.
    """
    values = kernel.values
    if spec.sigma > 0.0:
        values = gaussian_filter(values, spec.sigma, mode="wrap")
    slopes = [np.roll(values, -1, axis=axis) - values for axis in (0, 1)]
    second_moment = math.sqrt(math.prod(float((s**2).sum()) for s in slopes)) / float((values**2).sum())
    places = float(values.size) * second_moment * (2.0 * math.pi) ** -1.5

    def excess(z: float) -> float:
        return float(places * z * math.exp(-0.5 * z * z) - false_peaks)

    return 1.0 if excess(1.0) <= 0.0 else float(brentq(excess, 1.0, 40.0))


def choose_trench(radius: float) -> float:
    """Return the outer radius of the kernel, in disk radii, for disks of a radius in pixels."""
    return round(NARROW_TRENCH + _TRENCH_IN_PIXELS / radius, 2)


def choose_parameters(
    first: NDArray[np.generic],
    second: NDArray[np.generic],
    kernel: DiskKernel,
    chosen: dict[str, Any],
    false_peaks: float = FALSE_PEAKS,
    narrow: DiskKernel | None = None,
) -> tuple[DetectionSpec, NoiseModel]:
    """Choose the parameters of disk detection on a sample of frames.

    Parameters
    ----------
    first, second : ndarray of shape (n, rows, columns)
        Frames of neighbouring positions, bad ones left out.
    kernel : DiskKernel
    chosen : dict
        Fields of DetectionSpec that the user has set; they stay.
    false_peaks : float
        Accepted number of false peaks a frame.
    narrow : DiskKernel, optional
        Of narrower trench, to measure noise with: where frames differ, fewer pixels feel the disks.

    Returns
    -------
    spec : DetectionSpec
    noise : NoiseModel
        What the threshold rests on.
    """
    rules: dict[str, Any] = {
        "min_spacing": round(max(_SPACING_IN_RADII * kernel.radius, _MIN_SPACING), 2),
        "edge_boundary": max(1, round(kernel.radius)),
        "min_relative_intensity": _MIN_RELATIVE,
    }
    spec = DetectionSpec(**{**rules, **chosen})
    measuring = kernel if narrow is None else narrow
    factor = float(noise_kernel(kernel, spec).sum()) / float(noise_kernel(measuring, spec).sum())
    noise = measure_noise(first, second, measuring, spec).scaled(factor)
    found: dict[str, Any] = {
        "noise_variance": noise.variance, "noise_gain": noise.gain, "noise_pedestal": noise.pedestal,
    }  # fmt: skip
    if noise.variance + noise.gain > 0.0:
        found["min_significance"] = round(significance_for(false_peaks, kernel, spec), 2)
    return spec.model_copy(update={**found, **chosen}), noise


def significance_of_maxima(
    frames: NDArray[np.generic], kernel: DiskKernel, spec: DetectionSpec
) -> NDArray[np.float64]:
    """Return how far the maxima of frames stand out of the noise, those below the threshold too.

    Parameters
    ----------
    frames : ndarray of shape (n, rows, columns)
    kernel : DiskKernel
    spec : DetectionSpec

    Returns
    -------
    ndarray of shape (n_maxima,)
        In standard deviations; empty where the spec asks for no significance. Maxima where no electron
        came, and so no noise, are the rounding of transforms, and left out.
    """
    if spec.min_significance <= 0.0:
        return np.empty(0)
    correlate = Correlator(kernel, spec)
    everything = spec.model_copy(
        update={
            "min_significance": 0.0,
            "min_relative_intensity": 0.0,
            "subpixel": "pixel",
            "max_peaks": 10_000,
        }
    )
    found = [np.empty(0)]
    for frame in frames:
        correlation, deviation = correlate.with_noise(frame)
        assert deviation is not None
        maxima = find_maxima(correlation, everything)
        rows, columns = maxima["x"].astype(np.int64), maxima["y"].astype(np.int64)
        noise = deviation[rows, columns]
        noisy = noise > _ROUNDING * deviation.max()
        height = maxima["intensity"] - ring_background(correlation.values, rows, columns, noise)
        found.append(height[noisy] / noise[noisy])
    return np.concatenate(found)
