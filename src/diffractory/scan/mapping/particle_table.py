"""The table of particles: where each is, what it is by both rules, and how far to trust that."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffractory.crystals.systems import CRYSTAL_SYSTEMS
from diffractory.errors import ScanError
from diffractory.learning.aggregation import aggregate_labels
from diffractory.patterns.cubic_constant import CubicConstants
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.mapping.flags import FLAG_MASKS, flag_texts, particle_flags, position_flags
from diffractory.scan.mapping.label_map import LATTICE_AXES, ScanPrediction
from diffractory.scan.mapping.particle_prediction import (
    ParticlePrediction,
    PooledSystem,
    quantile_by_particle,
)

#: Most particles whose pooled constant is named in a summary.
_NAMED: Final = 3
#: Å in a nanometre.
_NM: Final = 10.0
_TEXTS: Final = (
    "crystal_system", "system_by_difference", "system_by_evidence", "lattice_system", "a_pooled_centring",
    "flags",
)  # fmt: skip
_QUARTILES: Final = {"": 0.5, "_lower_quartile": 0.25, "_upper_quartile": 0.75}


def particle_table(scan: BraggScan, prediction: ScanPrediction) -> pd.DataFrame:
    """List the particles of a scan.

    Parameters
    ----------
    scan : BraggScan
        The scan that was predicted.
    prediction : ScanPrediction
        With particles.

    Returns
    -------
    pandas.DataFrame
        One row a particle, in the order of their numbers:

        ``particle``
            Its number in the map.
        ``centroid_y``, ``centroid_x``, ``centroid_y_nm``, ``centroid_x_nm``
            Mean place of its positions, from the first position of the scan; in nm NaN without a step.
        ``n_positions``, ``area_nm2``, ``touches_border``
            Its size, and whether the scan cuts it off.
        ``n_patterns``, ``n_distinct``, ``median_spots``, ``mean_dark_field``
            Positions with spots enough; how many of their patterns are distinct, as many as the spec draws
            at most, on which pooled evidence rests; spots, direct beam included, and intensity of all.
        ``crystal_system``, ``confidence``
            The answer: by evidence, or by difference where there is no evidence.
        ``system_by_difference``, ``confidence_by_difference``, ``n_by_difference``; the same by evidence
            Both rules, and the patterns each used.
        ``lattice_system``
            System whose space groups and lattices follow: the answer, or the one that was assumed.
        ``space_group``, ``space_group_confidence``
            Of its patterns under that system, weighted by difference confidence; 0 = none.
        ``a``, ``a_lower_quartile``, ``a_upper_quartile``; the same for b and c
            In Å, over its patterns.
        ``a_pooled``, ``a_pooled_support``, ``a_pooled_margin``
            Cubic ``lattice_system`` only: the constant in Å that explains the lattices and the spots of all
            its patterns together, the median of the model's answers being one more of them; the share of
            lattices that it explains; and the natural logarithm of how much likelier it is than the next
            best, negative where a constant beyond 18 Å is likelier.
        ``a_pooled_centring``, ``a_pooled_on_rings``, ``a_pooled_by_chance``
            P, I or F, whichever has the rings that the spots lie on; the share of spots within 1 % of one;
            and the share that would be if they lay anywhere.
        ``a_pooled_patterns``
            How many of its patterns are distinct, of three hundred that are compared: on them the margin
            rests; 0 = not asked.
        ``outside_share``, ``overlap_share``, ``flags``
            Shares of its patterns that are flagged, and the flags of most of them, as text.

    Raises
    ------
    ScanError
        If the scan was not divided.
    """
    divided = prediction.particles
    if divided is None:
        raise ScanError("this scan was not divided into particles", "", "Predict it with a ParticleSpec")
    n, particle = divided.n_particles, divided.particle
    asked = prediction.systems.system >= 0
    size = np.bincount(particle, minlength=n + 1)[1:]
    used = np.bincount(particle[asked], minlength=n + 1)[1:]
    overlapping = prediction.overlapping
    flags = position_flags(asked, prediction.systems.outside, overlapping)
    columns: dict[str, Any] = {
        "particle": np.arange(1, n + 1, dtype=np.int32),
        **_places(scan, particle, size),
        "n_patterns": used,
        "n_distinct": divided.distinct,
        "median_spots": quantile_by_particle(scan.peaks.counts, particle, n, 0.5),
        "mean_dark_field": _mean(divided.image.ravel(), particle, size),
        **_answers(divided),
        "lattice_system": _names(divided.within_system),
        **_space_groups(divided, n),
        **_lattices(divided, n),
        **_pooled(divided, n),
        "outside_share": _mean((flags & FLAG_MASKS[1]) > 0, particle, used),
        "overlap_share": np.full(n, np.nan) if overlapping is None else _mean(overlapping, particle, used),
        "flags": flag_texts(particle_flags(flags, particle)),
    }
    table = pd.DataFrame(columns)
    for name in _TEXTS:
        table[name] = table[name].astype("string")
    return table


def summarise_particles(table: pd.DataFrame) -> dict[str, Any]:
    """Count what a table of particles shows, as plain JSON data."""
    both = table["system_by_difference"].notna() & table["system_by_evidence"].notna()
    differ = both & (table["system_by_difference"] != table["system_by_evidence"])
    counts = table["crystal_system"].value_counts()
    return {
        "count": len(table),
        "positions": int(table["n_positions"].sum()),
        "systems": {name: int(counts.get(name, 0)) for name in CRYSTAL_SYSTEMS},
        "without_answer": int(table["crystal_system"].isna().sum()),
        "rules_disagree": int(differ.sum()),
        "flagged": int((table["flags"] != "").sum()),
        "cubic_constants": _constants(table),
    }


def _constants(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return what the patterns of the largest cubic particles say of their constant together."""
    largest = table[table["a_pooled"].notna()].nlargest(_NAMED, "n_positions", keep="first")
    names = ["support", "margin", "centring", "on_rings", "by_chance", "patterns"]
    renamed = {"particle": "particle", "a_pooled": "a"} | {f"a_pooled_{name}": name for name in names}
    listed = largest[list(renamed)].rename(columns=renamed).astype(object)
    rows = listed.where(listed.notna(), None).to_numpy()
    return [dict(zip(renamed.values(), row, strict=True)) for row in rows]


def _places(scan: BraggScan, particle: NDArray[np.int32], size: NDArray[np.int64]) -> dict[str, Any]:
    y, x = np.divmod(np.arange(len(particle)), scan.shape[1])
    edge = (y == 0) | (x == 0) | (y == scan.shape[0] - 1) | (x == scan.shape[1] - 1)
    step = np.nan if scan.step is None else scan.step / _NM
    centre_y, centre_x = _mean(y, particle, size), _mean(x, particle, size)
    return {
        "centroid_y": centre_y,
        "centroid_x": centre_x,
        "centroid_y_nm": centre_y * step,
        "centroid_x_nm": centre_x * step,
        "n_positions": size,
        "area_nm2": size * step**2,
        "touches_border": np.bincount(particle, edge, minlength=len(size) + 1)[1:] > 0,
    }


def _answers(divided: ParticlePrediction) -> dict[str, Any]:
    by_evidence = divided.evidence.system >= 0
    columns: dict[str, Any] = {
        "crystal_system": _names(divided.system),
        "confidence": np.where(by_evidence, divided.evidence.confidence, divided.difference.confidence),
    }
    rules: dict[str, PooledSystem] = {"difference": divided.difference, "evidence": divided.evidence}
    for name, pooled in rules.items():
        columns[f"system_by_{name}"] = _names(pooled.system)
        columns[f"confidence_by_{name}"] = pooled.confidence
        columns[f"n_by_{name}"] = pooled.n_patterns
    return columns


def _names(codes: NDArray[np.int8]) -> list[str | None]:
    return [CRYSTAL_SYSTEMS[code] if code >= 0 else None for code in codes]


def _space_groups(divided: ParticlePrediction, n: int) -> dict[str, Any]:
    group, confidence = np.zeros(n, dtype=np.int16), np.full(n, np.nan)
    within = divided.within
    known = np.flatnonzero((divided.particle > 0) & (within.space_group > 0))
    found = aggregate_labels(
        within.space_group[known], within.group_difference[known], divided.particle[known]
    )
    group[found.groups - 1], confidence[found.groups - 1] = found.label, found.confidence
    return {"space_group": group, "space_group_confidence": confidence}


def _lattices(divided: ParticlePrediction, n: int) -> dict[str, Any]:
    return {
        f"{axis}{suffix}": quantile_by_particle(values, divided.particle, n, level)
        for axis, values in zip(LATTICE_AXES, divided.within.lattice.T, strict=True)
        for suffix, level in _QUARTILES.items()
    }


def _pooled(divided: ParticlePrediction, n: int) -> dict[str, Any]:
    pooled = divided.cubic or CubicConstants.unknown(n)
    return {
        "a_pooled": pooled.a,
        "a_pooled_support": pooled.support,
        "a_pooled_margin": pooled.margin,
        "a_pooled_centring": [centring or None for centring in pooled.centring.tolist()],
        "a_pooled_on_rings": pooled.on_rings,
        "a_pooled_by_chance": pooled.by_chance,
        "a_pooled_patterns": pooled.patterns,
    }


def _mean(
    values: NDArray[Any], particle: NDArray[np.int32], weight: NDArray[np.int64]
) -> NDArray[np.float64]:
    sums = np.bincount(particle, values.astype(np.float64), minlength=len(weight) + 1)[1:]
    return np.divide(sums, weight, out=np.full(len(weight), np.nan), where=weight > 0)
