"""Choose crystals, orientations and thicknesses of an opened run, together with their peaks."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.core.indexing import LazilyIndexedArray

from diffractory.dataset.lazy_rows import ChosenRows
from diffractory.errors import RunError

#: A label, several of them, or None for all.
Texts: TypeAlias = str | Sequence[str] | NDArray[Any] | None
#: A label, several of them, a slice with both ends included, or None for all.
Numbers: TypeAlias = float | Sequence[float] | NDArray[Any] | slice | None

#: What makes a dataset one of a run, by dimensions.
_FORM = {
    "intensity": ("peak", "thickness"),
    "hkl": ("peak", "miller"),
    "q": ("peak", "detector"),
    "peak_start": ("crystal", "orientation"),
    "peak_count": ("crystal", "orientation"),
}
#: Labels named in a message; the rest is counted.
_NAMED = 8


def select(
    dataset: xr.Dataset,
    *,
    material_id: Texts = None,
    crystal_system: Texts = None,
    space_group: Numbers = None,
    orientation: Numbers = None,
    thickness: Numbers = None,
) -> xr.Dataset:
    """Choose patterns of an opened run by their labels.

    Each criterion is a value, several values, or, for numbers, a slice that includes both ends;
    those not given choose everything. Crystals, orientations and thicknesses keep the order of the
    dataset. Nothing is read: peaks are, when they are used, and those of other patterns never are
    beyond the chunks they share with chosen ones. Dask arrays come out as arrays that are read when used:
    ``.chunk()`` comes after the choice.

    Parameters
    ----------
    dataset : xarray.Dataset
        From :func:`~diffractory.dataset.reader.open_dataset` or this function.
    material_id : str or sequence of str, optional
    crystal_system : str or sequence of str, optional
    space_group : int, sequence of int or slice, optional
        Numbers 1 … 230.
    orientation : int, sequence of int or slice, optional
        Numbers of the orientations in the run, from 0.
    thickness : float, sequence of float or slice, optional
        In Å.

    Returns
    -------
    xarray.Dataset
        Of the same form and dimensions. ``peak`` holds the peaks of the chosen patterns alone, and
        ``peak_start`` counts in it.

    Raises
    ------
    RunError
        If a label is not in the dataset, nothing is left, or this is not a dataset of a run.

    Examples
    --------
    >>> import diffractory
    >>> dataset = diffractory.open_dataset("runs/first")
    >>> thin = diffractory.select(dataset, crystal_system="cubic", thickness=slice(100, 300))
    >>> thin.sizes["crystal"], thin.thickness.values.tolist()
    (2, [100.0, 200.0])
    """
    check_form(dataset)
    crystals = np.ones(dataset.sizes["crystal"], dtype=bool)
    for name, wanted in (
        ("material_id", material_id),
        ("crystal_system", crystal_system),
        ("space_group", space_group),
    ):
        if wanted is not None:
            crystals = crystals & _chosen(dataset, name, wanted)
            if not crystals.any():
                raise RunError(
                    f"{name}={wanted!r} leaves no crystal",
                    "those it names are not among the ones that the other criteria name",
                    "Leave one criterion out, or widen it",
                )
    kept = {"crystal": np.flatnonzero(crystals)}
    for name, wanted in (("orientation", orientation), ("thickness", thickness)):
        if wanted is not None:
            kept[name] = positions_of(dataset, name, wanted)
    return _with_own_peaks(dataset.isel(kept))


def check_form(dataset: xr.Dataset) -> None:
    """Refuse a dataset that is not as an opened run's.

    Raises
    ------
    RunError
        If a variable or a dimension is missing, or patterns do not lie within the peaks.
    """
    for name, dims in _FORM.items():
        found = dataset[name].dims if name in dataset.variables else None
        if found != dims:
            raise RunError(
                f"this dataset has no {name} with the dimensions {', '.join(dims)}",
                "it is not as a run's, or an integer took a dimension away",
                "Open the run with open_dataset; keep dimensions: isel(thickness=[0]), not isel(thickness=0)",
            )
    ends = (dataset["peak_start"] + dataset["peak_count"]).to_numpy()
    if ends.max(initial=0) > dataset.sizes["peak"]:
        raise RunError(
            f"patterns of this dataset end at peak {ends.max()} and it has {dataset.sizes['peak']}",
            "its peaks were cut apart from its patterns",
            "Choose with select, which keeps them together, and not with isel(peak=…)",
        )


def positions_of(dataset: xr.Dataset, name: str, wanted: Any) -> NDArray[np.int64]:
    """Return where labels lie along ``orientation`` or ``thickness``, in the order of the dataset.

    Raises
    ------
    RunError
        If one of them is not there.
    """
    return np.flatnonzero(_chosen(dataset, name, wanted))


def peak_rows(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions of some patterns' peaks along the dimension peak, pattern by pattern."""
    offsets = np.cumsum(counts) - counts
    rows: NDArray[np.int64] = np.arange(counts.sum()) + np.repeat(starts - offsets, counts)
    return rows


def _chosen(dataset: xr.Dataset, name: str, wanted: Any) -> NDArray[np.bool_]:
    """Return for each label whether a criterion names it."""
    labels = dataset[name].to_numpy()
    chosen: NDArray[np.bool_]
    if isinstance(wanted, slice):
        chosen = _between(labels, name, wanted)
    else:
        values = np.ravel(wanted).tolist()
        known = set(labels.tolist())
        unknown = [value for value in values if value not in known]
        if unknown:
            raise RunError(f"no {name} {_shortened(unknown)} in this dataset", *_what_is_there(labels))
        chosen = np.isin(labels, values) if values else np.zeros(labels.shape, dtype=bool)
    if not chosen.any():
        raise RunError(f"{name}={wanted!r} leaves nothing", *_what_is_there(labels))
    return chosen


def _between(labels: NDArray[Any], name: str, wanted: slice) -> NDArray[np.bool_]:
    ends = [end for end in (wanted.start, wanted.stop) if end is not None]
    numbers = labels.dtype.kind in "iuf" and all(isinstance(end, Real) for end in ends)
    if wanted.step is not None or not numbers:
        raise RunError(
            f"{name}={wanted!r} cannot be used",
            "a slice names a first and a last number, without a step",
            "Write slice(first, last), or list what you want",
        )
    chosen = np.ones(labels.shape, dtype=bool)
    if wanted.start is not None:
        chosen &= labels >= wanted.start
    if wanted.stop is not None:
        chosen &= labels <= wanted.stop
    return chosen


def _what_is_there(labels: NDArray[Any]) -> tuple[str, str]:
    return f"it holds {_shortened(np.unique(labels).tolist())}", "Choose among these"


def _shortened(values: list[Any]) -> str:
    named = ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values[:_NAMED])
    return named if len(values) <= _NAMED else f"{named} … ({len(values):,} in all)"


def _with_own_peaks(chosen: xr.Dataset) -> xr.Dataset:
    """Reduce the peaks of a dataset to those of its patterns."""
    starts = chosen["peak_start"].to_numpy().ravel()
    counts = chosen["peak_count"].to_numpy().ravel()
    own_starts = np.cumsum(counts) - counts
    if counts.sum() == chosen.sizes["peak"] and np.array_equal(starts, own_starts):
        return chosen
    reduced: dict[Any, xr.Variable] = {}
    for name, variable in chosen.variables.items():
        if "peak" in variable.dims:
            rows = ChosenRows(variable.transpose("peak", ...), starts, counts)
            dims = ("peak", *(dim for dim in variable.dims if dim != "peak"))
            reduced[name] = xr.Variable(dims, LazilyIndexedArray(rows), variable.attrs)
    reduced["peak_start"] = chosen.variables["peak_start"].copy(
        data=own_starts.reshape(chosen["peak_start"].shape)
    )
    whole = chosen.drop_dims("peak").assign(reduced)
    return whole.set_coords(list(set(reduced) & set(chosen.coords)))[list(chosen.data_vars)]
