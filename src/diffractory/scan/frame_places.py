"""Where Bragg peaks lie in the frames they were found in, and single frames with that knowledge."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffractory.errors import ScanError


@dataclass(frozen=True, eq=False)
class FramePlaces:
    """The way back from calibrated peaks to pixels of the frames of n positions.

    A peak at q (Å⁻¹) of position i lies at ``origin[i] + matrix @ q``, row and column in pixels.

    Parameters
    ----------
    origin : ndarray of shape (n, 2)
        Row and column of the direct beam of every position, in pixels.
    matrix : ndarray of shape (2, 2) or (n, 2, 2)
        Pixels per Å⁻¹: pixel size, ellipse and rotation.
    frame_shape : tuple of int, optional
        Rows and columns of the frames; None = not known.
    disk_radius : float, optional
        In pixels; None = not known.

    Raises
    ------
    ScanError
        If the arrays do not fit each other.
    """

    origin: NDArray[np.float64]
    matrix: NDArray[np.float64]
    frame_shape: tuple[int, int] | None = None
    disk_radius: float | None = None

    def __post_init__(self) -> None:
        n = len(self.origin)
        if self.origin.shape != (n, 2) or self.matrix.shape not in ((2, 2), (n, 2, 2)):
            raise ScanError(
                f"origins of shape {self.origin.shape} with matrices of shape {self.matrix.shape}",
                "each position has one origin, and one matrix or that of all",
            )

    def place(self, position: int, pixels: NDArray[Any], binning: int = 1) -> PlacedFrame:
        """Return a frame with where its peaks lie.

        Parameters
        ----------
        position : int
            In row-major order.
        pixels : ndarray of shape (rows, columns)
            Its frame, or means of blocks of it.
        binning : int
            Side of these blocks.

        Returns
        -------
        PlacedFrame
        """
        matrix = self.matrix if self.matrix.ndim == 2 else self.matrix[position]
        return PlacedFrame(pixels, self.origin[position], matrix, self.disk_radius, binning)


@dataclass(frozen=True, eq=False)
class PlacedFrame:
    """One frame, and where its peaks lie in it.

    Parameters
    ----------
    pixels : ndarray of shape (rows, columns)
        Intensities.
    origin : ndarray of shape (2,)
        Row and column of the direct beam in pixels of the detector.
    matrix : ndarray of shape (2, 2)
        Pixels per Å⁻¹.
    disk_radius : float or None
        In pixels.
    binning : int
        Detector pixels along a side of one of ``pixels``.
    """

    pixels: NDArray[Any]
    origin: NDArray[np.float64]
    matrix: NDArray[np.float64]
    disk_radius: float | None = None
    binning: int = 1

    @property
    def pixel_size(self) -> float:
        """Size of a detector pixel in Å⁻¹, the mean over directions where there is an ellipse."""
        return float(abs(np.linalg.det(self.matrix)) ** -0.5)

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """First and last column, last and first row: the frame's edges in Å⁻¹ from the direct beam."""
        rows, columns = (self.binning * n for n in self.pixels.shape)
        top, left = -0.5 - self.origin
        s = self.pixel_size
        return s * left, s * (left + columns), s * (top + rows), s * top

    def on_detector(self, q: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where peaks lie from the direct beam along rows and columns, in Å⁻¹.

        Parameters
        ----------
        q : ndarray of shape (n, 2)
            Calibrated peaks in Å⁻¹.

        Returns
        -------
        ndarray of shape (n, 2)
            With the ellipse, and not turned.
        """
        vectors: NDArray[np.float64] = self.pixel_size * q @ self.matrix.T
        return vectors


@dataclass(frozen=True)
class ExampleFrames:
    """Frames of a few positions, or why there are none.

    Parameters
    ----------
    frames : dict of int to PlacedFrame
        By position in row-major order; empty = none could be had.
    source : str
        Name of their file.
    missing : str
        Why there are none, as a part of a sentence.
    """

    frames: dict[int, PlacedFrame] = field(default_factory=dict)
    source: str = ""
    missing: str = ""
