"""The table of a catalogue: its columns, its checks, and its way into Arrow and back."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pymatgen.core import Element

from diffractory.crystals.systems import CRYSTAL_SYSTEMS, system_of_space_group
from diffractory.errors import CatalogueError

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
#: Atomic number of every element by its symbol.
ATOMIC_NUMBERS: Final = {element.symbol: int(element.Z) for element in Element}
#: What to do about a table that is refused.
BUILD_ANEW: Final = "Build the catalogue anew with `diffractory catalogue build`"


def checked_frame(table: pa.Table, name: str) -> pd.DataFrame:
    """Turn an Arrow table into the frame of a catalogue, checking everything on the way.

    Parameters
    ----------
    table : pyarrow.Table
        With the columns of :data:`SCHEMA`, in any order.
    name : str
        What the table is called in messages.

    Returns
    -------
    DataFrame
        Columns in the order of :data:`SCHEMA`; arrays are read-only.

    Raises
    ------
    CatalogueError
        If there is no row, a column is of another type, or a row contradicts itself.
    """
    table = _cast(table, name)
    if table.num_rows == 0:
        raise CatalogueError(f"{name}: no crystal in it", "a catalogue holds at least one", BUILD_ANEW)
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
                f"{name}: column {field.name} is {column.type}, not {field.type} ({error})", fix=BUILD_ANEW
            ) from None
        if column.null_count:
            raise CatalogueError(
                f"{name}: column {field.name} lacks {column.null_count} value(s)", fix=BUILD_ANEW
            )
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
    unknown = np.array([symbol not in ATOMIC_NUMBERS for symbol in symbols])
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
    raise CatalogueError(f"{name}: {what} in {int(bad.sum())} row(s), first {examples}", fix=BUILD_ANEW)


def arrow_table(frame: pd.DataFrame) -> pa.Table:
    """Return the table of a catalogue as Arrow stores it, with the types of :data:`SCHEMA`."""
    columns = {name: pa.array(frame[name], type=SCHEMA.field(name).type) for name in _TEXT + _NUMBERS}
    columns["species"] = _arrow_lists(frame["species"], SCHEMA.field("species").type)
    for name, kind in _ARRAY_OF_TRIPLES.items():
        columns[name] = _arrow_triples(frame[name], kind)
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _arrow_lists(column: pd.Series[Any], kind: pa.DataType) -> pa.Array:
    return pa.array([list(symbols) for symbols in column], type=kind)


def _arrow_triples(column: pd.Series[Any], kind: pa.DataType) -> pa.Array:
    rows = np.concatenate(list(column)).astype(kind.value_type.value_type.to_pandas_dtype())
    inner = pa.ListArray.from_arrays(
        np.arange(0, 3 * len(rows) + 1, 3, dtype=np.int32), pa.array(rows.ravel())
    )
    ends = np.cumsum([0, *(len(triples) for triples in column)], dtype=np.int32)
    return pa.ListArray.from_arrays(ends, inner)


def content_hash(frame: pd.DataFrame) -> str:
    """Return the sha256 over all values of a catalogue's table and their order."""
    digest = hashlib.sha256(b"diffractory catalogue 1\n")
    for name in SCHEMA.names:
        digest.update(f"\n{name}\n".encode())
        digest.update(_content_bytes(name, frame[name]))
    return digest.hexdigest()


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
