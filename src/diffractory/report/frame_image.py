"""One look for pictures of raw frames: dark on white, so that weak disks show beside the direct beam."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from diffractory.report.style import frame

#: Shares of the pixels that are white and black: a few hot pixels do not rule the scale.
_WHITE, _BLACK = 0.01, 0.9995
#: The scale is linear up to the median, at least up to this share of black, and logarithmic above.
_LEAST_KNEE: Final = 1e-3


def draw_frame(
    axes: Axes, pixels: NDArray[Any], extent: tuple[float, float, float, float] | None = None
) -> None:
    """Draw a frame in grey, on a scale of its own.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Changed in place.
    pixels : ndarray of shape (rows, columns)
        Intensities; what is not finite stays blank.
    extent : tuple of float, optional
        Left, right, bottom and top edge; pixels by default.
    """
    values = np.asarray(pixels, dtype=np.float64)
    finite = values[np.isfinite(values)]
    low, middle, high = np.quantile(finite, [_WHITE, 0.5, _BLACK]) if finite.size else (0.0, 0.0, 1.0)
    if high <= low:
        high = float(finite.max()) if finite.size and finite.max() > low else low + 1.0
    # Linear where noise is, or counts of 0 and 1 would look as far apart as 1 and 100.
    knee = max(middle - low, _LEAST_KNEE * (high - low))
    shown = np.log1p(np.clip(values - low, 0.0, high - low) / knee)
    black = float(np.log1p((high - low) / knee))
    axes.imshow(shown, cmap="gray_r", vmin=0.0, vmax=black, interpolation="nearest", extent=extent)
    axes.set_xticks([])
    axes.set_yticks([])
    frame(axes)
