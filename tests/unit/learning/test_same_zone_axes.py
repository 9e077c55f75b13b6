"""Evaluation knows whether patterns lie along the zone axes that a model was trained on."""

from __future__ import annotations

from typing import Any

import pytest

from diffractory.learning.model_evaluation import _same_axes
from diffractory.specs import OrientationSpec

TWENTY = OrientationSpec(count=20)


@pytest.mark.parametrize(
    ("trained", "tested", "same"),
    [
        (TWENTY.model_dump(), TWENTY, True),
        ({"count": 20}, TWENTY.model_copy(update={"in_plane": "random", "seed": 3}), True),
        ({"count": 21}, TWENTY, False),
        (TWENTY.model_dump(), TWENTY.model_copy(update={"axes": "random"}), False),
        (TWENTY.model_copy(update={"axes": "random"}).model_dump(), TWENTY, False),
        (None, TWENTY, False),
    ],
)
def test_axes_are_the_same_where_both_runs_have_the_even_ones_of_one_number(
    trained: Any, tested: OrientationSpec, same: bool
) -> None:
    assert _same_axes(tested, trained) == same
