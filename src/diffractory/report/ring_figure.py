"""Figure of the radii of a particle's spots, with the rings of its cubic lattice."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diffractory.patterns.cubic_rings import allowed_numbers, is_allowed
from diffractory.report.style import new_figure, tidy, title

_BIN: Final = 0.004
_FARTHEST: Final = 1.6
_SPOTS, _RINGS = "#0072B2", "#D55E00"
#: Rings nearer to each other than so many Å⁻¹ are not both named.
_APART: Final = 0.02


def figure_of_cubic_rings(radius: NDArray[np.float64], a: float, centring: str, words: str) -> Figure:
    """Draw at which distances from the direct beam spots lie, and where a cubic lattice has its rings.

    Parameters
    ----------
    radius : ndarray of shape (n,)
        Distances of spots from the direct beam in Å⁻¹.
    a : float
        Lattice constant in Å.
    centring : {"P", "I", "F"}
    words : str
        What the spots are of; begins the title.

    Returns
    -------
    matplotlib.figure.Figure
        Up to 1.6 Å⁻¹; rings with their Miller indices, where there is room.
    """
    figure = new_figure(9.4, 3.4)
    axes = figure.subplots()
    farthest = min(_FARTHEST, max(float(radius.max(initial=0.0)), 4.0 / a))
    axes.hist(radius, bins=np.arange(0.0, farthest + _BIN, _BIN).tolist(), color=_SPOTS)
    numbers = allowed_numbers(centring, int((farthest * a) ** 2))
    rings = np.sqrt(numbers) / a
    # Rings hang from above, so that they hide no spots.
    axes.vlines(
        rings, 1.0, 1.04, transform=axes.get_xaxis_transform(), color=_RINGS, linewidth=0.8, clip_on=False
    )
    axes.vlines(rings, 0.0, 1.0, transform=axes.get_xaxis_transform(), color=_RINGS, linewidth=0.4, alpha=0.5)
    last = -math.inf
    for number, ring in zip(numbers.tolist(), rings.tolist(), strict=True):
        if ring - last < _APART:
            continue
        axes.annotate(
            miller_indices(number, centring), (ring, 1.045), xycoords=axes.get_xaxis_transform(),
            ha="center", va="bottom", fontsize=7, color=_RINGS, rotation=90,
        )  # fmt: skip
        last = ring
    axes.set_xlim(0.0, farthest)
    axes.set_xlabel("distance from the direct beam (Å⁻¹)")
    axes.set_ylabel("spots")
    tidy(axes)
    title(axes, f"{words}, and the rings of {centring}, a = {a:.3f} Å", above=30.0)
    return figure


def miller_indices(number: int, centring: str) -> str:
    """Return hkl, none negative and none larger than the one before, of a ring with N = h² + k² + l².

    Parameters
    ----------
    number : int
        One that the lattice has.
    centring : {"P", "I", "F"}

    Returns
    -------
    str
        Such as ``311``; of several the one with the largest h.
    """
    for h in range(math.isqrt(number), 0, -1):
        for k in range(h, -1, -1):
            left = number - h * h - k * k
            l = math.isqrt(max(left, 0))
            if l <= k and l * l == left and is_allowed(h, k, l, centring):
                return f"{h}{k}{l}" if h < 10 else f"{h} {k} {l}"
    raise ValueError(f"a cubic {centring} lattice has no reflection of N = {number}")
