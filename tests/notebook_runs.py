"""Executes notebooks as `make notebooks` does."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def execute_notebook(name: str, folder: Path, **settings: str) -> NotebookNode:
    """Return a notebook that was executed into a folder. An error in a cell is one here."""
    # The command line of the same environment, whether it is activated or not.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # Sockets of the kernel lie there too, and the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="notebook-") as made:
        done = subprocess.run(
            [sys.executable, NOTEBOOKS / "execute.py", name, "--out", folder],
            env={**os.environ, "PATH": path, "TMPDIR": made, **settings},
            capture_output=True, text=True, timeout=500, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return nbformat.read(folder / f"{name}.ipynb", as_version=4)


def said(notebook: NotebookNode) -> str:
    """Return everything the cells of a notebook print."""
    return "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
