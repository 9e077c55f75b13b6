import os
from pathlib import Path

import pytest

from diffractory.storage import atomic_path, write_atomic


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("data", "stored"), [("Å\n", "Å\n".encode()), (b"\x00\xff", b"\x00\xff"), ("", b"")])
def test_a_file_is_written_with_its_folder(tmp_path: Path, data: str | bytes, stored: bytes) -> None:
    target = tmp_path / "a" / "b" / "c.json"
    write_atomic(target, data)
    assert target.read_bytes() == stored
    assert _names(target.parent) == ["c.json"]


def test_the_old_content_stays_until_the_new_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "c.json"
    target.write_text("old")
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".json"
    assert target.read_text() == "new"
    assert _names(tmp_path) == ["c.json"]


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    target = tmp_path / "c.json"
    with atomic_path(target) as first, atomic_path(target) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert target.read_text() == "first"
    assert _names(tmp_path) == ["c.json"]


def _fail(target: Path, is_folder: bool) -> None:
    """Fail halfway through writing."""
    with atomic_path(target) as temporary:
        if is_folder:
            temporary.mkdir()
        (temporary / "new" if is_folder else temporary).write_text("ne")
        raise RuntimeError("halfway")


def test_a_failure_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    target = tmp_path / "c.json"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="halfway"):
        _fail(target, is_folder=False)
    assert target.read_text() == "old"
    assert _names(tmp_path) == ["c.json"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for content in ("one", "two"):
        with atomic_path(target) as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
        assert _names(target) == [content]
    assert _names(tmp_path) == ["model"]


def test_a_failure_leaves_the_old_folder_and_no_rest(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(RuntimeError, match="halfway"):
        _fail(target, is_folder=True)
    assert _names(target) == ["old"]
    assert _names(tmp_path) == ["model"]


def test_a_folder_comes_back_if_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").write_text("old")
    rename = Path.rename

    def refuse_the_new(self: Path, other: Path) -> Path:
        if ".partial" in self.name:
            raise PermissionError(1, "no", str(self))
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", refuse_the_new)
    with pytest.raises(PermissionError) as caught, atomic_path(target) as temporary:
        temporary.mkdir()
    assert caught.value.filename == str(target)
    assert _names(target) == ["old"]
    assert _names(tmp_path) == ["model"]


def test_no_file_takes_the_place_of_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "notes.json"
    target.mkdir()
    (target / "mine").write_text("mine")
    with pytest.raises(IsADirectoryError) as caught:
        write_atomic(target, "{}")
    assert caught.value.filename == str(target)
    assert (target / "mine").read_text() == "mine"
    assert _names(tmp_path) == ["notes.json"]


def test_no_folder_takes_the_place_of_a_file(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.write_text("mine")
    with pytest.raises(NotADirectoryError), atomic_path(target) as temporary:
        temporary.mkdir()
    assert target.read_text() == "mine"
    assert _names(tmp_path) == ["model"]


def test_a_link_to_a_folder_is_replaced_and_the_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "mine").write_text("mine")
    target = tmp_path / "model"
    target.symlink_to(tmp_path / "real")
    with atomic_path(target) as temporary:
        temporary.mkdir()
    assert (tmp_path / "real" / "mine").read_text() == "mine"
    assert not target.is_symlink()
    assert _names(tmp_path) == ["model", "real"]


def test_the_error_names_the_target_and_not_the_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *_: object) -> None:
        raise PermissionError(13, os.strerror(13), str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError) as caught:
        write_atomic(tmp_path / "c.json", "{}")
    assert caught.value.filename == str(tmp_path / "c.json")
    assert _names(tmp_path) == []


def test_a_file_in_the_way_is_an_os_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="file"):
        write_atomic(tmp_path / "file" / "c.json", "{}")
    assert (tmp_path / "file").read_text() == "mine"


def test_what_a_link_leads_to_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "here.txt"
    link.symlink_to(tmp_path / "disk" / "there.txt")
    for text in ("first", "second"):
        write_atomic(link, text)
        assert link.is_symlink()
        assert (tmp_path / "disk" / "there.txt").read_text() == text
    assert sorted(path.name for path in tmp_path.rglob("*.txt")) == ["here.txt", "there.txt"]


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="a device or a pipe"):
        write_atomic(pipe, "text")
    assert pipe.is_fifo()
