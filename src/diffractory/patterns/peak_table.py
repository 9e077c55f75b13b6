"""A ragged table of Bragg peaks: many patterns as flat arrays with offsets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from diffractory.errors import DiffractoryError


@dataclass(frozen=True, eq=False)
class PeakTable:
    """Bragg peaks of many patterns.

    Pattern ``i`` holds the peaks ``offsets[i]:offsets[i + 1]``.

    Parameters
    ----------
    q : ndarray of shape (n_peaks, 2)
        Position on the detector in Å⁻¹.
    intensity : ndarray of shape (n_peaks,)
        Simulated: share of the incident beam; measured: any scale.
    offsets : ndarray of shape (n_patterns + 1,), int64
        Start of each pattern; starts with 0, never decreases, ends with n_peaks.
    direct : ndarray of shape (n_patterns,), int64
        Position of the direct beam in the flat arrays, -1 where a pattern has none. It is hkl = 000
        in a simulation and the spot nearest the origin in an experiment, and not always the
        brightest: so it is carried along, never guessed again.

    Raises
    ------
    ValueError
        If the arrays do not fit each other.

    Examples
    --------
    >>> from diffractory.patterns.peak_table import PeakTable
    >>> q = [[[0.0, 0.0], [0.5, 0.0]], [[0.0, 0.0]]]  # two patterns, of two peaks and of one
    >>> table = PeakTable.from_lists(q, [[0.8, 0.1], [0.9]], direct=[0, 0])
    >>> len(table), table.counts.tolist(), table.offsets.tolist()
    (2, [2, 1], [0, 2, 3])
    """

    q: NDArray[np.float64]
    intensity: NDArray[np.float64]
    offsets: NDArray[np.int64]
    direct: NDArray[np.int64]

    def __post_init__(self) -> None:
        for name, dtype in (
            ("q", np.float64),
            ("intensity", np.float64),
            ("offsets", np.int64),
            ("direct", np.int64),
        ):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=dtype))
        n_peaks = len(self.intensity)
        if self.q.shape != (n_peaks, 2):
            raise ValueError(f"q must have shape ({n_peaks}, 2), got {self.q.shape}")
        if self.offsets.ndim != 1 or self.offsets.size == 0 or self.offsets[0] != 0:
            raise ValueError("offsets must be one-dimensional and start with 0")
        if self.offsets[-1] != n_peaks or np.any(np.diff(self.offsets) < 0):
            raise ValueError("offsets must never decrease and end with the number of peaks")
        outside = (self.direct < self.offsets[:-1]) | (self.direct >= self.offsets[1:])
        if self.direct.shape != (len(self),) or np.any(outside & (self.direct != -1)):
            raise ValueError("direct must point into each pattern's own peaks, or be -1")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of peaks of each pattern, direct beam included, of shape (n_patterns,)."""
        return np.diff(self.offsets)

    @property
    def scattered(self) -> NDArray[np.bool_]:
        """Which peaks are no direct beam, of shape (n_peaks,)."""
        scattered = np.ones(len(self.intensity), dtype=bool)
        scattered[self.direct[self.direct >= 0]] = False
        return scattered

    @classmethod
    def from_lists(
        cls, q: Sequence[NDArray[np.float64]], intensity: Sequence[NDArray[np.float64]], direct: Sequence[int]
    ) -> Self:
        """Build a table from one array of positions and of intensities for each pattern.

        Parameters
        ----------
        q : sequence of ndarray of shape (n_i, 2)
        intensity : sequence of ndarray of shape (n_i,)
        direct : sequence of int
            Index of the direct beam within each pattern, -1 for none.

        Returns
        -------
        PeakTable
        """
        offsets = np.concatenate([[0], np.cumsum([len(values) for values in intensity], dtype=np.int64)])
        inner = np.asarray(direct, dtype=np.int64)
        return cls(
            np.concatenate([np.empty((0, 2)), *(np.reshape(positions, (-1, 2)) for positions in q)]),
            np.concatenate([np.empty(0), *intensity]),
            offsets,
            np.where(inner >= 0, inner + offsets[:-1], -1),
        )

    @classmethod
    def from_detected(
        cls, q: Sequence[NDArray[np.float64]], intensity: Sequence[NDArray[np.float64]]
    ) -> Self:
        """Build a table of measured patterns: the direct beam is the spot nearest the origin.

        Parameters
        ----------
        q : sequence of ndarray of shape (n_i, 2)
            In Å⁻¹ from the origin.
        intensity : sequence of ndarray of shape (n_i,)

        Returns
        -------
        PeakTable
        """
        direct = [int(np.argmin(np.hypot(*positions.T))) if len(positions) else -1 for positions in q]
        return cls.from_lists(q, intensity, direct)

    @classmethod
    def concatenate(cls, tables: Sequence[Self]) -> Self:
        """Join tables: the patterns of the first, then those of the second, and so on.

        Parameters
        ----------
        tables : sequence of PeakTable

        Returns
        -------
        PeakTable
        """
        starts = np.cumsum([0, *(len(table.q) for table in tables)])
        pairs = list(zip(tables, starts.tolist(), strict=False))
        return cls(
            np.concatenate([np.empty((0, 2)), *(table.q for table in tables)]),
            np.concatenate([np.empty(0), *(table.intensity for table in tables)]),
            np.concatenate([[0], *(table.offsets[1:] + start for table, start in pairs)]),
            np.concatenate(
                [np.empty(0), *(np.where(t.direct >= 0, t.direct + start, -1) for t, start in pairs)]
            ),
        )

    def __getitem__(self, index: int) -> Self:
        """Return a table of one pattern: a table is a sequence of patterns to scikit-learn."""
        return self.take([range(len(self))[index]])

    def pattern(self, index: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return positions (n, 2) and intensities (n,) of one pattern, as views.

        Parameters
        ----------
        index : int
            From the end where negative.

        Returns
        -------
        q : ndarray of shape (n, 2)
        intensity : ndarray of shape (n,)
        """
        index = range(len(self))[index]
        peaks = slice(self.offsets[index], self.offsets[index + 1])
        return self.q[peaks], self.intensity[peaks]

    def take(self, indices: NDArray[np.int64] | NDArray[np.bool_] | Sequence[int]) -> Self:
        """Return a table of the chosen patterns, in the order given.

        Parameters
        ----------
        indices : array_like of shape (n,), int, or mask of all patterns
            From the end where negative.

        Returns
        -------
        PeakTable
            Of n patterns.

        Raises
        ------
        IndexError
            If there is no such pattern.
        """
        asked = np.asarray(indices)
        chosen = np.arange(len(self))[asked if asked.size else asked.astype(np.int64)]
        counts = self.counts[chosen]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        shift = self.offsets[chosen] - offsets[:-1]
        peaks = np.arange(offsets[-1]) + np.repeat(shift, counts)
        direct = np.where(self.direct[chosen] >= 0, self.direct[chosen] - shift, -1)
        return type(self)(self.q[peaks], self.intensity[peaks], offsets, direct)

    def blocks(self, size: int) -> Iterator[Self]:
        """Yield consecutive tables of at most ``size`` patterns, as views.

        Parameters
        ----------
        size : int

        Yields
        ------
        PeakTable
        """
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            first, last = self.offsets[start], self.offsets[stop]
            direct = self.direct[start:stop]
            yield type(self)(
                self.q[first:last],
                self.intensity[first:last],
                self.offsets[start : stop + 1] - first,
                np.where(direct >= 0, direct - first, -1),
            )


def refuse_not_finite(table: PeakTable) -> None:
    """Refuse peaks whose position or intensity is not finite.

    Raises
    ------
    DiffractoryError
        Naming the first of them.
    """
    bad = ~(np.isfinite(table.intensity) & np.isfinite(table.q).all(axis=1))
    if bad.any():
        peak = int(np.argmax(bad))
        pattern = int(np.searchsorted(table.offsets, peak, side="right")) - 1
        raise DiffractoryError(
            f"peak {peak - int(table.offsets[pattern])} of pattern {pattern} has position "
            f"{table.q[peak].tolist()} Å⁻¹ and intensity {table.intensity[peak]}",
            "features need finite positions and intensities",
            "Remove such peaks, or detect the disks again",
        )
