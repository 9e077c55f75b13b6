"""The hierarchy of forests: crystal system first, then space group and lattice within each system."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from diffractory.crystals.systems import CRYSTAL_SYSTEMS, system_code, system_of_space_group
from diffractory.errors import ModelError
from diffractory.learning.domain import TrainingDomain
from diffractory.learning.forests import MedianForestRegressor, VoteForestClassifier
from diffractory.learning.matrices import check_matrix, rows_of
from diffractory.learning.system_hierarchy import TrainingSummary, seed_of
from diffractory.learning.trained_hierarchies import TrainedForests
from diffractory.specs import ForestSpec

_TRICLINIC = system_code("triclinic")
_ORTHORHOMBIC = system_code("orthorhombic")


@dataclass(frozen=True, eq=False)
class Targets:
    """What is to be learned from each pattern; build it with :meth:`from_labels`.

    Parameters
    ----------
    system : ndarray of shape (n,), int8
        Code of the crystal system, an index into ``CRYSTAL_SYSTEMS``.
    space_group : ndarray of shape (n,), int16
        International number, 1 … 230.
    lattice : ndarray of shape (n, 3)
        a, b, c of the conventional cell in Å; orthorhombic ones sorted, a ≤ b ≤ c.
    """

    system: NDArray[np.int8]
    space_group: NDArray[np.int16]
    lattice: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.system)

    @classmethod
    def from_labels(
        cls, systems: Sequence[str] | ArrayLike, space_group: ArrayLike, lattice: ArrayLike
    ) -> Self:
        """Check labels and bring them into the form that is learned.

        Parameters
        ----------
        systems : sequence of str, or array_like of int, of length n
            Names or codes of the crystal systems.
        space_group : array_like of shape (n,), int
        lattice : array_like of shape (n, 3)
            a, b, c in Å. The axes of orthorhombic cells are sorted: their order is a convention
            of whoever set up the cell, and no pattern can tell it.

        Returns
        -------
        Targets
            Of n patterns.

        Raises
        ------
        ModelError
            If the labels do not fit each other or a lattice constant is not positive.
        """
        codes = _codes(systems)
        groups, cells = np.asarray(space_group), np.array(lattice, dtype=np.float64)
        if groups.shape != codes.shape or cells.shape != (len(codes), 3):
            raise ModelError(
                f"{codes.shape} crystal systems with {groups.shape} space groups and {cells.shape} lattices"
            )
        if groups.dtype.kind not in "iu" and not (
            groups.dtype.kind == "f" and np.all(np.isfinite(groups)) and np.all(groups == np.rint(groups))
        ):
            raise ModelError("a space group is missing, or is no whole number")
        for number in np.unique(groups):
            found = CRYSTAL_SYSTEMS[codes[groups == number][0]]
            if not 1 <= number <= 230 or np.any(codes[groups == number] != _system_of(int(number))):
                raise ModelError(
                    f"space group {number} is listed under {found}",
                    "space groups are 1 … 230 and each belongs to one crystal system",
                    "Build the catalogue again",
                )
        if not np.all(np.isfinite(cells) & (cells > 0.0)):
            raise ModelError("a lattice constant is not a positive number")
        cells[codes == _ORTHORHOMBIC] = np.sort(cells[codes == _ORTHORHOMBIC], axis=1)
        return cls(codes, groups.astype(np.int16), cells)

    def take(self, indices: ArrayLike) -> Self:
        """Return the targets of the chosen patterns (indices or a mask).

        Parameters
        ----------
        indices : array_like of int or bool
            Which patterns, by number or as a mask.

        Returns
        -------
        Targets
            Of the chosen ones, in their order.
        """
        chosen = np.asarray(indices)
        return type(self)(self.system[chosen], self.space_group[chosen], self.lattice[chosen])


class SymmetryHierarchy(BaseEstimator, TrainedForests):
    """One forest for the crystal system; for each system one for the space group, one for a, b, c.

    Parameters
    ----------
    spec : ForestSpec
        Trees, depths, seed, and whether triclinic is learned. With six systems: 13 forests.
    n_jobs : int or None
        Trees trained at the same time; None = what the active joblib backend offers.

    Attributes
    ----------
    systems_ : ndarray of shape (n_systems,), int8
        Codes of the learned crystal systems, sorted.
    system_forest_ : VoteForestClassifier
    group_forests_ : dict of int to VoteForestClassifier
    lattice_forests_ : dict of int to MedianForestRegressor
    skipped_ : dict of str to str
        Why a crystal system was left out, or has no space-group and lattice forests.
    training_ : dict of int to TrainingSummary
    domain_ : TrainingDomain
    n_features_in_ : int
    """

    def __init__(self, spec: ForestSpec = ForestSpec(), n_jobs: int | None = None) -> None:  # noqa: B008
        self.spec = spec
        self.n_jobs = n_jobs

    def fit(
        self,
        X: ArrayLike,
        targets: Targets,
        materials: ArrayLike | None = None,
        progress: Callable[[str], None] = lambda what: None,
    ) -> Self:
        """Train all forests.

        Parameters
        ----------
        X : array_like of shape (n, n_features)
            Features.
        targets : Targets
            Of the same n patterns. Triclinic ones are dropped unless ``spec.with_triclinic``.
        materials : array_like of shape (n,), optional
            Material of each pattern. A crystal system with fewer than two materials (without this
            argument: two patterns) gets no space-group and lattice forests.
        progress : callable, optional
            Told what is trained next.

        Returns
        -------
        SymmetryHierarchy
            This model.

        Raises
        ------
        ModelError
            If features and targets do not fit each other, or fewer than two systems remain.
        """
        features = check_matrix(X)
        owners = np.arange(len(targets)) if materials is None else np.asarray(materials)
        if not len(features) == len(targets) == len(owners):
            raise ModelError(
                f"{len(features)} rows of features, {len(targets)} targets and {len(owners)} materials"
            )
        self.skipped_ = {}
        if not self.spec.with_triclinic and np.any(targets.system == _TRICLINIC):
            keep = np.flatnonzero(targets.system != _TRICLINIC)
            self.skipped_["triclinic"] = "left out as in the paper (with_triclinic is off)"
            features, targets, owners = rows_of(features, keep), targets.take(keep), owners[keep]
        check_systems(targets)
        self.n_features_in_ = features.shape[1]
        self.systems_ = np.unique(targets.system)
        progress("crystal system")
        self.system_forest_ = self._system_forest().fit(features, targets.system)
        self._fit_within(features, targets, owners, progress)
        progress("domain")
        self.domain_ = TrainingDomain.fit(features, self.spec.seed)
        return self

    def _fit_within(
        self,
        features: NDArray[np.float32],
        targets: Targets,
        owners: NDArray[Any],
        progress: Callable[[str], None],
    ) -> None:
        self.group_forests_, self.lattice_forests_, self.training_ = {}, {}, {}
        for code in map(int, self.systems_):
            rows = np.flatnonzero(targets.system == code)
            part = targets.take(rows)
            self.training_[code] = summary_of(part)
            if len(np.unique(owners[rows])) < 2:
                self.skipped_[CRYSTAL_SYSTEMS[code]] = "fewer than two materials to learn space groups from"
                continue
            progress(f"{CRYSTAL_SYSTEMS[code]}: space group and lattice")
            chosen = rows_of(features, rows)
            self.group_forests_[code] = self._group_forest(code).fit(chosen, part.space_group)
            self.lattice_forests_[code] = self._lattice_forest(code).fit(chosen, part.lattice)

    def _system_forest(self) -> VoteForestClassifier:
        spec = self.spec
        return VoteForestClassifier(
            spec.system_trees, spec.system_depth, n_jobs=self.n_jobs, random_state=seed_of(spec.seed, 0, 0)
        )

    def _group_forest(self, code: int) -> VoteForestClassifier:
        spec = self.spec
        return VoteForestClassifier(
            spec.group_trees, spec.group_depth, n_jobs=self.n_jobs, random_state=seed_of(spec.seed, 1, code)
        )

    def _lattice_forest(self, code: int) -> MedianForestRegressor:
        spec = self.spec
        return MedianForestRegressor(
            spec.lattice_trees,
            spec.lattice_depth,
            n_jobs=self.n_jobs,
            random_state=seed_of(spec.seed, 2, code),
        )


def _system_of(number: int) -> int:
    return system_code(system_of_space_group(number))


def _codes(systems: Sequence[str] | ArrayLike) -> NDArray[np.int8]:
    given = np.asarray(systems)
    if given.dtype.kind not in "iuUO" or given.ndim != 1:
        raise ModelError(f"crystal systems must be names or codes, got {given.dtype} {given.shape}")
    if given.dtype.kind in "iu":
        known = (given >= 0) & (given < len(CRYSTAL_SYSTEMS))
    else:
        known = np.isin(given.astype(str), CRYSTAL_SYSTEMS)
    if not known.all():
        raise ModelError(
            f"{given[~known][0]!r} is no crystal system", fix=f"Use {', '.join(CRYSTAL_SYSTEMS)}"
        )
    if given.dtype.kind in "iu":
        return given.astype(np.int8)
    return np.array([system_code(name) for name in given], dtype=np.int8)


def check_systems(targets: Targets) -> None:
    """Refuse to train where there are fewer than two crystal systems to tell apart.

    Raises
    ------
    ModelError
    """
    present = np.unique(targets.system)
    if len(present) < 2:
        names = ", ".join(CRYSTAL_SYSTEMS[code] for code in present) or "none"
        raise ModelError(
            f"cannot train on the crystal systems of these patterns: {names}",
            "telling crystal systems apart takes at least two, and triclinic counts only where it is learned",
            "Build a catalogue with materials of more crystal systems, or learn triclinic "
            "(--with-triclinic; in Python ForestSpec(with_triclinic=True))",
        )


def summary_of(targets: Targets) -> TrainingSummary:
    """Summarise the training patterns of one crystal system."""
    numbers, counts = np.unique(targets.space_group, return_counts=True)
    a, b, c = np.median(targets.lattice, axis=0).tolist()
    return TrainingSummary(len(targets), int(numbers[counts.argmax()]), int(counts.max()), (a, b, c))
