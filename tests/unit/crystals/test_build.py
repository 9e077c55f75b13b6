import math
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure
from pymatgen.symmetry.groups import SpaceGroup
from scipy.spatial.transform import Rotation

from diffractory.crystals.build import (
    BuildResult,
    CatalogueFilter,
    build_catalogue,
    stratified_choice,
)
from diffractory.crystals.catalogue import Catalogue
from diffractory.crystals.sources import REASONS, Candidate, Problem
from diffractory.crystals.sources.aflow import aflow_candidates
from diffractory.crystals.sources.parquet import parquet_candidates
from diffractory.crystals.symmetry import laue_class, laue_operations_of
from diffractory.errors import CatalogueError, SpecError
from zoo import face_centred

SALT = face_centred(5.64, ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
CSCL = Structure(Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
TITANIA = Structure.from_spacegroup(
    "P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
)


def _candidate(material_id: str, structure: Structure | None, problem: Problem | None = None) -> Candidate:
    return Candidate(material_id, structure, problem, "test", "CC0")


def _build(*structures: Structure, **filters: Any) -> BuildResult:
    candidates = [_candidate(f"m-{i}", structure) for i, structure in enumerate(structures)]
    return build_catalogue(candidates, CatalogueFilter(**filters))


def _scaled(structure: Structure, factor: float) -> Structure:
    copy = structure.copy()
    copy.scale_lattice(structure.volume * factor)
    return copy


@pytest.fixture(scope="module")
def embedded() -> BuildResult:
    start = time.process_time()
    result = build_catalogue(aflow_candidates())
    assert time.process_time() - start < 60.0
    return result


def test_the_embedded_catalogue_covers_all_systems(embedded: BuildResult) -> None:
    catalogue = embedded.catalogue
    assert len(catalogue) + len(embedded.dropped) == len(list(aflow_candidates()))
    assert len(catalogue) > 250
    assert catalogue.counts()["crystal_system"].nunique() == 7
    assert set(embedded.counts_by_reason()) == {"volume limit", "duplicate"}
    assert catalogue.table["volume"].max() <= 1000.0


def test_embedded_labels_match_the_aflow_labels(embedded: BuildResult) -> None:
    """AFLOW writes the space group into the label: an answer known from elsewhere."""
    table = embedded.catalogue.table
    stated = table["material_id"].str.split("_").str[2].astype(int)
    assert (stated == table["space_group"]).mean() > 0.95


def test_embedded_cells_are_conventional_and_labels_describe_them(embedded: BuildResult) -> None:
    table = embedded.catalogue.table
    multiplicity = table["volume"] / table["volume_primitive"]
    assert set(multiplicity.round(6)) <= {1.0, 2.0, 3.0, 4.0}
    cubic = table[table["crystal_system"] == "cubic"]
    np.testing.assert_allclose(cubic["a"], cubic["c"])
    hexagonal = table[table["crystal_system"].isin(["hexagonal", "trigonal"])]
    np.testing.assert_allclose(hexagonal["gamma"], 120.0, atol=1e-6)
    monoclinic = table[table["crystal_system"] == "monoclinic"]
    np.testing.assert_allclose(monoclinic["alpha"], 90.0, atol=1e-6)


def test_laue_groups_of_stored_crystals_fit_their_space_groups(embedded: BuildResult) -> None:
    orders = {"triclinic": {2}, "monoclinic": {4}, "orthorhombic": {8}, "tetragonal": {8, 16}}
    orders |= {"trigonal": {6, 12}, "hexagonal": {12, 24}, "cubic": {24, 48}}
    systems = embedded.catalogue.table["crystal_system"]
    for index in range(0, len(embedded.catalogue), 5):
        operations = laue_operations_of(embedded.catalogue.crystal(index))
        assert len(operations) in orders[systems[index]]


def test_building_again_changes_nothing(embedded: BuildResult) -> None:
    part = embedded.catalogue.take(np.arange(0, len(embedded.catalogue), 4))
    again = build_catalogue(parquet_candidates(part))
    assert again.dropped == ()
    assert again.catalogue.table["space_group"].equals(part.table["space_group"])
    np.testing.assert_allclose(again.catalogue.table[["a", "b", "c"]], part.table[["a", "b", "c"]], atol=1e-4)
    trusted = build_catalogue(parquet_candidates(part), CatalogueFilter(trust_symmetry=True))
    assert trusted.catalogue.content_hash == part.content_hash


@pytest.mark.parametrize("group", ["P4_1", "P4_32_12", "P3_121", "P6_5", "P4_132"])
@pytest.mark.parametrize("ratio", [0.6, 1.4])
def test_the_hand_of_a_chiral_crystal_is_kept(group: str, ratio: float) -> None:
    family = {"P4_1": "tetragonal", "P4_32_12": "tetragonal", "P4_132": "cubic"}.get(group, "hexagonal")
    lattice = Lattice.cubic(14.0) if family == "cubic" else getattr(Lattice, family)(12.0, 12.0 * ratio)
    coords = [[0.3, 0.12, 0.08], [0.1, 0.25, 0.37]]
    structure = Structure.from_spacegroup(group, lattice, ["Si", "Ge"], coords)
    assert structure.get_space_group_info(symprec=0.1)[0] == group
    result = _build(structure, max_volume=4000.0)
    assert result.catalogue.structure(0).get_space_group_info(symprec=0.1)[0] == group
    assert SpaceGroup(group).int_number == result.catalogue.table["space_group"][0]


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.sampled_from([SALT, CSCL, TITANIA]))
def test_the_result_does_not_depend_on_the_cell_given(seed: int, structure: Structure) -> None:
    turn = Rotation.random(random_state=seed).as_matrix()
    primitive = structure.get_primitive_structure()
    shift = np.random.default_rng(seed).uniform(size=3)
    moved = Structure(
        Lattice(primitive.lattice.matrix @ turn.T), primitive.species, primitive.frac_coords + shift
    )
    reference, found = _build(structure).catalogue.table, _build(moved).catalogue.table
    assert found["space_group"][0] == reference["space_group"][0]
    columns = ["volume", "volume_primitive", "n_sites", "a", "b", "c"]
    np.testing.assert_allclose(found[columns].astype(float), reference[columns].astype(float), rtol=1e-4)
    assert _build(structure, moved).counts_by_reason() == {"duplicate": 1}


def test_keep_setting_keeps_cell_and_frame() -> None:
    primitive = SALT.get_primitive_structure()
    result = _build(primitive, keep_setting=True)
    np.testing.assert_allclose(result.catalogue.crystal(0).lattice, primitive.lattice.matrix)
    row = result.catalogue.table.iloc[0]
    assert row["space_group"] == 225
    assert row["volume"] == pytest.approx(row["volume_primitive"]) == pytest.approx(primitive.volume)
    assert laue_class(result.catalogue.structure(0)) == "m-3m"


@pytest.mark.parametrize(
    ("filters", "reason", "detail"),
    [
        ({"max_volume": 100.0}, "volume limit", "179.4 Å³ is above 100 Å³"),
        ({"elements": frozenset({"Cs", "Cl", "Ti", "O"})}, "element filter", "holds Na"),
        ({"exclude_elements": frozenset({"Na"})}, "element filter", "holds Na"),
        ({"systems": frozenset({"tetragonal"})}, "crystal system filter", "is cubic"),
    ],
)
def test_filters_drop_and_say_why(filters: dict[str, object], reason: str, detail: str) -> None:
    result = _build(SALT, TITANIA, **filters)
    assert result.catalogue.ids == ["m-1"]
    (dropped,) = result.dropped
    assert (dropped.material_id, dropped.reason, dropped.detail) == ("m-0", reason, detail)


def test_the_volume_limit_is_on_the_conventional_cell() -> None:
    primitive = SALT.get_primitive_structure()
    assert primitive.volume < 100.0
    assert _build(primitive, TITANIA, max_volume=100.0).counts_by_reason() == {"volume limit": 1}
    supercell = TITANIA.copy()
    supercell.make_supercell(2)
    assert supercell.volume > 100.0
    assert len(_build(supercell, max_volume=100.0).catalogue) == 1


def test_duplicates_keep_the_first_and_other_crystals_stay() -> None:
    strained, anatase_like = _scaled(SALT, 1.05), SALT.copy()
    anatase_like.replace_species({"Cl": "F"})
    result = _build(SALT, CSCL, strained, anatase_like, TITANIA)
    assert result.catalogue.ids == ["m-0", "m-1", "m-3", "m-4"]
    assert result.dropped[0].reason == "duplicate"
    assert result.dropped[0].detail == "same structure as m-0"


def test_same_formula_and_group_but_other_structure_stay() -> None:
    def perovskite(oxygen: list[float]) -> Structure:
        coords = [[0, 0, 0], [0.5, 0.5, 0.5], oxygen]
        return Structure.from_spacegroup("Pm-3m", Lattice.cubic(3.9), ["Ca", "Ti", "O"], coords)

    result = _build(perovskite([0.5, 0.5, 0]), perovskite([0.5, 0, 0]))
    assert result.catalogue.table["space_group"].tolist() == [221, 221]


def test_repeated_ids_and_problems_of_the_source_are_dropped() -> None:
    problem = Problem("unreadable", "bad.cif is empty")
    candidates = [_candidate("a", SALT), _candidate("bad", None, problem), _candidate("a", TITANIA)]
    result = build_catalogue([*candidates, _candidate("odd", None)])
    assert [(d.material_id, d.reason) for d in result.dropped] == [
        ("bad", "unreadable"),
        ("a", "repeated id"),
        ("odd", "unreadable"),
    ]
    assert result.dropped[0].detail == "bad.cif is empty"
    assert result.counts_by_reason() == {"unreadable": 2, "repeated id": 1}


@pytest.mark.parametrize(
    ("structure", "reason"),
    [
        (Structure(Lattice.cubic(3.6), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]]), "partial occupancy"),
        (Structure(Lattice.cubic(4), ["Cu", "Au"], [[0, 0, 0], [0.05, 0, 0]]), "overlapping atoms"),
        (Structure(Lattice.cubic(4), ["Es"], [[0, 0, 0]]), "unsupported element"),
        (Structure(Lattice.orthorhombic(4, 4, 0.01), ["Cu"], [[0, 0, 0]]), "unusable cell"),
    ],
)
def test_structures_that_cannot_be_simulated_are_dropped(structure: Structure, reason: str) -> None:
    result = _build(structure, SALT)
    assert result.catalogue.ids == ["m-1"]
    assert result.dropped[0].reason == reason
    assert reason in REASONS


def test_noble_gases_build_without_a_warning() -> None:
    argon = face_centred(5.26, ["Ar"], [[0, 0, 0]])
    assert _build(argon).catalogue.table["formula"][0] == "Ar"


def test_failing_symmetry_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("spglib has had enough")

    monkeypatch.setattr("diffractory.crystals.build.SpacegroupAnalyzer", fail)
    with pytest.raises(
        CatalogueError, match=r"1 symmetry not found; first: m-0: within 0\.1 Å: spglib has had"
    ):
        _build(SALT)


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(CatalogueError, match=r"no crystal is left.*1 volume limit.*Loosen the filters"):
        _build(SALT, max_volume=1.0)
    with pytest.raises(CatalogueError, match="the source is empty"):
        build_catalogue([])


def test_progress_counts_every_candidate() -> None:
    seen: list[int] = []
    build_catalogue([_candidate("a", SALT), _candidate("a", SALT)], on_progress=seen.append)
    assert seen == [1, 2]


def test_limit_draws_a_seeded_sample_with_every_system_in_its_share(embedded: BuildResult) -> None:
    def limited(seed: int) -> BuildResult:
        return build_catalogue(
            parquet_candidates(embedded.catalogue),
            CatalogueFilter(limit=60, seed=seed, trust_symmetry=True),
        )

    first, again, other = limited(1), limited(1), limited(2)
    assert first.catalogue.content_hash == again.catalogue.content_hash != other.catalogue.content_hash
    assert len(first.catalogue) == 60
    assert first.counts_by_reason() == {"count limit": len(embedded.catalogue) - 60}
    wanted = Counter(embedded.catalogue.table["crystal_system"])
    share = 60 / len(embedded.catalogue)
    for system, count in Counter(first.catalogue.table["crystal_system"]).items():
        assert math.floor(wanted[system] * share) <= count <= math.ceil(wanted[system] * share)
    order = [embedded.catalogue.index_of(material_id) for material_id in first.catalogue.ids]
    assert order == sorted(order)


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=60), st.data())
def test_stratified_choice_keeps_shares(labels: list[str], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(labels)))
    chosen = stratified_choice(labels, count, data.draw(st.integers(0, 99)))
    assert len(set(chosen.tolist())) == count == len(chosen)
    sizes, kept = Counter(labels), Counter(labels[i] for i in chosen)
    for label, size in sizes.items():
        assert abs(kept[label] - size * count / len(labels)) < 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_volume": 0.0}, "max_volume = 0.0"),
        ({"max_volume": math.nan}, "max_volume = nan"),
        ({"symprec": -0.1}, "symprec = -0.1"),
        ({"symprec": math.inf}, "symprec = inf"),
        ({"limit": 0}, "limit = 0"),
        ({"seed": -1}, "seed = -1"),
        ({"elements": frozenset({"Si", "Qq"})}, "no element 'Qq'. Give chemical symbols"),
        ({"exclude_elements": frozenset({"si"})}, "no element 'si'"),
        (
            {"systems": frozenset({"rhombohedral"})},
            "no crystal system 'rhombohedral'. Choose among triclinic",
        ),
    ],
)
def test_filters_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        CatalogueFilter(**values)
    assert message in str(caught.value)


def test_real_rows_keep_their_labels(shared_data: Path) -> None:
    catalogue = Catalogue.from_parquet(shared_data / "catalogue.parquet")
    part = catalogue.take(np.arange(0, len(catalogue), 170))
    result = build_catalogue(parquet_candidates(part))
    assert result.dropped == ()
    assert result.catalogue.table["space_group"].equals(part.table["space_group"])
    np.testing.assert_allclose(result.catalogue.table["volume"], part.table["volume"], rtol=1e-6)
    np.testing.assert_allclose(
        result.catalogue.table["volume_primitive"], part.table["volume_primitive"], rtol=1e-6
    )
