import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from diffractory.cli.catalogue import app
from diffractory.crystals.catalogue import Catalogue
from diffractory.errors import CatalogueError, DiffractoryError, SpecError
from zoo import CSCL_CIF


def _run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _error(*arguments: str | Path) -> DiffractoryError:
    result = _run(*arguments)
    assert isinstance(result.exception, DiffractoryError), result.output
    return result.exception


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("catalogue") / "embedded.parquet"
    result = _run("build", path, "--limit", "40", "--seed", "3")
    assert result.exit_code == 0, result.output
    return path


def test_build_from_the_embedded_source_writes_a_catalogue(embedded: Path) -> None:
    assert len(Catalogue.from_parquet(embedded)) == 40
    assert _names(embedded.parent) == [embedded.name]


def test_build_says_what_it_dropped_and_why(tmp_path: Path) -> None:
    csv = tmp_path / "dropped.csv"
    target = tmp_path / "c.parquet"
    result = _run("build", target, "--elements", "Si,O", "--max-volume", "200", "--dropped", csv)
    assert result.exit_code == 0
    dropped = pd.read_csv(csv)
    catalogue = Catalogue.from_parquet(target)
    for reason, count in dropped["reason"].value_counts().items():
        assert str(reason) in result.stdout
        assert f" {count} " in result.stdout
    assert "above 200 Å³" in result.stdout
    assert f"{len(catalogue)} crystals, {len(dropped)} dropped" in result.stdout
    assert not set(catalogue.ids) & set(dropped["material_id"])
    assert {s for symbols in catalogue.table["species"] for s in symbols} <= {"Si", "O"}


def test_build_prints_json(tmp_path: Path) -> None:
    target = tmp_path / "c.parquet"
    result = _run("build", target, "--systems", "cubic, hexagonal", "--exclude-elements", "O", "--json")
    summary = json.loads(result.stdout)
    catalogue = Catalogue.from_parquet(target)
    assert summary["n_crystals"] == len(catalogue)
    assert summary["content_hash"] == catalogue.content_hash
    assert summary["path"] == str(target)
    assert sum(summary["dropped"].values()) == summary["n_dropped"]
    systems = {name for name, count in summary["crystal_systems"].items() if count}
    assert systems == {"cubic", "hexagonal"}
    assert sum(summary["space_groups"].values()) == len(catalogue)


def test_build_is_repeatable(embedded: Path, tmp_path: Path) -> None:
    _run("build", tmp_path / "again.parquet", "--limit", "40", "--seed", "3")
    assert (
        Catalogue.from_parquet(tmp_path / "again.parquet").content_hash
        == Catalogue.from_parquet(embedded).content_hash
    )


def test_build_from_a_folder_of_cifs_names_the_bad_files(tmp_path: Path) -> None:
    folder = tmp_path / "cifs"
    folder.mkdir()
    (folder / "good.cif").write_text(CSCL_CIF)
    (folder / "half.cif").write_text(CSCL_CIF.replace("A Cs 0 0 0 1", "A Cs 0 0 0 0.5"))
    (folder / "[bold]empty.cif").write_text("")
    result = _run("build", tmp_path / "c.parquet", "--source", "cif", "--input", folder)
    assert result.exit_code == 0, result.output
    assert Catalogue.from_parquet(tmp_path / "c.parquet").ids == ["good"]
    text = "".join(result.stdout.replace("│", " ").split())  # the table breaks lines within paths
    assert "partialoccupancy" in text
    assert "half.cif" in text
    assert "[bold]empty" in text


def test_build_from_parquet_can_trust_the_symmetry(embedded: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.parquet"
    result = _run("build", target, "--source", "parquet", "--input", embedded, "--trust-symmetry")
    assert result.exit_code == 0
    assert "not determined anew" in result.stderr
    assert Catalogue.from_parquet(target).content_hash == Catalogue.from_parquet(embedded).content_hash
    assert "content" in _run("build", target, "--source", "parquet", "--input", embedded).stdout


def test_show_counts_and_draws(embedded: Path, tmp_path: Path) -> None:
    picture = tmp_path / "pictures" / "counts.png"
    result = _run("show", embedded, "--figure", picture)
    assert result.exit_code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    text = " ".join(result.stdout.replace("│", " ").split())
    assert "40 crystals" in text
    assert f"figure: {picture}" in result.stdout.replace("\n", "")
    for system, count in Catalogue.from_parquet(embedded).table["crystal_system"].value_counts().items():
        assert f"{system} {count} " in text
    assert "P12_1/c1" not in text


def test_show_prints_json(embedded: Path) -> None:
    summary = json.loads(_run("show", embedded, "--json").stdout)
    assert summary["n_crystals"] == 40
    assert sum(summary["crystal_systems"].values()) == 40


@pytest.mark.parametrize("command", ["build", "show"])
def test_help_has_an_example(command: str) -> None:
    text = " ".join(_run(command, "--help").stdout.split())
    assert f"Example: diffractory catalogue {command}" in text


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (["--elements", "Si,Qq"], SpecError, "no element 'Qq'"),
        (["--systems", "cubical"], SpecError, "no crystal system 'cubical'"),
        (["--max-volume", "nan"], SpecError, "max_volume = nan"),
        (["--max-volume", "-5"], SpecError, "max_volume = -5.0"),
        (["--limit", "0"], SpecError, "limit = 0"),
        (["--elements", "Si", "--max-volume", "1"], CatalogueError, "no crystal is left"),
        (["--input", "cifs"], CatalogueError, "not used by the source aflow"),
        (["--source", "cif"], CatalogueError, "--source cif needs --input. Name a folder of CIF files"),
        (["--source", "parquet"], CatalogueError, "--source parquet needs --input. Name a catalogue"),
        (["--trust-symmetry"], CatalogueError, "does not go with --source aflow"),
        (["--source", "cif", "--input", "nowhere"], CatalogueError, "no such folder"),
        (["--source", "parquet", "--input", "nowhere.parquet"], CatalogueError, "no catalogue at"),
    ],
)
def test_bad_options_give_one_clear_error_and_touch_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    kind: type[DiffractoryError],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.parquet").write_text("old")
    error = _error("build", "c.parquet", *options)
    assert isinstance(error, kind)
    assert message in str(error)
    assert error.exit_code == 2
    assert (tmp_path / "c.parquet").read_text() == "old"
    assert _names(tmp_path) == ["c.parquet"]


def test_folders_as_outputs_are_refused_and_kept(embedded: Path, tmp_path: Path) -> None:
    (tmp_path / "out.png").mkdir()
    (tmp_path / "keep.txt").write_text("mine")
    assert "is a folder" in str(_error("build", tmp_path))
    assert "is a folder" in str(_error("build", tmp_path / "c.parquet", "--dropped", tmp_path))
    assert "is a folder" in str(_error("show", embedded, "--figure", tmp_path / "out.png"))
    assert _names(tmp_path) == ["keep.txt", "out.png"]


def test_show_refuses_what_is_no_catalogue_and_no_picture(embedded: Path, tmp_path: Path) -> None:
    (tmp_path / "no.parquet").write_text("PAR1 but not really")
    assert "cannot be read as Parquet" in str(_error("show", tmp_path / "no.parquet"))
    assert "'.xyz' is no picture format" in str(_error("show", embedded, "--figure", tmp_path / "a.xyz"))
