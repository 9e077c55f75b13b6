"""Catalogue: a typed table of crystal structures, one row a crystal, Parquet in and out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray
from pymatgen.core import Element, Structure

from diffractory.crystals.crystal import Crystal
from diffractory.crystals.systems import CRYSTAL_SYSTEMS, system_of_space_group
from diffractory.errors import CatalogueError
from diffractory.storage import atomic_path

_ARRAY_OF_TRIPLES: Final = {
    "lattice": pa.list_(pa.list_(pa.float64())),
    "frac_coords": pa.list_(pa.list_(pa.float32())),
}

#: Columns of a catalogue and their types in Parquet. Lengths in Å, angles in degrees, volumes in Å³.
SCHEMA: Final = pa.schema(
    [
        ("material_id", pa.large_string()),
        ("formula", pa.large_string()),
        ("space_group", pa.int16()),
        ("crystal_system", pa.large_string()),
        ("volume", pa.float64()),
        ("volume_primitive", pa.float64()),
        ("n_sites", pa.int16()),
        *((name, pa.float64()) for name in ("a", "b", "c", "alpha", "beta", "gamma")),
        ("lattice", _ARRAY_OF_TRIPLES["lattice"]),
        ("species", pa.list_(pa.string())),
        ("frac_coords", _ARRAY_OF_TRIPLES["frac_coords"]),
        ("source", pa.large_string()),
        ("licence", pa.large_string()),
    ]
)
_TEXT: Final = ("material_id", "formula", "crystal_system", "source", "licence")
_NUMBERS: Final = tuple(f.name for f in SCHEMA if pa.types.is_floating(f.type) or pa.types.is_integer(f.type))
_ATOMIC_NUMBER: Final = {element.symbol: int(element.Z) for element in Element}
_FIX: Final = "Build the catalogue anew with `diffractory catalogue build`"


class Catalogue:
    """An ordered, immutable table of crystals.

    Make one with :meth:`from_parquet`, :meth:`from_rows` or
    :func:`diffractory.crystals.build.build_catalogue`.

    The labels ``space_group``, ``a``, ``b``, ``c`` … describe the cell stored in ``lattice``,
    whatever its setting: axes are never permuted here. Orthorhombic axes in particular are not
    always a < b < c; who needs them sorted (learning targets) sorts them.

    Fractional coordinates are held in single precision, as the file holds them, so that a
    catalogue equals its own round trip through Parquet.
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

        Raises
        ------
        CatalogueError
            If the file is absent, truncated or no Parquet file, if a column is missing or of
            another type, or if a row contradicts itself.
        """
        path = Path(path)
        if not path.is_file():
            raise CatalogueError(f"no catalogue at {path}", fix="Check the path, or build one: " + _FIX)
        try:
            with pq.ParquetFile(path) as stored:
                missing = [name for name in SCHEMA.names if name not in stored.schema_arrow.names]
                if missing:
                    raise CatalogueError(
                        f"{path} is not a catalogue: no column {', '.join(missing)}",
                        f"a catalogue has the columns {', '.join(SCHEMA.names)}",
                        _FIX,
                    )
                table = stored.read(columns=SCHEMA.names)
        except (OSError, pa.ArrowException) as error:
            raise CatalogueError(f"{path} cannot be read as Parquet ({error})", fix=_FIX) from None
        return cls(_frame(table, str(path)))

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> Self:
        """Make a catalogue from rows with one value for each column.

        Parameters
        ----------
        rows : iterable of mapping
            ``lattice`` of shape (3, 3), ``species`` a sequence of element symbols,
            ``frac_coords`` of shape (n_sites, 3); arrays or nested lists.

        Raises
        ------
        CatalogueError
            If there is no row, a value is missing, or a row contradicts itself.
        """
        plain = [{name: _plain(row.get(name)) for name in SCHEMA.names} for row in rows]
        try:
            table = pa.Table.from_pylist(plain, schema=SCHEMA)
        except (pa.ArrowException, OverflowError) as error:
            raise CatalogueError(f"these rows do not fit a catalogue ({error})") from None
        return cls(_frame(table, "these rows"))

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
                pq.write_table(self._arrow(), temporary, compression="zstd")
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

    def index_of(self, material_id: str) -> int:
        """Return the row of a material.

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

        Raises
        ------
        StructureError
            If the structure cannot be simulated.
        """
        numbers = np.array([_ATOMIC_NUMBER[symbol] for symbol in self._value("species", index)])
        return Crystal(self._value("lattice", index), numbers, self._value("frac_coords", index))

    def reciprocal(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return :attr:`Crystal.reciprocal` of some rows, of shape (n, 3, 3); atoms are not looked at."""
        lattices = np.array([self._value("lattice", int(index)) for index in indices], dtype=np.float64)
        cells: NDArray[np.float64] = np.linalg.inv(lattices.reshape(-1, 3, 3)).transpose(0, 2, 1)
        return cells

    def structure(self, index: int) -> Structure:
        """Return a row as a pymatgen structure in the stored cell."""
        coords = np.asarray(self._value("frac_coords", index), dtype=np.float64)
        return Structure(self._value("lattice", index), self._value("species", index), coords)

    def _value(self, column: str, index: int) -> Any:
        return self._table[column].iat[index]

    def select(self, mask_or_indices: ArrayLike) -> Catalogue:
        """Return some rows as a catalogue of their own.

        Parameters
        ----------
        mask_or_indices : array_like
            Boolean mask of length ``len(self)``, or row indices in the wanted order, none twice.

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
        digest = hashlib.sha256(b"diffractory catalogue 1\n")
        for name in SCHEMA.names:
            digest.update(f"\n{name}\n".encode())
            digest.update(_content_bytes(name, self._table[name]))
        return digest.hexdigest()

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

    def _arrow(self) -> pa.Table:
        columns = {
            name: pa.array(self._table[name], type=SCHEMA.field(name).type) for name in _TEXT + _NUMBERS
        }
        columns["species"] = _arrow_lists(self._table["species"], SCHEMA.field("species").type)
        for name, kind in _ARRAY_OF_TRIPLES.items():
            columns[name] = _arrow_triples(self._table[name], kind)
        return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


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


def _content_bytes(name: str, column: pd.Series[Any]) -> bytes:
    if name in _TEXT:
        return json.dumps(list(column)).encode()
    if name == "species":
        return json.dumps([list(symbols) for symbols in column]).encode()
    if name == "frac_coords":
        # Lengths are hashed as n_sites.
        return bytes((np.concatenate(list(column)).astype("<f4") + np.float32(0.0)).tobytes())
    values = np.stack(list(column)) if name == "lattice" else column.to_numpy()
    return bytes((values.astype("<f8") + 0.0).tobytes())  # + 0.0: minus zero equals zero


def _arrow_lists(column: pd.Series[Any], kind: pa.DataType) -> pa.Array:
    return pa.array([list(symbols) for symbols in column], type=kind)


def _arrow_triples(column: pd.Series[Any], kind: pa.DataType) -> pa.Array:
    rows = np.concatenate(list(column)).astype(kind.value_type.value_type.to_pandas_dtype())
    inner = pa.ListArray.from_arrays(
        np.arange(0, 3 * len(rows) + 1, 3, dtype=np.int32), pa.array(rows.ravel())
    )
    ends = np.cumsum([0, *(len(triples) for triples in column)], dtype=np.int32)
    return pa.ListArray.from_arrays(ends, inner)


def _frame(table: pa.Table, name: str) -> pd.DataFrame:
    """Turn an Arrow table into the frame of a catalogue, checking everything on the way."""
    table = _cast(table, name)
    if table.num_rows == 0:
        raise CatalogueError(f"{name}: no crystal in it", "a catalogue holds at least one", _FIX)
    columns: dict[str, Any] = {key: table[key].to_pandas() for key in (*_TEXT, *_NUMBERS)}
    sizes = columns["n_sites"].to_numpy().astype(np.int64)
    ids = columns["material_id"]
    threes = np.full(len(sizes), 3)
    columns["lattice"] = _split(_triples(table["lattice"], threes, "lattice", ids, name), threes)
    columns["frac_coords"] = _split(_triples(table["frac_coords"], sizes, "frac_coords", ids, name), sizes)
    _refuse(_lengths(table["species"]) != sizes, "species does not have n_sites entries", ids, name)
    symbols = np.asarray(_flat(table["species"]).to_pylist(), dtype=object)
    columns["species"] = [tuple(part) for part in _split(symbols, sizes)]
    frame = pd.DataFrame({key: columns[key] for key in SCHEMA.names})
    _check_rows(frame, symbols, sizes, name)
    return frame


def _cast(table: pa.Table, name: str) -> pa.Table:
    columns = []
    for field in SCHEMA:
        column = table[field.name]
        try:
            columns.append(column.cast(field.type))
        except pa.ArrowException as error:
            raise CatalogueError(
                f"{name}: column {field.name} is {column.type}, not {field.type} ({error})", fix=_FIX
            ) from None
        if column.null_count:
            raise CatalogueError(f"{name}: column {field.name} lacks {column.null_count} value(s)", fix=_FIX)
    return pa.table(columns, schema=SCHEMA)


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks().flatten()


def _lengths(column: pa.ChunkedArray) -> NDArray[np.int64]:
    array = column.combine_chunks()
    return np.diff(np.asarray(array.offsets)).astype(np.int64)


def _triples(
    column: pa.ChunkedArray, sizes: NDArray[np.int64], key: str, ids: pd.Series[str], name: str
) -> NDArray[Any]:
    """Return the rows of a column of (n, 3) arrays, all crystals after one another."""
    _refuse(
        _lengths(column) != sizes,
        f"{key} does not have {'3' if key == 'lattice' else 'n_sites'} rows",
        ids,
        name,
    )
    inner = _flat(column)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    ragged = np.bincount(owner[np.diff(np.asarray(inner.offsets)) != 3], minlength=len(sizes)) > 0
    _refuse(ragged, f"{key} has a row without exactly 3 numbers", ids, name)
    values = np.array(inner.flatten().to_numpy(zero_copy_only=False)).reshape(-1, 3)
    broken = np.bincount(owner[~np.isfinite(values).all(axis=1)], minlength=len(sizes)) > 0
    _refuse(broken, f"{key} is not finite", ids, name)
    values.setflags(write=False)
    return values


def _split(values: NDArray[Any], sizes: NDArray[np.int64]) -> list[NDArray[Any]]:
    return np.split(values, np.cumsum(sizes)[:-1])


def _check_rows(frame: pd.DataFrame, symbols: NDArray[Any], sizes: NDArray[np.int64], name: str) -> None:
    ids = frame["material_id"]
    _refuse(ids.duplicated().to_numpy(), "material_id occurs more than once", ids, name)
    numbers = frame[list(_NUMBERS)].to_numpy(dtype=np.float64)
    _refuse(
        ~(np.isfinite(numbers) & (numbers > 0)).all(axis=1), "a number is not finite and positive", ids, name
    )
    unknown = np.array([symbol not in _ATOMIC_NUMBER for symbol in symbols])
    owner = np.repeat(np.arange(len(sizes)), sizes)
    _refuse(
        np.bincount(owner[unknown], minlength=len(sizes)) > 0, "species holds an unknown element", ids, name
    )
    groups = frame["space_group"].to_numpy()
    _refuse(groups > 230, "space_group is not in 1 … 230", ids, name)
    expected = np.array([system_of_space_group(int(group)) for group in groups])
    wrong = expected != frame["crystal_system"].to_numpy()
    _refuse(
        wrong, f"crystal_system is not that of space_group (one of {', '.join(CRYSTAL_SYSTEMS)})", ids, name
    )
    lattice = np.stack(list(frame["lattice"]))
    edges = np.linalg.norm(lattice, axis=2)
    _refuse(
        ~np.isclose(edges, frame[["a", "b", "c"]], rtol=1e-3).all(axis=1)
        | ~np.isclose(np.abs(np.linalg.det(lattice)), frame["volume"], rtol=1e-3),
        "a, b, c or volume do not belong to lattice",
        ids,
        name,
    )


def _refuse(bad: NDArray[np.bool_], what: str, ids: pd.Series[str], name: str) -> None:
    if not bad.any():
        return
    examples = ", ".join(repr(str(i)) for i in ids[bad][:3])
    raise CatalogueError(f"{name}: {what} in {int(bad.sum())} row(s), first {examples}", fix=_FIX)
