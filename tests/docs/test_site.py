"""The documentation site builds offline without a warning, needs nothing from elsewhere, and is complete."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

import diffractory
from reference_names import documented

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DECISIONS = DOCS / "decisions"
#: Written by the build from the commands themselves.
GENERATED = DOCS / "reference" / "command-line.md"
#: What a browser fetches by itself, as opposed to links that a reader follows.
FETCHED = dict.fromkeys(("script", "img", "source", "iframe", "video", "audio", "embed"), "src") | {
    "object": "data",
    "link": "href",
}
#: Relations of <link> that are not fetched.
NOT_FETCHED = {"canonical", "next", "prev", "search", "index", "author", "genindex"}
COMMAND_LINE = re.compile(r"^\s*(diffractory [a-z].*)$|`(diffractory [a-z][^`]*)`", re.MULTILINE)


class Page(HTMLParser):
    """Collects what a page fetches, where it leads, and the places it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids.update(value for name in ("id", "name") if (value := values.get(name)))
        target = values.get(FETCHED.get(tag, ""))
        if target and not (tag == "link" and set((values.get("rel") or "").split()) & NOT_FETCHED):
            self.fetched.append(target)
        if tag == "a" and values.get("href"):
            self.links.append(str(values["href"]))


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site, warnings being errors."""
    target = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-b",
        "html",
        "-W",
        "--keep-going",
        "-d",
        f"{target}/trees",
    ]
    built = subprocess.run([*command, DOCS, target / "html"], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return target / "html"


@pytest.fixture(scope="session")
def pages(site: Path) -> dict[Path, Page]:
    """Return every page that was built; the theme keeps templates among its files."""
    return {path: Page(path) for path in sorted(site.rglob("*.html")) if "_static" not in path.parts}


def test_every_section_is_there(pages: dict[Path, Page], site: Path) -> None:
    names = {str(path.relative_to(site)) for path in pages}
    wanted = {"index", "start", "physics", "accuracy", "search", "notebooks/index", "decisions/index"}
    wanted |= {f"how-to/{name}" for name in ("supercomputer", "train", "microscope")}
    wanted |= {f"reference/{name}" for name in ("command-line", "api/package", "glossary")}
    wanted |= {
        f"project/{name}" for name in ("architecture", "comparison", "contributing", "citing", "changelog")
    }
    assert {f"{name}.html" for name in wanted} <= names


def test_pages_fetch_nothing_from_elsewhere(pages: dict[Path, Page], site: Path) -> None:
    elsewhere = {
        target
        for page in pages.values()
        for target in page.fetched
        if urlsplit(target).scheme in {"http", "https"}
    }
    elsewhere |= {target for page in pages.values() for target in page.fetched if target.startswith("//")}
    assert not elsewhere
    for style in site.rglob("*.css"):
        assert not re.findall(
            r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")
        ), style


def test_internal_links_lead_somewhere(pages: dict[Path, Page]) -> None:
    broken = []
    for path, page in pages.items():
        for link in {*page.links, *page.fetched}:
            parts = urlsplit(link)
            if parts.scheme or link.startswith("//"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.is_file() or (target in pages and anchor and anchor not in pages[target].ids):
                broken.append(f"{path.name}: {link}")
    assert not broken


def test_equations_are_drawn_by_the_browser(site: Path) -> None:
    text = (site / "physics.html").read_text(encoding="utf-8")
    assert text.count("<math ") > 20
    assert not re.findall(r"mathjax[\w@/.-]*\.js", text, re.IGNORECASE)


def test_every_decision_is_listed() -> None:
    listed = re.findall(
        r"^\| (\d+) \| \[(.+)\]\((\S+)\) \|$", (DECISIONS / "README.md").read_text(), re.MULTILINE
    )
    files = sorted(path for path in DECISIONS.glob("[0-9]*.md"))
    expected = [
        (str(int(path.name[:4])), path.read_text().splitlines()[0].split(". ", 1)[1], path.name)
        for path in files
    ]
    assert listed == expected


@pytest.mark.parametrize("name", documented())
def test_names_of_the_reference_exist_and_are_documented(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    thing = getattr(importlib.import_module(module), attribute)
    assert (inspect.getdoc(thing) or "").strip()
    if inspect.isfunction(thing) and len(inspect.signature(thing).parameters) > 1:
        assert "Parameters\n---" in (thing.__doc__ or "").replace("    ", "")
    undocumented = [
        member
        for member, value in vars(thing).items()
        if inspect.isclass(thing)
        and not member.startswith("_")
        and (inspect.isfunction(value) or isinstance(value, property | classmethod))
        and not inspect.getdoc(getattr(thing, member))
    ]
    assert not undocumented


def test_names_in_the_reference_once() -> None:
    names = documented()
    assert len(set(names)) == len(names)
    assert {f"diffractory.{name}" for name in diffractory.__all__ if name != "__version__"} <= set(names)


def imported(text: str) -> set[str]:
    """Return the names of this package that lines of Python import, with `>>> ` before them or not."""
    code = re.sub(r"^\s*>>> ", "", text, flags=re.MULTILINE)
    lines = re.findall(r"^from diffractory[\w.]* import [\w, ]+$", code, re.MULTILINE)
    nodes = [node for line in lines for node in ast.parse(line).body if isinstance(node, ast.ImportFrom)]
    return {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}


def test_what_pages_import_is_in_the_reference() -> None:
    """A name that README and documentation use is public, so it has to be in the reference."""
    used = {name for page in [ROOT / "README.md", *DOCS.rglob("*.md")] for name in imported(page.read_text())}
    assert used
    assert used - set(documented()) == set()


def commands_of(page: Path) -> list[str]:
    """Return the command lines of a page, without comments; lines that leave something out are not taken."""
    joined = re.sub(r"\\\n\s*", "", page.read_text())
    found = ["".join(groups) for groups in COMMAND_LINE.findall(joined)]
    lines = [re.sub(r"\s+", " ", line.split("#")[0]).strip() for line in found]
    return [line for line in lines if "…" not in line]


def written() -> list[tuple[str, str]]:
    """Return every command line of README and documentation, with where it stands."""
    texts = [ROOT / "README.md", ROOT / "cluster" / "README.md", *sorted(DOCS.rglob("*.md"))]
    texts = [page for page in texts if not {"_build", "decisions"} & set(page.parts) and page != GENERATED]
    return sorted({(str(page.relative_to(ROOT)), line) for page in texts for line in commands_of(page)})


@pytest.mark.parametrize(("page", "line"), written())
def test_commands_and_options_exist(page: str, line: str) -> None:
    from typer.main import get_command

    from diffractory.cli.app import app

    words = shlex.split(line)[1:]
    command = get_command(app)
    context = command.make_context("diffractory", [], resilient_parsing=True)
    while words and not words[0].startswith("-") and hasattr(command, "resolve_command"):
        _, command, words = command.resolve_command(context, words)
        context = command.make_context(context.info_name, [], resilient_parsing=True)
    known = {"--help"} | {option for item in command.params for option in (*item.opts, *item.secondary_opts)}
    used = {word.split("=")[0] for word in words if re.fullmatch(r"--?[a-z][\w-]*(=.*)?", word)}
    assert used <= known


def test_citation_names_version_and_license() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert citation["version"] == diffractory.__version__
    assert citation["license"] == "GPL-3.0-or-later"
