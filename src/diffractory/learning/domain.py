"""What patterns a model was trained on: whether another one lies among them.

The principal components of the training features describe where its patterns are; a pattern lies
outside if it is further along them, or further off them, than all but a small share of the training
patterns. dask-ml's incremental PCA takes the features in blocks, so that they need not fit in memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from diffractory.errors import ModelError

_COMPONENTS = 10
_BATCH = 4096
#: Patterns that the domain is learned from: more would not move its borders.
_MOST_PATTERNS = 20_000
#: Share of training patterns that lie outside along the components, and the same off them.
_OUTSIDE = 0.005
#: Training patterns kept for pictures.
_SHOWN = 2000
#: Features are standardised and then cut here: some, such as volumes, have very long tails.
_CUT = 5.0


@dataclass(frozen=True, eq=False)
class TrainingDomain:
    """Principal components of training features, and how far from their middle training patterns lie.

    Parameters
    ----------
    mean, scale : ndarray of shape (n_features,)
        Standardisation.
    components : ndarray of shape (n_components, n_features)
    centre : ndarray of shape (n_features,)
        Mean of the standardised features.
    spread : ndarray of shape (n_components,)
        Standard deviation along each component.
    limits : ndarray of shape (2,)
        Largest distance along the components, in standard deviations, and off them.
    sample : ndarray of shape (n_sample, 2)
        Coordinates of some training patterns along the first two components, for pictures.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    components: NDArray[np.float64]
    centre: NDArray[np.float64]
    spread: NDArray[np.float64]
    limits: NDArray[np.float64]
    sample: NDArray[np.float64]

    @classmethod
    def fit(cls, X: NDArray[np.float32], seed: int = 0) -> Self:
        """Learn the domain of training features (n, n_features), of a sample where there are many.

        Raises
        ------
        ModelError
            If there are fewer than three patterns.
        """
        # Only training needs these, and they take as long to import as a small map takes to make.
        import dask
        import dask.array as da
        from dask_ml.decomposition import IncrementalPCA

        if len(X) < 3:
            raise ModelError(f"{len(X)} patterns are too few to learn a training domain from")
        rows = np.random.default_rng(seed).permutation(len(X))[:_MOST_PATTERNS]
        sample = X[np.sort(rows)].astype(np.float64)
        mean, scale = sample.mean(axis=0), sample.std(axis=0)
        scale = np.where(scale > 1e-9 * np.abs(mean) + 1e-12, scale, 1.0)
        standard = np.clip((sample - mean) / scale, -_CUT, _CUT)
        n_components = min(_COMPONENTS, len(sample) - 1, X.shape[1])
        # The default solver is an approximate one that is far off here.
        pca = IncrementalPCA(n_components, batch_size=max(_BATCH, n_components), svd_solver="full")
        # In this process: the sample is here already.
        with warnings.catch_warnings(), dask.config.set(scheduler="threads"):
            # Its first batch divides by the number of patterns seen before, which is 0.
            warnings.filterwarnings("ignore", "invalid value encountered", RuntimeWarning)
            # It subtracts means in place.
            pca.fit(da.from_array(standard.copy(), chunks=(_BATCH, -1)))
        spread = np.sqrt(np.maximum(np.asarray(pca.explained_variance_, dtype=np.float64), 1e-12))
        components, centre = (np.asarray(a, dtype=np.float64) for a in (pca.components_, pca.mean_))
        domain = cls(mean, scale, components, centre, spread, np.full(2, np.inf), np.empty((0, 2)))
        standard = domain._standard(sample)
        limits = np.quantile(domain._distances(standard, standard @ components.T), 1.0 - _OUTSIDE, axis=0)
        return replace(domain, limits=limits, sample=domain.locate(X[rows[:_SHOWN]])[1])

    def locate(self, X: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Return which patterns lie outside, (n,), and their first two coordinates, (n, 2)."""
        standard = self._standard(X)
        along = standard @ self.components.T
        outside = np.any(self._distances(standard, along) > self.limits, axis=1)
        shown = (along / self.spread)[:, :2]
        return np.asarray(outside), np.pad(shown, ((0, 0), (0, 2 - shown.shape[1])))

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return the arrays by name, ready for ``numpy.savez``."""
        return dict(vars(self))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], n_features: int) -> Self:
        """Build a domain from stored arrays after checking them.

        Raises
        ------
        ModelError
            If an array is missing, or has another type or shape than it must have.
        """
        n_components = len(arrays["components"]) if "components" in arrays else 0
        shapes = {
            "mean": (n_features,), "scale": (n_features,), "centre": (n_features,),
            "components": (n_components, n_features), "spread": (n_components,), "limits": (2,),
            "sample": (len(arrays.get("sample", ())), 2),
        }  # fmt: skip
        fits = set(arrays) == set(shapes) and all(
            arrays[name].shape == shape and arrays[name].dtype == np.float64 for name, shape in shapes.items()
        )
        if not fits or n_components == 0 or not all(np.all(np.isfinite(a)) for a in arrays.values()):
            raise ModelError("the training domain of the model is not complete")
        if not (np.all(arrays["scale"] > 0.0) and np.all(arrays["spread"] > 0.0)):
            raise ModelError("the training domain of the model has a spread that is not positive")
        return cls(**arrays)

    def _standard(self, X: NDArray[Any]) -> NDArray[np.float64]:
        standard = np.clip((np.asarray(X, dtype=np.float64) - self.mean) / self.scale, -_CUT, _CUT)
        return np.asarray(standard - self.centre)

    def _distances(self, standard: NDArray[np.float64], along: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how far patterns are from the middle along the components, and off them: (n, 2)."""
        squares = (standard**2).sum(axis=1) - (along**2).sum(axis=1)
        return np.column_stack(
            [np.sqrt(((along / self.spread) ** 2).mean(axis=1)), np.sqrt(np.maximum(squares, 0.0))]
        )
