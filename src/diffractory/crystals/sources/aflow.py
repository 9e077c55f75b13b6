"""AFLOW prototypes that ship with pymatgen: the embedded source, no network and no files needed."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from pymatgen.core import Structure

from diffractory.crystals.sources import Candidate
from diffractory.errors import CatalogueError

SOURCE: Final = "AFLOW Library of Crystallographic Prototypes, part 1 (from pymatgen)"
LICENCE: Final = "MIT (pymatgen data; cite doi:10.1016/j.commatsci.2017.01.017)"


def read_prototypes() -> list[dict[str, Any]]:
    """Return the prototype entries of the installed pymatgen, in the file's order.

    The JSON is read directly: pymatgen's own loader imports bibliography tools, takes 100 times
    as long, and gives the same cells.

    Raises
    ------
    CatalogueError
        If the installed pymatgen holds no prototype file, or the file cannot be read.

    References
    ----------
    M. J. Mehl et al., *Comput. Mater. Sci.* **136**, S1-S828 (2017).
    """
    path = _prototype_file()
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if path.suffix == ".gz" else raw
        entries: list[dict[str, Any]] = json.loads(content)
    except (OSError, EOFError, ValueError) as error:
        raise CatalogueError(
            f"the AFLOW prototypes in {path} cannot be read ({error})", fix="Install pymatgen anew"
        ) from None
    return entries


def _prototype_file() -> Path:
    # The file has moved between pymatgen releases; it always lies somewhere under analysis/.
    spec = find_spec("pymatgen.analysis")
    folders = spec.submodule_search_locations if spec is not None else None
    for folder in folders or ():
        for path in sorted(Path(folder).rglob("aflow_prototypes.json*")):
            return path
    raise CatalogueError(
        "the installed pymatgen holds no aflow_prototypes.json",
        "this release may ship it elsewhere",
        "Install the pymatgen release of the lock file, or use another source",
    )


def aflow_candidates(entries: list[dict[str, Any]] | None = None) -> Iterator[Candidate]:
    """Yield the AFLOW prototypes as candidates.

    Parameters
    ----------
    entries : list of dict, optional
        Result of :func:`read_prototypes`; read here where not given.

    Yields
    ------
    Candidate
        ``material_id`` is ``aflow-`` and the AFLOW label, with ``-2``, ``-3`` … where several
        entries share a label.

    Raises
    ------
    CatalogueError
        As :func:`read_prototypes`.
    """
    seen: Counter[str] = Counter()
    for entry in read_prototypes() if entries is None else entries:
        label = str(entry["tags"]["aflow"])
        seen[label] += 1
        suffix = f"-{seen[label]}" if seen[label] > 1 else ""
        structure = Structure.from_dict(entry["snl"])
        yield Candidate(f"aflow-{label}{suffix}", structure, None, SOURCE, LICENCE)
