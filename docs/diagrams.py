"""Pictures of the documentation that show no data: how a run is made, and the rooms of the source."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from diffractory.report.style import INK, new_figure

BLUE, GREEN, GREY = "#0072B2", "#009E73", "#999999"


def box(
    axes: Axes, x: float, y: float, width: float, height: float, head: str, text: str, colour: str
) -> None:
    """Draw a room or a step."""
    patch = FancyBboxPatch(
        (x, y), width, height, "round,pad=0,rounding_size=0.12", facecolor=(*to_rgb(colour), 0.16),
        edgecolor=colour, linewidth=1.4,
    )  # fmt: skip
    axes.add_patch(patch)
    middle = x + width / 2
    axes.text(
        middle, y + height - 0.28, head, ha="center", va="center", fontsize=11, fontweight="bold", color=INK
    )
    axes.text(middle, y + height - 0.52, text, ha="center", va="top", fontsize=8.2, color=INK)


def arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "", **style: str
) -> None:
    """Draw where something goes."""
    options = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.3, "mutation_scale": 13} | style
    axes.add_patch(FancyArrowPatch(start, end, shrinkA=3, shrinkB=3, **options))
    axes.text(
        (start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.13, text, ha="center", fontsize=8, color=INK
    )


def diagram(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty sheet."""
    figure = new_figure(width, height)
    axes = figure.subplots()
    axes.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axes.axis("off")
    return figure, axes


def run() -> Figure:
    """From a plan to a verified run."""
    figure, axes = diagram(11.0, 2.75)
    steps = (
        ("plan", "crystals × orientations\n× thicknesses; its cost\ncounted; frozen\nin plan.json", BLUE),
        ("partition", "minutes of work,\nwhole shards of every\narray, written by\nno other", "#E69F00"),
        ("record", "checksums and counts,\nwritten last, by one\nrename: it is what\n“done” means", GREEN),
        ("verify", "checksums, physics,\nand a sample solved\nagain by the dense\nreference", "#CC79A7"),
    )  # fmt: skip
    for n, (head, text, colour) in enumerate(steps):
        box(axes, 0.15 + 2.8 * n, 1.15, 2.3, 1.5, head, text, colour)
        if n:
            arrow(axes, (2.8 * n - 0.4, 1.95), (2.8 * n + 0.2, 1.95))
    arrow(axes, (6.9, 1.15), (4.1, 1.15), connectionstyle="arc3,rad=-0.45")
    axes.text(
        5.5,
        0.2,
        "killed? the same command again: plan minus valid records",
        ha="center",
        fontsize=9,
        color=INK,
    )
    return figure


def rooms() -> Figure:
    """The rooms of the source, and what may know what."""
    figure, axes = diagram(11.0, 5.0)
    flow = (
        ("crystals", "catalogues, sources,\nsymmetry, duplicates", "#E69F00"),
        ("scattering", "form factors, beams,\norientations, Bloch-\nwave solvers", "#56B4E9"),
        ("patterns", "peak tables, features,\nspot lattices,\nlab protocol", "#009E73"),
        ("dataset", "plan, partition,\nrecord, verify;\nthe only writer of Zarr", "#B8A800"),
        ("learning", "split by material,\nforests, boosted trees,\nevaluation", "#D55E00"),
        ("scan", "readers, disks,\nmaps, particles", "#CC79A7"),
        ("report", "figures,\nHTML pages", "#0072B2"),
    )
    width, gap = 1.42, 0.14
    for n, (head, text, colour) in enumerate(flow):
        x = 0.1 + n * (width + gap)
        box(axes, x, 2.05, width, 1.3, head, text, colour)
    arrow(axes, (0.1, 3.6), (10.9, 3.6))
    axes.text(
        5.5,
        3.72,
        "data flow one way; a lower room never imports a higher one",
        ha="center",
        fontsize=9,
        color=INK,
    )
    box(axes, 0.1, 4.1, 10.8, 0.78, "cli", "one file a command: parse, wire, print", INK)
    box(
        axes,
        0.1,
        1.05,
        6.6,
        0.8,
        "specs · settings",
        "what changes results: frozen and hashed · what does not",
        GREY,
    )
    box(
        axes,
        0.1,
        0.1,
        6.6,
        0.8,
        "units · errors · storage",
        "Å, Å⁻¹, eV · what, why, fix · atomic writes",
        GREY,
    )
    box(
        axes,
        6.95,
        0.1,
        3.95,
        1.75,
        "execution",
        "runs callables: in this process, on local Dask,\n"
        "in SLURM jobs, on a Dask scheduler;\nknows no other room; only cli knows it",
        INK,
    )
    return figure
