"""Specs of what is made of patterns: feature sets, and what a laboratory does to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from diffractory.errors import SpecError
from diffractory.specs.base import Spec, as_tuple

Tolerance = Annotated[float, Field(gt=0.0, le=0.1)]


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
    tolerances: Annotated[tuple[Tolerance, ...], BeforeValidator(as_tuple)] = Field(
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
        """Return a protocol that turns patterns of one thickness at random and changes nothing else.

        Parameters
        ----------
        thickness : float
            In Å.

        Returns
        -------
        LabProtocolSpec
        """
        return cls(
            intensity_floor=0.0,
            position_sigma=0.0,
            electrons=1e15,  # Poisson noise of 3e-8: none
            scale_error=0.0,
            ellipticity=0.0,
            thickness_range=(thickness, thickness),
        )
