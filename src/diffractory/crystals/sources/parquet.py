"""An existing catalogue as a source of another one."""

from __future__ import annotations

from collections.abc import Iterator

from diffractory.crystals.catalogue import Catalogue
from diffractory.crystals.sources import Candidate


def parquet_candidates(catalogue: Catalogue) -> Iterator[Candidate]:
    """Yield the crystals of a catalogue, with the symmetry it already knows.

    Parameters
    ----------
    catalogue : Catalogue
        Result of :meth:`Catalogue.from_parquet`.

    Yields
    ------
    Candidate
        With ``space_group`` and ``volume_primitive``, which :func:`build_catalogue` uses only if
        its filter trusts them.
    """
    table = catalogue.table
    columns = zip(
        table["material_id"],
        table["source"],
        table["licence"],
        table["space_group"],
        table["volume_primitive"],
        strict=True,
    )
    for index, (material_id, source, licence, space_group, volume_primitive) in enumerate(columns):
        yield Candidate(
            material_id=str(material_id),
            structure=catalogue.structure(index),
            problem=None,
            source=str(source),
            licence=str(licence),
            space_group=int(space_group),
            volume_primitive=float(volume_primitive),
        )
