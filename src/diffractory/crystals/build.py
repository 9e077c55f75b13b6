"""Build a catalogue: filter, determine symmetry, drop duplicates, and say what was dropped and why."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Element, Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from diffractory.crystals.catalogue import Catalogue
from diffractory.crystals.duplicates import DuplicateFinder
from diffractory.crystals.sources import REASONS, Candidate, Problem, Reason, problem_of
from diffractory.crystals.symmetry import SYMPREC, quiet_spglib
from diffractory.crystals.systems import CRYSTAL_SYSTEMS, system_of_space_group
from diffractory.errors import CatalogueError, SpecError

#: Largest volume of a conventional cell by default, in Å³ (the paper's limit).
MAX_VOLUME: Final = 1000.0

#: The 11 pairs of space groups that are mirror images of each other.
_PAIRS: Final = (
    *((76, 78), (91, 95), (92, 96), (144, 145), (151, 153), (152, 154)),
    *((169, 170), (171, 172), (178, 179), (180, 181), (212, 213)),
)
_OTHER_HAND: Final = dict(_PAIRS) | {right: left for left, right in _PAIRS}


@dataclass(frozen=True)
class CatalogueFilter:
    """What enters a catalogue.

    Parameters
    ----------
    max_volume : float
        Largest volume in Å³ of the conventional cell (of the given cell with ``keep_setting``).
    elements : frozenset of str
        Only crystals made of these elements alone; empty = all.
    exclude_elements : frozenset of str
        No crystal with any of these elements.
    systems : frozenset of str
        Only these crystal systems; empty = all.
    limit : int or None
        At most so many crystals: a random sample in which every crystal system keeps its share.
    seed : int
        Seed of that sample.
    symprec : float
        Distance within which atoms count as symmetry-equivalent, in Å.
    keep_setting : bool
        Keep every cell as given instead of converting it to the conventional standard cell. The
        labels a, b, c then describe the given cell.
    trust_symmetry : bool
        Keep the cell, space group and primitive volume a source states instead of determining
        them anew; sources that state none are not affected.

    Raises
    ------
    SpecError
        If a value is out of range, or an element or crystal system does not exist.
    """

    max_volume: float = MAX_VOLUME
    elements: frozenset[str] = frozenset()
    exclude_elements: frozenset[str] = frozenset()
    systems: frozenset[str] = frozenset()
    limit: int | None = None
    seed: int = 0
    symprec: float = SYMPREC
    keep_setting: bool = False
    trust_symmetry: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.max_volume) and self.max_volume > 0):
            raise SpecError(f"max_volume = {self.max_volume}", "a volume limit is above 0 Å³ and finite")
        if not (math.isfinite(self.symprec) and 0 < self.symprec <= 1):
            raise SpecError(f"symprec = {self.symprec}", "a symmetry tolerance is in (0, 1] Å")
        if self.limit is not None and self.limit < 1:
            raise SpecError(f"limit = {self.limit}", "a catalogue holds at least one crystal")
        if self.seed < 0:
            raise SpecError(f"seed = {self.seed}", "seeds are not negative")
        known = {element.symbol for element in Element}
        for symbol in sorted(self.elements | self.exclude_elements):
            if symbol not in known:
                raise SpecError(f"no element {symbol!r}", fix="Give chemical symbols such as Si,O")
        for system in sorted(self.systems - set(CRYSTAL_SYSTEMS)):
            raise SpecError(f"no crystal system {system!r}", fix=f"Choose among {', '.join(CRYSTAL_SYSTEMS)}")


@dataclass(frozen=True)
class Dropped:
    """A candidate that did not enter the catalogue.

    Parameters
    ----------
    material_id : str
        Its name in the source.
    reason : Reason
        One of :data:`diffractory.crystals.sources.REASONS`.
    detail : str
        One sentence for people.
    """

    material_id: str
    reason: Reason
    detail: str


@dataclass(frozen=True, eq=False)
class BuildResult:
    """A catalogue and what was left out of it.

    Parameters
    ----------
    catalogue : Catalogue
        What entered, in the order of the source.
    dropped : tuple of Dropped
        What did not.
    """

    catalogue: Catalogue
    dropped: tuple[Dropped, ...]

    def counts_by_reason(self) -> dict[Reason, int]:
        """Count the dropped candidates by reason, in the order of the checks; no zeros.

        Returns
        -------
        dict of Reason to int
        """
        return _counts_by_reason(self.dropped)


def build_catalogue(
    candidates: Iterable[Candidate],
    filters: CatalogueFilter | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> BuildResult:
    """Build a catalogue from the candidates of a source.

    Cells become conventional standard cells (Setyawan & Curtarolo, *Comput. Mater. Sci.* **49**,
    299 (2010), with β the monoclinic angle), by spglib through pymatgen. Labels are determined on
    the converted cell, the one that is stored. pymatgen's conversion can mirror a crystal: that
    is undone where the space group shows it (P4_1 and P4_3, and the ten other such pairs); in
    other chiral groups (P2_1, P2_12_12_1 …) the stored crystal may be of the other hand. Axes are
    never permuted beyond that convention: base-centred orthorhombic cells, for one, keep c where
    the centring wants it, so a < b < c does not hold for all of them.

    Parameters
    ----------
    candidates : iterable of Candidate
        Result of one of the sources.
    filters : CatalogueFilter, optional
        What enters; the defaults where not given.
    on_progress : callable, optional
        Called after every candidate with the number of candidates seen so far.

    Returns
    -------
    BuildResult
        Every candidate is either in the catalogue or among the dropped ones.

    Raises
    ------
    CatalogueError
        If no candidate is left.
    """
    filters = filters or CatalogueFilter()
    finder, seen = DuplicateFinder(), set[str]()
    rows: list[dict[str, Any]] = []
    dropped: list[Dropped] = []
    for number, candidate in enumerate(candidates, start=1):
        with quiet_spglib(), warnings.catch_warnings():
            # pymatgen warns about noble gases having no electronegativity, on every formula.
            warnings.simplefilter("ignore", UserWarning)
            verdict = _judge(candidate, filters, seen, finder)
        if isinstance(verdict, Problem):
            dropped.append(Dropped(candidate.material_id, verdict.reason, verdict.detail))
        else:
            seen.add(candidate.material_id)
            rows.append(verdict)
        if on_progress is not None:
            on_progress(number)
    rows, left_out = _limited(rows, filters)
    dropped += left_out
    if not rows:
        raise _nothing_left(dropped)
    return BuildResult(Catalogue.from_rows(rows), tuple(dropped))


def _judge(
    candidate: Candidate, filters: CatalogueFilter, seen: set[str], finder: DuplicateFinder
) -> dict[str, Any] | Problem:
    """Return the catalogue row of a candidate, or why it has none; cheap checks come first."""
    if candidate.structure is None or candidate.problem is not None:
        return candidate.problem or Problem("unreadable", "the source gives no structure")
    if candidate.material_id in seen:
        return Problem("repeated id", f"an earlier entry is called {candidate.material_id!r} as well")
    problem = problem_of(candidate.structure) or _element_problem(candidate.structure, filters)
    if problem is not None:
        return problem
    labelled = _with_symmetry(candidate, candidate.structure, filters)
    if isinstance(labelled, Problem):
        return labelled
    row = _row(candidate, labelled)
    problem = _row_problem(row, filters)
    if problem is not None:
        return problem
    first = finder.first_like(row)
    return row if first is None else Problem("duplicate", f"same structure as {first}")


def _element_problem(structure: Structure, filters: CatalogueFilter) -> Problem | None:
    present = {str(element.symbol) for element in structure.composition.elements}
    unwanted = present & filters.exclude_elements
    if filters.elements:
        unwanted |= present - filters.elements
    return Problem("element filter", f"holds {', '.join(sorted(unwanted))}") if unwanted else None


@dataclass(frozen=True, eq=False)
class _Labelled:
    """The cell to store and the labels of that cell."""

    structure: Structure
    space_group: int
    volume_primitive: float


def _with_symmetry(
    candidate: Candidate, structure: Structure, filters: CatalogueFilter
) -> _Labelled | Problem:
    if (
        filters.trust_symmetry
        and candidate.space_group is not None
        and candidate.volume_primitive is not None
    ):
        return _Labelled(structure, candidate.space_group, candidate.volume_primitive)
    try:
        cell = structure if filters.keep_setting else _conventional(structure, filters)
        dataset = SpacegroupAnalyzer(cell, symprec=filters.symprec).get_symmetry_dataset()
    except Exception as error:  # spglib and pymatgen raise several kinds, some of them private
        return Problem("symmetry not found", f"within {filters.symprec} Å: {error}")
    problem = problem_of(cell)
    if problem is not None:  # idealising a cell can push atoms onto one another
        return replace(problem, detail=f"in the conventional cell: {problem.detail}")
    n_primitive = len(set(dataset.mapping_to_primitive.tolist()))
    return _Labelled(cell, int(dataset.number), float(cell.volume) * n_primitive / len(cell))


def _conventional(structure: Structure, filters: CatalogueFilter) -> Structure:
    """Return the conventional standard cell, of the same hand where the space group has one."""
    analyzer = SpacegroupAnalyzer(structure, symprec=filters.symprec)
    given = analyzer.get_space_group_number()
    converted = analyzer.get_conventional_standard_structure()
    found = SpacegroupAnalyzer(converted, symprec=filters.symprec).get_space_group_number()
    if _OTHER_HAND.get(given) == found:
        # pymatgen swapped two axes without turning a third: it mirrored the crystal.
        return Structure(converted.lattice, converted.species, (-converted.frac_coords) % 1.0)
    return converted


def _row(candidate: Candidate, labelled: _Labelled) -> dict[str, Any]:
    structure = labelled.structure
    a, b, c, alpha, beta, gamma = structure.lattice.parameters
    return {
        "material_id": candidate.material_id,
        "formula": structure.composition.reduced_formula,
        "space_group": labelled.space_group,
        "crystal_system": system_of_space_group(labelled.space_group),
        "volume": float(structure.volume),
        "volume_primitive": labelled.volume_primitive,
        "n_sites": len(structure),
        **{"a": a, "b": b, "c": c, "alpha": alpha, "beta": beta, "gamma": gamma},
        "lattice": np.asarray(structure.lattice.matrix),
        "species": [str(site.specie.symbol) for site in structure],
        "frac_coords": np.asarray(structure.frac_coords, dtype=np.float32),
        "source": candidate.source,
        "licence": candidate.licence,
    }


def _row_problem(row: Mapping[str, Any], filters: CatalogueFilter) -> Problem | None:
    if filters.systems and row["crystal_system"] not in filters.systems:
        return Problem("crystal system filter", f"is {row['crystal_system']}")
    if row["volume"] > filters.max_volume:
        return Problem("volume limit", f"{row['volume']:.1f} Å³ is above {filters.max_volume:g} Å³")
    return None


def _limited(
    rows: list[dict[str, Any]], filters: CatalogueFilter
) -> tuple[list[dict[str, Any]], list[Dropped]]:
    if filters.limit is None or len(rows) <= filters.limit:
        return rows, []
    kept = set(
        stratified_choice([row["crystal_system"] for row in rows], filters.limit, filters.seed).tolist()
    )
    detail = f"not drawn among the {filters.limit} of {len(rows)} (seed {filters.seed})"
    left_out = [
        Dropped(row["material_id"], "count limit", detail) for i, row in enumerate(rows) if i not in kept
    ]
    return [row for i, row in enumerate(rows) if i in kept], left_out


def stratified_choice(labels: Sequence[str], count: int, seed: int) -> NDArray[np.int64]:
    """Draw items so that every label keeps its share, by largest remainders.

    Parameters
    ----------
    labels : sequence of str
        Label of every item.
    count : int
        Number of items to draw, at most ``len(labels)``.
    seed : int
        Seed of the draw.

    Returns
    -------
    ndarray of shape (count,), int
        Indices, ascending.
    """
    names, codes, sizes = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    quotas = sizes * count / sizes.sum()
    shares = np.floor(quotas).astype(np.int64)
    by_remainder = np.argsort(shares - quotas, kind="stable")
    shares[by_remainder[: count - int(shares.sum())]] += 1
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(codes == code))[: shares[code]] for code in range(len(names))]
    return np.sort(np.concatenate(drawn)).astype(np.int64)


def _counts_by_reason(dropped: Iterable[Dropped]) -> dict[Reason, int]:
    reasons = [item.reason for item in dropped]
    return {reason: reasons.count(reason) for reason in REASONS if reason in reasons}


def _nothing_left(dropped: Sequence[Dropped]) -> CatalogueError:
    counts = ", ".join(f"{count} {reason}" for reason, count in _counts_by_reason(dropped).items())
    first = f"; first: {dropped[0].material_id}: {dropped[0].detail}" if dropped else ""
    return CatalogueError(
        "no crystal is left for the catalogue",
        f"dropped: {counts}{first}" if dropped else "the source is empty",
        "Loosen the filters, or give another source",
    )
