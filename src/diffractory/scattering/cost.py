"""What a solve costs, predicted from its geometry: seconds and bytes."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffractory.crystals.crystal import Crystal
from diffractory.errors import SpecError
from diffractory.scattering.chebyshev import BLOCK, n_terms
from diffractory.scattering.solvers import SAMPLED_TILTS
from diffractory.specs import SimulationSpec

#: Coupling widens the spectrum beyond the range of the excitation errors, and its estimate is generous.
_WIDENING = 1.05
#: ln of the factor by which a series is longer than that is _LENGTHENING[0] + [1] ln(t / 200 Å) +
#: ([2] + [3] ln(t / 200 Å)) ln(coupling), where positive.
_LENGTHENING = (-5.55, 1.03, 0.96, -0.16)
#: Dense n × n complex matrices alive at once in the dearest solver (Padé of the exponential).
_MATRICES_ALIVE = 9
#: Waves of many tilts held at once, in bytes; more tilts are solved in turn.
TILT_BYTES = 256_000_000
#: Interpreter, libraries, tables and compiling of kernels in a worker, in bytes; 0.6 to 0.87 GB were seen.
RESERVED_BYTES = 900_000_000


@dataclass(frozen=True)
class Speed:
    """How fast one core of a machine is, in seconds of each kind of work.

    Parameters
    ----------
    sizes : tuple of int
        Beam counts at which series were timed, increasing.
    start : tuple of float
        What a series takes besides its terms, at each size.
    term : tuple of float
        One term of a series (a matrix-vector product).
    add : float
        What each further thickness adds to a term, for each beam; mean over a series of equal steps.
    tilted_product : float
        One complex multiply-add of a matrix-matrix product.
    element : float
        Filling in one element of a structure matrix.
    solve : float
        Overhead of a solve besides its series and its matrix.
    solve_beam : float
        What each beam adds to it.
    prepare : float
        Overhead of preparing a crystal.
    prepare_point : float
        Preparing one entry of the table of structure factors.
    """

    sizes: tuple[int, ...]
    start: tuple[float, ...]
    term: tuple[float, ...]
    add: float
    tilted_product: float
    element: float
    solve: float
    solve_beam: float
    prepare: float
    prepare_point: float

    def to_json(self) -> str:
        """Return the speed as JSON text; :meth:`from_json` reads it back."""
        return json.dumps({"speed_version": _SPEED_VERSION, **asdict(self)}, indent=1)

    @classmethod
    def from_json(cls, text: str, source: str = "speed file") -> Self:
        """Read a speed from JSON text.

        Parameters
        ----------
        text : str
            As :meth:`to_json` writes it.
        source : str
            What the text is called in messages.

        Returns
        -------
        Speed

        Raises
        ------
        SpecError
            If the text is not what ``diffractory calibrate`` writes.
        """
        try:
            values = json.loads(text)
            if values.pop("speed_version") != _SPEED_VERSION:
                raise ValueError
            for name in _BY_SIZE:
                values[name] = tuple(values[name])
            speed = cls(**values)
            numbers = [n for f in fields(cls) for n in np.atleast_1d(getattr(speed, f.name)).tolist()]
            sound = all(math.isfinite(n) and n > 0.0 for n in numbers) and len(speed.sizes) > 1
            lengths = {len(getattr(speed, name)) for name in _BY_SIZE}
            if not sound or len(lengths) != 1 or np.any(np.diff(speed.sizes) <= 0):
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
            raise SpecError(
                f"{source} does not hold the speed of a machine",
                "it is damaged, or of another version",
                "Measure it anew: diffractory calibrate",
            ) from None
        return speed

    def of_series(self, n_beams: ArrayLike, n_terms: ArrayLike, n_thicknesses: int) -> NDArray[np.float64]:
        """Return the seconds of series.

        Parameters
        ----------
        n_beams, n_terms : array_like
            Of each series.
        n_thicknesses : int
            Of all of them.

        Returns
        -------
        ndarray
            Of the shape that ``n_beams`` and ``n_terms`` have together.
        """
        n = np.maximum(np.asarray(n_beams, dtype=np.float64), 1.0)
        start, term = (
            np.exp(np.interp(np.log(n), np.log(self.sizes), np.log(values)))
            for values in (self.start, self.term)
        )
        # Beyond the largest size timed, the matrix is read from memory: seconds go with its elements.
        beyond = np.maximum(n / self.sizes[-1], 1.0)
        each = term * beyond**2 + (n_thicknesses - 1) * self.add * n
        seconds: NDArray[np.float64] = start * beyond**2 + np.asarray(n_terms) * each
        return seconds


#: What is measured at each size.
_BY_SIZE = ("sizes", "start", "term")
#: Layout of the speed file.
_SPEED_VERSION = 3
#: A core of a 2023 server, for machines that were not measured.
TYPICAL = Speed(
    sizes=(31, 63, 127, 193, 255, 385, 511, 769, 1023, 1535),
    start=(2.5e-4, 2.5e-4, 3e-4, 3.5e-4, 4e-4, 6e-4, 1e-3, 2.5e-3, 5e-3, 1.2e-2),
    term=(6e-7, 1e-6, 2.5e-6, 5e-6, 9e-6, 2e-5, 5e-5, 1.6e-4, 3e-4, 6.5e-4),
    add=1e-10,
    tilted_product=1.1e-10,
    element=3e-9,
    solve=1.5e-4,
    solve_beam=1e-6,
    prepare=1e-3,
    prepare_point=7e-8,
)


def predicted_seconds(
    n_beams: ArrayLike,
    spec: SimulationSpec,
    speed: Speed = TYPICAL,
    error_range: ArrayLike | None = None,
    scattering: ArrayLike = 0.0,
) -> NDArray[np.float64]:
    """Return the seconds orientations take at all thicknesses of a spec.

    Parameters
    ----------
    n_beams : array_like of int
        Beams of each orientation.
    spec : SimulationSpec
        Its thicknesses and precession count.
    speed : Speed
        Of the machine.
    error_range : array_like of float, optional
        Largest less smallest excitation error of each orientation's beams in Å⁻¹; 2 s_max by default.
    scattering : array_like of float
        How strongly each crystal scatters, see :func:`scattering_strength`; weakly by default.

    Returns
    -------
    ndarray
        Of the shape that the arguments have together.
    """
    n = np.asarray(n_beams, dtype=np.float64)
    width = 2.0 * spec.s_max if error_range is None else np.asarray(error_range, dtype=np.float64)
    half_width = np.maximum(0.5 * width, 1e-6)
    terms = n_terms(spec.thicknesses[-1], _WIDENING * half_width)
    terms *= _lengthening(np.sqrt(n) * np.asarray(scattering) / half_width, spec.thicknesses[-1])
    if spec.precession_deg:
        tilts = spec.precession_azimuths
        products = terms * speed.tilted_product * n**2 * tilts
        additions = terms * speed.add * n * len(spec.thicknesses) * tilts
        # The spectrum is estimated at some of the tilts.
        series = min(tilts, SAMPLED_TILTS) * speed.of_series(n, 0.0, 1) + products + additions
    else:
        series = speed.of_series(n, terms, len(spec.thicknesses))
    seconds: NDArray[np.float64] = speed.solve + speed.solve_beam * n + speed.element * n**2 + series
    return seconds


def scattering_strength(crystal: Crystal) -> float:
    """Return how strongly a crystal scatters: the root of the sum of its Z², by volume, in Å⁻³."""
    return float(np.sqrt(np.square(crystal.numbers, dtype=np.float64).sum()) / crystal.volume)


def _lengthening(coupling: NDArray[np.float64], thickness: float) -> NDArray[np.float64]:
    """Return by what factor coupling and absorption lengthen a series.

    Strong coupling widens the spectrum, and absorption makes terms grow, so that a series restarts:
    near zone axes of heavy elements up to fourfold. Fitted, see benchmarks/cost_model.py.
    """
    a, a_slope, b, b_slope = _LENGTHENING
    log_thickness = np.clip(np.log(thickness / 200.0), -1.0, 2.5)
    exponent = (
        a + a_slope * log_thickness + (b + b_slope * log_thickness) * np.log(np.maximum(coupling, 1e-9))
    )
    factor: NDArray[np.float64] = np.exp(np.clip(exponent, 0.0, 1.6))
    return factor


def predicted_setup_seconds(
    primitive_volume: ArrayLike, spec: SimulationSpec, speed: Speed = TYPICAL
) -> NDArray[np.float64]:
    """Return the seconds to prepare crystals with primitive cells of these volumes in Å³."""
    seconds: NDArray[np.float64] = speed.prepare + speed.prepare_point * n_table_points(
        primitive_volume, spec
    )
    return seconds


def n_table_points(primitive_volume: ArrayLike, spec: SimulationSpec) -> NDArray[np.float64]:
    """Return about how many structure factors crystals with these primitive volumes (Å³) need."""
    # They reach to 2 q_max.
    points: NDArray[np.float64] = 4.0 / 3.0 * np.pi * (2.0 * spec.q_max) ** 3 * np.asarray(primitive_volume)
    return points


def predicted_series_bytes(n_beams: int, spec: SimulationSpec) -> int:
    """Return the peak bytes of one series: the matrix twice over, its terms, sums and intensities."""
    return 16 * n_beams**2 + 8 * n_beams * (2 * BLOCK + 5 * len(spec.thicknesses))


def predicted_solve_bytes(n_beams: int, spec: SimulationSpec) -> int:
    """Return the peak bytes of one solve, without what the process holds anyway.

    Counted for the dense reference, so that there is room to fall back to it, and with the waves of
    a precessed beam.
    """
    return _MATRICES_ALIVE * 16 * n_beams**2 + (TILT_BYTES if spec.precession_deg else 0)
