"""Synthetic polycrystalline scans whose truth is known at every position, and how a map scores on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from diffractory.crystals.systems import CRYSTAL_SYSTEMS
from diffractory.errors import ScanError
from diffractory.patterns.lab_protocol import apply_lab_protocol, deformation
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.frame_scan import SCAN_DIMENSIONS, scan_coordinates
from diffractory.scan.mapping.label_map import LATTICE_AXES, UNLABELLED
from diffractory.specs import LabProtocolSpec

#: Grain index of positions without a crystal.
VACUUM: Final = -1
#: Seeds of single positions and of whole grains come from different streams of one scan seed.
_POSITION_STREAM, _GRAIN_STREAM, _LAYOUT_STREAM = 0, 1, 2


@dataclass(frozen=True, eq=False)
class GrainLabels:
    """What is true of each pattern a grain can show.

    Parameters
    ----------
    systems : ndarray of shape (n,), int8
        Crystal-system codes.
    space_group : ndarray of shape (n,), int16
        International numbers.
    lattice : ndarray of shape (n, 3)
        Lattice constants a, b, c in Å.
    material_id : ndarray of shape (n,), str
        Which crystal.

    Raises
    ------
    ScanError
        If the arrays do not fit each other or a code is unknown.
    """

    systems: NDArray[np.int8]
    space_group: NDArray[np.int16]
    lattice: NDArray[np.float64]
    material_id: NDArray[Any]

    def __post_init__(self) -> None:
        n = len(self.systems)
        if self.lattice.shape != (n, 3) or len(self.space_group) != n or len(self.material_id) != n:
            raise ScanError(
                f"labels of {n} patterns with {len(self.space_group)} space groups, lattices of shape "
                f"{self.lattice.shape} and {len(self.material_id)} material ids",
                "every pattern needs one of each, and a lattice of a, b and c",
            )
        codes = np.asarray(self.systems)
        if np.any((codes < 0) | (codes >= len(CRYSTAL_SYSTEMS))):
            raise ScanError(f"crystal-system codes must be 0 … {len(CRYSTAL_SYSTEMS) - 1}")

    def __len__(self) -> int:
        return len(self.systems)


def synthetic_scan(
    grains: PeakTable,
    labels: GrainLabels,
    shape: tuple[int, int],
    n_grains: int,
    seed: int,
    *,
    vacuum_fraction: float = 0.15,
    noise: LabProtocolSpec | None = None,
    step: float = 20.0,
    energy_ev: float | None = None,
) -> tuple[BraggScan, xr.Dataset]:
    """Make a scan over a polycrystal with a free edge, and its truth.

    Grains are the Voronoi cells of random points; each shows one pattern drawn from ``grains``.
    Beyond a wavy edge there is vacuum: the direct beam alone. With ``noise``, position and Poisson
    noise differ from position to position, while the in-plane rotation is one random angle for each
    grain; scale error and ellipticity belong to the microscope, so one draw serves the whole scan.

    Parameters
    ----------
    grains : PeakTable
        Simulated patterns to draw from, intensities as share of the incident beam.
    labels : GrainLabels
        What is true of them, in the same order.
    shape : tuple of int
        Scan shape (n_y, n_x).
    n_grains : int
        Number of grains.
    seed : int
        Determines everything drawn.
    vacuum_fraction : float, optional
        Share of positions in vacuum, 0 … < 1.
    noise : LabProtocolSpec, optional
        Size of every effect; None = patterns as simulated.
    step : float, optional
        Distance of neighbouring positions in Å.
    energy_ev : float, optional
        Beam energy of the simulation in eV.

    Returns
    -------
    scan : BraggScan
    truth : xarray.Dataset
        crystal_system, space_group, a, b, c, grain (-1 = vacuum) over scan_y, scan_x;
        pattern, material_id and in_plane_angle (degrees) over grain_index.

    Raises
    ------
    ScanError
        If the inputs do not fit each other or a number is out of range.
    """
    _check(grains, labels, shape, n_grains, seed, vacuum_fraction)
    generator = np.random.default_rng([seed, _LAYOUT_STREAM])
    grain = _grain_map(shape, n_grains, vacuum_fraction, generator)
    pattern = _draw_patterns(len(grains), n_grains, generator)
    angle = generator.uniform(0.0, 2.0 * np.pi, n_grains)
    turned = grains.take(pattern)
    if noise is not None:
        turned = _deformed(turned, angle if noise.rotate else np.zeros(n_grains), noise, seed)
    angle_degrees = np.degrees(angle) if noise is not None and noise.rotate else np.zeros(n_grains)
    peaks = _with_vacuum(turned).take(np.where(grain == VACUUM, n_grains, grain).ravel())
    if noise is not None:
        peaks = _with_noise(peaks, noise, seed)
    attrs = {"generator": "diffractory.scan.synthetic.scans", "seed": seed, "n_grains": n_grains}
    scan = BraggScan(peaks, shape, step, energy_ev, f"synthetic scan, seed {seed}", attrs)
    return scan, _truth(grain, pattern, angle_degrees, labels, step)


def score_map(predicted: xr.Dataset, truth: xr.Dataset) -> dict[str, Any]:
    """Compare a map with the truth of a synthetic scan.

    Parameters
    ----------
    predicted : xarray.Dataset
        As :func:`diffractory.scan.mapping.label_map.to_dataset` makes it.
    truth : xarray.Dataset
        As :func:`synthetic_scan` makes it.

    Returns
    -------
    dict
        JSON values: positions on crystal and in vacuum, share of each that is labelled, accuracy of
        the labelled crystal positions, median absolute lattice errors in Å (of all labelled crystal
        positions and of the rightly labelled ones), and for each system its counts. An
        accuracy or error of no position at all is None.

    Raises
    ------
    ScanError
        If the two do not cover the same scan.
    """
    guess, true = predicted["crystal_system"].to_numpy(), truth["crystal_system"].to_numpy()
    if guess.shape != true.shape:
        raise ScanError(f"a map of {guess.shape} positions cannot be scored against a truth of {true.shape}")
    crystal, labelled = true >= 0, guess >= 0
    scored = crystal & labelled
    right = scored & (guess == true)
    systems = {
        name: {
            "positions": int((true == code).sum()),
            "labelled": int((labelled & (true == code)).sum()),
            "right": int((right & (true == code)).sum()),
            "claimed": int((scored & (guess == code)).sum()),
        }
        for code, name in enumerate(CRYSTAL_SYSTEMS)
    }
    return {
        "crystal_positions": int(crystal.sum()),
        "vacuum_positions": int((~crystal).sum()),
        "labelled_share": _share(labelled, crystal),
        "labelled_share_of_vacuum": _share(labelled, ~crystal),
        "accuracy": _share(right, scored),
        "lattice_error": _lattice_error(predicted, truth, scored),
        "lattice_error_where_right": _lattice_error(predicted, truth, right),
        "systems": systems,
    }


def _check(
    grains: PeakTable,
    labels: GrainLabels,
    shape: tuple[int, int],
    n_grains: int,
    seed: int,
    vacuum_fraction: float,
) -> None:
    if len(grains) == 0 or len(grains) != len(labels):
        raise ScanError(f"{len(grains)} patterns to draw from with labels of {len(labels)}")
    if min(shape) < 1:
        raise ScanError(f"a scan has at least one position in each direction, got {shape}")
    if not 1 <= n_grains <= shape[0] * shape[1]:
        raise ScanError(f"{n_grains} grains do not fit a scan of {shape[0]} × {shape[1]} positions")
    if not 0.0 <= vacuum_fraction < 1.0:
        raise ScanError(f"vacuum_fraction = {vacuum_fraction} is not in 0 … < 1")
    if seed < 0:
        raise ScanError(f"seed = {seed} must not be negative")


def _grain_map(
    shape: tuple[int, int], n_grains: int, vacuum_fraction: float, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Return the grain index of every position, -1 in vacuum, of shape (n_y, n_x)."""
    positions = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in shape), indexing="ij"), axis=-1)
    seeds = generator.uniform(0.0, 1.0, (n_grains, 2)) * shape
    grain: NDArray[np.int64] = cKDTree(seeds).query(positions)[1].astype(np.int64)
    direction, start = generator.uniform(0.0, 2.0 * np.pi, 2)
    waves = generator.uniform(1.0, 3.0)
    relative = positions / np.array(shape) - 0.5
    along = relative @ [np.sin(direction), np.cos(direction)]
    across = relative @ [np.cos(direction), -np.sin(direction)]
    depth = along + 0.06 * np.sin(2.0 * np.pi * waves * across + start)
    n_vacuum = round(vacuum_fraction * depth.size)
    outermost = np.argsort(depth, axis=None, kind="stable")[depth.size - n_vacuum :]
    grain.ravel()[outermost] = VACUUM
    return grain


def _draw_patterns(n_patterns: int, n_grains: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw one pattern a grain; none comes a second time before all came once."""
    rounds = -(-n_grains // n_patterns)
    drawn = np.concatenate([generator.permutation(n_patterns) for _ in range(rounds)])
    chosen: NDArray[np.int64] = drawn[:n_grains].astype(np.int64)
    return chosen


def _deformed(table: PeakTable, angle: NDArray[np.float64], noise: LabProtocolSpec, seed: int) -> PeakTable:
    """Turn each pattern by its angle, then apply the one deformation of this microscope."""
    generator = np.random.default_rng([seed, _GRAIN_STREAM])
    scale = 1.0 + generator.uniform(-noise.scale_error, noise.scale_error)
    ellipticity = generator.uniform(0.0, noise.ellipticity)
    deform = deformation(scale, ellipticity, generator.uniform(0.0, np.pi))
    cosine, sine = (np.repeat(values, table.counts) for values in (np.cos(angle), np.sin(angle)))
    x, y = table.q.T
    q = np.stack([cosine * x - sine * y, sine * x + cosine * y], axis=1) @ deform.T
    return PeakTable(q, table.intensity, table.offsets, table.direct)


def _with_vacuum(table: PeakTable) -> PeakTable:
    """Append one pattern: the undiffracted direct beam."""
    return PeakTable(
        np.concatenate([table.q, np.zeros((1, 2))]),
        np.append(table.intensity, 1.0),
        np.append(table.offsets, table.offsets[-1] + 1),
        np.append(table.direct, table.offsets[-1]),
    )


def _with_noise(peaks: PeakTable, noise: LabProtocolSpec, seed: int) -> PeakTable:
    """Apply what differs from position to position: position noise, Poisson noise, lost spots."""
    single = noise.model_copy(update={"rotate": False, "scale_error": 0.0, "ellipticity": 0.0})
    seeds = np.random.SeedSequence([seed, _POSITION_STREAM]).generate_state(len(peaks), np.uint64)
    return apply_lab_protocol(peaks, single, seeds)


def _truth(
    grain: NDArray[np.int64],
    pattern: NDArray[np.int64],
    angle_degrees: NDArray[np.float64],
    labels: GrainLabels,
    step: float,
) -> xr.Dataset:
    vacuum = grain == VACUUM
    shown = pattern[grain]
    system = np.where(vacuum, UNLABELLED, np.asarray(labels.systems)[shown]).astype(np.int8)
    flags = {
        "flag_values": list(range(UNLABELLED, len(CRYSTAL_SYSTEMS))),
        "flag_meanings": " ".join(("vacuum", *CRYSTAL_SYSTEMS)),
    }
    group = np.where(vacuum, 0, np.asarray(labels.space_group)[shown]).astype(np.int16)
    variables: dict[str, Any] = {
        "crystal_system": (SCAN_DIMENSIONS, system, {"long_name": "true crystal system", **flags}),
        "space_group": (SCAN_DIMENSIONS, group, {"long_name": "true space group, 0 = vacuum", "units": "1"}),
        "grain": (SCAN_DIMENSIONS, grain.astype(np.int32), {"long_name": "grain, -1 = vacuum", "units": "1"}),
        "pattern": ("grain_index", pattern, {"long_name": "pattern a grain shows", "units": "1"}),
        "material_id": ("grain_index", np.asarray(labels.material_id, dtype=object)[pattern]),
        "in_plane_angle": ("grain_index", angle_degrees, {"units": "degree", "long_name": "in-plane angle"}),
    }
    for index, axis in enumerate(LATTICE_AXES):
        values = np.where(vacuum, np.nan, labels.lattice[shown, index])
        attrs = {"long_name": f"true lattice constant {axis}", "units": "angstrom"}
        variables[axis] = (SCAN_DIMENSIONS, values, attrs)
    shape = (grain.shape[0], grain.shape[1])
    return xr.Dataset(variables, scan_coordinates(shape, step))


def _share(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> float | None:
    return float((part & whole).sum() / whole.sum()) if whole.any() else None


def _lattice_error(
    predicted: xr.Dataset, truth: xr.Dataset, chosen: NDArray[np.bool_]
) -> dict[str, float | None]:
    errors: dict[str, float | None] = {}
    for axis in LATTICE_AXES:
        difference = np.abs(predicted[axis].to_numpy() - truth[axis].to_numpy())[chosen]
        known = difference[np.isfinite(difference)]
        errors[axis] = float(np.median(known)) if known.size else None
    return errors
