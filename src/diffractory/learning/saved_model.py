"""A saved model by its path: small enough to send anywhere, loaded where it is used."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffractory.learning.aggregation import EvidenceRule
from diffractory.learning.artefact import load_model
from diffractory.learning.provenance import features_of
from diffractory.learning.system_hierarchy import SystemHierarchy, SystemVotes, WithinSystem
from diffractory.specs import FeatureSpec


def _loaded(path: Path) -> tuple[SystemHierarchy, dict[str, Any]]:
    """Return the model at a path, loaded once for each version of its files."""
    try:
        header = (path / "model.json").stat()
    except OSError:
        return load_model(path)
    return _load_version(path, (header.st_ino, header.st_mtime_ns, header.st_size))


@lru_cache(maxsize=2)
def _load_version(path: Path, version: tuple[int, ...]) -> tuple[SystemHierarchy, dict[str, Any]]:
    del version
    return load_model(path)


@dataclass(frozen=True)
class SavedModel:
    """Offers the predictions of the hierarchy saved at ``path``; forests never travel with tasks.

    Parameters
    ----------
    path : Path
        Folder written by :func:`diffractory.learning.artefact.save_model`; made absolute, since
        workers elsewhere may stand in another working directory.

    Raises
    ------
    ModelError
        By everything but the making of it, where the folder is no model or a damaged one.
    """

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path).absolute())

    @property
    def systems_(self) -> NDArray[np.int64]:
        """Codes of the learned crystal systems."""
        return np.asarray(_loaded(self.path)[0].systems_, dtype=np.int64)

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the model comes from."""
        return _loaded(self.path)[1]

    @property
    def features(self) -> FeatureSpec:
        """Features that the model was trained on."""
        return features_of(self.provenance)

    def vote_systems(self, X: ArrayLike) -> SystemVotes:
        """As :meth:`SystemHierarchy.vote_systems`.

        Parameters
        ----------
        X : array_like of shape (n, n_features)
            Features of n patterns.

        Returns
        -------
        SystemVotes
            Of n patterns.
        """
        return _loaded(self.path)[0].vote_systems(X)

    @property
    def evidence_rule(self) -> EvidenceRule | None:
        """As :attr:`SystemHierarchy.evidence_rule`."""
        return _loaded(self.path)[0].evidence_rule

    @property
    def domain_sample(self) -> NDArray[np.float64]:
        """Coordinates of some training patterns along the first two principal components."""
        return _loaded(self.path)[0].domain_.sample

    def locate(self, X: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """As :meth:`SystemHierarchy.locate`.

        Parameters
        ----------
        X : array_like of shape (n, n_features)
            Features of n patterns.

        Returns
        -------
        outside : ndarray of shape (n,), bool
            Unlike all but few training patterns.
        coordinates : ndarray of shape (n, 2)
            Along the first two principal components of training.
        """
        return _loaded(self.path)[0].locate(X)

    def predict_within(self, X: ArrayLike, system: ArrayLike) -> WithinSystem:
        """As :meth:`SystemHierarchy.predict_within`.

        Parameters
        ----------
        X : array_like of shape (n, n_features)
            Features of n patterns.
        system : array_like of shape (n,), int
            Code of the crystal system whose models are asked; −1 = none.

        Returns
        -------
        WithinSystem
            Space group and lattice of n patterns.
        """
        return _loaded(self.path)[0].predict_within(X, system)


def packaged_model() -> Path:
    """Return the folder of the robust model that comes with the package."""
    return Path(__file__).parent / "models" / "robust"
