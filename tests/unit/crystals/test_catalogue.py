import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from diffractory.crystals.catalogue import Catalogue
from diffractory.crystals.catalogue_table import SCHEMA
from diffractory.crystals.crystal import Crystal
from diffractory.errors import CatalogueError, StructureError


def _row(material_id: str = "m-1", a: float = 5.64) -> dict[str, Any]:
    frac = [[0.0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return {
        "material_id": material_id,
        "formula": "Cu",
        "space_group": 225,
        "crystal_system": "cubic",
        "volume": a**3,
        "volume_primitive": a**3 / 4,
        "n_sites": 4,
        **dict.fromkeys("abc", a),
        **dict.fromkeys(("alpha", "beta", "gamma"), 90.0),
        "lattice": np.eye(3) * a,
        "species": ["Cu"] * 4,
        "frac_coords": np.array(frac),
        "source": "test",
        "licence": "CC0",
    }


def _salt(material_id: str, a: float) -> dict[str, Any]:
    return _row(material_id, a) | {
        "formula": "CsCl",
        "space_group": 221,
        "n_sites": 2,
        "volume_primitive": a**3,
        "species": ["Cs", "Cl"],
        "frac_coords": [[0, 0, 0], [0.5, 0.5, 1 / 3]],
    }


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue.from_rows([_row("m-1"), _salt("m-2", 4.12), _row("m-3", 3.61)])


def test_reciprocal_cells_are_those_of_the_crystals() -> None:
    cell = Lattice([[4.0, 0.1, 0.2], [-1.0, 5.0, 0.3], [0.5, 2.0, 6.0]])
    lengths = dict(zip(("a", "b", "c", "alpha", "beta", "gamma"), cell.parameters, strict=True))
    volumes = {"volume": cell.volume, "volume_primitive": cell.volume}
    sheared = _row("m-4") | lengths | volumes | {"lattice": cell.matrix}
    catalogue = Catalogue.from_rows([_row("m-1"), sheared])
    expected = [catalogue.crystal(index).reciprocal for index in (1, 0)]
    np.testing.assert_allclose(catalogue.reciprocal(np.array([1, 0])), expected, rtol=1e-14, atol=1e-16)
    assert catalogue.reciprocal(np.array([], dtype=np.int64)).shape == (0, 3, 3)


def test_rows_come_back_as_table_structure_and_crystal(catalogue: Catalogue) -> None:
    assert len(catalogue) == 3
    assert catalogue.ids == ["m-1", "m-2", "m-3"]
    assert list(catalogue.table.columns) == SCHEMA.names
    assert catalogue.index_of("m-3") == 2
    structure = catalogue.structure(1)
    assert structure.composition.formula == "Cs1 Cl1"
    assert structure.lattice == Lattice.cubic(4.12)
    crystal, expected = catalogue.crystal(1), Crystal.from_structure(structure)
    np.testing.assert_array_equal(crystal.lattice, expected.lattice)
    np.testing.assert_array_equal(crystal.numbers, expected.numbers)
    np.testing.assert_array_equal(crystal.frac_coords, expected.frac_coords)


def test_round_trip_keeps_everything(catalogue: Catalogue, tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "c.parquet"
    catalogue.to_parquet(path)
    again = Catalogue.from_parquet(path)
    assert again.content_hash == catalogue.content_hash
    pd.testing.assert_frame_equal(again.table, catalogue.table)
    assert pq.read_schema(path).equals(SCHEMA)
    assert [p.name for p in path.parent.iterdir()] == ["c.parquet"]


@given(st.permutations(range(5)), st.integers(1, 5))
def test_selection_and_order(order: list[int], count: int) -> None:
    catalogue = Catalogue.from_rows([_row(f"m-{i}", 3.0 + i) for i in range(5)])
    chosen = catalogue.take(order[:count])
    assert chosen.ids == [f"m-{i}" for i in order[:count]]
    assert [chosen.crystal(k).lattice[0, 0] for k in range(count)] == [3.0 + i for i in order[:count]]
    assert (chosen.content_hash == catalogue.content_hash) == (order[:count] == list(range(5)))
    mask = np.isin(np.arange(5), order[:count])
    assert catalogue.take(mask).ids == [f"m-{i}" for i in sorted(order[:count])]


def test_hash_is_of_values_not_of_file_bytes(catalogue: Catalogue, tmp_path: Path) -> None:
    # Another writer, other types of the same values, several row groups, a further column.
    frame = catalogue.table.assign(note="x")
    frame["frac_coords"] = [[[float(x) for x in row] for row in rows] for rows in frame["frac_coords"]]
    frame["lattice"] = [rows.tolist() for rows in frame["lattice"]]
    frame["species"] = [list(symbols) for symbols in frame["species"]]
    frame["space_group"] = frame["space_group"].astype("int64")
    path = tmp_path / "other.parquet"
    pq.write_table(pa.Table.from_pandas(frame), path, row_group_size=1, compression="none")
    assert Catalogue.from_parquet(path).content_hash == catalogue.content_hash


@pytest.mark.parametrize(
    ("column", "value"),
    [("formula", "Cu2"), ("alpha", 90.0001), ("species", ["Cu"] * 3 + ["Au"]), ("licence", "MIT")],
)
def test_hash_sees_every_change(column: str, value: Any) -> None:
    before, after = Catalogue.from_rows([_row()]), Catalogue.from_rows([_row() | {column: value}])
    assert before.content_hash != after.content_hash


def test_minus_zero_is_zero() -> None:
    minus = _row() | {"lattice": np.diag([5.64] * 3) - 0.0, "frac_coords": -0.0 + _row()["frac_coords"]}
    minus["lattice"][0, 1] = -0.0
    assert Catalogue.from_rows([minus]).content_hash == Catalogue.from_rows([_row()]).content_hash


def test_table_is_a_copy_and_arrays_are_read_only(catalogue: Catalogue) -> None:
    before = catalogue.content_hash
    table = catalogue.table
    table["b"] = 1.0
    table.loc[0, "a"] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        table["lattice"][0][0, 0] = 1.0
    assert catalogue.take([0, 1, 2]).content_hash == before
    assert "3 crystals" in repr(catalogue)


def test_counts_by_system_and_space_group(catalogue: Catalogue) -> None:
    counts = catalogue.counts()
    assert counts.to_dict("list") == {
        "crystal_system": ["cubic", "cubic"],
        "space_group": [221, 225],
        "n_crystals": [1, 2],
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lattice": np.full((3, 3), np.nan)}, "lattice is not finite in 1 row"),
        ({"lattice": np.eye(2) * 5.64}, "lattice does not have 3 rows"),
        ({"frac_coords": np.zeros((3, 3))}, "frac_coords does not have n_sites rows"),
        ({"frac_coords": [[0, 0, 0]] * 3 + [[0, 0]]}, "frac_coords has a row without exactly 3 numbers"),
        ({"frac_coords": [[0, 0, 0]] * 3 + [[0, 0, np.inf]]}, "frac_coords is not finite"),
        ({"frac_coords": [[0, 0, 0]] * 3 + [[0, 0, None]]}, "frac_coords is not finite"),
        ({"species": ["Cu"] * 3}, "species does not have n_sites entries"),
        ({"species": ["Cu"] * 3 + ["Qq"]}, "species holds an unknown element"),
        ({"species": ["Cu"] * 3 + [None]}, "species holds an unknown element"),
        ({"volume": -1.0}, "not finite and positive"),
        ({"alpha": np.nan}, "not finite and positive"),
        ({"space_group": 231}, "space_group is not in 1 … 230"),
        ({"space_group": 0}, "not finite and positive"),
        ({"crystal_system": "tetragonal"}, "crystal_system is not that of space_group"),
        ({"a": 6.0}, "a, b, c or volume do not belong to lattice"),
        ({"formula": None}, r"column formula lacks 1 value"),
        ({"space_group": 70000}, "do not fit a catalogue"),
        ({"lattice": "cubic"}, "do not fit a catalogue"),
    ],
)
def test_rows_that_contradict_themselves_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CatalogueError, match=message):
        Catalogue.from_rows([_row("good"), _row("bad") | change])


def test_the_message_names_the_row() -> None:
    with pytest.raises(CatalogueError, match=r"first 'bad'.*catalogue build"):
        Catalogue.from_rows([_row("good"), _row("bad") | {"a": 6.0}])


def test_ids_must_be_unique() -> None:
    with pytest.raises(CatalogueError, match="material_id occurs more than once in 1 row"):
        Catalogue.from_rows([_row("m"), _row("m")])


def test_an_empty_catalogue_is_refused() -> None:
    with pytest.raises(CatalogueError, match="no crystal in it"):
        Catalogue.from_rows([])


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([], "selection is empty"),
        ([False, False, False], "selection is empty"),
        ([True], r"mask of shape \(1,\) for 3 crystals"),
        ([0, 3], "rows 0 … 3 asked of a catalogue of 3"),
        ([0, -3], "holds a row twice"),
        ([0.5], "by a mask or by integers"),
    ],
)
def test_bad_selections_are_refused(catalogue: Catalogue, chosen: list[Any], message: str) -> None:
    with pytest.raises(CatalogueError, match=message):
        catalogue.take(chosen)


def test_unknown_material(catalogue: Catalogue) -> None:
    with pytest.raises(CatalogueError, match="no material 'm-9' in this catalogue of 3"):
        catalogue.index_of("m-9")


def test_absent_truncated_and_foreign_files(catalogue: Catalogue, tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"no catalogue at .*absent\.parquet\. Check the path"):
        Catalogue.from_parquet(tmp_path / "absent.parquet")
    whole = tmp_path / "whole.parquet"
    catalogue.to_parquet(whole)
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole.read_bytes()[:-300])
    with pytest.raises(CatalogueError, match="cannot be read as Parquet"):
        Catalogue.from_parquet(cut)
    cut.write_bytes(b"")
    with pytest.raises(CatalogueError, match="cannot be read as Parquet"):
        Catalogue.from_parquet(cut)


def test_damaged_pages_are_refused(catalogue: Catalogue, tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    catalogue.to_parquet(path)
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(content)
    with pytest.raises(CatalogueError):
        Catalogue.from_parquet(path)


def test_missing_columns_and_wrong_types(catalogue: Catalogue, tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    catalogue.to_parquet(path)
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["lattice", "a"]), path)
    with pytest.raises(CatalogueError, match="is not a catalogue: no column a, lattice"):
        Catalogue.from_parquet(path)
    index = table.schema.get_field_index("volume")
    pq.write_table(table.set_column(index, "volume", pa.array(["big"] * 3)), path)
    with pytest.raises(CatalogueError, match="column volume is string, not double"):
        Catalogue.from_parquet(path)


def test_writing_to_a_folder_or_below_a_file_is_refused(catalogue: Catalogue, tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("mine")
    with pytest.raises(CatalogueError, match="is a folder"):
        catalogue.to_parquet(tmp_path)
    with pytest.raises(CatalogueError, match="cannot write"):
        catalogue.to_parquet(tmp_path / "keep.txt" / "c.parquet")
    assert (tmp_path / "keep.txt").read_text() == "mine"


def test_the_real_catalogue_loads_fast_and_whole(shared_data: Path, tmp_path: Path) -> None:
    start = time.perf_counter()
    catalogue = Catalogue.from_parquet(shared_data / "catalogue.parquet")
    digest = catalogue.content_hash
    assert time.perf_counter() - start < 10.0
    assert len(catalogue) == 16_913
    stored = pd.read_parquet(shared_data / "catalogue.parquet", columns=["material_id", "a", "n_sites"])
    assert catalogue.ids == stored["material_id"].tolist()
    assert catalogue.table["a"].equals(stored["a"])
    assert [len(s) for s in catalogue.table["species"]] == stored["n_sites"].tolist()
    catalogue.to_parquet(tmp_path / "copy.parquet")
    assert Catalogue.from_parquet(tmp_path / "copy.parquet").content_hash == digest
    assert isinstance(catalogue.structure(7), Structure)


def test_a_column_that_is_there_twice_is_refused(catalogue: Catalogue, tmp_path: Path) -> None:
    catalogue.to_parquet(tmp_path / "good.parquet")
    table = pq.read_table(tmp_path / "good.parquet")
    pq.write_table(table.append_column("formula", table["formula"]), tmp_path / "twice.parquet")
    with pytest.raises(CatalogueError, match="more than one column formula"):
        Catalogue.from_parquet(tmp_path / "twice.parquet")


def test_a_crystal_that_cannot_be_simulated_is_named(catalogue: Catalogue, tmp_path: Path) -> None:
    catalogue.to_parquet(tmp_path / "good.parquet")
    table = pq.read_table(tmp_path / "good.parquet")
    index = next(i for i, count in enumerate(table["n_sites"].to_pylist()) if count > 1)
    coordinates = table["frac_coords"].to_pylist()
    coordinates[index] = [coordinates[index][0]] * len(coordinates[index])
    place = table.schema.get_field_index("frac_coords")
    column = pa.array(coordinates, type=table.schema.field("frac_coords").type)
    pq.write_table(table.set_column(place, "frac_coords", column), tmp_path / "bad.parquet")
    bad = Catalogue.from_parquet(tmp_path / "bad.parquet")
    with pytest.raises(StructureError, match=rf"^{re.escape(bad.ids[index])}: atoms 0 and 1 overlap"):
        bad.crystal(index)


def test_names_that_cannot_be_stored_are_refused() -> None:
    with pytest.raises(CatalogueError, match="do not fit a catalogue"):
        Catalogue.from_rows([_row("m-\udce9")])
