"""The robust hierarchy: boosted trees on rotation-invariant features, with calibrated probabilities.

The lattice models do not learn lattice constants from scratch: the features hold the cell that each
crystal system makes of the lattice read from the spots, and the models learn by what factor it is off
(1 where the reading is right; 2, ½, √2 … where it is not).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from diffractory.crystals.systems import CRYSTAL_SYSTEMS
from diffractory.errors import ModelError
from diffractory.learning.boosting import BoostedClassifier, BoostedRegressor
from diffractory.learning.calibration import Calibration
from diffractory.learning.domain import TrainingDomain
from diffractory.learning.hierarchy import Targets, check_systems, summary_of
from diffractory.learning.matrices import check_matrix, rows_of
from diffractory.learning.system_hierarchy import seed_of
from diffractory.learning.trained_hierarchies import TrainedBoosting
from diffractory.patterns.invariants import invariant_names
from diffractory.specs import BoostingSpec, InvariantSpec

#: Ratios of cells are learned up to this factor; beyond, the reading has nothing to do with the cell.
_LARGEST_RATIO = 4.0
#: Python and the libraries it has loaded.
_PROGRAM_BYTES = 500_000_000
#: Rows that LightGBM chooses its bins from, and its bytes for each number of them: a value and its place.
_BINNED_ROWS, _BYTES_A_BINNED_NUMBER = 200_000, 14
#: Rows that the training domain is learned from, and its bytes for each number of them.
_DOMAIN_ROWS, _BYTES_A_DOMAIN_NUMBER = 20_000, 50
#: Gradient, curvature and bin counts of each bin of a histogram.
_BYTES_A_BIN, _BINS = 16, 128


def boosting_memory(n_rows: int, n_features: int, n_systems: int, spec: BoostingSpec) -> int:
    """Return the bytes that training takes, the mapped matrix included.

    Parameters
    ----------
    n_rows, n_features : int
        Of the training features.
    n_systems : int
        Crystal systems that are learned.
    spec : BoostingSpec

    Returns
    -------
    int
        Of which the mapped matrix, 4 bytes a number, can be given back where memory is short.
    """
    # Bins are chosen before, and the domain learned after, the trees are grown.
    aside = max(
        _BYTES_A_BINNED_NUMBER * min(n_rows, _BINNED_ROWS), _BYTES_A_DOMAIN_NUMBER * min(n_rows, _DOMAIN_ROWS)
    )
    histograms = _BYTES_A_BIN * _BINS * spec.system_leaves * n_features
    # A matrix of floats, one of bins; for each system gradient, curvature and score of each row.
    own = n_rows * (5 * n_features + 16 * n_systems)
    return _PROGRAM_BYTES + own + aside * n_features + histograms


class BoostedHierarchy(BaseEstimator, TrainedBoosting):
    """Boosted models: one for the crystal system; for each system one for space group, one for a, b, c.

    Parameters
    ----------
    spec : BoostingSpec
    features : InvariantSpec
        Features that it is trained on: it needs to know which of them are cells.
    n_jobs : int or None
        Threads; None = all cores.

    Attributes
    ----------
    systems_ : ndarray of shape (n_systems,), int8
        Codes of the learned crystal systems, sorted.
    prior_ : ndarray of shape (n_systems,)
        Share of each crystal system in training.
    calibration_ : Calibration
    system_model_ : BoostedClassifier
    group_models_ : dict of int to BoostedClassifier
    lattice_models_ : dict of int to BoostedRegressor
    skipped_ : dict of str to str
        Why a crystal system was left out, or has no space-group and lattice models.
    training_ : dict of int to TrainingSummary
    domain_ : TrainingDomain
    n_features_in_ : int
    """

    def __init__(
        self,
        spec: BoostingSpec = BoostingSpec(),  # noqa: B008
        features: InvariantSpec = InvariantSpec(),  # noqa: B008
        n_jobs: int | None = None,
    ) -> None:
        self.spec = spec
        self.features = features
        self.n_jobs = n_jobs

    def fit(
        self,
        X: ArrayLike,
        targets: Targets,
        materials: ArrayLike,
        calibration: ArrayLike | None = None,
        progress: Callable[[str], None] = lambda what: None,
    ) -> Self:
        """Train all models.

        Parameters
        ----------
        X : array_like of shape (n, n_features)
            Features. Rows sorted by crystal system are not copied.
        targets : Targets
            Of the same n patterns.
        materials : array_like of shape (n,), int
            Material of each pattern. A crystal system with fewer than two gets no models of its own.
        calibration : array_like of shape (n,), bool, optional
            Patterns of materials that probabilities are calibrated on; nothing else is learned from them.
            Without any, probabilities stay as the trees give them.
        progress : callable, optional
            Told what is trained next.

        Returns
        -------
        BoostedHierarchy
            This model.

        Raises
        ------
        ModelError
            If features, targets and materials do not fit each other, or fewer than two systems remain.
        """
        features, owners = check_matrix(X), np.asarray(materials)
        held = np.zeros(len(owners), bool) if calibration is None else np.asarray(calibration, dtype=bool)
        if not len(features) == len(targets) == len(owners) == len(held):
            raise ModelError(
                f"{len(features)} rows of features, {len(targets)} targets, {len(owners)} materials and "
                f"{len(held)} marks for calibration"
            )
        expected = len(invariant_names(self.features))
        if features.shape[1] != expected:
            raise ModelError(f"{features.shape[1]} features; those of the model's settings are {expected}")
        self.skipped_ = {}
        learned = np.ones(len(targets), dtype=bool)
        if not self.spec.with_triclinic and np.any(targets.system == CRYSTAL_SYSTEMS.index("triclinic")):
            learned = targets.system != CRYSTAL_SYSTEMS.index("triclinic")
            self.skipped_["triclinic"] = "left out (with_triclinic is off)"
        check_systems(targets.take(learned & ~held))
        self.n_features_in_ = features.shape[1]
        rows = np.flatnonzero(learned & ~held)
        self.systems_ = np.unique(targets.system[rows])
        counts = np.array([np.sum(targets.system[rows] == code) for code in self.systems_])
        self.prior_ = counts / counts.sum()
        spec = self.spec
        classifier = self._classifier(spec.system_rounds, spec.system_leaves, 0, 0)
        classifier.set_params(on_round=lambda i, n: progress(f"crystal system, round {i} of {n}"))
        self.system_model_ = classifier.fit(rows_of(features, rows), targets.system[rows])
        classifier.set_params(on_round=None)
        self._calibrate(features, targets, owners, np.flatnonzero(learned & held))
        self._fit_within(features, targets, owners, learned & ~held, progress)
        progress("domain")
        self.domain_ = TrainingDomain.fit(rows_of(features, rows), spec.seed)
        return self

    def _calibrate(
        self,
        features: NDArray[np.float32],
        targets: Targets,
        owners: NDArray[Any],
        rows: NDArray[np.int64],
    ) -> None:
        known = rows[np.isin(targets.system[rows], self.systems_)]
        if len(known) == 0:
            self.calibration_ = Calibration()
            return
        raw = self.system_model_.predict_log_proba(rows_of(features, known))
        truth = np.searchsorted(self.systems_, targets.system[known])
        materials = np.unique(owners[known], return_inverse=True)[1]
        self.calibration_ = Calibration.fit(raw, truth, materials, self.prior_, self.spec.seed)

    def _fit_within(
        self,
        features: NDArray[np.float32],
        targets: Targets,
        owners: NDArray[Any],
        used: NDArray[np.bool_],
        progress: Callable[[str], None],
    ) -> None:
        spec = self.spec
        self.group_models_, self.lattice_models_, self.training_ = {}, {}, {}
        for code in map(int, self.systems_):
            rows = np.flatnonzero(used & (targets.system == code))
            part = targets.take(rows)
            self.training_[code] = summary_of(part)
            if len(np.unique(owners[rows])) < 2:
                self.skipped_[CRYSTAL_SYSTEMS[code]] = "fewer than two materials to learn space groups from"
                continue
            progress(f"{CRYSTAL_SYSTEMS[code]}: space group and lattice")
            chosen = rows_of(features, rows)
            groups = self._classifier(spec.group_rounds, spec.group_leaves, 1, code)
            self.group_models_[code] = groups.fit(chosen, part.space_group)
            self._fit_lattice(code, chosen, part)

    def _fit_lattice(self, code: int, features: NDArray[np.float32], targets: Targets) -> None:
        """Train what tells by what factor the cells of one crystal system are off, on its patterns alone."""
        off = np.log(targets.lattice / self._cells(code, features))
        regressor = BoostedRegressor(
            self.spec.lattice_rounds,
            n_leaves=self.spec.lattice_leaves,
            n_jobs=self.n_jobs,
            random_state=seed_of(self.spec.seed, 2, code) % 2**31,
        )
        limit = np.log(_LARGEST_RATIO)
        self.lattice_models_[code] = regressor.fit(features, np.clip(off, -limit, limit))

    def _classifier(self, rounds: int, leaves: int, role: int, code: int) -> BoostedClassifier:
        return BoostedClassifier(
            rounds,
            n_leaves=leaves,
            n_jobs=self.n_jobs,
            random_state=seed_of(self.spec.seed, role, code) % 2**31,
        )
