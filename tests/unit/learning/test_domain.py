"""The training domain: few of the training patterns lie outside, and others do."""

from __future__ import annotations

import numpy as np

from diffractory.learning.domain import TrainingDomain

GENERATOR = np.random.default_rng(2)
X = (GENERATOR.normal(size=(6000, 12)) @ GENERATOR.normal(size=(12, 30))).astype(np.float32)
X += GENERATOR.normal(scale=0.3, size=X.shape).astype(np.float32)


def test_one_in_a_hundred_training_patterns_lies_outside():
    outside = TrainingDomain.fit(X).locate(X)[0]
    # Half a percent along the components and half a percent off them, some of which are the same.
    assert 0.005 <= outside.mean() <= 0.011


def test_patterns_unlike_training_lie_outside():
    domain = TrainingDomain.fit(X)
    along, off = domain._distances(domain._standard(X), domain._standard(X) @ domain.components.T).T
    np.testing.assert_allclose((along > domain.limits[0]).mean(), 0.005, atol=0.001)
    np.testing.assert_allclose((off > domain.limits[1]).mean(), 0.005, atol=0.001)
    shuffled = GENERATOR.permuted(X, axis=0)
    assert domain.locate(shuffled)[0].mean() > 0.9
