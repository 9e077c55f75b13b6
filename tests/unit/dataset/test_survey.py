from __future__ import annotations

import numpy as np
import pytest

from diffractory.crystals.catalogue import Catalogue
from diffractory.dataset import survey as survey_module
from diffractory.dataset.plan import make_plan
from diffractory.dataset.survey import survey
from diffractory.scattering.cost import scattering_strength
from small_runs import ORIENTATIONS, SIMULATION


def test_it_does_not_depend_on_the_number_of_processes(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(survey_module, "_BLOCK", 1)
    calls: list[None] = []
    alone = survey(catalogue, SIMULATION, ORIENTATIONS)
    together = survey(catalogue, SIMULATION, ORIENTATIONS, lambda: calls.append(None), processes=2)
    assert len(calls) == len(catalogue)
    for name in ("beams", "error_ranges", "scattering", "volumes"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(together, name))
    assert (
        make_plan(catalogue, SIMULATION, ORIENTATIONS, 1e-3, processes=2).plan_id
        == make_plan(catalogue, SIMULATION, ORIENTATIONS, 1e-3).plan_id
    )


def test_it_tells_what_the_catalogue_knows(catalogue: Catalogue):
    counted = survey(catalogue, SIMULATION, ORIENTATIONS)
    np.testing.assert_allclose(counted.volumes, catalogue.table["volume_primitive"], rtol=1e-6)
    expected = [scattering_strength(catalogue.crystal(i)) for i in range(len(catalogue))]
    np.testing.assert_array_equal(counted.scattering, expected)
    assert counted.error_ranges.max() <= 2.0 * SIMULATION.s_max
    assert counted.error_ranges.min() > 0.0
