"""Diffractory: electron diffraction at supercomputer scale.

Three things, each from one laptop core to thousands of workers: simulate Bloch-wave
diffraction patterns, learn crystal symmetry from them, and map 4D-STEM scans.

Names below are loaded on first use, so that ``import diffractory`` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffractory.crystals.catalogue import Catalogue as Catalogue
    from diffractory.crystals.crystal import Crystal as Crystal
    from diffractory.dataset.reader import open_dataset as open_dataset
    from diffractory.dataset.selection import select as select
    from diffractory.errors import DiffractoryError as DiffractoryError
    from diffractory.scattering.kinematic import simulate_kinematic as simulate_kinematic
    from diffractory.scattering.orientations import sample_orientations as sample_orientations
    from diffractory.scattering.peak_list import PeakList as PeakList
    from diffractory.scattering.simulate import TiltSeries as TiltSeries
    from diffractory.scattering.simulate import simulate as simulate
    from diffractory.scattering.simulate import simulate_tilts as simulate_tilts
    from diffractory.specs import OrientationSpec as OrientationSpec
    from diffractory.specs import SimulationSpec as SimulationSpec

__version__ = "0.4.0"

_HOME = {
    "Catalogue": "diffractory.crystals.catalogue",
    "Crystal": "diffractory.crystals.crystal",
    "DiffractoryError": "diffractory.errors",
    "OrientationSpec": "diffractory.specs",
    "PeakList": "diffractory.scattering.peak_list",
    "SimulationSpec": "diffractory.specs",
    "TiltSeries": "diffractory.scattering.simulate",
    "open_dataset": "diffractory.dataset.reader",
    "sample_orientations": "diffractory.scattering.orientations",
    "select": "diffractory.dataset.selection",
    "simulate": "diffractory.scattering.simulate",
    "simulate_kinematic": "diffractory.scattering.kinematic",
    "simulate_tilts": "diffractory.scattering.simulate",
}

__all__ = [
    "Catalogue",
    "Crystal",
    "DiffractoryError",
    "OrientationSpec",
    "PeakList",
    "SimulationSpec",
    "TiltSeries",
    "__version__",
    "open_dataset",
    "sample_orientations",
    "select",
    "simulate",
    "simulate_kinematic",
    "simulate_tilts",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'diffractory' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
