"""The error of a model that is asked before it is trained, as scikit-learn's tools know it."""

from __future__ import annotations

from sklearn.exceptions import NotFittedError

from diffractory.errors import ModelError


class UntrainedModelError(ModelError, NotFittedError):
    """A model is asked before it was trained; scikit-learn takes it for its own error of that kind."""
