"""Patterns of an opened run, batch by batch, without loading the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from diffractory.dataset.selection import check_form, peak_rows, positions_of
from diffractory.errors import SpecError
from diffractory.patterns.peak_table import PeakTable

#: A shuffled batch is made of this many stretches of patterns that follow each other.
_STRETCHES = 8


@dataclass(frozen=True, eq=False)
class PatternBatch:
    """Some patterns at one thickness.

    Parameters
    ----------
    peaks : PeakTable
        Positions in Å⁻¹ and shares of the incident beam, direct beams marked.
    crystal, orientation : ndarray of shape (n_patterns,), int64
        Where each pattern lies in the dataset: positions along its dimensions crystal and orientation.
    """

    peaks: PeakTable
    crystal: NDArray[np.int64]
    orientation: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.peaks)


def iterate_batches(
    dataset: xr.Dataset, patterns_per_batch: int, thickness: float, seed: int | None = None
) -> Iterator[PatternBatch]:
    """Yield all patterns of an opened run at one thickness, a batch at a time.

    Memory holds one batch. Without a seed the patterns come in the order of the dataset. With one
    they are shuffled so that reading stays fast: the dataset is cut into stretches of
    ``patterns_per_batch // 8`` patterns that follow each other, and so lie together on disk; the stretches
    are shuffled, each batch reads some of them in the order of the disk, and its patterns are
    shuffled in memory. So a batch mixes patterns of about eight places, not of as many as it has patterns.

    Small batches read slowly: the chunks on disk hold about fifty patterns of 300 beams.

    Parameters
    ----------
    dataset : xarray.Dataset
        From :func:`~diffractory.dataset.reader.open_dataset` or
        :func:`~diffractory.dataset.selection.select`.
    patterns_per_batch : int
        The last batch may be smaller.
    thickness : float
        In Å, one of the dataset's.
    seed : int, optional
        Shuffles; the same seed gives the same batches.

    Yields
    ------
    PatternBatch
        Every pattern is in exactly one.

    Raises
    ------
    SpecError
        If a batch has less than one pattern.
    RunError
        If the thickness is not in the dataset, or this is not a dataset of a run.

    Examples
    --------
    >>> import diffractory
    >>> from diffractory.dataset.batches import iterate_batches
    >>> dataset = diffractory.open_dataset("runs/first")
    >>> for batch in iterate_batches(dataset, 8, thickness=200.0, seed=0):
    ...     print(len(batch), len(batch.peaks) == len(dataset.space_group[batch.crystal]))
    8 True
    8 True
    4 True
    """
    if patterns_per_batch < 1:
        raise SpecError(f"batches of {patterns_per_batch} patterns cannot be", fix="Give a number above 0")
    check_form(dataset)
    column = int(positions_of(dataset, "thickness", thickness)[0])
    return _batches(dataset, patterns_per_batch, column, seed)


def _batches(dataset: xr.Dataset, size: int, column: int, seed: int | None) -> Iterator[PatternBatch]:
    # Looked up once: a run has millions of patterns.
    starts = dataset["peak_start"].to_numpy().ravel()
    counts = dataset["peak_count"].to_numpy().ravel()
    rng = None if seed is None else np.random.default_rng(seed)
    order = np.arange(len(counts)) if rng is None else _shuffled_stretches(len(counts), size, rng)
    for first in range(0, len(order), size):
        patterns = np.sort(order[first : first + size])
        peaks = _read(dataset, starts[patterns], counts[patterns], column)
        if rng is not None:
            mixed = rng.permutation(len(patterns))
            patterns, peaks = patterns[mixed], peaks.take(mixed)
        crystal, orientation = np.divmod(patterns, dataset.sizes["orientation"])
        yield PatternBatch(peaks, crystal, orientation)


def _shuffled_stretches(count: int, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    length = max(size // _STRETCHES, 1)
    stretches = rng.permutation(-(-count // length))
    order: NDArray[np.int64] = (stretches[:, None] * length + np.arange(length)).ravel()
    return order[order < count]


def _read(
    dataset: xr.Dataset, starts: NDArray[np.int64], counts: NDArray[np.int64], column: int
) -> PeakTable:
    rows = peak_rows(starts, counts)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return PeakTable(
        dataset.variables["q"].isel(peak=rows).to_numpy(),
        dataset.variables["intensity"].isel(peak=rows, thickness=column).to_numpy().astype(np.float64),
        offsets,
        # hkl = 000 comes first in every pattern.
        offsets[:-1],
    )
