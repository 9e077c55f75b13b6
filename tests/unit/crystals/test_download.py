import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from diffractory.crystals.sources.download import Download, Page, one_line, optional_client
from diffractory.errors import CatalogueError


@dataclass
class Provider:
    """Three pages of two entries; remembers what it was asked, and can be made to fail."""

    asked: list[str] = field(default_factory=list)
    instead: dict[str, Page | CatalogueError] = field(default_factory=dict)

    def __call__(self, request: str, first: Page | None) -> Page:
        self.asked.append(request)
        assert (first is None) == (request == "1")
        answer = self.instead.get(request) or _page(int(request))
        if isinstance(answer, CatalogueError):
            raise answer
        return answer


def _page(number: int) -> Page:
    entries = [{"id": f"{number}-{i}", "x": 0.1 * i} for i in range(2)]
    following = str(number + 1) if number < 3 else None
    return Page(str(number), entries, following, 6, "db 1", "CC0-1.0", "client 1.0", "2026-01-02")


def _download(folder: Path, provider: Provider) -> Download:
    return Download(folder, "test", "1", provider)


def _files(download: Download) -> list[str]:
    return sorted(path.name for path in download.folder.iterdir())


def test_a_complete_download_is_never_asked_for_again(tmp_path: Path) -> None:
    provider, steps = Provider(), []
    download = _download(tmp_path, provider)
    assert download.complete(lambda count, total: steps.append((count, total))) == 6
    assert steps == [(2, 6), (4, 6), (6, 6)]
    assert _files(download) == ["page-00001.json", "page-00002.json", "page-00003.json"]
    again = _download(tmp_path, provider)
    assert again.complete() == 6
    assert provider.asked == ["1", "2", "3"]
    assert list(again.pages()) == [_page(1), _page(2), _page(3)]


def test_another_query_has_another_folder(tmp_path: Path) -> None:
    one, other = Download(tmp_path, "test", "1", Provider()), Download(tmp_path, "test", "2", Provider())
    assert one.folder != other.folder
    assert one.folder.parent == other.folder.parent == tmp_path


@pytest.mark.parametrize("damage", ["cut", "flipped", "no JSON", "other request", "other form", "gone"])
def test_a_damaged_page_is_downloaded_again_and_no_other(tmp_path: Path, damage: str) -> None:
    provider = Provider()
    download = _download(tmp_path, provider)
    download.complete()
    path = download.folder / "page-00002.json"
    text = path.read_text()
    stored = json.loads(text)
    damaged = {
        "cut": text[:-40],
        "flipped": text.replace("0.1", "0.7"),
        "no JSON": "",
        "other request": (download.folder / "page-00001.json").read_text(),
        "other form": json.dumps({**stored, "page": {**stored["page"], "extra": 1}}),
        "gone": None,
    }[damage]
    if damaged is None:
        path.unlink()
    else:
        path.write_text(damaged)
    with pytest.raises(CatalogueError, match=r"page 2 .* missing or damaged"):
        list(download.pages())
    assert _download(tmp_path, provider).complete() == 6
    assert provider.asked == ["1", "2", "3", "2"]
    assert path.read_text() == text


def test_a_failure_keeps_what_is_there_and_the_next_call_goes_on(tmp_path: Path) -> None:
    provider = Provider(instead={"3": CatalogueError("the line is dead", "no route", "Plug it in")})
    download = _download(tmp_path, provider)
    with pytest.raises(CatalogueError, match="the line is dead") as caught:
        download.complete()
    assert caught.value.why == "no route"
    assert caught.value.fix == (
        "Plug it in, then run the same command again "
        f"(4 entries are kept in {download.folder}; remove it to start anew)"
    )
    assert _files(download) == ["page-00001.json", "page-00002.json"]
    provider.instead.clear()
    assert _download(tmp_path, provider).complete() == 6
    assert provider.asked == ["1", "2", "3", "3"]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (replace(_page(3), entries=_page(1).entries), "page 3 of db 1 holds the entries of page 1 again"),
        (replace(_page(3), total=7), "db 1 has changed since this download began"),
        (replace(_page(3), database="db 2"), "db 1 has changed since this download began"),
        (replace(_page(3), entries=[{"id": "x"}]), "db 1 stopped after 5 of 6 entries"),
        (replace(_page(3), entries=[]), "db 1 stopped after 4 of 6 entries"),
        (replace(_page(3), entries=[], next_request="4"), "db 1 stopped after 4 of 6 entries"),
    ],
    ids=["repeated", "total", "database", "short", "empty", "empty with a next page"],
)
def test_a_page_that_cannot_be_the_next_is_refused_and_not_kept(tmp_path: Path, bad: Page, says: str) -> None:
    provider = Provider(instead={"3": bad})
    download = _download(tmp_path, provider)
    with pytest.raises(CatalogueError, match=says):
        download.complete()
    assert _files(download) == ["page-00001.json", "page-00002.json"]
    provider.instead.clear()
    assert download.complete() == 6


def test_a_total_that_only_some_pages_state_is_no_change(tmp_path: Path) -> None:
    provider = Provider(instead={"2": replace(_page(2), total=None)})
    assert _download(tmp_path, provider).complete() == 6


def test_no_match_is_an_error_and_leaves_nothing_behind(tmp_path: Path) -> None:
    provider = Provider(instead={"1": replace(_page(1), entries=[], next_request=None, total=0)})
    with pytest.raises(CatalogueError, match="no entry of db 1 matches the query"):
        _download(tmp_path / "cache", provider).complete()
    assert not (tmp_path / "cache").exists()


def test_a_client_that_is_not_installed_is_named_with_its_extra() -> None:
    with pytest.raises(CatalogueError, match=r'pip install "diffractory\[mp\]"') as caught:
        optional_client("mp", "mp-api", "no_such_module.client")
    assert "--source mp needs the package mp-api" in caught.value.what


def test_texts_of_providers_are_quoted_on_one_line_with_both_ends() -> None:
    assert one_line("a\n  b\t\x1b[31mc\x1b[39m") == "a b c"
    quoted = one_line("begin " + "x" * 5000 + " end")
    assert quoted.startswith("begin x")
    assert quoted.endswith("x end")
    assert len(quoted) < 500
