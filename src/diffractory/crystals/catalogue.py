"""Catalogue: a typed table of crystal structures, one row a crystal, Parquet in and out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray
from pymatgen.core import Structure

from diffractory.crystals.catalogue_table import (
    ATOMIC_NUMBERS,
    BUILD_ANEW,
    SCHEMA,
    arrow_table,
    checked_frame,
    content_hash,
)
from diffractory.crystals.crystal import Crystal
from diffractory.errors import CatalogueError, StructureError
from diffractory.storage import atomic_path


class Catalogue:
    """An ordered, immutable table of crystals.

    Make one with :meth:`from_parquet`, :meth:`from_rows` or
    :func:`diffractory.crystals.build.build_catalogue`.

    The labels ``space_group``, ``a``, ``b``, ``c`` … describe the cell stored in ``lattice``,
    whatever its setting: axes are never permuted here. Orthorhombic axes in particular are not
    always a < b < c; who needs them sorted (learning targets) sorts them.

    Fractional coordinates are held in single precision, as the file holds them, so that a
    catalogue equals its own round trip through Parquet.

    Parameters
    ----------
    table : DataFrame
        Checked already: the methods above do so.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self._table = table

    @classmethod
    def from_parquet(cls, path: Path | str) -> Self:
        """Read and check a catalogue.

        Parameters
        ----------
        path : Path or str
            Parquet file with the columns of :data:`SCHEMA`; further columns are ignored.

        Returns
        -------
        Catalogue

        Raises
        ------
        CatalogueError
            If the file is absent, truncated or no Parquet file, if a column is missing or of
            another type, or if a row contradicts itself.
        """
        path = Path(path)
        if not path.is_file():
            raise CatalogueError(f"no catalogue at {path}", fix="Check the path, or build one: " + BUILD_ANEW)
        try:
            with pq.ParquetFile(path) as stored:
                missing = [name for name in SCHEMA.names if name not in stored.schema_arrow.names]
                twice = [name for name in SCHEMA.names if stored.schema_arrow.names.count(name) > 1]
                if missing or twice:
                    what = "no" if missing else "more than one"
                    raise CatalogueError(
                        f"{path} is not a catalogue: {what} column {', '.join(missing or twice)}",
                        f"a catalogue has the columns {', '.join(SCHEMA.names)}",
                        BUILD_ANEW,
                    )
                table = stored.read(columns=SCHEMA.names)
        except (OSError, pa.ArrowException) as error:
            raise CatalogueError(f"{path} cannot be read as Parquet ({error})", fix=BUILD_ANEW) from None
        return cls(checked_frame(table, str(path)))

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> Self:
        """Make a catalogue from rows with one value for each column.

        Parameters
        ----------
        rows : iterable of mapping
            ``lattice`` of shape (3, 3), ``species`` a sequence of element symbols,
            ``frac_coords`` of shape (n_sites, 3); arrays or nested lists.

        Returns
        -------
        Catalogue
            In the order of the rows.

        Raises
        ------
        CatalogueError
            If there is no row, a value is missing, or a row contradicts itself.
        """
        plain = [{name: _plain(row.get(name)) for name in SCHEMA.names} for row in rows]
        try:
            table = pa.Table.from_pylist(plain, schema=SCHEMA)
        except (pa.ArrowException, OverflowError, UnicodeError) as error:
            raise CatalogueError(f"these rows do not fit a catalogue ({error})") from None
        return cls(checked_frame(table, "these rows"))

    def to_parquet(self, path: Path | str) -> None:
        """Write the catalogue; a reader sees the old file or the whole new one.

        Parameters
        ----------
        path : Path or str
            Target file; its folder is made where missing.

        Raises
        ------
        CatalogueError
            If the path is a folder or cannot be written.
        """
        path = Path(path)
        if path.is_dir():
            raise CatalogueError(f"{path} is a folder", "a catalogue is one file", "Name a .parquet file")
        try:
            with atomic_path(path) as temporary:
                pq.write_table(arrow_table(self._table), temporary, compression="zstd")
        except OSError as error:
            raise CatalogueError(f"cannot write {path} ({error})", fix="Choose another place") from None

    def __len__(self) -> int:
        return len(self._table)

    def __repr__(self) -> str:
        return f"<Catalogue of {len(self)} crystals, {self.content_hash[:12]}>"

    @property
    def table(self) -> pd.DataFrame:
        """The table: one row a crystal, columns of :data:`SCHEMA`; a copy, with read-only arrays."""
        return self._table.copy()

    @property
    def ids(self) -> list[str]:
        """Material ids, in order."""
        return list(self._table["material_id"])

    @property
    def space_groups(self) -> NDArray[np.int64]:
        """International number of each material's space group, in order."""
        return self._table["space_group"].to_numpy(dtype=np.int64)

    def index_of(self, material_id: str) -> int:
        """Return the row of a material.

        Parameters
        ----------
        material_id : str

        Returns
        -------
        int
            From 0.

        Raises
        ------
        CatalogueError
            If the catalogue does not hold it.
        """
        index = self._index.get(material_id)
        if index is None:
            raise CatalogueError(
                f"no material {material_id!r} in this catalogue of {len(self)}", fix="List its ids first"
            )
        return index

    def crystal(self, index: int) -> Crystal:
        """Return a row as a :class:`Crystal`, straight from the arrays.

        Parameters
        ----------
        index : int
            Row, from 0.

        Returns
        -------
        Crystal

        Raises
        ------
        StructureError
            If the structure cannot be simulated; it names the material.
        """
        numbers = np.array([ATOMIC_NUMBERS[symbol] for symbol in self._value("species", index)])
        try:
            return Crystal(self._value("lattice", index), numbers, self._value("frac_coords", index))
        except StructureError as error:
            raise StructureError(f"{self.ids[index]}: {error.what}", error.why, error.fix) from None

    def reciprocal(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return :attr:`Crystal.reciprocal` of some rows, of shape (n, 3, 3); atoms are not looked at.

        Parameters
        ----------
        indices : ndarray of shape (n,), int64
            Rows.

        Returns
        -------
        ndarray of shape (n, 3, 3)
            In Å⁻¹.
        """
        lattices = np.array([self._value("lattice", int(index)) for index in indices], dtype=np.float64)
        cells: NDArray[np.float64] = np.linalg.inv(lattices.reshape(-1, 3, 3)).transpose(0, 2, 1)
        return cells

    def structure(self, index: int) -> Structure:
        """Return a row as a pymatgen structure in the stored cell.

        Parameters
        ----------
        index : int
            Row, from 0.

        Returns
        -------
        pymatgen.core.Structure
        """
        coords = np.asarray(self._value("frac_coords", index), dtype=np.float64)
        return Structure(self._value("lattice", index), self._value("species", index), coords)

    def _value(self, column: str, index: int) -> Any:
        return self._table[column].iat[index]

    def take(self, mask_or_indices: ArrayLike) -> Catalogue:
        """Return some rows as a catalogue of their own.

        Parameters
        ----------
        mask_or_indices : array_like
            Boolean mask of length ``len(self)``, or row indices in the wanted order, none twice.

        Returns
        -------
        Catalogue
            Of at least one crystal.

        Raises
        ------
        CatalogueError
            If nothing is selected, a row is selected twice, or does not exist.
        """
        indices = _as_indices(np.asarray(mask_or_indices), len(self))
        return Catalogue(self._table.iloc[indices].reset_index(drop=True))

    @cached_property
    def content_hash(self) -> str:
        """sha256 over all values and their order; independent of the file that held them."""
        return content_hash(self._table)

    def counts(self) -> pd.DataFrame:
        """Count crystals by crystal system and space group.

        Returns
        -------
        DataFrame
            Columns ``crystal_system``, ``space_group``, ``n_crystals``, ordered by space group
            (and so by the order of :data:`CRYSTAL_SYSTEMS`); only groups that occur.
        """
        keys = ["space_group", "crystal_system"]
        counts = self._table.groupby(keys, sort=True).size().rename("n_crystals").reset_index()
        return counts[["crystal_system", "space_group", "n_crystals"]]

    @cached_property
    def _index(self) -> dict[str, int]:
        return {material_id: index for index, material_id in enumerate(self._table["material_id"])}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def _as_indices(chosen: NDArray[Any], n: int) -> NDArray[np.int64]:
    if chosen.dtype == bool:
        if chosen.shape != (n,):
            raise CatalogueError(f"a mask of shape {chosen.shape} for {n} crystals")
        chosen = np.flatnonzero(chosen)
    if chosen.size == 0:
        raise CatalogueError("the selection is empty", "a catalogue holds at least one crystal")
    if chosen.ndim != 1 or not np.issubdtype(chosen.dtype, np.integer):
        raise CatalogueError(f"rows are chosen by a mask or by integers, got {chosen.dtype} {chosen.shape}")
    if chosen.min() < -n or chosen.max() >= n:
        raise CatalogueError(f"rows {chosen.min()} … {chosen.max()} asked of a catalogue of {n}")
    indices = np.where(chosen < 0, chosen + n, chosen).astype(np.int64)
    if np.unique(indices).size != indices.size:
        raise CatalogueError("the selection holds a row twice", "material ids are unique")
    return indices
