"""Executes the notebooks: makes ``NAME.ipynb``, with its pictures, from ``NAME.py``.

``python notebooks/execute.py`` makes all of them (``make notebooks``), with names only those.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import tempfile
from pathlib import Path

import jupytext
from nbclient import NotebookClient
from nbformat import NotebookNode, write
from PIL import Image

FOLDER = Path(__file__).parent
SOURCES = sorted(FOLDER.glob("[0-9]-*.py"))
#: Seconds that one cell may take; notebooks as a whole are to take half a minute.
_CELL_LIMIT = 300


def execute(source: Path) -> NotebookNode:
    """Execute a notebook in its folder and return it with its outputs, without what differs each time."""
    notebook = jupytext.read(source)
    # Cells of a notebook are told apart by ids: random ones would differ with every build.
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        cell.metadata = NotebookNode()
    client = NotebookClient(
        notebook,
        timeout=_CELL_LIMIT,
        kernel_name="python3",
        resources={"metadata": {"path": str(FOLDER)}},
        record_timing=False,
    )
    # Sockets in a folder of our own instead of open ports, to which anybody on the machine could talk.
    with tempfile.TemporaryDirectory() as sockets:
        kernel_manager = client.create_kernel_manager()
        kernel_manager.transport, kernel_manager.ip = "ipc", f"{sockets}/kernel"
        client.execute()
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        if picture := output.get("data", {}).get("image/png"):
            output.data["image/png"] = _smaller(picture)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = NotebookNode(kernelspec=NotebookNode(kernel), language_info={"name": "python"})
    return notebook


def _smaller(picture: str) -> str:
    """Return a PNG in base64 with a palette: a third of the bytes, and no difference to be seen."""
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    packed = io.BytesIO()
    image.quantize(256, dither=Image.Dither.NONE).save(packed, "png", optimize=True)
    return base64.b64encode(packed.getvalue()).decode()


def main() -> None:
    """Execute the notebooks named on the command line, or all."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as 1-look-at-a-crystal")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to; beside the sources")
    asked = parser.parse_args()
    # Of libraries, about themselves: nothing that a reader of a notebook should see.
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    for source in SOURCES:
        if not asked.names or source.stem in asked.names:
            target = asked.out / f"{source.stem}.ipynb"
            write(execute(source), target)
            print(f"{target.name}: {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
