"""Compiles the kernels that most tests need, once: processes that share the tests would each compile them.

``python tests/warm_kernels.py simulate`` or ``lattices``; what is compiled stays beside the sources.
"""

from __future__ import annotations

import sys

import numpy as np


def simulate() -> None:
    """Compile the solvers."""
    from diffractory import Crystal, SimulationSpec
    from diffractory import simulate as run

    crystal = Crystal(4.12 * np.eye(3), [55, 17], [[0, 0, 0], [0.5, 0.5, 0.5]])
    spec = SimulationSpec(thicknesses=(100.0, 200.0, 300.0))
    run(crystal, np.eye(3)[None], spec, precision="single")
    run(crystal, np.eye(3)[None], spec, precision="double")


def lattices() -> None:
    """Compile what reads a lattice from a pattern."""
    from diffractory.patterns.feature_sets import compute_features
    from diffractory.patterns.peak_table import PeakTable
    from diffractory.specs import InvariantSpec, RadialBasisSpec

    q = 0.2 * np.array([(h, k) for h in range(-3, 4) for k in range(-3, 4)], dtype=float)
    peaks = PeakTable.from_detected([q], [np.exp(-5.0 * (q**2).sum(axis=1))])
    for spec in (InvariantSpec(), RadialBasisSpec()):
        compute_features(peaks, spec)


if __name__ == "__main__":
    {"simulate": simulate, "lattices": lattices}[sys.argv[1]]()
