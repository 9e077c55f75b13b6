"""The GPU engine: orientations of many crystals in batches, with PyTorch.

Needs the extra ``gpu``; PyTorch is loaded when something is to be solved, not before. The physics,
the series and its errors are those of the engine on the CPU, :mod:`diffractory.scattering.simulate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffractory.errors import SimulationError
from diffractory.scattering.illumination import Illumination
from diffractory.scattering.peak_list import PeakList
from diffractory.scattering.simulate import Scatterer
from diffractory.specs import SimulationSpec
from diffractory.units import electron_wavelength

if TYPE_CHECKING:
    from diffractory.scattering.torch_batches import BeamSet

#: Orientations that are sorted and solved together: enough for full batches of every size.
_WINDOW = 4096


def solve_batched(
    work: Iterable[tuple[Scatterer, NDArray[np.float64]]],
    device: str = "cuda",
    memory_bytes: int | None = None,
) -> Iterator[PeakList]:
    """Solve many orientations of any crystals in batches on a GPU.

    Parameters
    ----------
    work : iterable of (Scatterer, ndarray of shape (3, 3))
        Crystals prepared for a spec without precession, and rotation matrices. Taken up bit by bit;
        batches are fullest where neighbours share their thicknesses.
    device : str
        "cuda", "cuda:1" …, or "cpu" for a rehearsal.
    memory_bytes : int, optional
        What may be used on the device; by default four fifths of what is free there, 2 GB of a CPU.

    Returns
    -------
    iterator of PeakList
        In the order of ``work``, with the beams of :meth:`Scatterer.solve` and its intensities to
        about 2e-6. Those whose series did not converge come from the CPU and say "dense".

    Raises
    ------
    SimulationError
        If PyTorch or the device is missing, a spec asks for precession, one orientation alone needs
        more memory than allowed, or a solve gives numbers that are not finite.
    """
    kernel = _kernel()
    place = kernel.usable_device(device)
    allowed = kernel.default_memory(place) if memory_bytes is None else memory_bytes
    return _solve_in_windows(kernel, work, place, allowed)


def check_device(device: str, spec: SimulationSpec) -> None:
    """Refuse, before any work, a device or a spec that :func:`solve_batched` cannot take.

    Raises
    ------
    SimulationError
        If PyTorch or the device is missing, or the spec asks for precession.
    """
    _kernel().usable_device(device)
    _refuse_precession(spec)


def _refuse_precession(spec: SimulationSpec) -> None:
    if spec.precession_deg:
        raise SimulationError(
            f"the GPU engine does not precess the beam, and precession_deg is {spec.precession_deg:g}",
            "it takes one incident wave for each orientation",
            "Use the CPU engine, or precession_deg = 0",
        )


def _kernel() -> ModuleType:
    try:
        from diffractory.scattering import torch_batches
    except ImportError as error:
        if error.name != "torch":
            raise
        raise SimulationError(
            "PyTorch is not installed",
            "the GPU engine is built on it",
            "pip install 'diffractory[gpu]', or use the CPU engine",
        ) from None
    return torch_batches


def _solve_in_windows(
    kernel: ModuleType, work: Iterable[tuple[Scatterer, NDArray[np.float64]]], device: Any, memory_bytes: int
) -> Iterator[PeakList]:
    for window in _windows(kernel, work, memory_bytes):
        beam_sets = [item.beams for item in window.items]
        found = kernel.solve_beam_sets(beam_sets, window.tables, window.thicknesses, device, memory_bytes)
        for item, intensity in zip(window.items, found, strict=True):
            if intensity is None:
                yield item.scatterer.solve(item.orientation, "dense")
            else:
                yield PeakList(item.hkl, item.q, intensity.astype(np.float64))


@dataclass(frozen=True, eq=False)
class _Item:
    scatterer: Scatterer
    orientation: NDArray[np.float64]
    hkl: NDArray[np.int64]
    q: NDArray[np.float64]
    beams: BeamSet


@dataclass(eq=False)
class _Window:
    """Orientations that are solved together, and the tables of their crystals."""

    thicknesses: tuple[float, ...]
    items: list[_Item] = field(default_factory=list)
    tables: list[NDArray[np.complex64]] = field(default_factory=list)
    #: Which table belongs to a scatterer, by the identity of what its items keep alive.
    places: dict[int, int] = field(default_factory=dict)
    bytes: int = 0


def _windows(
    kernel: ModuleType, work: Iterable[tuple[Scatterer, NDArray[np.float64]]], memory_bytes: int
) -> Iterator[_Window]:
    """Gather as many orientations as memory allows, all of the same thicknesses."""
    window = _Window(())
    for scatterer, orientation in work:
        spec = scatterer.spec
        _refuse_precession(spec)
        chosen, errors = scatterer.select_beams(orientation)
        problem = kernel.problem_bytes(errors.shape[1], len(spec.thicknesses))
        table = 8 * scatterer.factors.table.size
        needed = problem if id(scatterer) in window.places else problem + table
        full = len(window.items) == _WINDOW or window.bytes + needed > memory_bytes
        if window.items and (full or window.thicknesses != spec.thicknesses):
            yield window
            window, needed = _Window(()), problem + table
        window.thicknesses = spec.thicknesses
        window.bytes += needed
        _add(kernel, window, scatterer, orientation, np.flatnonzero(chosen), errors[0])
    if window.items:
        yield window


def _add(
    kernel: ModuleType,
    window: _Window,
    scatterer: Scatterer,
    orientation: NDArray[np.float64],
    chosen: NDArray[np.int64],
    errors: NDArray[np.float64],
) -> None:
    place = window.places.setdefault(id(scatterer), len(window.tables))
    if place == len(window.tables):
        window.tables.append(coupling_table(scatterer))
    beams = kernel.BeamSet(place, *indexed_beams(scatterer, window.tables[place], chosen, errors))
    hkl, q = scatterer.points.hkl[chosen], scatterer.points.g[chosen] @ orientation[:, :2]
    window.items.append(_Item(scatterer, orientation, hkl, q, beams))


def coupling_table(scatterer: Scatterer) -> NDArray[np.complex64]:
    """Return the table of U_g / 2k₀ in Å⁻¹, over the cosine between beam and foil normal."""
    cosine = float(Illumination.of(scatterer.spec).cosines()[0])
    factor = np.float32(0.5 * electron_wavelength(scatterer.spec.energy_ev) / cosine)
    table: NDArray[np.complex64] = factor * scatterer.factors.single
    return table


def indexed_beams(
    scatterer: Scatterer,
    table: NDArray[np.complex64],
    chosen: NDArray[np.int64],
    errors: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.complex64]]:
    """Return places in the flattened table, and the diagonal of the structure matrix, of chosen beams."""
    _, n_k, n_l = table.shape
    index = scatterer.points.index[chosen] @ np.array([n_k * n_l, n_l, 1])
    # As in the matrix of one orientation: the mean potential absorbs, but does not refract.
    absorption = table.flat[table.size // 2].imag
    return index, (errors + 1j * absorption).astype(np.complex64)
