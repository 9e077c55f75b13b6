from __future__ import annotations

import numpy as np
import pytest

from diffractory.crystals.catalogue import Catalogue
from diffractory.dataset import plan as plan_module
from diffractory.dataset.estimate import Estimate
from diffractory.dataset.plan import Plan, make_plan, plan_surveyed
from diffractory.dataset.run import Run
from diffractory.dataset.survey import Survey, survey
from diffractory.scattering.cost import TYPICAL
from diffractory.specs import OrientationSpec
from small_runs import ORIENTATIONS, SIMULATION


@pytest.fixture(scope="module")
def counted(catalogue: Catalogue) -> Survey:
    return survey(catalogue, SIMULATION, ORIENTATIONS)


def _planned(catalogue: Catalogue, counted: Survey, parts: int) -> Plan:
    whole = plan_surveyed(catalogue, SIMULATION, ORIENTATIONS, counted).seconds
    return plan_surveyed(catalogue, SIMULATION, ORIENTATIONS, counted, whole / parts)


def test_hours_files_and_the_largest_crystal(catalogue: Catalogue, counted: Survey):
    plan = _planned(catalogue, counted, 4)
    costs = Estimate.of(plan, counted, catalogue, TYPICAL, [1, 2, 10**6])
    dearest = max(partition.seconds for partition in plan.partitions)
    assert costs.core_seconds == costs.wall_seconds[1] == plan.seconds
    assert costs.wall_seconds[2] == max(plan.seconds / 2, dearest)
    assert costs.wall_seconds[10**6] == dearest
    assert costs.largest_crystal == "cubic-P-a-FeSi"
    assert costs.largest_crystal_beams == plan.largest_solve == counted.beams.max()
    assert 0.0 < costs.largest_crystal_seconds < plan.seconds
    assert costs.cheapest_partition <= 1.0 <= costs.dearest_partition


def test_the_files_are_those_that_are_there_in_the_end(catalogue: Catalogue, counted: Survey, original: Run):
    costs = Estimate.of(original.plan, counted, catalogue, TYPICAL, [1])
    there = sum(path.is_file() for path in original.path.rglob("*"))
    # A driver adds its log, and its lock while it runs.
    assert there <= costs.files <= there + 2


def test_a_single_partition_is_balanced(catalogue: Catalogue, counted: Survey):
    costs = Estimate.of(_planned(catalogue, counted, 1), counted, catalogue, TYPICAL, [1])
    assert costs.cheapest_partition == costs.dearest_partition == 1.0


def test_partitions_of_many_items_are_balanced(catalogue: Catalogue):
    many = OrientationSpec(count=100)
    whole = make_plan(catalogue, SIMULATION, many).seconds
    partitions = make_plan(catalogue, SIMULATION, many, whole / 10).partitions
    costs = np.array([partition.seconds for partition in partitions])
    assert len(costs) in (9, 10, 11)
    np.testing.assert_allclose(costs[:-1] / costs[:-1].mean(), 1.0, atol=0.25)


def test_there_are_never_too_many_partitions_by_default(
    catalogue: Catalogue, counted: Survey, monkeypatch: pytest.MonkeyPatch
):
    assert len(plan_surveyed(catalogue, SIMULATION, ORIENTATIONS, counted).partitions) == 1
    monkeypatch.setattr(plan_module, "PARTITION_SECONDS", (1e-9, 600.0))
    monkeypatch.setattr(plan_module, "MAX_PARTITIONS", 5)
    # Set-up paid twice, and what the last one takes, make some more.
    assert 4 <= len(plan_surveyed(catalogue, SIMULATION, ORIENTATIONS, counted).partitions) <= 8


def test_a_partition_holds_no_more_items_than_their_features_may_take(
    catalogue: Catalogue, counted: Survey, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(plan_module, "MAX_ITEMS", 3)
    plan = plan_surveyed(catalogue, SIMULATION, ORIENTATIONS, counted)
    assert max(p.stop - p.first for p in plan.partitions) == 3
