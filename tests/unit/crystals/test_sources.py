import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from diffractory.crystals.build import build_catalogue
from diffractory.crystals.sources import Candidate, aflow, problem_of
from diffractory.crystals.sources.aflow import aflow_candidates, read_prototypes
from diffractory.crystals.sources.cif import cif_candidates, cif_files
from diffractory.crystals.sources.parquet import parquet_candidates
from diffractory.errors import CatalogueError

HEAD = """data_{name}
_cell_length_a 4.0
_cell_length_b 4.0
_cell_length_c 4.0
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
{extra}
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
"""
GOOD = "A Cs 0 0 0 1\nB Cl 0.5 0.5 0.5 1\n"


def _cif(atoms: str, name: str = "x", extra: str = "") -> str:
    return HEAD.format(name=name, extra=extra) + atoms


def _one(folder: Path, text: str) -> Candidate:
    (folder / "entry.cif").write_text(text)
    (candidate,) = cif_candidates(folder)
    return candidate


def test_aflow_prototypes_are_embedded_and_have_unique_ids() -> None:
    candidates = list(aflow_candidates())
    assert len(candidates) >= 280
    assert len({candidate.material_id for candidate in candidates}) == len(candidates)
    assert all(isinstance(candidate.structure, Structure) for candidate in candidates)
    diamond = next(c for c in candidates if c.material_id == "aflow-A_cF8_227_a")
    assert diamond.structure is not None
    assert diamond.structure.composition.reduced_formula == "C"


def test_repeated_aflow_labels_are_numbered() -> None:
    entry = read_prototypes()[0]
    label = entry["tags"]["aflow"]
    ids = [candidate.material_id for candidate in aflow_candidates([entry, entry, entry])]
    assert ids == [f"aflow-{label}", f"aflow-{label}-2", f"aflow-{label}-3"]


def test_damaged_or_absent_aflow_data_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "aflow_prototypes.json.gz"
    monkeypatch.setattr(aflow, "_prototype_file", lambda: broken)
    for content in (b"nonsense", gzip.compress(b"[1, 2"), gzip.compress(b"[]")[:-4]):
        broken.write_bytes(content)
        with pytest.raises(CatalogueError, match=r"cannot be read.*Install pymatgen anew"):
            read_prototypes()
    broken.write_bytes(gzip.compress(json.dumps([]).encode()))
    assert read_prototypes() == []
    monkeypatch.undo()
    monkeypatch.setattr(aflow, "find_spec", lambda _: None)
    with pytest.raises(CatalogueError, match=r"holds no aflow_prototypes\.json"):
        read_prototypes()


def test_a_folder_of_cifs_is_read_recursively_in_order(tmp_path: Path) -> None:
    for name in ("b.cif", "a/z.CIF", "a/deep/y.cif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(_cif(GOOD))
    (tmp_path / "notes.txt").write_text("no structure")
    candidates = list(cif_candidates(tmp_path))
    assert [c.material_id for c in candidates] == ["a/deep/y", "a/z", "b"]
    assert all(c.problem is None for c in candidates)
    assert candidates[1].source == "CIF a/z.CIF"
    assert cif_files(tmp_path / "b.cif") == [tmp_path / "b.cif"]
    (single,) = cif_candidates(tmp_path / "b.cif")
    assert single.material_id == "b"
    assert single.structure is not None
    assert single.structure.composition.formula == "Cs1 Cl1"


def test_several_blocks_in_a_file_become_several_candidates(tmp_path: Path) -> None:
    text = _cif("A Po 0 0 0 1\n", "one") + _cif("A Cu 0 0 0 1\n", "two")
    (tmp_path / "both.cif").write_text(text)
    candidates = list(cif_candidates(tmp_path))
    assert [c.material_id for c in candidates] == ["both", "both#2"]


@pytest.mark.parametrize(
    ("text", "reason", "detail"),
    [
        ("", "unreadable", "is empty"),
        ("  \n ", "unreadable", "is empty"),
        ("hello world", "unreadable", "cannot be read"),
        (_cif(GOOD)[:150], "unreadable", "cannot be read"),
        (_cif(""), "unreadable", "cannot be read"),
        (_cif("A Na ? ? ? 1\n"), "unreadable", "cannot be read"),
        (_cif("A Na 0 0 0 0.5\n"), "partial occupancy", "partial occupancy at"),
        (_cif("A Na 0 0 0 0.5\nB K 0 0 0 0.5\n"), "partial occupancy", "partial occupancy at"),
        (_cif("A Xx 0 0 0 1\n"), "unsupported element", "'Xx' is no element"),
        (_cif(GOOD + "C Qq 0.5 0 0 1\n"), "unsupported element", "'Qq' is no element"),
        (_cif("A Es 0 0 0 1\n"), "unsupported element", "no form factors for Es"),
        (_cif("A Na 0 0 0 1\nB Cl 0.02 0 0 1\n"), "overlapping atoms", "atoms 0 and 1 overlap"),
        (_cif("A Na 0 0 0 1\nB Cl 0 0 0 1\n"), "overlapping atoms", "add up to more than 1"),
        (_cif(GOOD).replace("_c 4.0", "_c 0.01"), "unusable cell", "degenerate cell"),
        (_cif(GOOD, extra="_chemical_formula_sum 'Cs Cl H2'"), "missing atoms", "no positions for H of"),
    ],
)
def test_a_bad_cif_becomes_a_problem_that_names_the_file(
    tmp_path: Path, text: str, reason: str, detail: str
) -> None:
    candidate = _one(tmp_path, text)
    assert candidate.structure is None
    assert candidate.problem is not None
    assert candidate.problem.reason == reason
    assert detail in candidate.problem.detail
    assert str(tmp_path / "entry.cif") in candidate.problem.detail


def test_binary_rubbish_is_a_problem_too(tmp_path: Path) -> None:
    (tmp_path / "bin.cif").write_bytes(np.random.default_rng(0).bytes(2000))
    (candidate,) = cif_candidates(tmp_path)
    assert candidate.problem is not None
    assert candidate.problem.reason == "unreadable"


@pytest.mark.parametrize("extra", ["_chemical_formula_sum 'Cs Cl'", "_chemical_formula_sum ?"])
def test_a_stated_formula_that_fits_is_no_problem(tmp_path: Path, extra: str) -> None:
    assert _one(tmp_path, _cif(GOOD, extra=extra)).problem is None


def test_folders_without_cif_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"no \*\.cif file under"):
        cif_files(tmp_path)
    with pytest.raises(CatalogueError, match="no such folder"):
        cif_files(tmp_path / "absent")


def test_parquet_candidates_carry_the_symmetry_they_know() -> None:
    catalogue = build_catalogue(aflow_candidates(read_prototypes()[:5])).catalogue
    candidates = list(parquet_candidates(catalogue))
    assert [c.material_id for c in candidates] == catalogue.ids
    assert [c.space_group for c in candidates] == catalogue.table["space_group"].tolist()
    assert [c.volume_primitive for c in candidates] == catalogue.table["volume_primitive"].tolist()
    assert candidates[2].structure == catalogue.structure(2)


def test_problem_of_a_good_structure_is_none() -> None:
    assert problem_of(Structure(Lattice.cubic(4.1), ["Cs", "Cl"], [[0, 0, 0], [0.5] * 3])) is None


def test_problem_of_a_structure_that_is_not_finite() -> None:
    problem = problem_of(Structure(Lattice.cubic(4.1), ["Cs"], [[np.nan, 0, 0]]))
    assert problem is not None
    assert problem.reason == "unusable cell"


def test_a_block_without_a_cell_is_no_structure(tmp_path: Path) -> None:
    # As journals have it: what is said of all structures comes first.
    text = "data_global\n_journal_name_full 'Acta Cryst.'\n" + _cif(GOOD, "one")
    candidate = _one(tmp_path, text)
    assert candidate.material_id == "entry"
    assert candidate.problem is None


def test_a_good_block_is_read_beside_a_bad_one(tmp_path: Path) -> None:
    (tmp_path / "both.cif").write_text(_cif("A Na ? ? ? 1\n", "bad") + _cif(GOOD, "good"))
    bad, good = cif_candidates(tmp_path)
    assert (bad.material_id, good.material_id) == ("both", "both#2")
    assert bad.problem is not None
    assert bad.problem.reason == "unreadable"
    assert good.problem is None


@pytest.mark.parametrize("formula", ["'Cs x(H2 O)'", "'(Fe,Ni)2'", "'Cs, nH2O'", "?"])
def test_a_formula_that_says_nothing_costs_no_structure(tmp_path: Path, formula: str) -> None:
    assert _one(tmp_path, _cif(GOOD, extra=f"_chemical_formula_sum {formula}")).problem is None


def test_a_second_block_does_not_take_the_name_of_another_file(tmp_path: Path) -> None:
    (tmp_path / "quartz.cif").write_text(_cif(GOOD, "one") + _cif("A Cu 0 0 0 1\n", "two"))
    (tmp_path / "quartz-2.cif").write_text(_cif("A Po 0 0 0 1\n"))
    ids = [candidate.material_id for candidate in cif_candidates(tmp_path)]
    assert len(set(ids)) == len(ids) == 3


def test_file_names_that_are_no_text_become_text(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.cif")).write_text(_cif(GOOD))
    (candidate,) = cif_candidates(tmp_path)
    assert candidate.material_id == "caf?"
    assert "caf?.cif" in candidate.source
    catalogue = build_catalogue([candidate]).catalogue
    catalogue.to_parquet(tmp_path / "crystals.parquet")
    assert catalogue.ids == ["caf?"]


def test_a_structure_without_atoms_is_a_problem() -> None:
    problem = problem_of(Structure(Lattice.cubic(4.0), [], []))
    assert problem is not None
    assert (problem.reason, problem.detail) == ("missing atoms", "it has no atoms")


def test_a_compressed_file_named_by_itself_is_read(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "entry.cif.gz", "wt") as file:
        file.write(_cif(GOOD))
    (candidate,) = cif_candidates(tmp_path / "entry.cif.gz")
    assert candidate.problem is None
    (tmp_path / "cut.cif.gz").write_bytes((tmp_path / "entry.cif.gz").read_bytes()[:40])
    (cut,) = cif_candidates(tmp_path / "cut.cif.gz")
    assert cut.problem is not None
    assert "cannot be read" in cut.problem.detail
