"""Figures of a scan before anything is known of its crystals: what `diffractory inspect` shows."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

from diffractory.report.scale_bar import draw_scale_bar
from diffractory.report.style import INK, UNLABELLED_COLOUR, figure_of, new_figure, title
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.inspection.bragg_images import bragg_vector_map, peak_count_map
from diffractory.scan.inspection.frame_checks import GOOD
from diffractory.scan.inspection.virtual_images import DirectBeam, ScanImages

#: Height of a panel in inches.
_HEIGHT: Final = 4.0
_RING: Final = "#56B4E9"
#: Decades that a pattern is drawn over.
_DECADES: Final = 4.0


def figure_of_frames(
    images: ScanImages,
    beam: DirectBeam,
    pixel_size: float | None = None,
    step: float | None = None,
    *,
    beam_is_seen: bool = True,
) -> Figure:
    """Draw the mean pattern on a logarithmic scale beside the virtual dark field.

    Parameters
    ----------
    images : ScanImages
        Complete.
    beam : DirectBeam
        The dark field counts what lies outside the dashed ring around it.
    pixel_size : float, optional
        Å⁻¹ per detector pixel; pixels are shown where it is unknown.
    step : float, optional
        Å per position; positions are shown where it is unknown.
    beam_is_seen : bool, optional
        False where what was taken for the beam is none: no ring is drawn around it.
    """
    mean, dark = images.mean_pattern, images.dark
    left, right = _two_panels(mean.shape, dark.shape)
    _draw_image(
        left, mean, "magma", _log_norm(mean), "mean counts", pixel_size, "Å⁻¹", "detector columns", "rows"
    )
    title(left, f"Mean of {images.good:,} good frames")
    y, x = beam.center
    for radius, line in ((beam.radius, "-"), (beam.dark_from, "--")) if beam_is_seen else ():
        left.add_patch(Circle((x, y), radius, fill=False, color=_RING, linewidth=1.0, linestyle=line))
    left.set_xlim(-0.5, mean.shape[1] - 0.5)
    left.set_ylim(mean.shape[0] - 0.5, -0.5)
    shown = np.where(images.status == GOOD, dark, np.nan)
    nm = None if step is None else step / 10.0
    counted = "counts outside the dashed ring" if beam_is_seen else "counts away from the brightest place"
    _draw_image(right, shown, "gray", _norm(shown), counted, nm, "nm", "scan x", "scan y")
    right.set_facecolor(_BAD)
    bad = int((images.status != GOOD).sum())
    title(right, "Virtual dark field" + (f" ({bad:,} bad frames orange)" if bad else ""))
    return figure_of(left)


#: Colour of positions without a usable frame.
_BAD: Final = "#D55E00"


def figure_of_peaks(scan: BraggScan) -> Figure:
    """Draw all Bragg peaks of a scan in one pattern beside the number of peaks at each position.

    Parameters
    ----------
    scan : BraggScan

    Returns
    -------
    matplotlib.figure.Figure
    """
    histogram, reach = bragg_vector_map(scan)
    counts = peak_count_map(scan)
    left, right = _two_panels(histogram.shape, counts.shape)
    pixel = 2.0 * reach / len(histogram)
    _draw_image(left, histogram, "magma", _log_norm(histogram), "summed intensity", pixel, "Å⁻¹", "", "")
    title(left, f"Bragg vector map of {len(scan.peaks.intensity):,} peaks")
    shown = np.where(counts > 0, counts.astype(float), np.nan)
    nm = None if scan.step is None else scan.step / 10.0
    _draw_image(right, shown, "viridis", _norm(shown), "peaks", nm, "nm", "scan x", "scan y")
    right.set_facecolor(UNLABELLED_COLOUR)
    empty = int((counts == 0).sum())
    title(right, "Peaks a position" + (f" (grey: {empty:,} without)" if empty else ""))
    return figure_of(left)


def _two_panels(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[Axes, Axes]:
    widths = [_HEIGHT * float(np.clip(shape[1] / shape[0], 0.5, 1.8)) + 0.9 for shape in (first, second)]
    figure = new_figure(sum(widths) + 0.6, _HEIGHT + 0.7)
    left, right = figure.subplots(1, 2, width_ratios=widths)
    return left, right


def _draw_image(
    axes: Axes, image: NDArray[Any], cmap: str, norm: Normalize, label: str,
    pixel: float | None, unit: str, x_label: str, y_label: str,
) -> None:  # fmt: skip
    """Draw an image with its colour bar, and a scale bar or, where sizes are unknown, numbered axes."""
    axes.set_facecolor("black")
    drawn = axes.imshow(image, cmap=cmap, norm=norm, origin="upper", interpolation="nearest")
    bar = figure_of(axes).colorbar(drawn, ax=axes, shrink=0.9, pad=0.02)
    bar.set_label(label, color=INK, fontsize=9)
    bar.ax.tick_params(which="both", colors=INK, labelsize=8)
    axes.set_anchor("N")
    axes.tick_params(colors=INK, labelsize=8)
    if pixel is not None:
        axes.set_xticks([])
        axes.set_yticks([])
        draw_scale_bar(axes, pixel, unit, (image.shape[0], image.shape[1]))
        return
    axes.set_xlabel(f"{x_label} (uncalibrated)", fontsize=9, color=INK)
    axes.set_ylabel(y_label, fontsize=9, color=INK)


def _log_norm(image: NDArray[np.float64]) -> Normalize:
    """Return a logarithmic scale that spans what is there, and no more than a few decades."""
    positive = image[image > 0.0]
    if not positive.size or positive.min() == positive.max():
        return Normalize(0.0, float(image.max()) or 1.0)
    highest = float(np.percentile(positive, 99.9))
    lowest = max(float(np.percentile(positive, 1.0)), highest / 10.0**_DECADES)
    return (
        LogNorm(lowest, highest, clip=True)
        if lowest < highest
        else LogNorm(positive.min(), positive.max(), clip=True)
    )


def _norm(image: NDArray[np.float64]) -> Normalize:
    """Return a linear scale of nearly all values, never empty."""
    known = image[np.isfinite(image)]
    if not known.size:
        return Normalize(0.0, 1.0)
    low, high = np.percentile(known, [0.5, 99.5])
    return Normalize(float(low), float(high)) if high > low else Normalize(float(low) - 0.5, float(low) + 0.5)
