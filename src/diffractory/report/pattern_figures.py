"""Figures of diffraction patterns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diffractory.errors import DiffractoryError
from diffractory.report.style import INK, new_figure, tidy, title

#: Spots this much weaker than the strongest are the smallest drawn.
_DYNAMIC_RANGE: Final = 1e-5
_LARGEST_AREA: Final = 90.0
#: Colours of spots and of the direct beam.
SPOT_COLOUR, DIRECT_COLOUR = "#0072B2", "#D55E00"


def figure_of_patterns(
    q: Sequence[NDArray[np.float64]], intensity: Sequence[NDArray[np.float64]], titles: Sequence[str]
) -> Figure:
    """Draw a row of diffraction patterns as spots.

    Parameters
    ----------
    q : sequence of ndarray of shape (n_i, 2)
        Positions in Å⁻¹.
    intensity : sequence of ndarray of shape (n_i,)
        Intensities; the area of a spot grows with their logarithm, over five decades below the
        strongest spot of its pattern.
    titles : sequence of str
        One a pattern.

    Returns
    -------
    Figure
        All patterns on the same scale; the spot nearest the origin, the direct beam, in orange.

    Raises
    ------
    DiffractoryError
        If there is no pattern, or the sequences do not fit each other.
    """
    shapes_fit = all(
        np.shape(positions) == (len(values), 2) for positions, values in zip(q, intensity, strict=False)
    )
    if not len(q) or not len(q) == len(intensity) == len(titles) or not shapes_fit:
        raise DiffractoryError(
            f"cannot draw {len(q)} patterns with {len(intensity)} intensities and {len(titles)} titles",
            "each pattern needs positions (n, 2), as many intensities, and a title",
        )
    figure = new_figure(2.7 * len(q) + 0.5, 3.2)
    reach = 1.08 * max([float(np.abs(positions).max(initial=0.0)) for positions in q] + [0.1])
    row = figure.subplots(1, len(q), squeeze=False, sharex=True, sharey=True)[0]
    for axes, positions, values, text in zip(row, q, intensity, titles, strict=True):
        draw_pattern(axes, positions, values)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axes.set_xlabel("$q_x$ (Å⁻¹)")
        tidy(axes)
        axes.grid(visible=False)
        title(axes, text)
    row[0].set_ylabel("$q_y$ (Å⁻¹)")
    return figure


def draw_pattern(axes: Axes, q: NDArray[np.float64], intensity: NDArray[np.float64]) -> None:
    """Draw the spots of one pattern: their area grows with the logarithm of intensity."""
    axes.axhline(0.0, color="#DDDDDD", linewidth=0.6, zorder=0)
    axes.axvline(0.0, color="#DDDDDD", linewidth=0.6, zorder=0)
    visible = intensity > 0.0
    if not visible.any():
        return
    q, intensity = q[visible], intensity[visible]
    decades = np.log10(np.maximum(intensity / intensity.max(), _DYNAMIC_RANGE))
    area = 1.5 + _LARGEST_AREA * (1.0 - decades / np.log10(_DYNAMIC_RANGE)) ** 2.5
    colours = np.where(np.arange(len(q)) == np.hypot(*q.T).argmin(), DIRECT_COLOUR, SPOT_COLOUR)
    axes.scatter(q[:, 0], q[:, 1], s=area, c=colours.tolist(), linewidths=0.3, edgecolors=INK)


def figure_of_thickness(
    thicknesses: Sequence[float] | NDArray[np.float64],
    dynamical: Mapping[str, NDArray[np.float64]],
    kinematical: Mapping[str, NDArray[np.float64]] | None = None,
) -> Figure:
    """Draw the intensity of some beams against thickness.

    Parameters
    ----------
    thicknesses : sequence of float
        n thicknesses in Å.
    dynamical : mapping of str to ndarray of shape (n,)
        Share of the incident beam of each beam, by its name; solid lines.
    kinematical : mapping of str to ndarray of shape (n,), optional
        Some of the same beams without multiple scattering; dashed lines.

    Returns
    -------
    Figure

    Raises
    ------
    DiffractoryError
        If there is no beam, one has not as many intensities as there are thicknesses, or one is
        kinematical only.
    """
    dashed = kinematical or {}
    curves = [*dynamical.values(), *dashed.values()]
    fit = all(np.shape(values) == (len(thicknesses),) for values in curves)
    if not dynamical or not fit or not dashed.keys() <= dynamical.keys():
        raise DiffractoryError(
            f"cannot draw {len(dynamical)} beams against {len(thicknesses)} thicknesses",
            "each beam needs one intensity at every thickness, and the kinematical ones a dynamical one",
        )
    figure = new_figure(6.2, 3.4)
    axes = figure.subplots()
    for index, (name, values) in enumerate(dynamical.items()):
        axes.plot(thicknesses, values, color=f"C{index}", label=name, linewidth=1.6)
        if name in dashed:
            axes.plot(thicknesses, dashed[name], "--", color=f"C{index}", linewidth=1.2)
    if dashed:
        axes.plot([], [], "--", color=INK, linewidth=1.2, label="kinematical")
    axes.set(xlabel="thickness (Å)", ylabel="share of the incident beam", ylim=(0.0, 1.0))
    axes.margins(x=0.0)
    tidy(axes)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def figure_of_disks(
    q: NDArray[np.float64],
    tilts_deg: NDArray[np.float64],
    intensity: NDArray[np.float64],
    wavelength: float,
    reach: float,
) -> Figure:
    """Draw a convergent-beam pattern: every beam is a disk, every tilt a point of all disks.

    Parameters
    ----------
    q : ndarray of shape (n, 2)
        Centres of the disks in Å⁻¹.
    tilts_deg : ndarray of shape (n_tilts, 2)
        Angles of the incident waves along x and y in degrees: points of a square grid, usually those in
        a circle.
    intensity : ndarray of shape (n_tilts, n)
        Share of each incident wave.
    wavelength : float
        In Å.
    reach : float
        Half of the side that is shown, in Å⁻¹.

    Returns
    -------
    Figure
        Intensities on a logarithmic scale of four decades.

    Raises
    ------
    DiffractoryError
        If the arrays do not fit each other.
    """
    if np.shape(intensity) != (len(tilts_deg), len(q)) or len(np.unique(tilts_deg[:, 0])) < 2:
        raise DiffractoryError(
            f"cannot draw disks of {len(q)} beams and {len(tilts_deg)} tilts from intensities of shape "
            f"{np.shape(intensity)}",
            "each tilt needs the intensity of every beam, and a disk at least two tilts along x",
        )
    points = np.sin(np.deg2rad(tilts_deg)) / wavelength
    pixel = float(np.diff(np.unique(np.round(points[:, 0], 9))).min())
    column, row = np.rint(points / pixel).astype(int).T
    low, shape = (row.min(), column.min()), (np.ptp(row) + 1, np.ptp(column) + 1)
    figure = new_figure(5.2, 4.4)
    axes = figure.subplots()
    axes.set_facecolor("black")
    strongest = float(intensity.max())
    norm = LogNorm(1e-4 * strongest, strongest, clip=True)
    for centre, values in zip(q, intensity.T, strict=True):
        if np.abs(centre).max() > reach:
            continue
        disk = np.full(shape, np.nan)
        disk[row - low[0], column - low[1]] = np.maximum(values, 1e-9)
        left, bottom = centre + pixel * (np.array([low[1], low[0]]) - 0.5)
        extent = (left, left + pixel * shape[1], bottom, bottom + pixel * shape[0])
        axes.imshow(disk, extent=extent, origin="lower", norm=norm, cmap="magma")
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), xlabel="$q_x$ (Å⁻¹)", ylabel="$q_y$ (Å⁻¹)")
    tidy(axes)
    axes.grid(visible=False)
    bar = figure.colorbar(ScalarMappable(norm, "magma"), ax=axes)
    bar.set_label("share of the incident wave", color=INK, fontsize=9)
    bar.ax.tick_params(colors=INK, labelsize=8)
    return figure
