from __future__ import annotations

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline

from diffractory.errors import ModelError
from diffractory.learning.boosting import BoostedClassifier
from diffractory.learning.transformer import PatternFeatures
from diffractory.patterns.feature_sets import compute_features, names_of_features
from diffractory.patterns.peak_table import PeakTable
from diffractory.specs import InvariantSpec, RadialBasisSpec

SMALL = InvariantSpec(n_rings=6, n_orders=3, profile_width=0.1)
GENERATOR = np.random.default_rng(4)


def _square_or_not(index: int) -> PeakTable:
    """Spots of a plane lattice, square for even numbers, turned at random."""
    steps = np.array([0.3, 0.3 if index % 2 == 0 else 0.43])
    grid = np.stack(np.meshgrid(np.arange(-2, 3), np.arange(-2, 3)), axis=-1).reshape(-1, 2) * steps
    angle = GENERATOR.uniform(0.0, 2.0 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    intensity = np.exp(-2.0 * (grid**2).sum(axis=1)) * GENERATOR.uniform(0.5, 1.0, len(grid))
    return PeakTable.from_detected([grid @ turn.T], [intensity])


PATTERNS = PeakTable.concatenate([_square_or_not(index) for index in range(60)])
LABELS = np.arange(60) % 2


@pytest.mark.parametrize("spec", [SMALL, RadialBasisSpec(n_rings=4, n_orders=3)])
def test_it_computes_the_features_of_a_table_or_of_a_list_of_patterns(spec: InvariantSpec | RadialBasisSpec):
    features = PatternFeatures(spec)
    expected = compute_features(PATTERNS, spec)
    np.testing.assert_array_equal(features.fit_transform(PATTERNS), expected)
    singles = [PATTERNS[index] for index in range(len(PATTERNS))]
    np.testing.assert_array_equal(features.transform(singles), expected)
    assert features.get_feature_names_out().tolist() == list(names_of_features(spec))
    assert clone(features).spec == spec


def test_a_pipeline_is_searched_under_joblib_with_materials_kept_together():
    pipeline = make_pipeline(PatternFeatures(SMALL), BoostedClassifier(15, n_jobs=1))
    search = GridSearchCV(
        pipeline, {"boostedclassifier__n_leaves": [2, 4]}, cv=GroupKFold(3), n_jobs=2, error_score="raise"
    )
    with joblib.parallel_config(backend="threading"):
        search.fit(PATTERNS, LABELS, groups=np.arange(60) // 4)
    assert search.best_score_ > 0.9
    assert search.predict(PATTERNS).shape == (60,)


def test_what_is_no_pattern_is_refused():
    with pytest.raises(ModelError, match="must be a PeakTable"):
        PatternFeatures().fit([np.zeros((3, 2))])  # type: ignore[list-item]
