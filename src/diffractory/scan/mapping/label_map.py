"""From votes at single positions to a labelled map, and the dataset that holds it."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from diffractory.crystals.systems import CRYSTAL_SYSTEMS
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.frame_scan import SCAN_DIMENSIONS, scan_coordinates
from diffractory.scan.inspection.frame_checks import FRAME_STATUS, GOOD, UNUSABLE
from diffractory.scan.mapping.flags import FLAG_MASKS, FLAGS, position_flags
from diffractory.scan.mapping.position_blocks import SystemBlock, WithinBlock
from diffractory.specs import MapSpec

if TYPE_CHECKING:
    from diffractory.scan.mapping.particle_prediction import ParticlePrediction
    from diffractory.scan.mapping.scan_phase import ScanPhases

#: Code of a position without a label.
UNLABELLED: Final = -1
#: Why a position has no label; the index is the code.
REASONS: Final = ("labelled", "few_spots", "low_difference", "bad_frame")
#: Lattice constants in the order of the last axis of ``WithinBlock.lattice``.
LATTICE_AXES: Final = ("a", "b", "c")
_CLASS: Final = "crystal_system_class"
_PACKAGES: Final = ("diffractory", "numpy", "scikit-image", "scikit-learn", "xarray", "zarr")
#: Where the lattice of a position comes from; the index is the code.
LATTICE_SOURCES: Final = ("none", "model", "rings")
_OVERLAPS: Final = ("overlapping grains were not looked for", "overlapping grains were looked for")


@dataclass(frozen=True, eq=False)
class ScanPrediction:
    """Everything predicted for one scan, in the row-major order of its positions.

    Parameters
    ----------
    systems : SystemBlock
        Votes before the filter.
    labels : ndarray of shape (n,), int8
        Code of the crystal system after filter and threshold; -1 = unlabelled.
    reason : ndarray of shape (n,), int8
        Index into ``REASONS``.
    within : WithinBlock
        Space groups and lattices.
    columns : tuple of int
        Crystal-system code of each column of ``systems.share``.
    overlapping : ndarray of shape (n,), bool, or None
        Where two grains likely lie above each other; None = not looked for.
    particles : ParticlePrediction or None
        The same scan by particle; None = not divided.
    refined : ndarray of shape (n,), bool, or None
        Cubic positions whose lattice is not the model's, but told from their own spots near the constant of
        their particle or of the scan; None = nowhere.
    phases : ScanPhases or None
        Cubic phases of the scan, which count in the votes; None = none is known.
    """

    systems: SystemBlock
    labels: NDArray[np.int8]
    reason: NDArray[np.int8]
    within: WithinBlock
    columns: tuple[int, ...]
    overlapping: NDArray[np.bool_] | None = None
    particles: ParticlePrediction | None = None
    refined: NDArray[np.bool_] | None = None
    phases: ScanPhases | None = None


def median_labels(codes: NDArray[np.int8], size: int) -> NDArray[np.int8]:
    """Filter a label map with a square median, as the paper does.

    Labels are categories, so their median depends on the order of the codes
    (:data:`~diffractory.crystals.systems.CRYSTAL_SYSTEMS`): between a cubic and a tetragonal
    neighbourhood it may answer "trigonal", which nobody voted for; it is a majority filter only where
    one label holds more than half of the window. It is kept because it is the published procedure;
    ``size = 1`` switches it off. Unlabelled positions neither count nor get a label, windows
    end at the border of the scan, and of an even number of labels the lower middle one is taken,
    so that the result is always a label of the window.

    Parameters
    ----------
    codes : ndarray of shape (n_y, n_x), int8
        Codes of crystal systems; negative = unlabelled.
    size : int
        Odd side of the window, in positions.

    Returns
    -------
    ndarray of shape (n_y, n_x), int8
    """
    half = size // 2
    empty = np.int8(np.iinfo(np.int8).max)
    padded = np.pad(np.where(codes < 0, empty, codes), half, constant_values=empty)
    filtered = np.full(codes.shape, UNLABELLED, dtype=np.int8)
    for row in range(codes.shape[0]):
        windows = sliding_window_view(padded[row : row + size], (size, size))[0]
        ranked = np.sort(windows.reshape(codes.shape[1], -1), axis=1)  # absent ones sort last
        middle = np.maximum((ranked != empty).sum(axis=1) - 1, 0) // 2
        filtered[row] = ranked[np.arange(codes.shape[1]), middle]
    return np.where(codes < 0, np.int8(UNLABELLED), filtered)


def filter_labels(
    systems: SystemBlock, shape: tuple[int, int], map_spec: MapSpec
) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Turn votes into the labels of a map: median filter, then the threshold.

    Parameters
    ----------
    systems : SystemBlock
        Votes of all positions of the scan.
    shape : tuple of int
        Scan shape (n_y, n_x).
    map_spec : MapSpec
        Size of the filter and threshold on the difference confidence of a position's own votes.

    Returns
    -------
    labels : ndarray of shape (n,), int8
        Code of the crystal system, -1 = unlabelled.
    reason : ndarray of shape (n,), int8
        Index into ``REASONS``.
    """
    asked = systems.system >= 0
    labels = median_labels(systems.system.reshape(shape), map_spec.median_size).ravel()
    weak = asked & (systems.difference < map_spec.min_difference)
    labels[weak] = UNLABELLED
    reason = np.where(weak, REASONS.index("low_difference"), np.where(asked, 0, REASONS.index("few_spots")))
    return labels, reason.astype(np.int8)


def to_dataset(
    scan: BraggScan,
    prediction: ScanPrediction,
    map_spec: MapSpec,
    provenance: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Lay a prediction out as a labelled dataset with units and provenance.

    Parameters
    ----------
    scan : BraggScan
        The scan that was predicted.
    prediction : ScanPrediction
        Result of :func:`diffractory.scan.mapping.prediction.predict_scan`.
    map_spec : MapSpec
        How the map was made.
    provenance : mapping, optional
        Where the model came from; JSON values.

    Returns
    -------
    xarray.Dataset
        Dimensions scan_y, scan_x and, for ``system_share``, crystal_system_class; ``particle`` and
        ``dark_field`` only where the scan was divided, ``frame_status`` only where it is known.
    """
    grid = _grid(scan.shape)
    systems, within = prediction.systems, prediction.within
    share = {"units": "1", "valid_range": [0.0, 1.0]}
    difference = "difference confidence: largest − second share, before the filter"
    group_share = "share of the space group"
    group_difference = "largest − second share of space groups"
    variables = {
        "crystal_system": grid(
            prediction.labels, "crystal system after filter and threshold", _system_flags()
        ),
        "crystal_system_raw": grid(systems.system, "most voted crystal system", _system_flags()),
        "unlabelled_reason": grid(_reason(scan, prediction), "why there is no label", _flags(REASONS, 0)),
        "confidence": grid(systems.confidence, "share of the most voted system", share),
        "difference_confidence": grid(systems.difference, difference, share),
        "space_group": grid(within.space_group, "space group, 0 = none", {"units": "1"}),
        "space_group_confidence": grid(within.group_confidence, group_share, share),
        "space_group_difference": grid(within.group_difference, group_difference, share),
        "n_spots": grid(scan.peaks.counts.astype(np.int32), "spots, direct beam included", {"units": "1"}),
    }
    if scan.status is not None:
        meanings = tuple(name.replace(" ", "_") for name in FRAME_STATUS)
        variables["frame_status"] = grid(
            scan.status, "what became of the frame when peaks were found", _flags(meanings, 0)
        )
    outside = _flags(("inside_or_not_asked", "outside"), 0)
    variables["outside_training"] = grid(
        systems.outside.astype(np.int8), "unlike the patterns that the model was trained on", outside
    )
    for number, values in enumerate(systems.coordinates.T, start=1):
        name = f"principal component {number} of training features, in standard deviations"
        variables[f"training_component_{number}"] = grid(values, name, {"units": "1"})
    variables["flags"] = grid(
        position_flags(systems.system >= 0, systems.outside, prediction.overlapping),
        "reasons not to trust a position",
        {
            "flag_masks": list(FLAG_MASKS),
            "flag_meanings": " ".join(FLAGS),
            "comment": _OVERLAPS[prediction.overlapping is not None],
        },
    )
    if prediction.particles is not None:
        divided, what = prediction.particles, "intensity of all spots but the direct beam"
        variables["dark_field"] = grid(divided.image.ravel(), what, {"units": "1"})
        name = "row of the particle in the table, 0 = none"
        variables["particle"] = grid(divided.particle, name, {"units": "1"})
    for axis, values in zip(LATTICE_AXES, within.lattice.T, strict=True):
        variables[axis] = grid(values, f"lattice constant {axis}", {"units": "angstrom"})
    source = np.isfinite(within.lattice[:, 0]).astype(np.int8)
    if prediction.refined is not None:
        source[prediction.refined] = LATTICE_SOURCES.index("rings")
    comment = "rings: the spots of the position, near the cubic constant of its particle or of the scan"
    variables["lattice_source"] = grid(
        source, "what the lattice was told from", {**_flags(LATTICE_SOURCES, 0), "comment": comment}
    )
    if prediction.phases is not None:
        found = prediction.phases
        meanings = ("none", *(f"{phase.centring}_{phase.a:.3f}_angstrom" for phase in found.phases))
        name = "cubic phase that the spots speak for"
        variables["cubic_phase"] = grid(found.phase, name, _flags(meanings, 0))
        name = "ln of how much likelier a spot is on a ring of the likeliest cubic phase than anywhere, mean"
        variables["phase_evidence"] = grid(found.evidence, name, {"units": "1"})
    long_name = "share of trees that voted for each crystal system, or its calibrated probability"
    shares = systems.share.reshape(*scan.shape, -1)
    variables["system_share"] = xr.Variable(
        (*SCAN_DIMENSIONS, _CLASS), shares, {"long_name": long_name, **share}
    )
    coords = scan_coordinates(scan.shape, scan.step)
    # Objects, because fixed-width text has no Zarr 3 specification.
    names = np.array([CRYSTAL_SYSTEMS[code] for code in prediction.columns], dtype=object)
    coords[_CLASS] = xr.Variable(_CLASS, names, {"long_name": "crystal system"})
    attrs = _provenance(scan, map_spec, provenance or {})
    if prediction.phases is not None:
        listed = {"phases": prediction.phases.listed(), "changed": prediction.phases.changed}
        attrs["cubic_phases"] = json.dumps(listed)
    if prediction.particles is not None:
        attrs["particle_spec"] = prediction.particles.spec.to_json()
    return xr.Dataset(variables, coords, attrs)


def _reason(scan: BraggScan, prediction: ScanPrediction) -> NDArray[np.int8]:
    """Return why positions have no label: of a frame that could not be used, it is that it has few spots."""
    if scan.status is None:
        return prediction.reason
    bad = (prediction.reason == REASONS.index("few_spots")) & np.isin(scan.status, UNUSABLE)
    return np.where(bad, REASONS.index("bad_frame"), prediction.reason).astype(np.int8)


def label_confidence(dataset: xr.Dataset) -> NDArray[np.float64]:
    """Return the share of the label shown, 0 where there is none.

    The filter may have changed a label; ``confidence`` belongs to the most voted system instead.

    Parameters
    ----------
    dataset : xarray.Dataset
        As :func:`to_dataset` makes it.

    Returns
    -------
    ndarray of shape (n_y, n_x)
    """
    shares = dataset["system_share"].to_numpy().astype(np.float64)
    labels = dataset["crystal_system"].to_numpy()
    confidence = np.zeros(labels.shape)
    for column, name in enumerate(dataset[_CLASS].to_numpy()):
        here = labels == CRYSTAL_SYSTEMS.index(str(name))
        confidence[here] = shares[..., column][here]
    return confidence


def assumed_system(dataset: xr.Dataset) -> str | None:
    """Return the crystal system that all lattices of a map were taken to be of; None = each its own.

    Parameters
    ----------
    dataset : xarray.Dataset
        As :func:`to_dataset` makes it.
    """
    assumed: str | None = json.loads(dataset.attrs["map_spec"])["assume"]
    return assumed


def cubic_phases(dataset: xr.Dataset) -> tuple[list[dict[str, Any]], int]:
    """Return the cubic phases that counted in a map, and how many positions they made cubic.

    Parameters
    ----------
    dataset : xarray.Dataset
        As :func:`to_dataset` makes it.
    """
    told = json.loads(dataset.attrs.get("cubic_phases", '{"phases": [], "changed": 0}'))
    return told["phases"], told["changed"]


def summarise(dataset: xr.Dataset) -> dict[str, Any]:
    """Count what a map shows, as plain JSON data.

    Parameters
    ----------
    dataset : xarray.Dataset
        As :func:`to_dataset` makes it.

    Returns
    -------
    dict
        Number of positions and of labelled ones; for each crystal system its count, its fraction
        of the labelled positions, the same weighted by confidence, and the quartiles of a, b, c in
        Å; the quartiles over all labelled positions, how many of them were told from what, and the system
        they were assumed to be of, and the cubic phases that counted; how many
        positions are unlabelled why; how many of those with spots enough lie outside the training domain;
        how many carry each flag; and, where that is known, how many frames are flagged as what.
    """
    labels = dataset["crystal_system"].to_numpy()
    confidence = label_confidence(dataset)
    labelled = labels >= 0
    total_weight = float(confidence[labelled].sum())
    systems = {}
    for code, name in enumerate(CRYSTAL_SYSTEMS):
        chosen = labels == code
        count, weight = int(chosen.sum()), float(confidence[chosen].sum())
        systems[name] = {
            "count": count,
            "fraction": count / max(int(labelled.sum()), 1),
            "weighted_fraction": weight / total_weight if total_weight > 0.0 else 0.0,
            "mean_confidence": weight / count if count else None,
            "lattice": _quartiles(dataset, chosen),
        }
    reasons = dataset["unlabelled_reason"].to_numpy()
    asked = int(np.isfinite(dataset["confidence"].to_numpy()).sum())
    flags = dataset["flags"].to_numpy()
    outside = int(dataset["outside_training"].to_numpy().sum())
    phases, changed = cubic_phases(dataset)
    return {
        "positions": int(labels.size),
        "labelled": int(labelled.sum()),
        "systems": systems,
        "lattice": _quartiles(dataset, labelled),
        "lattice_sources": _sources(dataset, labelled),
        "assumed": assumed_system(dataset),
        "phases": phases,
        "changed_by_phases": changed,
        "unlabelled": {name: int((reasons == code).sum()) for code, name in enumerate(REASONS) if code},
        "outside_training": {"asked": asked, "count": outside, "fraction": outside / max(asked, 1)},
        "flags": {
            name: int(((flags & mask) > 0).sum()) for name, mask in zip(FLAGS, FLAG_MASKS, strict=True)
        },
        **_flagged_frames(dataset),
    }


def _sources(dataset: xr.Dataset, chosen: NDArray[np.bool_]) -> dict[str, int]:
    source = dataset["lattice_source"].to_numpy()[chosen]
    return {name: int((source == code).sum()) for code, name in enumerate(LATTICE_SOURCES) if code}


def _flagged_frames(dataset: xr.Dataset) -> dict[str, dict[str, int]]:
    if "frame_status" not in dataset:
        return {}
    status = dataset["frame_status"].to_numpy()
    counts = {name: int((status == code).sum()) for code, name in enumerate(FRAME_STATUS) if code != GOOD}
    return {"frames": {name: count for name, count in counts.items() if count}}


def _quartiles(dataset: xr.Dataset, chosen: NDArray[np.bool_]) -> dict[str, dict[str, float] | None]:
    result: dict[str, dict[str, float] | None] = {}
    for axis in LATTICE_AXES:
        values = dataset[axis].to_numpy()[chosen]
        values = values[np.isfinite(values)]
        lower, median, upper = np.percentile(values, [25, 50, 75]) if values.size else (np.nan,) * 3
        result[axis] = (
            {"lower_quartile": float(lower), "median": float(median), "upper_quartile": float(upper)}
            if values.size
            else None
        )
    return result


def _grid(shape: tuple[int, int]) -> Callable[[NDArray[Any], str, Mapping[str, Any]], xr.Variable]:
    """Return a function that makes a variable over the scan from a flat array."""

    def variable(flat: NDArray[Any], long_name: str, attrs: Mapping[str, Any]) -> xr.Variable:
        values = flat.astype(np.float32) if flat.dtype.kind == "f" else flat
        return xr.Variable(SCAN_DIMENSIONS, values.reshape(shape), {"long_name": long_name, **attrs})

    return variable


def _flags(meanings: tuple[str, ...], first: int) -> dict[str, Any]:
    """Return the CF attributes of a variable whose values are categories."""
    return {
        "flag_values": list(range(first, first + len(meanings))),
        "flag_meanings": " ".join(meanings),
    }


def _system_flags() -> dict[str, Any]:
    # A flag of its own rather than _FillValue: with one, readers would turn the codes into floats.
    return _flags(("unlabelled", *CRYSTAL_SYSTEMS), UNLABELLED)


def _provenance(scan: BraggScan, map_spec: MapSpec, model: Mapping[str, Any]) -> dict[str, Any]:
    """Return global attributes as text, so that every file format can keep them."""
    return {
        "Conventions": "CF-1.11",
        "title": "Crystal-structure map predicted from a scan of Bragg peaks",
        "scan_source": scan.source,
        "scan": json.dumps(dict(scan.attrs), sort_keys=True, default=str),
        "scan_energy_ev": "unknown" if scan.energy_ev is None else scan.energy_ev,
        "map_spec": map_spec.to_json(),
        "map_spec_id": map_spec.spec_id,
        "model": json.dumps(dict(model), sort_keys=True, default=str),
        "versions": json.dumps({name: importlib.metadata.version(name) for name in _PACKAGES}),
    }
