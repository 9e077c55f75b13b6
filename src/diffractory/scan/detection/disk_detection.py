"""Finds disks in diffraction frames: py4DSTEM's correlation method on one block of frames.

The method, its filters and its numbers are py4DSTEM's (``find_Bragg_disks``), and tests hold the two
equal; py4DSTEM itself is not imported, which would cost every worker seconds. What costs is done
otherwise: the kernel is transformed once a block, frames are real and so are their transforms halved,
and all peaks of a frame are refined by one matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter

from diffractory.errors import ScanError
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.detection.clipped_beam import centre_clipped_beam
from diffractory.scan.detection.ring_background import ring_background
from diffractory.specs import DetectionSpec

#: Fields of py4DSTEM's maxima.
_MAXIMA: Final = np.dtype([("x", np.float64), ("y", np.float64), ("intensity", np.float64)])
#: Half width in pixels of the square around a peak that Fourier upsampling looks at.
_HALF_SQUARE: Final = 0.75
#: The correlation is band-limited: between so many Chebyshev nodes a direction a polynomial gives its
#: values in the square to 1e-7 of its height, whatever the upsampling.
_NODES: Final = 11
#: Peaks that are refined by one matrix product; bounds its memory.
_PEAKS_AT_ONCE: Final = 64


@dataclass(frozen=True, eq=False)
class DiskKernel:
    """What frames are correlated with.

    Parameters
    ----------
    values : ndarray of shape (rows, columns)
        Kernel with its middle at pixel (0, 0) and wrapped around, as py4DSTEM's probes give it.
    radius : float
        Radius of a disk in pixels.
    """

    values: NDArray[np.float64]
    radius: float


@dataclass(frozen=True, eq=False)
class Correlation:
    """Correlation of one frame with a kernel.

    Parameters
    ----------
    spectrum : ndarray of shape (rows, columns // 2 + 1), complex
        Half of its Fourier transform, before any filter.
    values : ndarray of shape (rows, columns)
        Smoothed; what is below 0 was set to 0 first, as in py4DSTEM.
    """

    spectrum: NDArray[np.complex128]
    values: NDArray[np.float64]


class Correlator:
    """Correlates frames with a kernel that is transformed once.

    Parameters
    ----------
    kernel : DiskKernel
    spec : DetectionSpec
    """

    def __init__(self, kernel: DiskKernel, spec: DetectionSpec) -> None:
        self._shape = kernel.values.shape
        self._kernel = np.conj(fft.rfft2(kernel.values))
        self._spec = spec
        self._squared: NDArray[np.complex128] | None = None
        if spec.min_significance > 0.0:
            self._squared = np.conj(fft.rfft2(noise_kernel(kernel, spec)))

    def __call__(self, frame: ArrayLike) -> Correlation:
        """Correlate one frame of shape (rows, columns)."""
        return self._correlation(fft.rfft2(self._pixels(frame)))

    def signed(self, frame: ArrayLike) -> NDArray[np.float64]:
        """Correlate one frame and keep what is below 0: noise has two sides."""
        values = fft.irfft2(self._spectrum(fft.rfft2(self._pixels(frame))), s=self._shape)
        smooth: NDArray[np.float64] = (
            gaussian_filter(values, self._spec.sigma) if self._spec.sigma else values
        )
        return smooth

    def with_noise(self, frame: ArrayLike) -> tuple[Correlation, NDArray[np.float64] | None]:
        """Correlate one frame, and say what standard deviation noise gives the correlation there.

        Returns
        -------
        correlation : Correlation
        deviation : ndarray of shape (rows, columns) or None
            None where the spec asks for no significance.
        """
        transform = fft.rfft2(self._pixels(frame))
        correlation = self._correlation(transform)
        if self._squared is None:
            return correlation, None
        local = fft.irfft2(transform * self._squared, s=self._shape)
        counted = np.maximum(local - self._spec.noise_pedestal, 0.0)
        variance = self._spec.noise_variance + self._spec.noise_gain * counted
        return correlation, np.sqrt(variance)

    def _pixels(self, frame: ArrayLike) -> NDArray[np.float64]:
        pixels = np.asarray(frame, dtype=np.float64)
        if pixels.shape != self._shape:
            raise ScanError(f"a frame of shape {pixels.shape} and a kernel of shape {self._shape}")
        return pixels

    def _spectrum(self, transform: NDArray[np.complex128]) -> NDArray[np.complex128]:
        spectrum: NDArray[np.complex128] = transform * self._kernel
        if self._spec.corr_power != 1.0:
            size = np.abs(spectrum)
            # 0 ** 0 is 1 in a phase correlation, but the phase of nothing is nothing.
            spectrum *= np.where(size > 0.0, size, 1.0) ** (self._spec.corr_power - 1.0)
        return spectrum

    def _correlation(self, transform: NDArray[np.complex128]) -> Correlation:
        spectrum = self._spectrum(transform)
        values = np.maximum(fft.irfft2(spectrum, s=self._shape), 0.0)
        if self._spec.sigma > 0.0:
            values = gaussian_filter(values, self._spec.sigma)
        return Correlation(spectrum, values)


def noise_kernel(kernel: DiskKernel, spec: DetectionSpec) -> NDArray[np.float64]:
    """Return the square of what a frame is correlated with in effect, smoothing included.

    The frame correlated with it is the variance of the correlation where the frame holds counts.
    """
    values = kernel.values
    if spec.sigma > 0.0:
        values = gaussian_filter(values, spec.sigma, mode="wrap")
    squared: NDArray[np.float64] = values**2
    return squared


def detect_block(frames: NDArray[np.generic], kernel: DiskKernel, spec: DetectionSpec) -> PeakTable:
    """Find the disks of one block of frames.

    Parameters
    ----------
    frames : ndarray of shape (n, rows, columns)
        Finite numbers.
    kernel : DiskKernel
        Of the frames' shape.
    spec : DetectionSpec

    Returns
    -------
    PeakTable
        Of n patterns, in **detector pixels**: row and column of each disk's middle, which are
        py4DSTEM's qx and qy, strongest first; intensities on the scale of the correlation. Which is
        the direct beam is not known here: ``direct`` is −1 everywhere.

    Raises
    ------
    ScanError
        If frames and kernel differ in shape.
    """
    if frames.ndim != 3:
        raise ScanError(f"a block of frames has three dimensions, got {frames.shape}")
    correlate = Correlator(kernel, spec)
    positions, intensities = [], []
    for frame in frames:
        correlation, deviation = correlate.with_noise(frame)
        maxima = centre_clipped_beam(frame, find_maxima(correlation, spec, deviation), kernel.radius)
        positions.append(np.stack([maxima["x"], maxima["y"]], axis=1))
        intensities.append(maxima["intensity"].copy())
    return PeakTable.from_lists(positions, intensities, [-1] * len(frames))


def find_maxima(
    correlation: Correlation, spec: DetectionSpec, deviation: NDArray[np.float64] | None = None
) -> NDArray[np.void]:
    """Return the peaks of one correlation that pass the filters, refined.

    Parameters
    ----------
    correlation : Correlation
    spec : DetectionSpec
    deviation : ndarray of shape (rows, columns), optional
        Standard deviation of the correlation by noise, for ``spec.min_significance``.

    Returns
    -------
    ndarray of shape (n,)
        Fields x (row), y (column), intensity; strongest first.
    """
    values = correlation.values
    rows, columns = local_maxima(values, spec.edge_boundary)
    if deviation is not None:
        clear = values[rows, columns] >= spec.min_significance * deviation[rows, columns]
        rows, columns = rows[clear], columns[clear]
        noise = deviation[rows, columns]
        height = values[rows, columns] - ring_background(values, rows, columns, noise)
        clear = height >= spec.min_significance * noise
        rows, columns = rows[clear], columns[clear]
    # py4DSTEM sorts by intensity and breaks ties by position.
    order = np.lexsort((columns, rows, values[rows, columns]))[::-1]
    maxima = np.zeros(len(order), dtype=_MAXIMA)
    maxima["x"], maxima["y"] = rows[order], columns[order]
    maxima["intensity"] = values[rows, columns][order]
    maxima = maxima[passing(maxima, spec)]
    if spec.subpixel == "pixel" or not len(maxima):
        return maxima
    _refine_by_parabola(maxima, values)
    if spec.subpixel == "multicorr":
        for start in range(0, len(maxima), _PEAKS_AT_ONCE):
            _refine_by_upsampling(
                maxima[start : start + _PEAKS_AT_ONCE],
                correlation.spectrum,
                values.shape,
                spec.upsample_factor,
            )
        # py4DSTEM sorts again by the refined intensity here, and here only.
        maxima = maxima[np.lexsort((maxima["y"], maxima["x"], maxima["intensity"]))[::-1]]
    return maxima


def local_maxima(values: NDArray[np.float64], edge: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return row and column of the pixels above all eight neighbours, ties broken as in py4DSTEM.

    Parameters
    ----------
    values : ndarray of shape (rows, columns)
    edge : int
        Pixels nearer to the frame's edge are no maxima, at least 1.
    """
    inner = values[edge : values.shape[0] - edge, edge : values.shape[1] - edge]
    above = inner > 0.0
    for down, right in ((1, 0), (0, 1), (1, 1), (-1, 1)):
        # An equal neighbour below or to the right is allowed, one above or to the left is not.
        above &= inner >= _neighbour(values, edge, down, right)
        above &= inner > _neighbour(values, edge, -down, -right)
    rows, columns = np.nonzero(above)
    return rows + edge, columns + edge


def passing(maxima: NDArray[np.void], spec: DetectionSpec) -> NDArray[np.int64]:
    """Return which maxima are bright enough, no brighter one being too near, and among the most wanted.

    Parameters
    ----------
    maxima : ndarray of shape (n,)
        Fields x, y, intensity; strongest first.
    spec : DetectionSpec
    """
    bright = maxima["intensity"] >= spec.min_absolute_intensity
    if spec.min_relative_intensity > 0.0 and bright.any():
        bright &= maxima["intensity"] / maxima["intensity"][0] >= spec.min_relative_intensity
    left = np.flatnonzero(bright)
    if spec.min_spacing <= 0.0:
        return left[: spec.max_peaks]
    kept: list[np.int64] = []
    x, y = maxima["x"], maxima["y"]
    while len(left) and len(kept) < spec.max_peaks:
        first, left = left[0], left[1:]
        kept.append(first)
        far = (x[left] - x[first]) ** 2 + (y[left] - y[first]) ** 2 >= spec.min_spacing**2
        left = left[far]
    return np.array(kept, dtype=np.int64)


def _neighbour(values: NDArray[np.float64], edge: int, down: int, right: int) -> NDArray[np.float64]:
    rows, columns = values.shape
    return values[edge + down : rows - edge + down, edge + right : columns - edge + right]


def _vertex(
    before: NDArray[np.float64], middle: NDArray[np.float64], after: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return where the parabola through three neighbours has its top, from the middle one."""
    bend = 4.0 * middle - 2.0 * after - 2.0 * before
    return np.divide(after - before, bend, out=np.zeros_like(bend), where=bend != 0.0)


def _refine_by_parabola(maxima: NDArray[np.void], values: NDArray[np.float64]) -> None:
    row, column = maxima["x"].astype(np.int64), maxima["y"].astype(np.int64)
    here = values[row, column]
    x = row + _vertex(values[row - 1, column], here, values[row + 1, column])
    y = column + _vertex(values[row, column - 1], here, values[row, column + 1])
    maxima["x"], maxima["y"] = x, y
    x0, y0 = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    x1, y1 = np.ceil(x).astype(np.int64), np.ceil(y).astype(np.int64)
    dx, dy = x - x0, y - y0
    maxima["intensity"] = (
        (1.0 - dx) * ((1.0 - dy) * values[x0, y0] + dy * values[x0, y1])
        + dx * ((1.0 - dy) * values[x1, y0] + dy * values[x1, y1])
    )  # fmt: skip


def _refine_by_upsampling(
    maxima: NDArray[np.void], spectrum: NDArray[np.complex128], shape: tuple[int, ...], factor: int
) -> None:
    """Refine peaks on a grid ``factor`` times as fine, then by a parabola, as py4DSTEM's multicorr does."""
    n = len(maxima)
    start = np.stack([np.round(maxima[axis] * 2.0) / 2.0 for axis in ("x", "y")], axis=1)
    start = np.round(start * factor) / factor
    samples = int(np.ceil(1.5 * factor))
    middle = np.fix(samples / 2.0)
    nodes, to_grid = _chebyshev((np.arange(samples) - middle) / factor)
    half = _values_around(spectrum, shape, start, nodes)
    fine = to_grid @ half @ to_grid.T
    best = fine.reshape(n, -1).argmax(axis=1)
    row, column = best // samples, best % samples
    # At the edge of the square py4DSTEM has no parabola.
    inside = (row > 0) & (row < samples - 1) & (column > 0) & (column < samples - 1)
    r, c = np.clip(row, 1, samples - 2), np.clip(column, 1, samples - 2)
    each = np.arange(n)
    dx = _vertex(fine[each, r - 1, c], fine[each, r, c], fine[each, r + 1, c])
    dy = _vertex(fine[each, r, c - 1], fine[each, r, c], fine[each, r, c + 1])
    maxima["x"] = start[:, 0] + (row - middle + np.where(inside, dx, 0.0)) / factor
    maxima["y"] = start[:, 1] + (column - middle + np.where(inside, dy, 0.0)) / factor


def _chebyshev(grid: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Chebyshev nodes over a square's side, and the matrix from values there to the grid."""
    reach = max(_HALF_SQUARE, float(np.abs(grid).max()))
    nodes = np.cos(np.pi * (np.arange(_NODES) + 0.5) / _NODES)
    # Tk(x) = cos(k arccos x)
    basis, on_grid = (
        np.cos(np.arange(_NODES) * np.arccos(np.clip(x, -1.0, 1.0))[:, None]) for x in (nodes, grid / reach)
    )
    return nodes * reach, on_grid @ np.linalg.inv(basis)


def _values_around(
    spectrum: NDArray[np.complex128],
    shape: tuple[int, ...],
    start: NDArray[np.float64],
    nodes: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the unfiltered correlation, times its number of pixels, on a square of nodes around points.

    The sum over half of the columns' frequencies, doubled, is the real part of the whole sum; the
    highest frequency of an even number of rows stands for both signs.
    """
    rows, columns = shape
    k_row, k_column = fft.fftfreq(rows), fft.rfftfreq(columns)
    if columns % 2 == 0:
        k_column[-1] *= -1.0  # as a full transform has it
    x = start[:, 0, None] + nodes
    y = start[:, 1, None] + nodes
    wave_x = np.exp(2j * np.pi * x[..., None] * k_row)
    if rows % 2 == 0:
        wave_x[..., rows // 2] = wave_x[..., rows // 2].real
    weight = np.full(len(k_column), 2.0)
    weight[0] = 1.0
    if columns % 2 == 0:
        weight[-1] = 1.0
    wave_y = np.exp(2j * np.pi * y[..., None] * k_column) * weight
    partial = (wave_x.reshape(-1, rows) @ spectrum).reshape(len(start), len(nodes), -1)
    values: NDArray[np.float64] = (partial @ wave_y.transpose(0, 2, 1)).real
    if rows % 2 == 0 and columns % 2 == 0:
        # The highest frequency of both: cos(πx) cos(πy) is in the sum, its full term is cos(π(x + y)).
        corner = spectrum[rows // 2, -1].real
        values -= corner * np.sin(np.pi * x)[:, :, None] * np.sin(np.pi * y)[:, None, :]
    return values
