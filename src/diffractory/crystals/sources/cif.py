"""A folder of CIF files as a source."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from pymatgen.core import Composition, Structure
from pymatgen.io.cif import CifParser

from diffractory.crystals.sources import Candidate, Problem, problem_of
from diffractory.errors import CatalogueError

LICENCE: Final = "unknown (see the CIF file)"


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
        ``material_id`` is the path below the folder without suffix; a second data block of the
        same file gets ``-2``, and so on.

    Raises
    ------
    CatalogueError
        If the path does not exist or holds no ``*.cif`` file.
    """
    root = folder if folder.is_dir() else folder.parent
    for path in cif_files(folder):
        name = path.relative_to(root).with_suffix("").as_posix()
        source = f"CIF {path.relative_to(root).as_posix()}"
        found = _read(path)
        if isinstance(found, Problem):
            yield Candidate(name, None, found, source, LICENCE)
            continue
        for number, structure in enumerate(found, start=1):
            material_id = name if number == 1 else f"{name}-{number}"
            problem = problem_of(structure)
            if problem is None:
                yield Candidate(material_id, structure, None, source, LICENCE)
            else:
                named = replace(problem, detail=f"{path}: {problem.detail}")
                yield Candidate(material_id, None, named, source, LICENCE)


def _read(path: Path) -> list[Structure] | Problem:
    try:
        if not path.read_bytes().strip():
            return Problem("unreadable", f"{path} is empty")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            structures, missing = _parse(path, occupancy_tolerance=1.0)
    except Exception as error:  # the parser raises whatever its helpers raise
        if _has_crowded_site(path):
            return Problem("overlapping atoms", f"{path}: the occupancies of one site add up to more than 1")
        return Problem("unreadable", f"{path} cannot be read: {_one_line(error)}")
    if missing:
        return Problem(
            "missing atoms", f"{path} gives no positions for {', '.join(missing)} of its chemical formula"
        )
    return structures


def _parse(path: Path, occupancy_tolerance: float) -> tuple[list[Structure], list[str]]:
    parser = CifParser(path, occupancy_tolerance=occupancy_tolerance)
    structures: list[Structure] = parser.parse_structures(primitive=False, on_error="raise")
    return structures, _missing_elements(parser, structures)


def _has_crowded_site(path: Path) -> bool:
    """Tell whether a file that cannot be read can be once occupancies above 1 are allowed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _parse(path, occupancy_tolerance=1e6)
    except Exception:  # as above: unreadable for another reason
        return False
    return True


def _missing_elements(parser: CifParser, structures: list[Structure]) -> list[str]:
    """Return the elements of the stated formula without atoms (often hydrogen)."""
    blocks = list(parser.as_dict().values())
    if len(blocks) != 1 or len(structures) != 1:
        return []  # which formula belongs to which structure is not known
    formula = blocks[0].get("_chemical_formula_sum")
    if not isinstance(formula, str) or not formula.strip(" ?."):
        return []
    present = {int(element.Z) for element in structures[0].composition.elements}
    stated = Composition(formula).elements
    return sorted(str(element) for element in stated if int(element.Z) not in present)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__
