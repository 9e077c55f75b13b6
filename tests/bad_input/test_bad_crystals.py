"""Structures that cannot be used: each file is named with its reason; nothing usable is an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli_runs import diffractory, refused, succeeds
from diffractory.crystals.catalogue import Catalogue
from zoo import CSCL_CIF

#: name -> (content of the file, the reason given, words of the detail)
BAD = {
    "unreadable": ("data_x\n_cell_length_a four", "unreadable", "cannot be read"),
    "binary": ("\x00\x01\x02\ufffd", "unreadable", "cannot be read"),
    "empty": ("", "unreadable", "is empty"),
    "partial": (CSCL_CIF.replace("A Cs 0 0 0 1", "A Cs 0 0 0 0.5"), "partial occupancy", "occupancy"),
    "overlapping": (CSCL_CIF.replace("0.5 0.5 0.5", "0.01 0 0"), "overlapping atoms", "Å"),
    "unknown": (CSCL_CIF.replace("B Cl", "B Qq"), "", "Qq"),
}


def _build(folder: Path, *options: object) -> tuple[object, ...]:
    return (
        "catalogue",
        "build",
        folder / "c.parquet",
        "--source",
        "cif",
        "--input",
        folder / "cifs",
        *options,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cifs").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_named_with_its_reason_and_the_good_one_is_kept(folder: Path, name: str) -> None:
    content, reason, detail = BAD[name]
    (folder / "cifs" / "good.cif").write_text(CSCL_CIF)
    (folder / "cifs" / f"{name}.cif").write_text(content)
    summary = succeeds(*_build(folder, "--dropped", folder / "dropped.csv", "--json")).json
    assert summary["n_crystals"] == 1
    assert summary["n_dropped"] == 1
    line = (folder / "dropped.csv").read_text().splitlines()[1]
    assert line.startswith(f"{name},{reason}")
    assert detail in line
    assert Catalogue.from_parquet(folder / "c.parquet").ids == ["good"]
    said = diffractory(*_build(folder)).flat.replace(" ", "")
    assert f"{name}.cif" in said


@pytest.mark.parametrize("name", BAD)
def test_a_folder_with_only_bad_files_is_an_error(folder: Path, name: str) -> None:
    content, reason, detail = BAD[name]
    (folder / "cifs" / f"{name}.cif").write_text(content)
    (folder / "c.parquet").write_text("an older catalogue")
    refused(*_build(folder), untouched=folder, says=("no crystal is left", reason, detail))


def test_a_folder_without_any_cif_is_an_error(folder: Path) -> None:
    (folder / "cifs" / "notes.txt").write_text("mine")
    refused(*_build(folder), untouched=folder, says=("no *.cif file under", "Give a folder"))


def test_crystals_over_the_volume_limit_are_left_out(folder: Path) -> None:
    (folder / "cifs" / "good.cif").write_text(CSCL_CIF)
    (folder / "cifs" / "large.cif").write_text(CSCL_CIF.replace("4.12", "9.5"))
    summary = succeeds(*_build(folder, "--max-volume", 100, "--json")).json
    assert (summary["n_crystals"], summary["dropped"]) == (1, {"volume limit": 1})
    refused(
        *_build(folder, "--max-volume", 50),
        untouched=folder,
        says=("no crystal is left", "volume limit", "above 50 Å³"),
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--max-volume", "nan"), ("max_volume = nan", "finite")),
        (("--max-volume", "-1"), ("max_volume = -1.0", "above 0")),
        (("--symprec", "0"), ("symprec = 0.0", "(0, 1]")),
        (("--elements", "Si,Unobtainium"), ("no element 'Unobtainium'", "Si,O")),
        (("--systems", "Cubic"), ("no crystal system 'Cubic'", "Choose among", "cubic")),
        (("--seed", "-1"), ("seed = -1",)),
    ],
)
def test_filters_out_of_range(folder: Path, options: tuple[str, ...], says: tuple[str, ...]) -> None:
    (folder / "cifs" / "good.cif").write_text(CSCL_CIF)
    refused(*_build(folder, *options), untouched=folder, says=says)


def test_an_input_named_as_the_output_is_not_overwritten(folder: Path) -> None:
    mine = folder / "cifs" / "good.cif"
    mine.write_text(CSCL_CIF)
    refused(
        *("catalogue", "build", mine),
        untouched=folder,
        says=("is no name for a catalogue", ".parquet", "--source cif --input"),
    )


def test_the_list_of_the_dropped_is_not_written_over_the_catalogue(folder: Path) -> None:
    (folder / "cifs" / "good.cif").write_text(CSCL_CIF)
    same = folder / "cifs" / ".." / "c.parquet"
    says = ("--dropped", "is the catalogue itself", "dropped.csv")
    refused(*_build(folder, "--dropped", same), untouched=folder, says=says)


def test_what_is_no_catalogue_is_not_shown(folder: Path) -> None:
    (folder / "c.parquet").write_bytes(b"PAR1 but not really")
    refused("catalogue", "show", folder / "c.parquet", untouched=folder, says=("cannot be read as Parquet",))
    refused(
        "catalogue", "show", folder / "no.parquet", untouched=folder, says=("no catalogue at", "no.parquet")
    )


def test_a_catalogue_is_not_written_over_what_it_is_made_from(folder: Path) -> None:
    (folder / "cifs" / "good.cif").write_text(CSCL_CIF)
    succeeds(*_build(folder))
    made = folder / "c.parquet"
    again = (
        "catalogue",
        "build",
        made,
        "--source",
        "parquet",
        "--input",
        folder / "cifs" / ".." / "c.parquet",
    )
    refused(*again, untouched=folder, says=("c.parquet is read as input", "never written over"))
    listed = ("--dropped", folder / "cifs" / "good.cif")
    refused(*_build(folder, *listed), untouched=folder, says=("good.cif is read as input",))
    succeeds(*_build(folder, "--dropped", folder / "cifs" / "dropped.csv"))
