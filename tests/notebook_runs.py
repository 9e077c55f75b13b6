"""Executes the notebooks as `make notebooks` does."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def execute_notebook(source: Path) -> NotebookNode:
    """Return an executed notebook; the function is that of notebooks/execute.py, no part of the package."""
    described = importlib.util.spec_from_file_location("execute_notebooks", NOTEBOOKS / "execute.py")
    assert described is not None
    assert described.loader is not None
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    notebook: NotebookNode = module.execute(source)
    return notebook


def said(notebook: NotebookNode) -> str:
    """Return everything the cells of a notebook print."""
    return "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
