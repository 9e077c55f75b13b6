"""Batches of Bloch-wave problems for a GPU: sorted by size, padded, bounded in memory.

One orientation is too little work for a GPU. Orientations of about equally many beams, of any
crystals, are therefore padded to one size and solved together by :mod:`.torch_series`; their
matrices are gathered on the device from tables of structure factors, and only intensities come
back. Plain arrays in and out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from diffractory.errors import SimulationError
from diffractory.scattering.chebyshev import BLOCK
from diffractory.scattering.torch_series import solve_matrices
from diffractory.units import human_bytes

#: Beam counts are padded to multiples of this: rows then start where memory is read fastest.
_ALIGNMENT = 16
#: A smaller problem joins a batch as long as padding multiplies its elements by no more than this.
_LARGEST_WASTE = 1.12
#: Index of beams that only pad: far outside of all tables, where the coupling is zero.
_NOWHERE = 2**40
#: Share of the free memory of a GPU that is used by default, and bytes on a CPU.
_FREE_SHARE, _CPU_BYTES = 0.8, 2_000_000_000


@dataclass(frozen=True, eq=False)
class BeamSet:
    """The beams of one orientation, ready to be solved.

    Parameters
    ----------
    table : int
        Which of the tables couples them.
    index : ndarray of shape (n,), int64
        Place of each beam in the flattened table, counted from an origin of one's choice: beams i
        and j are coupled by the entry ``index[j] - index[i]`` from the middle one. Beam 0 is the
        incident one.
    diagonal : ndarray of shape (n,), complex64
        Diagonal of A / 2k₀: excitation error and absorption, in Å⁻¹.
    """

    table: int
    index: NDArray[np.int64]
    diagonal: NDArray[np.complex64]

    def __len__(self) -> int:
        return len(self.index)


def usable_device(name: str) -> torch.device:
    """Return the device of that name.

    Raises
    ------
    SimulationError
        If there is no such device, or it is neither a CUDA device nor the CPU.
    """
    available = [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    seen = f"PyTorch {torch.__version__} sees {', '.join(available) or 'no CUDA device'}"
    fix = "Install PyTorch for CUDA on a machine with a GPU, or use the CPU engine"
    if not available and torch.version.cuda is None:
        seen += ", as it was built without CUDA"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SimulationError(f"no device is called {name!r}", seen, "Give cuda, cuda:1 or cpu") from None
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise SimulationError(f"the engine does not run on {name!r}", seen, "Give cuda, cuda:1 or cpu")
    if not available:
        raise SimulationError(f"device {name!r} cannot be used", seen, fix)
    if (device.index or 0) >= len(available):
        raise SimulationError(f"there is no device {name!r}", seen, "Give one of these")
    return device


def default_memory(device: torch.device) -> int:
    """Return the bytes to use on a device where nobody says."""
    if device.type == "cpu":
        return _CPU_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    # What PyTorch holds in reserve counts as taken there, but is ours to use.
    idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(_FREE_SHARE * (free + idle))


def problem_bytes(n_beams: int, n_thicknesses: int) -> int:
    """Return the bytes that one problem of a batch takes on the device at its peak."""
    n = _padded(n_beams)
    # A matrix beside its indices, later beside terms, sums and intensities; and vectors.
    return max(16 * n * n, 8 * n * n + n * (8 * BLOCK + 28 * n_thicknesses)) + 160 * n


def solve_beam_sets(
    beam_sets: Sequence[BeamSet],
    tables: Sequence[NDArray[np.complex64]],
    thicknesses: tuple[float, ...],
    device: torch.device,
    memory_bytes: int,
) -> list[NDArray[np.float32] | None]:
    """Solve many orientations on one device, at the same thicknesses.

    Parameters
    ----------
    beam_sets : sequence of BeamSet
        In any order and of any sizes.
    tables : sequence of ndarray, complex64
        U_g / 2k₀ in Å⁻¹ of each crystal, odd in every dimension, U_000 in the middle.
    thicknesses : tuple of float
        Strictly increasing, in Å.
    device : torch.device
    memory_bytes : int
        What may be used on the device.

    Returns
    -------
    list of ndarray of shape (n_thicknesses, n), or None
        Intensities of each orientation, in the order given; None where the series did not converge.

    Raises
    ------
    SimulationError
        If one problem alone needs more memory than is allowed, or than the device has.
    """
    sizes = np.array([len(beams) for beams in beam_sets], dtype=np.int64)
    taken = 8 * (1 + sum(table.size for table in tables))
    largest = int(sizes.max(initial=1))
    needed = taken + problem_bytes(largest, len(thicknesses))
    if needed > memory_bytes:
        raise _too_large(largest, needed, f"{human_bytes(memory_bytes)} may be used")
    found: list[NDArray[np.float32] | None] = [None] * len(beam_sets)
    todo = batches(sizes, len(thicknesses), memory_bytes - taken)
    with torch.inference_mode(), _full_precision():
        try:
            stock = _Stock.upload(tables, device)
        except torch.OutOfMemoryError:
            raise _too_large(largest, needed, f"{device} ran out of memory") from None
        while todo:
            chosen = todo.pop()
            intensity = _attempt([beam_sets[i] for i in chosen], stock, thicknesses)
            if isinstance(intensity, np.ndarray):
                for place, i in enumerate(chosen):
                    found[i] = intensity[:, place, : sizes[i]]
            elif len(chosen) > 1:
                # What ran out of memory fits; what diverged is found, and spoils no other's series.
                todo += np.array_split(chosen, 2)
            elif intensity == "no memory":
                raise _too_large(int(sizes[chosen[0]]), needed, f"{device} ran out of memory")
    return found


def _too_large(n_beams: int, needed: int, why: str) -> SimulationError:
    return SimulationError(
        f"an orientation of {n_beams} beams needs {human_bytes(needed)} on the device",
        why,
        "Take a smaller q_max or s_max, fewer thicknesses, a larger memory_bytes, or the CPU engine",
    )


def batches(sizes: NDArray[np.int64], n_thicknesses: int, memory_bytes: int) -> list[NDArray[np.int64]]:
    """Group problems of about equal size, as many at once as memory allows.

    Parameters
    ----------
    sizes : ndarray of shape (n,), int64
        Beams of each problem.
    n_thicknesses : int
    memory_bytes : int
        What a batch may take; a problem too large for it makes a batch of its own.

    Notes
    -----
    Padding multiplies the elements of a matrix by at most 1.12, or by what rounding its own beam
    count up to a multiple of 16 makes, if that is more: 1.16 at 193 beams, less beyond.
    """
    groups: list[list[int]] = []
    width = room = 0
    for i in np.argsort(-sizes, kind="stable"):
        n = int(sizes[i])
        fits = width == _padded(n) or width**2 <= _LARGEST_WASTE * n**2
        if not groups or len(groups[-1]) == room or not fits:
            groups.append([])
            width, room = _padded(n), max(1, memory_bytes // problem_bytes(n, n_thicknesses))
        groups[-1].append(i)
    return [np.array(group, dtype=np.int64) for group in groups]


def _padded(n_beams: int) -> int:
    return -(-n_beams // _ALIGNMENT) * _ALIGNMENT


@contextmanager
def _full_precision() -> Iterator[None]:
    """Keep products of float32 in float32, whatever the process has chosen for its networks."""
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, chosen in zip(backends, before, strict=True):
            backend.fp32_precision = chosen


@dataclass(frozen=True, eq=False)
class _Stock:
    """All tables in one tensor: a batch of many crystals is gathered in one go."""

    #: A zero for what lies in no table, then the tables, flat.
    values: torch.Tensor
    #: Where U_000 of each stands.
    middles: NDArray[np.int64]

    @classmethod
    def upload(cls, tables: Sequence[NDArray[np.complex64]], device: torch.device) -> _Stock:
        sizes = np.array([table.size for table in tables], dtype=np.int64)
        values = np.concatenate([np.zeros(1, np.complex64), *(table.ravel() for table in tables)])
        return cls(torch.from_numpy(values).to(device), 1 + np.cumsum(sizes) - sizes + sizes // 2)

    def matrices(self, problems: Sequence[BeamSet], width: int) -> torch.Tensor:
        """Return A / 2k₀ of all problems, (n_problems, width, width), zero where it pads."""
        shape = (len(problems), width)
        rows, columns = np.full(shape, _NOWHERE), np.full(shape, -_NOWHERE)
        diagonal = np.zeros(shape, dtype=np.complex64)
        for i, beams in enumerate(problems):
            rows[i, : len(beams)] = beams.index
            columns[i, : len(beams)] = self.middles[beams.table] + beams.index
            diagonal[i, : len(beams)] = beams.diagonal
        place = self.values.device
        from_row, to_column, on_diagonal = (
            torch.from_numpy(array).to(place) for array in (rows, columns, diagonal)
        )
        index = (to_column[:, None, :] - from_row[:, :, None]).clamp_(min=0)
        matrix = self.values[index]
        matrix.diagonal(dim1=1, dim2=2).copy_(on_diagonal)
        return matrix


def _attempt(
    problems: Sequence[BeamSet], stock: _Stock, thicknesses: tuple[float, ...]
) -> NDArray[np.float32] | Literal["diverged", "no memory"]:
    """Return the intensities of a batch, (n_thicknesses, n_problems, width), or why there are none."""
    sizes = [len(beams) for beams in problems]
    try:
        intensity = solve_matrices(stock.matrices(problems, _padded(max(sizes))), sizes, thicknesses)
        return "diverged" if intensity is None else intensity.cpu().numpy()
    except torch.OutOfMemoryError:
        # Left before anything is tried again: the error holds on to all tensors of the attempt.
        return "no memory"
