"""Settings that change results: frozen, validated, hashable, and hashed into every output.

A setting belongs here exactly if another value of it gives other numbers. Everything else
(workers, paths, memory) is in :mod:`diffractory.settings` and never enters a hash.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from diffractory.errors import SpecError

InPlaneFrame = Literal["paper", "random"]
FormFactorModel = Literal["wk-cp", "wk", "wk-cp-exact", "wk-exact", "lobato"]
FORM_FACTOR_MODELS: tuple[FormFactorModel, ...] = get_args(FormFactorModel)


def canonical_json(value: Any) -> str:
    """Serialise plain JSON data with sorted keys and no spaces, so that it can be hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256_of(value: Any) -> str:
    """Return the sha256 of the canonical JSON of ``value`` as hexadecimal text."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


class Spec(BaseModel):
    """Base of all specs: immutable, no unknown keys, one kind of error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _spec_error(type(self).__name__, error) from None

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some values changed, checked like any other spec.

        Raises
        ------
        SpecError
            If a value is unknown or out of range.
        """
        return type(self)(**{**self.model_dump(), **(update or {})})

    @property
    def spec_id(self) -> str:
        """sha256 of the canonical JSON of this spec."""
        return sha256_of(self.model_dump(mode="json"))

    def to_json(self) -> str:
        """Return this spec as JSON text; :meth:`from_json` reads it back."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a spec from JSON text.

        Raises
        ------
        SpecError
            If the text is not JSON, or a value is missing, unknown or out of range.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SpecError(f"{cls.__name__}: not valid JSON ({error})") from None
        if not isinstance(values, dict):
            raise SpecError(f"{cls.__name__}: expected a JSON object, got {type(values).__name__}")
        return cls(**values)


def _spec_error(name: str, error: ValidationError) -> SpecError:
    problems = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"]) or "value"
        problems.append(f"{where} = {item['input']!r}: {item['msg'].removeprefix('Value error, ')}")
    return SpecError(f"{name} refused: " + "; ".join(problems), fix="Correct the value and run again")


def _as_tuple(value: Any) -> Any:
    """Make a tuple of one number, a list or an array; leave the rest to be refused."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(plain, (int, float)):
        return (plain,)
    return tuple(plain) if isinstance(plain, list) else plain


Tilt = Annotated[float, Field(ge=-30.0, le=30.0)]
Tolerance = Annotated[float, Field(gt=0.0, le=0.1)]
Thicknesses = Annotated[tuple[float, ...], BeforeValidator(_as_tuple)]


class SimulationSpec(Spec):
    """Physics of a Bloch-wave simulation.

    Parameters
    ----------
    energy_ev : float
        Beam energy in eV, 30 keV to 1 MeV.
    q_max : float
        Largest \\|g\\| of a beam, in Å⁻¹.
    s_max : float
        Largest absolute excitation error of a beam, in Å⁻¹.
    thermal_sigma : float
        Root-mean-square thermal displacement u of all atoms, in Å.
    thicknesses : tuple of float
        Foil thicknesses along the foil's normal in Å, strictly increasing.
    form_factors : {"wk-cp", "wk", "wk-cp-exact", "wk-exact", "lobato"}
        Weickenmeier-Kohl with core and phonon absorption, or elastic only, both as py4DSTEM (and so
        the paper) evaluates them; the same two as they were published, see docs/accuracy.md; or
        Lobato-Van Dyck: elastic only, for atoms at rest. ``thermal_sigma`` has no effect on the last.
    foil_tilt_deg : tuple of float
        Angles by which the foil's normal leans towards lab x and y, in degrees; the beam is along z.
    precession_deg : float
        Half-angle of the hollow cone the beam is precessed on, in degrees; 0 for none.
    precession_azimuths : int
        Directions on the cone whose intensities are averaged.

    Raises
    ------
    SpecError
        If a value is missing, not finite or out of range.

    Examples
    --------
    >>> from diffractory import SimulationSpec
    >>> spec = SimulationSpec(energy_ev=200e3, thicknesses=(100.0, 200.0))
    >>> precessed = spec.model_copy(update={"precession_deg": 1.0})
    >>> spec.q_max, precessed.precession_azimuths
    (2.0, 72)
    >>> SimulationSpec(q_max=-1.0)
    Traceback (most recent call last):
        ...
    diffractory.errors.SpecError: SimulationSpec refused: q_max = -1.0: ...
    """

    energy_ev: float = Field(300e3, ge=30e3, le=1e6)
    q_max: float = Field(2.0, gt=0.0, le=6.0)
    s_max: float = Field(0.06, gt=0.0, le=1.0)
    thermal_sigma: float = Field(0.08, ge=0.0, le=1.0)
    thicknesses: Thicknesses = (200.0,)
    form_factors: FormFactorModel = "wk-cp"
    foil_tilt_deg: tuple[Tilt, Tilt] = (0.0, 0.0)
    precession_deg: float = Field(0.0, ge=0.0, le=5.0)
    precession_azimuths: int = Field(72, ge=1, le=3600)

    @field_validator("thicknesses")
    @classmethod
    def _check_thicknesses(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not values:
            raise ValueError("at least one thickness is needed")
        if not all(math.isfinite(t) and 0.0 < t <= 1e5 for t in values):
            raise ValueError("thicknesses are finite, above 0 and at most 100000 Å")
        if any(b <= a for a, b in itertools.pairwise(values)):
            raise ValueError("thicknesses must be strictly increasing, none twice")
        return values


class OrientationSpec(Spec):
    """Which orientations a crystal is simulated in.

    Parameters
    ----------
    count : int
        Number of symmetry-unique zone axes for each crystal.
    in_plane : {"paper", "random"}
        In-plane frame: py4DSTEM's orientation plan, or a seeded random angle.
    seed : int
        Seed of the random angles; with the crystal's id and the orientation's index it alone
        determines the angle.
    """

    count: int = Field(100, ge=1, le=100_000)
    in_plane: InPlaneFrame = "paper"
    seed: int = Field(0, ge=0, lt=2**63)


class RadialBasisSpec(Spec):
    """The paper's radial basis: triangular rings times angular harmonics.

    Parameters
    ----------
    ring_width : float
        Δ in Å⁻¹: distance of ring centres and half-width of a ring.
    n_rings : int
        Number of ring centres, n = 0 … n_rings - 1.
    n_orders : int
        Number of angular orders, m = 0 … n_orders - 1.
    """

    kind: Literal["radial-basis"] = "radial-basis"
    ring_width: float = Field(0.05, gt=0.0, le=1.0)
    n_rings: int = Field(41, ge=1, le=1000)
    n_orders: int = Field(13, ge=1, le=200)

    @property
    def n_features(self) -> int:
        """Number of real features: magnitude and argument of every coefficient."""
        return 2 * self.n_rings * self.n_orders


class InvariantSpec(Spec):
    """Features that do not change when a pattern is turned: radial profile, harmonics, lattice.

    Parameters
    ----------
    energy_ev : float
        Beam energy in eV: it sets the Ewald sphere that lattices are read with.
    ring_width, n_rings, n_orders
        Radial basis whose magnitudes are used, as in :class:`RadialBasisSpec`.
    profile_width : float
        Width of a bin of the radial profile in Å⁻¹; its length is that of the radial basis.
    tolerances : tuple of float
        Distances in Å⁻¹ within which a spot belongs to a lattice point; each is tried, until one
        explains nearly all.
    s_max : float
        Largest excitation error that is believed, in Å⁻¹.
    """

    kind: Literal["invariant"] = "invariant"
    energy_ev: float = Field(300e3, ge=30e3, le=1e6)
    ring_width: float = Field(0.05, gt=0.0, le=1.0)
    n_rings: int = Field(41, ge=1, le=1000)
    n_orders: int = Field(13, ge=1, le=200)
    profile_width: float = Field(0.02, ge=0.001, le=1.0)
    tolerances: Annotated[tuple[Tolerance, ...], BeforeValidator(_as_tuple)] = Field(
        (0.004, 0.012, 0.03), min_length=1, max_length=4
    )
    s_max: float = Field(0.03, gt=0.0, le=1.0)


FeatureSpec = RadialBasisSpec | InvariantSpec


def feature_spec(values: Mapping[str, Any]) -> FeatureSpec:
    """Return the spec of a feature set from JSON data; ``kind`` tells which set.

    Raises
    ------
    SpecError
        If the kind is unknown, or a value is unknown or out of range.
    """
    kinds: dict[Any, type[FeatureSpec]] = {"radial-basis": RadialBasisSpec, "invariant": InvariantSpec}
    kind = values.get("kind", "radial-basis")
    if not isinstance(kind, str) or kind not in kinds:
        raise SpecError(f"{kind!r} is no kind of features", fix=f"Use one of {', '.join(kinds)}")
    return kinds[kind](**values)


class LabProtocolSpec(Spec):
    """What a laboratory does to a simulated pattern.

    Parameters
    ----------
    intensity_floor : float
        Spots below this share of the incident beam are lost.
    position_sigma : float
        Standard deviation of each coordinate of a spot, in Å⁻¹.
    position_spread : float
        Largest factor on it: each pattern has its own, between this and its inverse (log-uniform).
    electrons : float
        Electrons in the incident beam of one pattern; sets the Poisson noise.
    scale_error : float
        Largest relative error of the pixel size (uniform).
    ellipticity : float
        Largest ratio of the axes minus one (uniform), at a random angle.
    thickness_range : tuple of float
        Smallest and largest thickness, in Å.
    rotate : bool
        Turn each pattern by a random in-plane angle.
    """

    intensity_floor: float = Field(1e-4, ge=0.0, lt=1.0)
    position_sigma: float = Field(0.004, ge=0.0, le=0.1)
    position_spread: float = Field(1.0, ge=1.0, le=100.0)
    electrons: float = Field(1e5, gt=0.0)
    scale_error: float = Field(0.01, ge=0.0, lt=0.5)
    ellipticity: float = Field(0.01, ge=0.0, lt=0.5)
    thickness_range: tuple[float, float] = (100.0, 500.0)
    rotate: bool = True

    @field_validator("thickness_range")
    @classmethod
    def _check_range(cls, values: tuple[float, float]) -> tuple[float, float]:
        if not 0.0 < values[0] <= values[1]:
            raise ValueError("the range goes from a thickness above 0 to one at least as large")
        return values

    @classmethod
    def turned(cls, thickness: float) -> LabProtocolSpec:
        """Return a protocol that turns patterns of one thickness at random and changes nothing else."""
        return cls(
            intensity_floor=0.0,
            position_sigma=0.0,
            electrons=1e15,  # Poisson noise of 3e-8: none
            scale_error=0.0,
            ellipticity=0.0,
            thickness_range=(thickness, thickness),
        )


class ForestSpec(Spec):
    """The paper's 13 forests and the split they are trained on.

    Parameters
    ----------
    system_trees, system_depth : int
        Crystal-system classifier.
    group_trees, group_depth : int
        Space-group classifier of each crystal system.
    lattice_trees, lattice_depth : int
        Lattice regressor of each crystal system.
    with_triclinic : bool
        Learn triclinic as a seventh crystal system (the paper leaves it out).
    thickness : float
        Training thickness in Å.
    test_fraction : float
        Share of materials held out from all models.
    seed : int
        Seed of the split and of the trees.
    """

    kind: Literal["forests"] = "forests"
    system_trees: int = Field(80, ge=1)
    system_depth: int = Field(40, ge=1)
    group_trees: int = Field(128, ge=1)
    group_depth: int = Field(30, ge=1)
    lattice_trees: int = Field(80, ge=1)
    lattice_depth: int = Field(100, ge=1)
    with_triclinic: bool = False
    thickness: float = Field(200.0, gt=0.0)
    test_fraction: float = Field(0.25, gt=0.0, lt=1.0)
    seed: int = Field(0, ge=0, lt=2**32)


class BoostingSpec(Spec):
    """The boosted models and the split they are trained on.

    Parameters
    ----------
    system_rounds, group_rounds, lattice_rounds : int
        Rounds of boosting of the crystal-system, space-group and lattice models.
    system_leaves, group_leaves, lattice_leaves : int
        Leaves of their trees.
    with_triclinic : bool
        Learn triclinic as a seventh crystal system.
    thickness : float
        Thickness in Å of the noise-free half of the training patterns; the other half is the lab
        protocol's.
    test_fraction : float
        Share of materials held out from everything.
    calibration_fraction : float
        Share of the other materials on which probabilities are calibrated and nothing is trained.
    seed : int
        Of the split, the calibration materials and the trees.
    """

    kind: Literal["boosting"] = "boosting"
    system_rounds: int = Field(200, ge=1)
    group_rounds: int = Field(60, ge=1)
    lattice_rounds: int = Field(80, ge=1)
    system_leaves: int = Field(63, ge=2)
    group_leaves: int = Field(15, ge=2)
    lattice_leaves: int = Field(15, ge=2)
    with_triclinic: bool = True
    thickness: float = Field(200.0, gt=0.0)
    test_fraction: float = Field(0.25, gt=0.0, lt=1.0)
    calibration_fraction: float = Field(0.1, gt=0.0, lt=0.9)
    seed: int = Field(0, ge=0, lt=2**32)


TrainingSpec = ForestSpec | BoostingSpec


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
    """

    min_spots: int = Field(5, ge=1)
    median_size: int = Field(5, ge=1, le=101)
    min_difference: float = Field(0.005, ge=0.0, le=1.0)
    total_intensity: float = Field(0.3, gt=0.0, le=1e6)
    assume: str | None = None

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
    q_range: Annotated[tuple[float, float] | None, BeforeValidator(_as_tuple)] = None
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
        Likewise, as multiple of the standard deviation that noise alone has at the peak; 0 = not asked.
    noise_variance, noise_gain : float
        Variance of the correlation: ``noise_variance + noise_gain * (frame ⋆ kernel²)``.
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
