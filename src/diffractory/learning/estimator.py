"""What scikit-learn asks of an estimator, offered without importing it.

scikit-learn's own base class brings the whole of it and of SciPy's statistics along: a second and a half,
a sixth of what it takes to map a scan of 65,536 positions, and nothing of it predicts anything here.
"""

from __future__ import annotations

import inspect
from typing import Any, Literal, Self

from numpy.typing import ArrayLike


class Estimator:
    """Parameters of the constructor by name, as ``sklearn.base.clone``, pipelines and searches ask for them.

    Every parameter is kept under its own name by ``__init__``; none of them is an estimator itself.
    """

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters of the constructor by name; ``deep`` changes nothing."""
        del deep
        return {name: getattr(self, name) for name in _defaults(type(self))}

    def set_params(self, **params: Any) -> Self:
        """Set some parameters of the constructor, and return the estimator.

        Raises
        ------
        ValueError
            If there is no such parameter.
        """
        known = _defaults(type(self))
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"{type(self).__name__} has no parameter {name!r}, only {', '.join(known)}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        """Return the call that makes it, without what is as by default."""
        changed = {
            name: getattr(self, name)
            for name, default in _defaults(type(self)).items()
            if getattr(self, name) is not default and getattr(self, name) != default
        }
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in changed.items())})"


class ClassifierScore:
    """Marks a classifier for scikit-learn, and scores it."""

    _estimator_type: Literal["classifier"] = "classifier"

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the share of rows of X (n, n_features) whose label in y (n,) is predicted."""
        from sklearn.metrics import accuracy_score

        return float(accuracy_score(y, self.predict(X), sample_weight=sample_weight))

    def predict(self, X: ArrayLike) -> Any:
        """Return a label for each row of X (n, n_features), of shape (n,)."""
        raise NotImplementedError


class RegressorScore:
    """Marks a regressor for scikit-learn, and scores it."""

    _estimator_type: Literal["regressor"] = "regressor"

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the coefficient of determination R² of what is predicted for X (n, n_features) and y."""
        from sklearn.metrics import r2_score

        return float(r2_score(y, self.predict(X), sample_weight=sample_weight))

    def predict(self, X: ArrayLike) -> Any:
        """Return the targets of each row of X (n, n_features), of shape (n, n_outputs) or (n,)."""
        raise NotImplementedError


def _defaults(kind: type[Any]) -> dict[str, Any]:
    """Return the parameters of a constructor, and their defaults."""
    parameters = inspect.signature(kind).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters}
