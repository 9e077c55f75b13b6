"""The notebooks run, show what the site shows, and use the public API alone."""

from __future__ import annotations

import ast
import base64
import importlib
import io
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import pytest
from nbformat import NotebookNode
from PIL import Image

import diffractory
from notebook_runs import NOTEBOOKS, execute_notebook, said

SOURCES = sorted(NOTEBOOKS.glob("[0-9]-*.py"))
NAMES = [source.stem for source in SOURCES]
#: Bytes; the site and every clone carry them.
LARGEST = 300_000


def stored(name: str) -> NotebookNode:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def pictures(notebook: NotebookNode) -> dict[int, list[str]]:
    """Return the pictures of each cell that shows any, in base64."""
    found = {
        number: [o.data["image/png"] for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
        for number, cell in enumerate(notebook.cells)
    }
    return {number: each for number, each in found.items() if each}


def is_drawn(picture: str) -> bool:
    """Say whether a picture shows anything: many values of grey."""
    grey = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("L"))
    return len(np.unique(grey)) > 16 and float(grey.std()) > 5.0


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[NotebookNode]]]:
    """All notebooks, executed two at a time, where there is no SLURM and no scan of the user."""
    folder = tmp_path_factory.mktemp("notebooks")
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        for name in ("DIFFRACTORY_SCAN", "SLURM_CONF"):
            patch.delenv(name, raising=False)
        nowhere = str(folder / "no-testbed")
        # The one that takes longest goes first.
        yield {
            name: pool.submit(execute_notebook, name, folder, DIFFRACTORY_TESTBED=nowhere)
            for name in reversed(NAMES)
        }


def test_there_are_four() -> None:
    assert [name[0] for name in NAMES] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_and_shows_the_pictures_that_are_stored(
    name: str, executed: dict[str, Future[NotebookNode]]
) -> None:
    # An error in a cell is raised here.
    drawn, kept = pictures(executed[name].result()), pictures(stored(name))
    assert drawn
    assert {cell: len(each) for cell, each in drawn.items()} == {
        cell: len(each) for cell, each in kept.items()
    }
    assert all(is_drawn(picture) for each in (*drawn.values(), *kept.values()) for picture in each)


@pytest.mark.parametrize("name", NAMES)
def test_a_stored_notebook_is_that_of_its_source(name: str) -> None:
    source, kept = jupytext.read(NOTEBOOKS / f"{name}.py"), stored(name)
    assert [cell.source for cell in kept.cells] == [cell.source for cell in source.cells], (
        "run `make notebooks`"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_stored_notebook_is_small_and_tells_nothing_of_the_machine(name: str) -> None:
    path = NOTEBOOKS / f"{name}.ipynb"
    assert path.stat().st_size <= LARGEST
    outputs = [output for cell in stored(name).cells for output in cell.get("outputs", [])]
    assert {output.output_type for output in outputs} <= {"stream", "execute_result", "display_data"}
    assert all(output.get("name", "stdout") == "stdout" for output in outputs)
    shown = "".join(
        output.get("text", "") + str(output.get("data", {}).get("text/plain")) for output in outputs
    )
    assert not [place for place in ("/root/", "/home/", "/tmp/", "\x1b[") if place in shown]


def imports_of(source: Path) -> Iterator[tuple[str, str | None]]:
    """Yield module and name of everything of this package that a notebook imports."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names if alias.name.startswith("diffractory"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("diffractory"):
            yield from ((node.module, alias.name) for alias in node.names)


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_a_notebook_uses_the_public_api_alone(source: Path) -> None:
    rooms = {"crystals", "dataset", "learning", "patterns", "report", "scan", "scattering", "specs", "units"}
    rooms |= {"settings"}
    for module, name in imports_of(source):
        parts = module.split(".")[1:]
        assert not parts or parts[0] in rooms, f"{module} is not for users"
        assert not any(part.startswith("_") for part in (*parts, name or "")), (module, name)
        found = (
            importlib.import_module(module)
            if name is None
            else getattr(importlib.import_module(module), name)
        )
        assert found.__doc__, f"{module}.{name} is not documented"
    used = list(ast.walk(ast.parse(source.read_text(encoding="utf-8"))))
    private = [n.attr for n in used if isinstance(n, ast.Attribute) and n.attr.startswith("_")]
    assert not private
    top = [
        n.attr for n in used if isinstance(n, ast.Attribute) and getattr(n.value, "id", "") == "diffractory"
    ]
    assert set(top) <= set(diffractory.__all__)


def test_the_fourth_notebook_says_where_there_is_no_slurm(executed: dict[str, Future[NotebookNode]]) -> None:
    told = said(executed[NAMES[3]].result())
    assert "NO SLURM HERE" in told
    assert "#SBATCH" in told
    assert "2 Dask worker(s)" in told
