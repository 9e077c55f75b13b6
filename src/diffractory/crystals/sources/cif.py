"""A folder of CIF files as a source."""

from __future__ import annotations

import gzip
import re
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from pymatgen.core import Composition, Structure
from pymatgen.io.cif import CifParser

from diffractory.crystals.sources import Candidate, Problem, printable, problem_of
from diffractory.errors import CatalogueError

LICENCE: Final = "unknown (see the CIF file)"
#: Where a block begins, for pymatgen too.
_BLOCK: Final = re.compile(r"^\s*data_", re.MULTILINE)


def cif_files(folder: Path) -> list[Path]:
    """Return the CIF files under a folder, sub-folders included, sorted by path.

    Parameters
    ----------
    folder : Path
        Folder, or a single CIF file.

    Raises
    ------
    CatalogueError
        If the path does not exist or holds no ``*.cif`` file.
    """
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise CatalogueError(f"no such folder: {folder}", fix="Give a folder that holds CIF files")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".cif" and path.is_file())
    if not files:
        raise CatalogueError(f"no *.cif file under {folder}", fix="Give a folder that holds CIF files")
    return files


def cif_candidates(folder: Path) -> Iterator[Candidate]:
    """Yield the structures of all CIF files under a folder.

    A file that cannot be used becomes a candidate with a problem that names the file; the other
    files are still read. Warnings of the parser are silenced: what matters of them (missing
    atoms, occupancies above one, unknown elements) is a problem, the rest says how the parser
    read the symmetry.

    Parameters
    ----------
    folder : Path
        Folder, or a single CIF file.

    Yields
    ------
    Candidate
        ``material_id`` is the path below the folder without suffix; a second structure of the
        same file gets ``#2``, and so on.

    Raises
    ------
    CatalogueError
        If the path does not exist or holds no ``*.cif`` file.
    """
    root = folder if folder.is_dir() else folder.parent
    for path in cif_files(folder):
        below = printable(path.relative_to(root).as_posix())
        name = printable(path.relative_to(root).with_suffix("").as_posix())
        for number, read in enumerate(_read(path), start=1):
            found = read
            if isinstance(read, Structure) and (problem := problem_of(read)):
                found = replace(problem, detail=f"{path}: {problem.detail}")
            # No file is likely to be called like that.
            material_id = name if number == 1 else f"{name}#{number}"
            if isinstance(found, Problem):
                told = replace(found, detail=printable(found.detail))
                yield Candidate(material_id, None, told, f"CIF {below}", LICENCE)
            else:
                yield Candidate(material_id, found, None, f"CIF {below}", LICENCE)


def _read(path: Path) -> list[Structure | Problem]:
    """Return what is in a file, one block after the other."""
    try:
        if not path.read_bytes().strip():
            return [Problem("unreadable", f"{path} is empty")]
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8", errors="replace") as file:
            text = str(file.read())
    except (OSError, EOFError, zlib.error) as error:
        return [Problem("unreadable", f"{path} cannot be read: {_one_line(error)}")]
    # Journals put what is said of all structures into a block of its own, without a cell.
    texts = [f"data_{block}" for block in _BLOCK.split(f"\n{text}")[1:] if "_cell_length_a" in block]
    if not texts:
        return [Problem("unreadable", f"{path} cannot be read: no block of it has a cell")]
    return [_read_block(text, path) for text in texts]


def _read_block(text: str, path: Path) -> Structure | Problem:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            structure, missing = _parse(text, occupancy_tolerance=1.0)
    except Exception as error:  # the parser raises whatever its helpers raise
        if _has_crowded_site(text):
            return Problem("overlapping atoms", f"{path}: the occupancies of one site add up to more than 1")
        return Problem("unreadable", f"{path} cannot be read: {_one_line(error)}")
    if missing:
        return Problem(
            "missing atoms", f"{path} gives no positions for {', '.join(missing)} of its chemical formula"
        )
    return structure


def _parse(text: str, occupancy_tolerance: float) -> tuple[Structure, list[str]]:
    """Return the structure of one block, and elements of its formula that have no atoms."""
    parser = CifParser.from_str(text, occupancy_tolerance=occupancy_tolerance)
    (structure,) = parser.parse_structures(primitive=False, on_error="raise")
    (block,) = parser.as_dict().values()
    return structure, _missing_elements(block.get("_chemical_formula_sum"), structure)


def _has_crowded_site(text: str) -> bool:
    """Tell whether a block that cannot be read can be once occupancies above 1 are allowed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _parse(text, occupancy_tolerance=1e6)
    except Exception:  # as above: unreadable for another reason
        return False
    return True


def _missing_elements(formula: object, structure: Structure) -> list[str]:
    """Return the elements of the stated formula without atoms (often hydrogen)."""
    if not isinstance(formula, str) or not formula.strip(" ?."):
        return []
    try:
        stated = Composition(formula).elements
    except ValueError:
        return []  # "(Fe,Ni)2" and "x(H2 O)" say nothing that could be compared
    present = {int(element.Z) for element in structure.composition.elements}
    return sorted(str(element) for element in stated if int(element.Z) not in present)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__
