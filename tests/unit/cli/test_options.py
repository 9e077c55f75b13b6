from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffractory.cli.options import check_output_folder, parse_thicknesses
from diffractory.errors import AccessError, SpecError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("200", (200.0,)),
        (" 200 ", (200.0,)),
        ("100,200,350.5", (100.0, 200.0, 350.5)),
        ("100:300:100", (100.0, 200.0, 300.0)),
        ("100:350:100", (100.0, 200.0, 300.0)),
        ("0.1:0.3:0.1", (0.1, 0.2, 0.3)),
        ("100:100:5", (100.0,)),
        ("20:2000:20", tuple(20.0 * i for i in range(1, 101))),
    ],
)
def test_thicknesses_are_read(text: str, expected: tuple[float, ...]) -> None:
    assert parse_thicknesses(text) == expected


@given(st.text(alphabet="0123456789.,:-+einfa "))
def test_whatever_is_typed_is_numbers_or_a_spec_error(text: str) -> None:
    try:
        values = parse_thicknesses(text)
    except SpecError:
        return
    assert values
    assert all(isinstance(value, float) for value in values)


@given(st.integers(1, 500), st.integers(0, 200), st.integers(1, 50))
def test_ranges_hold_both_ends(start: int, steps: int, step: int) -> None:
    values = parse_thicknesses(f"{start}:{start + steps * step}:{step}")
    assert values == tuple(float(start + i * step) for i in range(steps + 1))


def test_a_folder_that_can_be_made_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path, tmp_path / "a" / "b", Path("a"), Path()):
        check_output_folder(path)
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "a" / "b"):
        with pytest.raises(AccessError) as caught:
            check_output_folder(path)
        assert f"{tmp_path / 'file'} is a file, not a folder" in str(caught.value)


def test_a_folder_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(AccessError, match="you may not write to"):
        check_output_folder(tmp_path / "a" / "b")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc")
def test_a_folder_that_takes_no_files_is_refused() -> None:
    with pytest.raises(AccessError, match=r"nothing can be written to /proc/x/y\. .*/proc"):
        check_output_folder(Path("/proc/x/y"))


def test_why_nothing_can_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", full)
    with pytest.raises(
        AccessError, match=rf"no folder can be made in {tmp_path} \(No space left on device\)"
    ):
        check_output_folder(tmp_path / "a")


@pytest.mark.parametrize("name", [".zgroup", ".zattrs", "zarr.json"])
def test_results_are_not_written_into_a_zarr_store(tmp_path: Path, name: str) -> None:
    store = tmp_path / "scan.zspy"
    (store / "Experiments").mkdir(parents=True)
    (store / name).write_text("{}")
    (tmp_path / "link").symlink_to(store)
    for path in (store, store / "maps" / "scan", store / "Experiments", tmp_path / "link"):
        with pytest.raises(AccessError, match=r"scan\.zspy is a Zarr store.*Name another folder"):
            check_output_folder(path)
    check_output_folder(tmp_path / "maps")
