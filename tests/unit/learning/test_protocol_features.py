import shutil
from pathlib import Path

import numpy as np
import pytest

from diffractory.dataset.partition import read_partition
from diffractory.dataset.protocol_patterns import pattern_seed
from diffractory.dataset.run import Run
from diffractory.errors import RunError, SpecError
from diffractory.learning.protocol_features import Protocol, ProtocolFeatures, protocol_features, targets_of
from diffractory.patterns.feature_sets import names_of_features
from diffractory.patterns.lab_protocol import apply_lab_protocol, draw_thickness
from diffractory.patterns.radial_basis import radial_basis
from diffractory.specs import InvariantSpec, LabProtocolSpec, RadialBasisSpec
from small_runs import finish, small_plan, zoo_catalogue

BASIS = RadialBasisSpec(ring_width=0.1, n_rings=9, n_orders=4)
LAB = LabProtocolSpec()
ALL = np.arange(4)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    catalogue = zoo_catalogue()
    return finish(Run.create(tmp_path_factory.mktemp("protocols") / "run", small_plan(catalogue), catalogue))


@pytest.fixture(scope="module")
def recut(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same items in one partition."""
    plan = small_plan(run.catalogue, 1e-9)
    return finish(Run.create(tmp_path_factory.mktemp("recut") / "run", plan, run.catalogue))


def _features(run: Run, protocol: Protocol, crystals: np.ndarray = ALL) -> dict[int, np.ndarray]:
    """Return the features of each item, over all partitions."""
    found: dict[int, np.ndarray] = {}
    for partition in range(len(run.plan.partitions)):
        part = protocol_features(run.path, crystals, protocol, partition)
        assert part.features.shape == (len(part.items), BASIS.n_features)
        assert part.features.dtype == np.float32
        found |= dict(zip(part.items.tolist(), part.features, strict=True))
    return found


@pytest.mark.parametrize("thickness", [100.0, 350.0])
def test_the_paper_protocol_is_the_simulated_patterns_at_one_thickness(run: Run, thickness: float):
    found = _features(run, Protocol(BASIS, thickness))
    assert sorted(found) == list(range(20))
    column = run.plan.simulation.thicknesses.index(thickness)
    for partition, chosen in enumerate(run.plan.partitions):
        expected = radial_basis(read_partition(run, partition).table(column), BASIS)
        for item in range(chosen.first, chosen.stop):
            np.testing.assert_array_equal(found[item], expected[item - chosen.first])


def test_only_the_chosen_crystals_are_computed_and_they_are_the_same(run: Run):
    for protocol in (Protocol(BASIS, 200.0), Protocol(BASIS, 200.0, LAB, 5)):
        everything, chosen = _features(run, protocol), _features(run, protocol, np.array([1, 3]))
        assert sorted(chosen) == [*range(5, 10), *range(15, 20)]
        for item, features in chosen.items():
            np.testing.assert_array_equal(features, everything[item])


def test_a_partition_without_a_chosen_crystal_is_not_even_read(run: Run, tmp_path: Path):
    shutil.copytree(run.path, tmp_path / "copy")
    copy = Run.open(tmp_path / "copy")
    shutil.rmtree(copy.path / "records")
    none = protocol_features(copy.path, np.array([3]), Protocol(BASIS, 200.0), 0)
    assert none.items.shape == (0,)
    assert none.features.shape == (0, BASIS.n_features)
    with pytest.raises(RunError, match="is not done"):
        protocol_features(copy.path, np.array([0]), Protocol(BASIS, 200.0), 0)


def test_a_thickness_that_was_not_simulated_is_refused_by_the_paper_protocol_only(run: Run):
    with pytest.raises(RunError, match=r"no patterns at 150.0 Å.*training thickness"):
        protocol_features(run.path, ALL, Protocol(BASIS, 150.0), 0)
    assert len(protocol_features(run.path, ALL, Protocol(BASIS, 150.0, LAB), 0).items) == 6


def test_the_lab_protocol_draws_thickness_and_noise_for_each_pattern(run: Run):
    protocol = Protocol(BASIS, 200.0, LAB, seed=5)
    found = _features(run, protocol)
    ids, available = run.catalogue.ids, np.array(run.plan.simulation.thicknesses)
    for partition, chosen in enumerate(run.plan.partitions):
        seeds = [pattern_seed(5, ids[i // 5], i % 5) for i in range(chosen.first, chosen.stop)]
        peaks = read_partition(run, partition)
        table = peaks.table(draw_thickness(available, LAB, np.array(seeds)))
        expected = radial_basis(apply_lab_protocol(table, LAB, np.array(seeds)), BASIS)
        for item in range(chosen.first, chosen.stop):
            np.testing.assert_array_equal(found[item], expected[item - chosen.first])
    paper = _features(run, Protocol(BASIS, 200.0))
    # A pattern that loses all spots but the direct beam has nothing left to differ in.
    assert sum(bool(np.abs(found[item] - paper[item]).max() > 1e-3) for item in found) >= 15


def test_the_noise_depends_on_the_seed_and_not_on_partitions(run: Run, recut: Run):
    assert len(recut.plan.partitions) == 1 < len(run.plan.partitions)
    first = _features(run, Protocol(BASIS, 200.0, LAB, 1))
    again = _features(recut, Protocol(BASIS, 200.0, LAB, 1))
    other = _features(run, Protocol(BASIS, 200.0, LAB, 2))
    for item, features in first.items():
        np.testing.assert_array_equal(features, again[item])
        assert np.abs(features - other[item]).max() > 1e-6


def test_a_range_without_a_simulated_thickness_is_refused(run: Run):
    lab = LabProtocolSpec(thickness_range=(400.0, 500.0))
    with pytest.raises(SpecError):
        protocol_features(run.path, ALL, Protocol(BASIS, 200.0, lab), 0)


def test_seeds_tell_patterns_apart():
    seeds = {
        pattern_seed(seed, material, orientation)
        for seed in (0, 1)
        for material in ("a", "b", "a/1")
        for orientation in range(50)
    }
    assert len(seeds) == 300
    assert pattern_seed(0, "a", 1) == pattern_seed(0, "a", 1)


def test_targets_are_the_labels_of_the_catalogue(run: Run):
    targets = targets_of(run.catalogue, np.array([3, 0, 0, 2]))
    table = run.catalogue.table
    assert len(targets) == 4
    assert targets.space_group.tolist() == [1, 225, 225, 186]
    assert [sorted(row) for row in targets.lattice.tolist()] == [
        sorted(table.loc[i, ["a", "b", "c"]]) for i in (3, 0, 0, 2)
    ]


def test_the_lattices_that_features_describe_come_along_in_the_order_of_items(run: Run):
    spec = InvariantSpec(n_rings=3, n_orders=2, profile_width=0.2)
    protocol = Protocol(spec, 200.0, LAB, 3)
    crystals = np.array([0, 3])
    parts = [protocol_features(run.path, crystals, protocol, p) for p in range(len(run.plan.partitions))]
    # One partition holds none of them: its part is empty and fits the others.
    assert any(len(part.items) == 0 for part in parts)
    joined = ProtocolFeatures.concatenate(parts[::-1])
    assert joined.items.tolist() == [*range(5), *range(15, 20)]
    assert joined.lattices is not None
    assert len(joined.lattices.score) == 10
    column = names_of_features(spec).index("score")
    np.testing.assert_array_equal(joined.lattices.score.astype(np.float32), joined.features[:, column])
    assert np.unique(joined.lattices.score).size > 5
    paper = [protocol_features(run.path, ALL, Protocol(BASIS, 200.0), p) for p in range(2)]
    assert ProtocolFeatures.concatenate(paper).lattices is None
