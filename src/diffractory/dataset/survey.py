"""What the items of a run are: their orientations, and their beams counted without solving anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffractory.crystals.catalogue import Catalogue
from diffractory.crystals.crystal import Crystal
from diffractory.crystals.symmetry import labelled_laue_operations
from diffractory.errors import PlanError
from diffractory.interrupts import out_of_reach_of_ctrl_c
from diffractory.scattering.beams import count_beams, reciprocal_points
from diffractory.scattering.cost import scattering_strength
from diffractory.scattering.orientations import sample_orientations
from diffractory.scattering.primitive import primitive_cell
from diffractory.specs import OrientationSpec, SimulationSpec

#: Crystals a process is handed at a time: a fifth of a second.
_BLOCK = 50


@dataclass(frozen=True, eq=False)
class Survey:
    """The geometry that decides what a run costs.

    Parameters
    ----------
    beams : ndarray of shape (n_crystals, count), int64
        Beams of each item.
    error_ranges : ndarray of shape (n_crystals, count)
        Largest less smallest excitation error of each item's beams in Å⁻¹.
    scattering : ndarray of shape (n_crystals,)
        How strongly each crystal scatters, in Å⁻³.
    volumes : ndarray of shape (n_crystals,)
        Of the primitive cells in Å³.
    """

    beams: NDArray[np.int64]
    error_ranges: NDArray[np.float64]
    scattering: NDArray[np.float64]
    volumes: NDArray[np.float64]


def crystal_orientations(catalogue: Catalogue, index: int, spec: OrientationSpec) -> NDArray[np.float64]:
    """Return the orientation matrices of one crystal of a catalogue, of shape (count, 3, 3)."""
    return _orientations_of(catalogue, index, catalogue.crystal(index), spec)


def _orientations_of(
    catalogue: Catalogue, index: int, crystal: Crystal, spec: OrientationSpec
) -> NDArray[np.float64]:
    operations = labelled_laue_operations(crystal, int(catalogue.space_groups[index]))
    return sample_orientations(operations, spec, catalogue.ids[index])


def survey(
    catalogue: Catalogue,
    simulation: SimulationSpec,
    orientations: OrientationSpec,
    on_crystal: Callable[[], None] = lambda: None,
    processes: int = 1,
) -> Survey:
    """Count the beams of every item of a run.

    Parameters
    ----------
    catalogue : Catalogue
    simulation : SimulationSpec
    orientations : OrientationSpec
    on_crystal : callable
        Called after each crystal, for a progress bar.
    processes : int
        That count side by side; the result does not depend on it.

    Raises
    ------
    PlanError
        If the catalogue is empty.
    StructureError
        If a structure cannot be simulated.
    """
    if len(catalogue) == 0:
        raise PlanError("the catalogue is empty", fix="Build one with `diffractory catalogue build`")
    blocks = []
    for block in _blocks(catalogue, simulation, orientations, processes):
        blocks.append(block)
        for _ in block.volumes:
            on_crystal()
    columns = ("beams", "error_ranges", "scattering", "volumes")
    return Survey(*(np.concatenate([getattr(block, name) for block in blocks]) for name in columns))


def _blocks(
    catalogue: Catalogue, simulation: SimulationSpec, orientations: OrientationSpec, processes: int
) -> Iterator[Survey]:
    """Yield the survey of some crystals after the other, in order."""
    parts = (
        catalogue.take(np.arange(first, min(first + _BLOCK, len(catalogue))))
        for first in range(0, len(catalogue), _BLOCK)
    )
    if processes == 1 or len(catalogue) <= _BLOCK:
        yield from (_survey_block(part, simulation, orientations) for part in parts)
        return
    # Imported here: a fifth of a second that only large plans need.
    from joblib import Parallel, delayed

    with out_of_reach_of_ctrl_c():
        blocks = Parallel(n_jobs=processes, return_as="generator")(
            delayed(_survey_block)(part, simulation, orientations) for part in parts
        )
    yield from blocks


def _survey_block(catalogue: Catalogue, simulation: SimulationSpec, orientations: OrientationSpec) -> Survey:
    beams = np.empty((len(catalogue), orientations.count), dtype=np.int64)
    ranges, scattering, volumes = np.empty(beams.shape), *np.empty((2, len(catalogue)))
    for index in range(len(catalogue)):
        crystal = catalogue.crystal(index)
        cell = primitive_cell(crystal)
        matrices = _orientations_of(catalogue, index, crystal, orientations)
        beams[index], ranges[index] = count_beams(
            reciprocal_points(cell, simulation.q_max), matrices, simulation
        )
        scattering[index] = scattering_strength(crystal)
        volumes[index] = cell.crystal.volume
    return Survey(beams, ranges, scattering, volumes)
