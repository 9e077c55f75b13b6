import itertools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffractory.crystals.catalogue import Catalogue
from diffractory.dataset import plan as plan_module
from diffractory.dataset.plan import Partition, Plan, check_fits, make_plan
from diffractory.dataset.survey import survey
from diffractory.errors import PlanError, RunError
from diffractory.scattering.cost import predicted_solve_bytes
from diffractory.settings import Resources
from diffractory.specs import OrientationSpec, SimulationSpec
from small_runs import ORIENTATIONS, SIMULATION

CHANGES: dict[str, Any] = {
    "simulation": SIMULATION.model_copy(update={"s_max": 0.05}),
    "orientations": ORIENTATIONS.model_copy(update={"seed": 1}),
    "catalogue_hash": "0" * 64,
    "n_crystals": 5,
    "partitions": (Partition(0, 20, 400, 1.0),),
    "largest_solve": 7,
    "format_version": 3,
    "code_version": "0.1.99",
}


def test_the_id_is_stable_and_survives_json(catalogue: Catalogue, plan: Plan):
    seconds = plan.seconds / len(plan.partitions)
    again = make_plan(catalogue, SIMULATION, ORIENTATIONS, seconds)
    assert make_plan(catalogue, SIMULATION, ORIENTATIONS, seconds).plan_id == again.plan_id
    back = Plan.from_json(plan.to_json())
    assert back == plan
    assert back.plan_id == plan.plan_id


@pytest.mark.parametrize("field", sorted(Plan.__dataclass_fields__))
def test_the_id_depends_on_every_field(plan: Plan, field: str):
    assert replace(plan, **{field: CHANGES[field]}).plan_id != plan.plan_id


@pytest.mark.parametrize("spec", [SimulationSpec, OrientationSpec])
def test_the_id_depends_on_every_setting(plan: Plan, spec: type):
    other = {
        "energy_ev": 2e5, "q_max": 1.0, "s_max": 0.05, "thermal_sigma": 0.0, "thicknesses": (100.0,),
        "form_factors": "wk", "foil_tilt_deg": (1.0, 0.0), "precession_deg": 1.0,
        "precession_azimuths": 36, "count": 6, "in_plane": "random", "seed": 3, "axes": "random",
    }  # fmt: skip
    attribute = "simulation" if spec is SimulationSpec else "orientations"
    for name in spec.model_fields:
        changed = getattr(plan, attribute).model_copy(update={name: other[name]})
        assert replace(plan, **{attribute: changed}).plan_id != plan.plan_id, name


def test_even_axes_are_not_spoken_of_so_that_earlier_plans_keep_their_ids(plan: Plan):
    assert set(json.loads(plan.to_json())["orientations"]) == {"count", "in_plane", "seed"}
    drawn = replace(plan, orientations=plan.orientations.model_copy(update={"axes": "random"}))
    assert Plan.from_json(drawn.to_json()) == drawn
    assert json.loads(drawn.to_json())["orientations"]["axes"] == "random"


@pytest.mark.parametrize("key", ["n_crystals", "catalogue_hash", "code_version", "largest_solve", "plan_id"])
def test_an_edited_plan_is_refused(plan: Plan, key: str):
    content = json.loads(plan.to_json())
    content[key] = content[key] + 1 if isinstance(content[key], int) else content[key] + "0"
    with pytest.raises(RunError, match=r"RUN/plan.json does not match its own id.*edited or damaged.*copy"):
        Plan.from_json(json.dumps(content), "RUN/plan.json")


def test_an_edited_spec_or_partition_is_refused(plan: Plan):
    for path in (("simulation", "q_max"), ("orientations", "count"), ("partitions", 0, "stop")):
        content = json.loads(plan.to_json())
        inner = content
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] += 1
        with pytest.raises(RunError, match="does not match its own id"):
            Plan.from_json(json.dumps(content))


@pytest.mark.parametrize(
    "partitions",
    [
        (),
        (Partition(0, 10, 10, 1.0),),
        (Partition(0, 10, 10, 1.0), Partition(11, 20, 10, 1.0)),
        (Partition(0, 12, 10, 1.0), Partition(10, 20, 10, 1.0)),
        (Partition(0, 20, 10, 1.0), Partition(20, 20, 0, 0.0)),
        (Partition(0, 21, 10, 1.0),),
    ],
    ids=["none", "short", "gap", "overlap", "empty", "long"],
)
def test_partitions_that_do_not_cover_the_items_are_refused_even_with_a_right_id(plan: Plan, partitions):
    text = replace(plan, partitions=partitions).to_json()
    with pytest.raises(RunError, match="does not match its own id"):
        Plan.from_json(text)


def test_a_damaged_plan_is_refused_at_every_length(plan: Plan):
    text = plan.to_json()
    for length in [*range(0, len(text), 97), len(text) - 1]:
        with pytest.raises(RunError, match="not a readable plan"):
            Plan.from_json(text[:length])
    for text in ("[]", "3", "null", "[" * 100_000, '{"format_version": 2, "partitions": 3}', "{}"):
        with pytest.raises(RunError):
            Plan.from_json(text)


def test_another_format_version_is_named(plan: Plan):
    text = replace(plan, format_version=7).to_json()
    with pytest.raises(RunError, match="format version 7, this program writes and reads 2"):
        Plan.from_json(text)


@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    target=st.floats(1e-3, 1e4),
    n_thicknesses=st.integers(1, 50_000),
    seed=st.integers(0, 2**32 - 1),
)
def test_partitions_cut_all_items_into_ranges_of_about_equal_cost(shape, target, n_thicknesses, seed):
    rng = np.random.default_rng(seed)
    beams = rng.integers(1, 9000, shape)
    seconds = rng.lognormal(0.0, 2.0, shape)
    setup = rng.lognormal(-2.0, 1.0, shape[0])
    parts = plan_module._partitions(beams, seconds, setup, n_thicknesses, target)
    assert [p.first for p in parts] == [0, *(p.stop for p in parts[:-1])]
    assert parts[-1].stop == beams.size
    peaks = beams.ravel()
    assert [p.n_peaks for p in parts] == [int(peaks[p.first : p.stop].sum()) for p in parts]
    limit = max(plan_module.MAX_SHARD_BYTES // (4 * n_thicknesses), plan_module.PEAK_CHUNK)
    assert all(p.n_peaks <= limit or p.stop - p.first == 1 for p in parts)
    for part in parts:
        crystals = range(part.first // shape[1], (part.stop - 1) // shape[1] + 1)
        cost = seconds.ravel()[part.first : part.stop].sum() + setup[list(crystals)].sum()
        assert part.seconds == pytest.approx(cost, abs=1e-3)
    # No part is dearer than its share and half of an item with its set-up.
    total = seconds.sum() + setup.sum()
    share = total / min(max(1, round(total / target)), beams.size)
    dearest = seconds.max() + setup.max()
    assert all(p.seconds <= share + 0.5 * dearest + 1e-3 or p.stop - p.first == 1 for p in parts)
    # None is cheaper either, unless its shard was full; the last takes what is left.
    for part, following in itertools.pairwise(parts):
        full = part.n_peaks + peaks[following.first] > limit
        assert full or part.seconds >= share - 0.5 * dearest - 1e-3


def test_equal_items_are_cut_into_equal_parts():
    ones = np.ones((10, 10), dtype=np.int64)
    parts = plan_module._partitions(ones, ones.astype(float), np.zeros(10), 1, 26.0)
    assert [p.stop - p.first for p in parts] == [25, 25, 25, 25]


@pytest.mark.parametrize(("target", "parts"), [(5e-324, 20), (1e-9, 20), (float("inf"), 1), (1e300, 1)])
def test_an_extreme_target_gives_one_item_a_part_or_one_part(catalogue: Catalogue, target: float, parts: int):
    assert len(make_plan(catalogue, SIMULATION, ORIENTATIONS, target).partitions) == parts


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_cost_that_is_not_above_zero_is_refused(catalogue: Catalogue, seconds: float):
    with pytest.raises(PlanError, match=r"partitions of .* cannot be"):
        make_plan(catalogue, SIMULATION, ORIENTATIONS, seconds)


def test_an_empty_catalogue_is_refused(catalogue: Catalogue):
    with pytest.raises(PlanError, match=r"catalogue is empty.*catalogue build"):
        make_plan(Catalogue(catalogue.table.iloc[:0]), SIMULATION, ORIENTATIONS)


def test_progress_is_told_once_a_crystal(catalogue: Catalogue):
    calls: list[None] = []
    counts = survey(catalogue, SIMULATION, ORIENTATIONS, lambda: calls.append(None)).beams
    assert len(calls) == len(catalogue)
    assert counts.shape == (len(catalogue), 5)


def test_totals_add_up(plan: Plan, catalogue: Catalogue):
    beams = survey(catalogue, SIMULATION, ORIENTATIONS).beams
    assert plan.n_items == 20
    assert plan.n_peaks == beams.sum()
    assert plan.largest_solve == beams.max()
    assert plan.items_per_shard == max(p.stop - p.first for p in plan.partitions)
    assert plan.peaks_per_shard == plan_module.PEAK_CHUNK
    assert plan.disk_bytes == plan.n_peaks * (3 * 2 + 6) + 20 * 72
    assert 0 < plan.likely_disk_bytes < plan.wanted_disk_bytes <= plan.disk_bytes


def _resources(plan: Plan, memory: int = 0, disk: int = 0) -> Resources:
    return Resources(1, plan.worker_bytes + memory, plan.wanted_disk_bytes + disk)


def test_a_plan_that_just_fits_is_accepted(plan: Plan):
    check_fits(plan, _resources(plan))


def test_too_little_disk_is_refused_with_the_numbers(plan: Plan):
    with pytest.raises(PlanError, match=r"disk .*free.*peaks at 3 thicknesses.*fewer orientations"):
        check_fits(plan, _resources(plan, disk=-1))


def test_too_little_memory_names_the_largest_term(plan: Plan):
    with pytest.raises(PlanError, match=r"a worker and .* are there.*Use fewer workers"):
        check_fits(plan, _resources(plan, memory=-1))
    large_solve = replace(plan, largest_solve=20_000)
    assert predicted_solve_bytes(20_000, SIMULATION) > 10e9
    with pytest.raises(PlanError, match=r"20000 beams.*Shrink the largest solve: a smaller --q-max"):
        check_fits(large_solve, _resources(plan))
    thick = SIMULATION.model_copy(update={"thicknesses": tuple(float(t) for t in range(1, 50_001))})
    with pytest.raises(PlanError, match=r"Shrink the shards: smaller partitions .* fewer thicknesses"):
        check_fits(replace(plan, simulation=thick), _resources(plan, disk=10**12))
