"""Specs of scans: disks in frames, maps, particles, and what a detector makes of synthetic peaks."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from diffractory.specs.base import Spec, as_tuple


def read_cubic_lattice(text: str, smallest: float, largest: float) -> tuple[float, str]:
    """Read a cubic lattice such as ``4.078:F``: its constant in Å, and P, I, F or D (diamond).

    Raises
    ------
    ValueError
        If it is none, or its constant is out of range; the message says what to write.
    """
    number, _, letter = text.partition(":")
    centring = letter.strip().upper()
    try:
        a = float(number)
    except ValueError:
        a = math.nan
    if not smallest <= a <= largest or centring not in ("", "P", "I", "F", "D"):
        raise ValueError(
            "write a cubic lattice such as 4.078:F, "
            f"a constant of {smallest:g} to {largest:g} Å and P, I, F or D"
        )
    if not centring:
        raise ValueError(
            "it names no centring, and most rings of a primitive lattice are missing from a centred one: "
            f"write {a:g}:F for face-centred, or :P, :I, or :D for diamond"
        )
    return a, centring


def read_cubic_phases(text: str) -> list[tuple[float, str]]:
    """Read cubic lattices with commas between them; D has the rings of F and is taken for it.

    Raises
    ------
    ValueError
        If one is none.
    """
    lattices = [read_cubic_lattice(part, 2.4, 17.9) for part in text.split(",")]
    return [(a, centring.replace("D", "F")) for a, centring in lattices]


class MapSpec(Spec):
    """How a scan is turned into a map.

    Parameters
    ----------
    min_spots : int
        Positions with fewer spots, the direct beam included, stay unlabelled.
    median_size : int
        Side of the square median filter on crystal-system labels, in positions; 1 = no filter.
    min_difference : float
        Positions with a lower difference confidence stay unlabelled.
    total_intensity : float
        Summed intensity, direct beam included, to which each pattern is scaled.
    assume : str or None
        Crystal system whose lattice model is used everywhere; None = the predicted one.
    phase : str
        Cubic phases that the scan holds, such as ``4.212:F`` (constant in Å and centring P, I, F or D) or
        ``4.212:F,5.431:D``; ``auto`` = those that it shows, ``none`` = none. Positions whose spots lie on
        their rings are called cubic more readily.
    """

    min_spots: int = Field(5, ge=1)
    median_size: int = Field(5, ge=1, le=101)
    min_difference: float = Field(0.005, ge=0.0, le=1.0)
    total_intensity: float = Field(0.3, gt=0.0, le=1e6)
    assume: str | None = None
    phase: str = "auto"

    @field_validator("phase")
    @classmethod
    def _check_phase(cls, value: str) -> str:
        if value in ("auto", "none"):
            return value
        try:
            read_cubic_phases(value)
        except ValueError as error:
            raise ValueError(f"it is auto, none, or the lattices of cubic phases; {error}") from None
        return value

    @field_validator("median_size")
    @classmethod
    def _check_odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("the median filter needs an odd side")
        return value


class ParticleSpec(Spec):
    """How a scan is divided into particles or regions, and how each is predicted from its positions.

    Parameters
    ----------
    regions : {"particles", "grains", "labels", "grid"}
        Connected bright parts of the dark-field image; connected positions whose patterns are alike;
        connected positions of equal crystal system; or square blocks.
    grid : int
        Side of a block in positions.
    q_range : tuple of two float, or None
        Distances from the direct beam in Å⁻¹ that the dark field counts; None = every spot but the
        direct beam.
    smoothing : float
        Standard deviation of the Gaussian that the dark field is smoothed with, in positions; 0 = none.
    threshold : float or None
        Smoothed intensity above which there is a particle; None = Otsu's, on the logarithm of it.
    similarity : float
        Neighbouring patterns that are less alike belong to different grains, 0 … 1.
    min_size : int
        Smaller particles, in positions, are dropped; blocks of a grid never are.
    split : bool
        Divide touching particles where they are narrow (watershed on the distance from their edge).
    patterns : int
        Patterns that the paper's rule draws from each particle, and what the evidence of all of a
        particle's patterns counts for at most.
    seed : int
        Of that drawing.
    """

    regions: Literal["particles", "grains", "labels", "grid"] = "particles"
    grid: int = Field(10, ge=1, le=1_000_000)
    q_range: Annotated[tuple[float, float] | None, BeforeValidator(as_tuple)] = None
    smoothing: float = Field(1.0, ge=0.0, le=100.0)
    threshold: float | None = Field(None, ge=0.0)
    similarity: float = Field(0.4, gt=0.0, le=1.0)
    min_size: int = Field(10, ge=1)
    split: bool = False
    patterns: int = Field(10, ge=1, le=100_000)
    seed: int = Field(0, ge=0)

    @field_validator("q_range")
    @classmethod
    def _check_range(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0.0 <= value[0] < value[1]:
            raise ValueError("the smaller distance comes first, and none is negative")
        return value


class DetectionSpec(Spec):
    """How disks are found in diffraction frames, in py4DSTEM's terms; all distances in detector pixels.

    Parameters
    ----------
    trench : float
        Outer radius, in disk radii, of the smooth hill that is subtracted from the probe so that flat
        background does not correlate with it; up to 1 = nothing is subtracted.
    corr_power : float
        1 = cross correlation, 0 = phase correlation, between them hybrid. Peak intensities are
        proportional to those of disks at 1 only.
    sigma : float
        Standard deviation of the Gaussian filter on the correlation; 0 = none.
    edge_boundary : int
        Peaks nearer to the frame's edge are left out.
    min_spacing : float
        Of two peaks nearer to each other the weaker one is left out.
    min_absolute_intensity : float
        Weaker peaks are left out, on the scale of the correlation.
    min_relative_intensity : float
        Likewise, as share of the frame's strongest peak.
    min_significance : float
        Likewise, as multiple of the standard deviation that noise alone has at the peak, above the rings of a
        film that it lies on; 0 = not asked.
    noise_variance, noise_gain, noise_pedestal : float
        Variance of the correlation: ``noise_variance + noise_gain * (frame ⋆ kernel² - noise_pedestal)``, the
        difference not below 0: a pedestal is what a camera adds to every pixel without any noise of counting.
    subpixel : str
        ``pixel``, ``poly`` (parabola) or ``multicorr`` (Fourier upsampling), as py4DSTEM calls them.
    upsample_factor : int
        Samples a pixel of the Fourier upsampling.
    max_peaks : int
        Only the strongest peaks of a frame are kept.
    """

    trench: float = Field(2.0, ge=0.0, le=20.0)
    corr_power: float = Field(1.0, ge=0.0, le=1.0)
    sigma: float = Field(0.0, ge=0.0, le=100.0)
    edge_boundary: int = Field(1, ge=1, le=10_000)
    min_spacing: float = Field(0.0, ge=0.0, le=10_000.0)
    min_absolute_intensity: float = Field(0.0, ge=0.0)
    min_relative_intensity: float = Field(0.0, ge=0.0, lt=1.0)
    min_significance: float = Field(0.0, ge=0.0, le=1000.0)
    noise_variance: float = Field(0.0, ge=0.0)
    noise_gain: float = Field(0.0, ge=0.0)
    noise_pedestal: float = Field(0.0, ge=0.0)
    subpixel: Literal["pixel", "poly", "multicorr"] = "multicorr"
    upsample_factor: int = Field(16, ge=3, le=1000)
    max_peaks: int = Field(200, ge=1, le=100_000)


class FrameEffectsSpec(Spec):
    """What a microscope's detector makes of Bragg peaks: disks, background, noise, distortion.

    Parameters
    ----------
    frame_shape : tuple of int
        Detector pixels (rows, columns).
    pixel_size : float
        Size of a detector pixel in Å⁻¹.
    disk_radius : float
        Radius of a disk in pixels: the semi-convergence angle.
    edge_width : float
        Width in pixels over which a disk's edge falls off.
    electrons : float
        Electrons of the incident beam in a frame.
    poisson : bool
        Draw counts; else the expectation is given.
    background : float
        Share of the incident beam in the inelastic background.
    background_width : float
        Distance in Å⁻¹ over which the background falls to 1/e.
    center : tuple of float or None
        Mean position (row, column) of the direct beam in pixels; None = the frame's middle.
    drift : float
        How far the direct beam moves from one end of the scan to the other, in pixels.
    ellipticity : float
        Ratio of the axes of the elliptical distortion minus one; the area is kept.
    ellipse_angle : float
        Angle of the long axis from the rows' direction, in degrees.
    hot_pixels : int
        Number of detector pixels that always show ``hot_value``.
    hot_value : float
        In electrons.
    """

    frame_shape: tuple[int, int] = (128, 128)
    pixel_size: float = Field(0.025, gt=0.0, le=1.0)
    disk_radius: float = Field(5.0, gt=0.0, le=1000.0)
    edge_width: float = Field(1.0, gt=0.0, le=100.0)
    electrons: float = Field(1e5, gt=0.0, le=1e12)
    poisson: bool = True
    background: float = Field(0.2, ge=0.0, le=10.0)
    background_width: float = Field(0.4, gt=0.0, le=10.0)
    center: tuple[float, float] | None = None
    drift: float = Field(0.0, ge=0.0, le=1000.0)
    ellipticity: float = Field(0.0, ge=0.0, le=0.5)
    ellipse_angle: float = 0.0
    hot_pixels: int = Field(0, ge=0, le=10_000)
    hot_value: float = Field(0.0, ge=0.0)

    @field_validator("frame_shape")
    @classmethod
    def _check_shape(cls, values: tuple[int, int]) -> tuple[int, int]:
        if min(values) < 8:
            raise ValueError("a frame has at least 8 × 8 pixels")
        return values
