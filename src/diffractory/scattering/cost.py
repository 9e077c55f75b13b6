"""What a solve costs, predicted from its beam count: seconds and bytes."""

from __future__ import annotations

from diffractory.scattering.solvers import predicted_products
from diffractory.specs import SimulationSpec

#: Seconds one complex matrix element costs in a product, and seconds of overhead a solve; one
#: core of a 2023 server. Only ratios matter to the balance of partitions.
_SECONDS_PER_ELEMENT = 8e-10
_SECONDS_PER_SOLVE = 1e-3
#: Seconds to prepare a crystal, for each Å³ of its cell.
_SECONDS_PER_VOLUME = 1e-4
#: Dense n × n complex matrices alive at once in the dearest solver (Padé of the exponential).
_MATRICES_ALIVE = 9
#: Interpreter, libraries and tables of a worker, in bytes.
RESERVED_BYTES = 500_000_000


def predicted_seconds(n_beams: int, spec: SimulationSpec) -> float:
    """Return the seconds one orientation takes at all thicknesses of a spec.

    Parameters
    ----------
    n_beams : int
    spec : SimulationSpec
        Its thicknesses and s_max set the solver.
    """
    products = predicted_products(n_beams, spec.thicknesses, spec.s_max)
    return _SECONDS_PER_SOLVE + _SECONDS_PER_ELEMENT * products * n_beams**2


def predicted_setup_seconds(volume: float) -> float:
    """Return the seconds to prepare a crystal with a cell of this volume in Å³."""
    return _SECONDS_PER_SOLVE + _SECONDS_PER_VOLUME * volume


def predicted_solve_bytes(n_beams: int) -> int:
    """Return the peak bytes of one solve, without what the process holds anyway."""
    return _MATRICES_ALIVE * 16 * n_beams**2
