"""Specs of simulated patterns: the physics, and the orientations."""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from diffractory.specs.base import Spec, as_tuple

InPlaneFrame = Literal["paper", "random"]
ZoneAxes = Literal["even", "random"]
FormFactorModel = Literal["wk-cp", "wk", "wk-cp-exact", "wk-exact", "lobato"]
FORM_FACTOR_MODELS: tuple[FormFactorModel, ...] = get_args(FormFactorModel)

Tilt = Annotated[float, Field(ge=-30.0, le=30.0)]
Thicknesses = Annotated[tuple[float, ...], BeforeValidator(as_tuple)]


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
        Seed of random angles and axes; with the crystal's id and the orientation's index it alone
        determines them.
    axes : {"even", "random"}
        Zone axes: spread evenly over what symmetry leaves, the same for all crystals of a Laue group; or
        drawn for each crystal from all directions alike, the first ones the same however many there are.
    """

    count: int = Field(100, ge=1, le=100_000)
    in_plane: InPlaneFrame = "paper"
    seed: int = Field(0, ge=0, lt=2**63)
    axes: ZoneAxes = "even"

    @model_serializer(mode="wrap")
    def _without_default_axes(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Plans of before say nothing of axes, and their ids depend on every word.
        values: dict[str, Any] = serialise(self)
        return {name: value for name, value in values.items() if (name, value) != ("axes", "even")}
