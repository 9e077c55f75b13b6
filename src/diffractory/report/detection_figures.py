"""Figures of disk detection and calibration: each shows what one step rests on."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from diffractory.errors import ScanError
from diffractory.patterns.peak_table import PeakTable
from diffractory.report.frame_image import draw_frame
from diffractory.report.style import INK, UNLABELLED_COLOUR, frame, new_figure, patch, tidy, title
from diffractory.scan.detection.peak_calibration import centred
from diffractory.scan.detection.probe_template import align_frames, measure_disk
from diffractory.scan.detection.scan_calibration import CalibratedScan
from diffractory.scan.detection.setup import DetectionSetup
from diffractory.scan.inspection.frame_checks import FRAME_STATUS, GOOD

_BLUE: Final = "#0072B2"
_ORANGE: Final = "#D55E00"
#: Colour of each status of a frame but the first, in the order of FRAME_STATUS.
_STATUS_COLOURS: Final = ("#FFFFFF", "#999999", "#000000", "#D55E00", "#E69F00", "#CC79A7")
#: Example frames in one figure.
_EXAMPLES: Final = 6


def figure_of_template(setup: DetectionSetup) -> Figure:
    """Draw the mean of the sample with the disk's outline, the kernel, and its profile.

    Parameters
    ----------
    setup : DetectionSetup
    """
    figure = new_figure(10.4, 3.5)
    left, middle, right = figure.subplots(1, 3)
    mean = align_frames(setup.sample)
    draw_frame(left, mean)
    bad = np.argwhere(setup.detector.bad_pixels)
    if len(bad):
        left.plot(
            bad[:, 1], bad[:, 0], "x", color=_ORANGE, markersize=4, label=f"{len(bad)} bad pixels filled in"
        )
        left.legend(loc="lower left", fontsize=7, labelcolor=INK)
    if (beam := _disk_center(mean)) is not None:
        left.add_patch(Circle(beam[::-1], setup.template.radius, fill=False, color=_BLUE, linewidth=1.0))
    title(left, f"Mean of {len(setup.sample)} frames, aligned")
    half = int(np.ceil(1.3 * max(setup.spec.trench, 1.0) * setup.template.radius)) + 2
    kernel = _around_middle(setup.detector.kernel.values, half)
    largest = float(np.abs(kernel).max())
    extent = (-half - 0.5, half + 0.5, half + 0.5, -half - 0.5)
    middle.imshow(kernel, cmap="RdBu_r", vmin=-largest, vmax=largest, extent=extent)
    _plain(middle)
    title(middle, f"Kernel, disk radius {setup.template.radius:.2f} px")
    middle.set_xlabel(f"from: {setup.template.origin}", fontsize=8, color=INK)
    offsets = np.arange(-half, half + 1)
    right.plot(offsets, kernel[half], color=_BLUE, label="kernel")
    right.axhline(0.0, color=INK, linewidth=0.6)
    template = setup.template.image
    center = np.rint(setup.template.center).astype(int)
    columns = np.clip(center[1] + offsets, 0, template.shape[1] - 1)
    profile = template[np.clip(center[0], 0, template.shape[0] - 1), columns]
    right.plot(
        offsets, profile / max(profile.max(), 1e-300) * kernel.max(), color=_ORANGE, label="probe (scaled)"
    )
    right.legend(frameon=False, fontsize=8, labelcolor=INK, loc="upper right", bbox_to_anchor=(1.02, 1.0))
    right.set_xlim(-half, 1.6 * half)
    right.set_xlabel("distance (pixels)")
    tidy(right)
    title(right, "Profile")
    return figure


def _disk_center(mean: NDArray[np.float64]) -> tuple[float, float] | None:
    """Return row and column of the disk as it was measured for the template; None = none is seen."""
    try:
        _, row, column = measure_disk(mean)
    except ScanError:
        return None
    return row, column


def figure_of_disks(setup: DetectionSetup, found: PeakTable, n: int = _EXAMPLES) -> Figure:
    """Draw frames of the sample with the disks found in them.

    Parameters
    ----------
    setup : DetectionSetup
    found : PeakTable
        Disks of every frame of the sample, rows and columns in pixels.
    n : int
        Number of frames: those with most disks, fewest, and between.
    """
    order = np.argsort(found.counts, kind="stable")
    chosen = np.unique(order[np.linspace(0, len(order) - 1, min(n, len(order))).astype(int)])
    rows = -(-len(chosen) // 3)
    figure = new_figure(10.4, 3.5 * rows)
    axes = np.atleast_1d(np.asarray(figure.subplots(rows, 3), dtype=object)).ravel()
    for ax, index in zip(axes, chosen, strict=False):
        draw_frame(ax, setup.sample[index])
        positions, _ = found.pattern(int(index))
        for row, column in positions:
            ax.add_patch(
                Circle((column, row), setup.template.radius, fill=False, color=_ORANGE, linewidth=0.8)
            )
        y, x = setup.positions[index]
        title(ax, f"scan_y {y}, scan_x {x}: {len(positions)} disks")
    for ax in axes[len(chosen) :]:
        ax.set_visible(False)
    return figure


def figure_of_threshold(setup: DetectionSetup, significance: NDArray[np.float64]) -> Figure:
    """Draw the noise that was measured, and how far the maxima of the sample stand out of it.

    Parameters
    ----------
    setup : DetectionSetup
    significance : ndarray of shape (n,)
        Of all maxima of the sample, in standard deviations of the noise.
    """
    figure = new_figure(9.0, 3.6)
    left, right = figure.subplots(1, 2)
    noise, spec = setup.noise, setup.spec
    positive = (noise.local > 0.0) & (noise.measured > 0.0)
    if positive.any():
        left.loglog(
            noise.local[positive], noise.measured[positive], "o", color=_BLUE, label="measured", markersize=4
        )
        line = np.geomspace(noise.local[positive].min(), noise.local[positive].max(), 50)
        counted = f"(local intensity − {noise.pedestal:.3g})" if noise.pedestal else "local intensity"
        label = f"{noise.variance:.3g} + {noise.gain:.3g} × {counted}"
        left.loglog(line, noise.at(line), color=_ORANGE, label=label)
        left.legend(frameon=False, fontsize=8, labelcolor=INK)
        for axis in (left.xaxis, left.yaxis):
            axis.set_minor_formatter(NullFormatter())
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
            axis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    else:
        left.text(0.5, 0.5, "no noise measured", ha="center", transform=left.transAxes, color=INK)
    left.set_xlabel("local intensity (frame ⋆ kernel²)")
    left.set_ylabel("variance of the correlation")
    tidy(left)
    title(left, "Noise, from neighbouring frames")
    shown = significance[np.isfinite(significance)]
    if shown.size:
        bins = np.geomspace(max(float(shown.min()), 0.05), max(float(shown.max()), 1.0) * 1.01, 60)
        right.hist(shown, bins=bins, color=UNLABELLED_COLOUR)
        right.set_xscale("log")
        right.set_yscale("log")
        right.axvline(spec.min_significance, color=_ORANGE, label=f"threshold {spec.min_significance:g}")
        above = int((shown >= spec.min_significance).sum())
        right.plot([], [], " ", label=f"{above:,} of {shown.size:,} above")
        right.legend(frameon=False, fontsize=8, labelcolor=INK)
    else:
        right.text(0.5, 0.5, "significance not asked", ha="center", transform=right.transAxes, color=INK)
    right.set_xlabel("maxima, in standard deviations of noise")
    right.set_ylabel("maxima in the sample")
    tidy(right)
    title(right, "Threshold")
    return figure


def figure_of_origin(result: CalibratedScan) -> Figure:
    """Draw where the direct beam was measured, the fit, and what is left between them.

    Parameters
    ----------
    result : CalibratedScan
    """
    origin = result.origin
    shape = origin.used.shape
    figure = new_figure(10.4, 2.0 + 5.0 * float(np.clip(shape[0] / shape[1], 0.3, 1.5)))
    axes = figure.subplots(2, 3)
    middle = np.nanmedian(origin.fitted.reshape(-1, 2), axis=0)
    residual = origin.measured - origin.fitted
    for axis, name in enumerate(("row", "column")):
        # One scale for measured and fitted, so that they can be compared by eye.
        spread = max(float(np.abs(origin.fitted[..., axis] - middle[axis]).max()), 0.05)
        around = residual[..., axis][origin.used]
        narrow = max(3.0 * float(np.std(around)) if around.size else 0.0, 0.01)
        for ax, values, limit, what in (
            (axes[axis, 0], origin.measured[..., axis] - middle[axis], spread, "measured"),
            (axes[axis, 1], origin.fitted[..., axis] - middle[axis], spread, f"{origin.model}"),
            (axes[axis, 2], residual[..., axis], narrow, "difference"),
        ):
            image = ax.imshow(
                values, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest", aspect="auto"
            )
            ax.set_facecolor(UNLABELLED_COLOUR)
            _plain(ax)
            bar = figure.colorbar(image, ax=ax, shrink=0.85, pad=0.02)
            bar.ax.tick_params(colors=INK, labelsize=7)
            title(ax, f"{name} {what} (px)" + (f" from {middle[axis]:.2f}" if what != "difference" else ""))
    without = f"{int(np.isnan(origin.measured[..., 0]).sum()):,} positions without a direct beam (grey)"
    left_out = int((~origin.used & np.isfinite(origin.measured[..., 0])).sum())
    fit = f"root mean square difference {origin.residual:.3f} px; {left_out:,} left out of the fit; "
    given = result.request.center is not None
    figure.supxlabel(("given; " if given else fit) + without, fontsize=8, color=INK)
    return figure


def figure_of_ellipse(result: CalibratedScan) -> Figure:
    """Draw the distance of all spots against their direction, before and after the ellipse is taken out.

    Where none is taken out there is one panel.

    Parameters
    ----------
    result : CalibratedScan
    """
    vectors = _spots(result)
    panels = [(vectors, "As measured")]
    if result.request.ellipse is not None:
        panels.append((vectors @ np.linalg.inv(result.ellipse.matrix).T, "Ellipse taken out"))
    figure = new_figure(4.5 * len(panels), 4.0)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    reach = float(np.quantile(np.hypot(*vectors.T), 0.995)) if len(vectors) else 1.0
    for ax, (spots, what) in zip(axes, panels, strict=True):
        angle = np.degrees(np.arctan2(spots[:, 1], spots[:, 0])) % 180.0
        bins: Any = [np.linspace(0.0, 180.0, 61), np.linspace(0.0, reach, 121)]
        counts, x, y = np.histogram2d(angle, np.hypot(*spots.T), bins=bins)
        ax.pcolormesh(x, y, counts.T, cmap="viridis", norm=PowerNorm(0.5), rasterized=True)
        ax.set_xlabel("direction, rows towards columns (degrees)")
        ax.tick_params(colors=INK, labelsize=8)
        title(ax, what)
    axes[0].set_ylabel("distance from the direct beam (pixels)")
    if result.ellipse.ring is not None:
        phi = np.linspace(0.0, 180.0, 181)
        along = np.stack([np.cos(np.radians(phi)), np.sin(np.radians(phi))], axis=1)
        stretched = result.ellipse.ring / np.linalg.norm(
            along @ np.linalg.inv(result.ellipse.matrix).T, axis=1
        )
        axes[0].plot(phi, stretched, color=_ORANGE, linewidth=1.0)
        axes[1].axhline(result.ellipse.ring, color=_ORANGE, linewidth=1.0)
    text = f"long axis / short axis {result.ellipse.ratio:.4f} at {result.ellipse.angle:.1f}°"
    if result.request.ellipse is None:
        text = "no ellipse was taken out: --ellipse fit, or RATIO,ANGLE"
    figure.supxlabel(text, fontsize=8, color=INK)
    return figure


def figure_of_rings(result: CalibratedScan) -> Figure:
    """Draw the radial histogram of all calibrated spots, with the rings of the known material.

    Parameters
    ----------
    result : CalibratedScan
    """
    figure = new_figure(9.0, 3.4)
    ax = figure.subplots()
    peaks = result.scan.peaks
    q = np.hypot(*peaks.q[peaks.scattered].T)
    reach = float(np.quantile(q, 0.995)) if len(q) else 1.0
    rings = result.request.rings
    if rings is not None:
        for ring in rings[rings <= reach]:
            ax.axvline(ring, color=_ORANGE, linewidth=0.8, alpha=0.8)
        ax.plot([], [], color=_ORANGE, label="rings of the material")
    ax.hist(
        q,
        bins=np.linspace(0.0, reach, 301).tolist(),
        color=_BLUE,
        histtype="stepfilled",
        label="spots of all positions",
    )
    ax.set_xlim(0.0, reach)
    ax.set_xlabel("q (Å⁻¹)")
    ax.set_ylabel("spots")
    ax.legend(frameon=False, fontsize=8, labelcolor=INK)
    tidy(ax)
    if result.pixel is not None:
        how = f"fitted, {100 * result.pixel.matched:.0f} % of spots on rings"
    else:
        how = "from the direct beam" if result.request.beam else "stated"
    title(ax, f"Pixel size {result.pixel_size:.6g} Å⁻¹, {how}")
    return figure


def figure_of_bragg_map(result: CalibratedScan) -> Figure:
    """Draw all calibrated spots of the scan in one pattern.

    Parameters
    ----------
    result : CalibratedScan
    """
    figure = new_figure(5.6, 5.0)
    ax = figure.subplots()
    peaks = result.scan.peaks
    reach = float(np.quantile(np.abs(peaks.q), 0.999)) if len(peaks.q) else 1.0
    reach = max(reach, 2.0 * result.pixel_size)  # a scan of vacuum has direct beams only
    edges: Any = np.linspace(-reach, reach, 241)
    image, _, _ = np.histogram2d(peaks.q[:, 0], peaks.q[:, 1], bins=[edges, edges], weights=peaks.intensity)
    # One spot is less than a pixel of the picture: widened, or it would not be seen.
    image = maximum_filter(image, 2)
    positive = image[image > 0.0]
    norm = LogNorm(float(np.quantile(positive, 0.05)), float(positive.max())) if positive.size > 1 else None
    shown = ax.imshow(
        np.where(image > 0.0, image, np.nan), cmap="magma", norm=norm, extent=(-reach, reach, reach, -reach)
    )
    ax.set_facecolor("black")
    ax.set_xlabel("q along columns (Å⁻¹)", fontsize=9, color=INK)
    ax.set_ylabel("q along rows (Å⁻¹)", fontsize=9, color=INK)
    ax.tick_params(colors=INK, labelsize=8)
    bar = figure.colorbar(shown, ax=ax, shrink=0.85)
    bar.set_label("summed correlation intensity", color=INK, fontsize=8)
    bar.ax.tick_params(colors=INK, labelsize=7)
    title(ax, f"{len(peaks.intensity):,} peaks of {len(peaks):,} positions")
    return figure


def figure_of_frame_status(result: CalibratedScan) -> Figure:
    """Draw how many disks each position has, and which frames are bad and why.

    Parameters
    ----------
    result : CalibratedScan
    """
    shape = result.scan.shape
    figure = new_figure(9.4, 1.2 + 4.0 * float(np.clip(shape[0] / shape[1], 0.3, 1.5)))
    left, right = figure.subplots(1, 2)
    counts = result.scan.peaks.counts.reshape(shape)
    image = left.imshow(counts, cmap="viridis", interpolation="nearest")
    bar = figure.colorbar(image, ax=left, shrink=0.85, pad=0.02)
    bar.ax.tick_params(colors=INK, labelsize=7)
    _plain(left)
    title(left, f"Disks a position, median {np.median(counts):g}")
    status = result.status.reshape(shape)
    right.imshow(
        status,
        cmap=ListedColormap(_STATUS_COLOURS),
        vmin=0,
        vmax=len(FRAME_STATUS) - 1,
        interpolation="nearest",
    )
    _plain(right)
    present = [code for code in range(len(FRAME_STATUS)) if (status == code).any()]
    handles = [
        patch(_STATUS_COLOURS[code], f"{FRAME_STATUS[code]}: {int((status == code).sum()):,}")
        for code in present
    ]
    figure.legend(
        handles=handles, loc="outside lower right", ncols=3, frameon=False, fontsize=8, labelcolor=INK
    )
    bad = int((status != GOOD).sum())
    title(right, f"Frames: {bad:,} of {status.size:,} flagged")
    return figure


def _spots(result: CalibratedScan) -> NDArray[np.float64]:
    """Return all spots but the direct beams, in pixels from the origin."""
    vectors: NDArray[np.float64] = centred(result.raw, result.origin)[result.scan.peaks.scattered]
    return vectors


def _around_middle(values: NDArray[np.float64], half: int) -> NDArray[np.float64]:
    rows, columns = (np.arange(-half, half + 1) % n for n in values.shape)
    part: NDArray[np.float64] = values[np.ix_(rows, columns)]
    return part


def _plain(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    frame(ax)
