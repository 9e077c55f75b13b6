"""Draw the pictures of the documentation from the code itself: `python docs/figures.py`.

Every function below that is named like a picture draws it; the pictures lie in docs/pictures/concepts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr
from diagrams import BLUE, GREEN, GREY, rooms, run
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pymatgen.core import Lattice, Structure

from diffractory import Crystal, PeakList, SimulationSpec, sample_orientations, simulate, simulate_kinematic
from diffractory.crystals.symmetry import laue_operations
from diffractory.crystals.systems import CRYSTAL_SYSTEMS
from diffractory.patterns.lab_protocol import apply_lab_protocol
from diffractory.patterns.peak_table import PeakTable
from diffractory.patterns.spot_lattice import explained_spots, find_spot_lattices
from diffractory.report.pattern_figures import draw_pattern
from diffractory.report.style import INK, SYSTEM_COLOURS, new_figure, save_figure, tidy, title
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.synthetic.scans import GrainLabels, synthetic_scan
from diffractory.scattering.simulate import Scatterer
from diffractory.specs import InvariantSpec, LabProtocolSpec, OrientationSpec
from diffractory.units import electron_wavelength

HERE = Path(__file__).parent
FOLDER = HERE / "pictures" / "concepts"
RESULTS = HERE.parent / "benchmarks" / "results"
ORANGE = "#D55E00"
PALETTE = ("#56B4E9", "#E69F00", "#CC79A7", "#009E73", "#D55E00")
NIGHT = "#0d1117"

SILICON = Structure.from_spacegroup("Fd-3m", Lattice.cubic(5.431), ["Si"], [[0, 0, 0]])
RUTILE = Structure.from_spacegroup(
    "P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
)
MAGNESIUM = Structure.from_spacegroup(
    "P6_3/mmc", Lattice.hexagonal(3.209, 5.211), ["Mg"], [[1 / 3, 2 / 3, 0.25]]
)
QUARTZ = Structure.from_spacegroup(
    "P3_221", Lattice.hexagonal(4.913, 5.405), ["Si", "O"], [[0.4697, 0, 2 / 3], [0.4135, 0.2669, 0.7858]]
)
TRICLINIC = Structure(
    Lattice.from_parameters(4.1, 5.3, 6.2, 83.0, 97.0, 104.0), ["Si", "O"], [[0, 0, 0], [0.41, 0.27, 0.33]]
)


def along(crystal: Crystal, uvw: tuple[int, int, int], off_deg: float = 0.0) -> NDArray[np.float64]:
    """Return the orientation ``off_deg`` from the zone axis [uvw], towards lab x, shape (3, 3)."""
    z = np.array(uvw) @ crystal.lattice
    z /= np.linalg.norm(z)
    x = np.cross(np.eye(3)[np.abs(z).argmin()], z)
    x /= np.linalg.norm(x)
    lean = np.deg2rad(off_deg)
    z, x = np.cos(lean) * z + np.sin(lean) * x, np.cos(lean) * x - np.sin(lean) * z
    return np.stack([x, np.cross(z, x), z], axis=1)


def table_of(pattern: PeakList) -> PeakTable:
    """Return one pattern, at its first thickness, as a table."""
    return PeakTable.from_lists([pattern.q], [pattern.intensity[0]], [0])


def square(axes: Axes, reach: float, text: str) -> None:
    """Give a pattern its axes."""
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel="$q_x$ (Å⁻¹)")
    tidy(axes)
    axes.grid(visible=False)
    title(axes, text)


def multiple_scattering() -> Figure:
    """Single scattering beside Bloch waves: intensities differ, and forbidden spots shine."""
    crystal, spec = Crystal.from_structure(SILICON), SimulationSpec(thicknesses=tuple(range(10, 1001, 10)))
    orientation = along(crystal, (1, 1, 0))
    (pattern,) = simulate(crystal, orientation[None], spec)
    (once,) = simulate_kinematic(crystal, orientation[None], spec)
    # A beam that nothing weakens is no curve worth drawing.
    single, at = np.where(np.arange(len(once)) == 0, np.nan, once.intensity), spec.thicknesses.index(200)
    figure = new_figure(11.0, 3.7)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.35))
    direct = pattern.intensity[at, :1]
    for axes, values, text in (
        (left, np.concatenate([direct, single[at, 1:]]), "scattered once"),
        (middle, pattern.intensity[at], "Bloch waves"),
    ):
        shown = values > 1e-5
        draw_pattern(axes, pattern.q[shown], values[shown])
        square(axes, 1.15, f"Si [110], 200 Å: {text}")
    forbidden = np.flatnonzero((np.abs(pattern.hkl) == (0, 0, 2)).all(axis=1))
    middle.scatter(*pattern.q[forbidden].T, s=190, facecolors="none", edgecolors=GREEN, linewidths=1.6)
    left.scatter(*pattern.q[forbidden].T, s=190, facecolors="none", edgecolors=GREEN, linewidths=1.6)
    left.set_ylabel("$q_y$ (Å⁻¹)")
    for hkl, colour in (((0, 0, 0), INK), ((-1, 1, 1), BLUE), ((0, 0, 2), GREEN)):
        (i,) = np.flatnonzero((pattern.hkl == hkl).all(axis=1))
        name = "".join(f"{-h}\u0305" if h < 0 else str(h) for h in hkl)
        right.plot(spec.thicknesses, pattern.intensity[:, i], color=colour, label=name)
        right.plot(spec.thicknesses, single[:, i], color=colour, linestyle=":")
    right.set(xlabel="thickness (Å)", ylabel="share of the incident beam", ylim=(0, 1), xlim=(0, 1000))
    right.legend(frameon=False, fontsize=8)
    tidy(right)
    title(right, "solid: Bloch waves; dotted: scattered once")
    return figure


def excitation_errors() -> Figure:
    """The Ewald sphere among the points of a real crystal, seen from the side; heights are stretched."""
    crystal, spec = Crystal.from_structure(QUARTZ), SimulationSpec(q_max=2.0)
    orientation = along(crystal, (0, 0, 1), off_deg=2.5)
    scatterer = Scatterer.prepare(crystal, spec)
    chosen, _ = scatterer.select_beams(orientation)
    g = scatterer.points.g @ orientation
    near = np.abs(g[:, 1]) < 0.02
    figure = new_figure(8.2, 3.9)
    axes = figure.subplots()
    x = np.linspace(-2, 2, 200)
    sphere = electron_wavelength(spec.energy_ev) * x**2 / 2
    axes.fill_between(x, sphere - spec.s_max, sphere + spec.s_max, color=BLUE, alpha=0.12, linewidth=0)
    axes.plot(x, sphere, color=BLUE, linewidth=1.2)
    out, inside = near & ~chosen, near & chosen
    axes.scatter(g[out, 0], g[out, 2], s=14, color=GREY)
    axes.scatter(g[inside, 0], g[inside, 2], s=26, color=ORANGE, zorder=3)
    foot = electron_wavelength(spec.energy_ev) * g[inside, 0] ** 2 / 2
    axes.vlines(g[inside, 0], foot, g[inside, 2], color=ORANGE, linewidth=1)
    axes.text(0.95, -0.008, "Ewald sphere", color=BLUE, fontsize=9)
    axes.text(0.95, -0.028, "band: |s| ≤ 0.06 Å⁻¹", color=BLUE, fontsize=9)
    axes.annotate("000", (0, 0), (0.03, -0.025), color=INK, fontsize=9)
    beam = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.2}
    axes.annotate("", (0, 0.004), (0, 0.27), arrowprops=beam)
    axes.text(0.04, 0.23, "incident beam", color=INK, fontsize=9)
    axes.set(xlabel="across the beam (Å⁻¹)", ylabel="along the beam (Å⁻¹)", xlim=(-2, 2), ylim=(-0.12, 0.29))
    tidy(axes)
    title(
        axes,
        f"quartz, 2.5° off [001]: {int(inside.sum())} of {int(near.sum())} points of this plane take part",
    )
    return figure


def orientations() -> Figure:
    """A hundred symmetry-unique zone axes of three Laue groups, in stereographic projection."""
    figure = new_figure(9.6, 3.5)
    row = figure.subplots(1, 3)
    for axes, (name, structure) in zip(
        row, {"cubic": SILICON, "hexagonal": MAGNESIUM, "triclinic": TRICLINIC}.items(), strict=True
    ):
        operations = laue_operations(structure)
        matrices = sample_orientations(operations, OrientationSpec(count=100))
        z = matrices[:, :, 2]
        everywhere = np.concatenate([z @ operation.T for operation in operations])
        for directions, size, colour in ((everywhere, 2, "#CFCFCF"), (z, 11, SYSTEM_COLOURS[name])):
            upper = directions[directions[:, 2] > -1e-9]
            flat = upper[:, :2] / (1 + upper[:, 2:])
            edge = INK if colour != "#CFCFCF" else "none"
            axes.scatter(*flat.T, s=size, color=colour, edgecolors=edge, linewidths=0.3)
        turn = np.linspace(0, 2 * np.pi, 200)
        axes.plot(np.cos(turn), np.sin(turn), color=INK, linewidth=0.8)
        axes.set(aspect="equal", xlim=(-1.05, 1.05), ylim=(-1.05, 1.05))
        axes.axis("off")
        title(axes, f"{name}, {len(operations)} operations")
    return figure


def protocols() -> Figure:
    """One pattern as simulated, turned, and as the lab protocol gives it."""
    crystal = Crystal.from_structure(RUTILE)
    (pattern,) = simulate(crystal, along(crystal, (1, 1, 2), 1.5)[None])
    table, seeds = table_of(pattern), np.array([5], dtype=np.uint64)
    shown = {
        "paper protocol: as simulated": table,
        "turned at random": apply_lab_protocol(table, LabProtocolSpec.turned(200.0), seeds),
        "lab protocol": apply_lab_protocol(table, LabProtocolSpec(), seeds),
    }
    figure = new_figure(10.4, 3.8)
    row = figure.subplots(1, 3, sharey=True)
    for axes, (text, spots) in zip(row, shown.items(), strict=True):
        draw_pattern(axes, spots.q, spots.intensity)
        square(axes, 2.1, text)
        axes.text(2.05, -2.0, f"{len(spots.intensity)} spots", ha="right", fontsize=8, color=INK)
    row[0].set_ylabel("$q_y$ (Å⁻¹)")
    return figure


def found_lattice(structure: Structure, orientation: NDArray) -> tuple[PeakTable, NDArray, NDArray, NDArray]:
    """Return a pattern, the cell read from it (rows), which spots that explains, and the layer of each."""
    (pattern,) = simulate(Crystal.from_structure(structure), orientation[None])
    table = table_of(pattern)
    lattices = find_spot_lattices(table, InvariantSpec())
    cell = np.linalg.inv(lattices.reciprocal[0])
    combinations = np.array(list(np.ndindex(9, 9, 9))) - 4
    vectors = combinations[np.abs(combinations).any(axis=1)] @ cell
    lengths = np.linalg.norm(vectors, axis=1)
    zone_axis = vectors[np.argmin(np.where(lengths < 25, np.hypot(*vectors.T[:2]) / lengths, 9))]
    height = electron_wavelength(300e3) * (table.q**2).sum(axis=1) / 2
    layer = np.round(np.column_stack([table.q, height]) @ zone_axis * np.sign(zone_axis[2])).astype(int)
    return table, cell, explained_spots(table, lattices, InvariantSpec()), layer


def spot_lattice() -> Figure:
    """The lattice of one pattern: spots of several layers, on a sphere whose height is known."""
    crystal = Crystal.from_structure(QUARTZ)
    table, cell, explained, layer = found_lattice(QUARTZ, along(crystal, (1, 1, 1), 6.0))
    height = electron_wavelength(300e3) * (table.q**2).sum(axis=1) / 2
    figure = new_figure(10.6, 4.2)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    bright = table.intensity > 1e-6
    size = 4 + 60 * (1 + np.log10(np.maximum(table.intensity, 1e-6)) / 6) ** 2
    for axes, x, y in ((left, *table.q.T), (right, table.q[:, 0], height)):
        rest = bright & ~explained
        axes.scatter(x[rest], y[rest], s=size[rest], facecolors="none", edgecolors=GREY, linewidths=0.6)
        for value in sorted(set(layer[explained & bright])):
            mask = explained & bright & (layer == value)
            axes.scatter(x[mask], y[mask], s=size[mask], color=PALETTE[value % len(PALETTE)], linewidths=0)
    square(left, 2.05, "coloured by layer; rings: not explained")
    left.set_ylabel("$q_y$ (Å⁻¹)")
    right.set(xlabel="$q_x$ (Å⁻¹)", ylabel="height on the Ewald sphere (Å⁻¹)", xlim=(-2.05, 2.05))
    tidy(right)
    edges = ", ".join(f"{edge:.2f}" for edge in Lattice(cell).get_niggli_reduced_lattice().abc)
    title(right, f"edges read from it: {edges} Å; quartz: 4.91, 4.91, 5.41 Å")
    return figure


def confidence() -> Figure:
    """What more patterns are worth, and whether confidence is to be believed, of learning.json."""
    compared = json.loads((RESULTS / "learning.json").read_text())["compare"]
    figure = new_figure(9.6, 3.9)
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    counts = ("1", "3", "10")
    for preset, colour in (("robust", BLUE), ("paper", ORANGE)):
        for protocol, line in (("paper", "--"), ("lab", "-")):
            values = [compared[preset][protocol]["six_systems"][count]["accuracy"] for count in counts]
            label = f"{preset} preset, {protocol} protocol"
            left.plot(
                counts, 100 * np.array(values), line, marker="o", markersize=4, color=colour, label=label
            )
    left.set(xlabel="patterns of one crystal, together", ylabel="crystal system right (%)", ylim=(0, 100))
    left.legend(frameon=False, fontsize=8, loc="center right", bbox_to_anchor=(1.0, 0.61))
    tidy(left)
    title(left, "six systems, random zone axes, materials never seen")
    kinds = (("single", "one pattern"), ("aggregated", "ten patterns"))
    for n, (preset, colour) in enumerate((("robust", BLUE), ("paper", ORANGE))):
        errors = [compared[preset]["lab"]["calibration_error"][kind] for kind, _ in kinds]
        bars = right.bar(
            np.arange(2) + 0.38 * (n - 0.5), errors, 0.36, color=colour, label=f"{preset} preset"
        )
        right.bar_label(bars, fmt="%.3f", fontsize=8, color=INK)
    right.set_xticks(range(2), [name for _, name in kinds])
    right.set(ylabel="calibration error of the confidence")
    right.legend(frameon=False, fontsize=8)
    tidy(right)
    title(right, "lab protocol: is confidence to be believed?")
    return figure


def learning_curves() -> Figure:
    """Error against numbers of materials and of orientations; dotted where the fitted law is extrapolated."""
    curves = json.loads((RESULTS / "learning.json").read_text())["curves"]
    figure = new_figure(10.5, 3.9)
    panels = figure.subplots(1, 2, sharey=True)
    axes_of = (
        ("n_materials", "n_orientations", "materials"),
        ("n_orientations", "n_materials", "orientations"),
    )
    for axes, (varied, kept, word) in zip(panels, axes_of, strict=True):
        for preset, protocol, colour in (
            ("robust", "lab", BLUE),
            ("robust", "paper", GREEN),
            ("paper", "paper", ORANGE),
        ):
            points = [point for point in curves["points"] if point["preset"] == preset]
            most = max(point[kept] for point in points)
            chosen = sorted((p for p in points if p[kept] == most), key=lambda point: point[varied])
            law = curves["fits"][preset][protocol]
            for count, marker, line in (("1", "o", "-"), ("10", "s", "--")):
                found = [point[protocol][count] for point in chosen]
                sizes = [point[varied] for point in chosen]
                errors = 100 * (1 - np.array([one["accuracy"] for one in found]))
                ends = 100 * (1 - np.array([one["interval"] for one in found]))
                label = f"{preset}, {protocol} protocol, {count} pattern{'s' if count > '1' else ''}"
                spread = np.abs(ends[:, ::-1].T - errors)
                axes.errorbar(sizes, errors, spread, fmt=marker, markersize=4, color=colour, label=label)
                # Dotted beyond what was measured.
                far = np.geomspace(sizes[0], curves["extrapolated_to"][word], 60)
                pair = (far, most) if word == "materials" else (most, far)
                fitted = 100 * error_law(law[count], *pair)
                known = far <= sizes[-1]
                axes.plot(far[known], fitted[known], line, color=colour, linewidth=1)
                axes.plot(far[~known], fitted[~known], ":", color=colour, linewidth=1.4)
        others = "28 orientations each" if word == "materials" else "all training materials"
        axes.set(xscale="log", yscale="log", xlabel=f"{word} ({others})")
        ticks = (1500, 3000, 6000, 12_000, 27_000) if word == "materials" else (1, 3, 9, 28, 75)
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.set_yticks((2, 3, 5, 10, 20, 30), ("2", "3", "5", "10", "20", "30"))
        axes.minorticks_off()
        tidy(axes)
    panels[0].set_ylabel("crystal system wrong (%), six systems")
    title(panels[0], "more materials")
    title(panels[1], "more orientations (dotted: extrapolated)")
    figure.legend(
        *panels[1].get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside right center"
    )
    return figure


def error_law(
    fit: dict[str, list[float]], materials: NDArray | float, orientations: NDArray | float
) -> NDArray:
    """Return floor + a (materials / 1000)^-alpha + b orientations^-beta."""
    floor, a, alpha, b, beta = fit["floor_a_alpha_b_beta"]
    return floor + a * (np.asarray(materials) / 1000) ** -alpha + b * np.asarray(orientations, float) ** -beta


def glow(axes: Axes, q: NDArray, intensity: NDArray, reach: float) -> None:
    """Draw a pattern as a camera sees it: bright disks on black."""
    n, width = 440, 0.036
    ticks = np.linspace(-reach, reach, n)
    image = np.zeros((n, n))
    for (x, y), value in zip(
        q, np.maximum(1 + np.log10(np.maximum(intensity, 1e-5)) / 5, 0) ** 0.9, strict=True
    ):
        image += (
            value
            * np.exp(-np.minimum(((ticks - x) / width) ** 2, 60))[None]
            * np.exp(-np.minimum(((ticks - y) / width) ** 2, 60))[:, None]
        )
    colours = np.clip(image, 0, 1)[..., None] * np.array([0.72, 0.88, 1.0]) + np.array(to_rgb(NIGHT))
    axes.imshow(np.clip(colours, 0, 1), extent=(-reach, reach, -reach, reach), origin="lower")


def start() -> Figure:
    """The start page's banner: a pattern, the lattice read from it, a map."""
    crystal = Crystal.from_structure(SILICON)
    figure = Figure(figsize=(12.0, 3.55), facecolor=NIGHT)
    row = figure.subplots(1, 3)
    figure.subplots_adjust(left=0.012, right=0.988, top=0.9, bottom=0.02, wspace=0.03)
    reach = 1.65
    (zone,) = simulate(crystal, along(crystal, (1, 1, 0))[None])
    glow(row[0], zone.q, zone.intensity[0], reach)
    table, _, explained, layer = found_lattice(QUARTZ, along(Crystal.from_structure(QUARTZ), (0, 1, 2), 1.5))
    glow(row[1], table.q, table.intensity, reach)
    for value in sorted(set(layer[explained])):
        spots = table.q[explained & (layer == value) & (np.abs(table.q).max(axis=1) < 0.97 * reach)]
        row[1].scatter(
            *spots.T, s=70, facecolors="none", edgecolors=PALETTE[value % len(PALETTE)], linewidths=1.1
        )
    _, truth = _polycrystal(table)
    codes = truth.crystal_system.to_numpy()
    colours = [NIGHT, *(SYSTEM_COLOURS[name] for name in CRYSTAL_SYSTEMS)]
    row[2].imshow(codes + 1, cmap=ListedColormap(colours), vmin=-0.5, vmax=7.5, interpolation="nearest")
    for axes, text in zip(row, ("simulate", "learn", "map"), strict=True):
        axes.set_title(text, color="white", fontsize=15, fontweight="bold", pad=7)
        axes.axis("off")
    return figure


def _polycrystal(table: PeakTable) -> tuple[BraggScan, xr.Dataset]:
    """Return a synthetic scan whose grains have every crystal system."""
    systems = np.arange(len(CRYSTAL_SYSTEMS))
    labels = GrainLabels(
        systems, np.array([1, 3, 16, 75, 143, 168, 195]), np.full((7, 3), 5.0), systems.astype(str)
    )
    return synthetic_scan(
        table.take(np.zeros(7, dtype=np.int64)), labels, (150, 150), 60, 4, vacuum_fraction=0.14
    )


#: File name -> what draws it.
PICTURES: dict[str, Callable[[], Figure]] = {
    "start.png": start,
    "multiple-scattering.png": multiple_scattering,
    "excitation-errors.png": excitation_errors,
    "orientations.png": orientations,
    "protocols.png": protocols,
    "spot-lattice.png": spot_lattice,
    "confidence.png": confidence,
    "learning-curves.png": learning_curves,
    "run.svg": run,
    "rooms.svg": rooms,
}


def main(names: list[str]) -> None:
    """Draw the pictures named, or all."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in names or PICTURES:
        save_figure(PICTURES[name](), FOLDER / name)


if __name__ == "__main__":
    main(sys.argv[1:])
