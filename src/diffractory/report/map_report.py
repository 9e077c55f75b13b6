"""The report of a map: its pictures as PNG and SVG, and one HTML page that holds them all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diffractory.patterns.cubic_constant import is_decided
from diffractory.patterns.peak_table import PeakTable
from diffractory.report.example_figures import figure_of_examples
from diffractory.report.map_figures import figure_of_domain, figure_of_lattice, figure_of_systems
from diffractory.report.page import Page
from diffractory.report.particle_figures import (
    figure_of_flags,
    figure_of_particles,
    part_name,
)
from diffractory.report.ring_figure import figure_of_cubic_rings
from diffractory.report.style import save_figure, settle_layout
from diffractory.scan.frame_places import ExampleFrames
from diffractory.scan.mapping.label_map import assumed_system, cubic_phases, summarise
from diffractory.scan.mapping.particle_table import summarise_particles

_NAMES: Final = (
    "system", "particles", "lattice", "lattice-b", "lattice-c", "cubic-rings", "domain", "flags", "examples",
)  # fmt: skip
#: Every file that a report may hold.
REPORT_FILES: Final = (*(f"{name}.{kind}" for name in _NAMES for kind in ("svg", "png")), "map.html")
#: Positions whose spots are drawn against rings.
_MOST_SHOWN: Final = 20_000
#: Rows of the table of particles on the page; all of them are in the file.
_ROWS: Final = 500
#: b and c have pictures of their own where they differ from a by more than this share anywhere.
_SAME_LENGTH: Final = 0.01

_SYSTEMS = (
    "Crystal system of every position after the median filter, paler where the model was less sure; shares "
    "with every labelled position counted once (bars) and weighted by confidence (ticks). It does not show "
    "crystal systems the model was not trained on, nor mixtures: each position has one answer."
)
_PARTICLES = (
    "Particles found in the dark-field image (summed intensity of all spots but the direct beam), with the "
    "numbers of the table, and one crystal system for each, from the patterns of all its positions. "
    "Outlines follow intensity, not crystallography: a particle of several grains gets one answer, and a "
    "particle that hardly diffracts is not found."
)
_REGIONS = (
    "The {part}s of the scan with the numbers of the table, over the dark-field image (summed intensity of "
    "all spots but the direct beam), and one crystal system for each, from the patterns of all its "
    "positions: it gets one answer, whatever it holds."
)
_LATTICE = (
    "Lattice constant {axis} of every labelled position, and its histogram by crystal system with the "
    "median. It is that of the crystal system shown (or assumed): where that is wrong, so is the length. "
    "It is what the model says of single patterns, which leans towards what is common where they show few "
    "spots. Near a cubic constant that many patterns together decide (orange: of a phase of the scan, or of "
    "a particle) positions tell their own from their spots instead, within 3 % (lattice_source in the map)."
)
_RINGS = (
    "How far from the direct beam the spots of the largest {part} with a decided cubic constant lie, and "
    "where a cubic lattice of that constant and centring has its rings. Spots between rings are false, or of "
    "another lattice; an error of 1 % in the scan's calibration is one of 1 % in the constant."
)
_PHASE = (
    "How far from the direct beam the spots lie that speak for a cubic phase of the scan, and where it has "
    "its rings. {phases} Positions whose spots lie on such rings are called cubic more readily: {changed:,} "
    "are by that. Crystals of another lattice with spots on these rings are taken for the phase; "
    "map --phase none leaves it out."
)
_DOMAIN = (
    "Where the scan lies among the patterns the model was trained on. Outside, the model has seen nothing "
    "alike and its confidence means nothing; inside is no proof that it is right."
)
_FLAGS = (
    "Few spots: not asked. Outside the training domain: as in the picture above. Likely overlapping grains: "
    "a second lattice explains most of the spots that the first leaves over; grains that show fewer than "
    "six spots, or less than 15 % of all, are not found. No flag is no proof that a label is right."
)
_EXAMPLES = (
    "Peaks of two positions of every crystal system in the map: the surest, and one of middling confidence. "
    "Rows of the detector run down, columns to the right, as in its frames. The area of a spot grows with "
    "the logarithm of its intensity, the direct beam is orange. They are the peaks the model was given, not "
    "the detector's image{why}."
)
_FRAMES = (
    "Recorded frames (of {source}) of two positions of every crystal system in the map: the surest, and one "
    "of middling confidence. A circle is a peak that was found and the model was given, the direct beam's is "
    "orange. Rows of the detector run down, columns to the right; grey grows with the logarithm of "
    "intensity, on a scale of its own in each frame, which ends at its half per mille of brightest pixels."
)


#: Formats of each picture, the one that goes into the page last.
_FORMATS: Final = (".svg", ".png")


@dataclass(frozen=True)
class _Picture:
    name: str
    heading: str
    caption: str
    figure: Callable[[], Figure]
    #: Whether another process may draw it: those that need little data, and half of the work.
    movable: bool = False


def write_map_report(
    folder: Path,
    dataset: xr.Dataset,
    peaks: PeakTable,
    training: NDArray[np.float64],
    table: pd.DataFrame | None = None,
    *,
    notes: Sequence[str] = (),
    examples: ExampleFrames | None = None,
    begun: Mapping[str, Future[None]] = MappingProxyType({}),
) -> list[str]:
    """Write the pictures of a map and the page ``map.html``, which needs no other file and no network.

    Parameters
    ----------
    folder : Path
        Where they go; it exists.
    dataset : xarray.Dataset
        Map made by :func:`diffractory.scan.mapping.label_map.to_dataset`.
    peaks : PeakTable
        Peaks of the scan, in row-major order.
    training : ndarray of shape (n, 2)
        Coordinates of training patterns along their first two principal components.
    table : pandas.DataFrame, optional
        Particles; None where the scan was not divided.
    notes : sequence of str, optional
        What whoever looks at the map should know, such as what was assumed; at the top of the page.
    examples : ExampleFrames, optional
        Recorded frames of the example patterns, or why there are none.
    begun : mapping of str to concurrent.futures.Future, optional
        What :func:`begin_pictures` gave for the same map; pictures whose process has died are drawn here.

    Returns
    -------
    list of str
        Names of the files written, the page last.

    Raises
    ------
    DiffractoryError
        If a file cannot be written.
    """
    pictures = _pictures(dataset, peaks, training, table, examples)
    for picture in pictures:
        if picture.name not in begun:
            _draw(picture.figure, folder / picture.name)
    assumed = assumed_system(dataset)
    name = Path(str(dataset.attrs["scan_source"])).name or "a scan"
    page = Page(f"Map of {name}" + (f", {assumed} assumed" if assumed else ""))
    page.notes(notes)
    _introduce(page, dataset)
    for picture in pictures:
        page.heading(picture.heading)
        if picture.name in begun:
            try:
                begun[picture.name].result()
            except BrokenExecutor:
                _draw(picture.figure, folder / picture.name)
        page.picture((folder / picture.name).with_suffix(_FORMATS[-1]).read_bytes(), picture.caption)
        if picture.name == "particles" and table is not None:
            _list_particles(page, table)
    page.heading("How it was made")
    _provenance(page, dataset)
    page.write(folder / "map.html")
    return [*(picture.name + suffix for picture in pictures for suffix in _FORMATS), "map.html"]


def begin_pictures(
    executor: Executor,
    folder: Path,
    dataset: xr.Dataset,
    peaks: PeakTable,
    training: NDArray[np.float64],
    table: pd.DataFrame | None = None,
) -> dict[str, Future[None]]:
    """Have another process draw those pictures of :func:`write_map_report` that take long and little data.

    Parameters
    ----------
    executor : concurrent.futures.Executor
        The process.
    folder, dataset, peaks, training, table
        As for :func:`write_map_report`.

    Returns
    -------
    dict of str to concurrent.futures.Future
        Name of each picture, and when it is written.
    """
    return {
        picture.name: executor.submit(_draw, picture.figure, folder / picture.name)
        for picture in _pictures(dataset, peaks, training, table)
        if picture.movable
    }


def _draw(figure: Callable[[], Figure], path: Path) -> None:
    """Draw a figure in all formats; ``path`` has no suffix."""
    drawn = figure()
    # Once for all formats.
    settle_layout(drawn)
    for suffix in _FORMATS:
        save_figure(drawn, path.with_suffix(suffix))


def _pictures(
    dataset: xr.Dataset,
    peaks: PeakTable,
    training: NDArray[np.float64],
    table: pd.DataFrame | None,
    examples: ExampleFrames | None = None,
) -> list[_Picture]:
    """Return what is to be drawn; a figure is made when it is drawn, so that one at a time is in memory."""
    found = [_Picture("system", "Crystal systems", _SYSTEMS, partial(figure_of_systems, dataset))]
    if table is not None:
        name = part_name(dataset)
        words = _PARTICLES if name == "particle" else _REGIONS.format(part=name)
        draw = partial(figure_of_particles, dataset, table)
        found.append(_Picture("particles", f"{name.capitalize()}s", words, draw))
    constant, phases = _largest_decided(table), cubic_phases(dataset)[0]
    phase = max(phases, key=lambda told: told["positions"], default=None)
    for axis in _axes_to_draw(dataset):
        name = "lattice" if axis == "a" else f"lattice-{axis}"
        # What goes to another process is copied: only the arrays that it draws.
        together = None
        if axis == "a" and phase is not None:
            together = ("a cubic phase of the scan", float(phase["a"]))
        elif axis == "a" and constant is not None:
            words = f"all patterns of {part_name(dataset)} {constant['particle']}, if cubic"
            together = (words, float(constant["a_pooled"]))
        draw = partial(figure_of_lattice, dataset[["crystal_system", axis]], axis, together)
        words = _LATTICE.format(axis=axis)
        found.append(_Picture(name, f"Lattice constant {axis}", words, draw, movable=True))
    if phase is not None:
        found.append(_phase_rings(dataset, peaks, phase))
    elif constant is not None:
        found.append(_rings(dataset, peaks, constant))
    located = dataset[["outside_training", "training_component_1", "training_component_2"]]
    draw = partial(figure_of_domain, located, training)
    found.append(_Picture("domain", "Training domain", _DOMAIN, draw))
    draw = partial(figure_of_flags, dataset[["flags"]])
    found.append(_Picture("flags", "Flags", _FLAGS, draw, movable=True))
    found.append(_examples(dataset, peaks, ExampleFrames() if examples is None else examples))
    return found


def _examples(dataset: xr.Dataset, peaks: PeakTable, examples: ExampleFrames) -> _Picture:
    """Return the picture of example patterns."""
    words = _EXAMPLES.format(why=f": {examples.missing}" if examples.missing else "")
    if examples.frames:
        words = _FRAMES.format(source=examples.source)
    draw = partial(figure_of_examples, peaks, dataset, examples.frames)
    return _Picture("examples", "Example patterns", words, draw)


def _largest_decided(table: pd.DataFrame | None) -> pd.Series | None:
    """Return the row of the largest particle whose cubic constant is decided; None if there is none."""
    if table is None or "a_pooled_centring" not in table:
        return None
    decided = table[is_decided(table["a_pooled_margin"])]
    if decided.empty:
        return None
    return decided.nlargest(1, "n_positions", keep="first").iloc[0]


def _rings(dataset: xr.Dataset, peaks: PeakTable, row: pd.Series) -> _Picture:
    """Return the picture of a cubic particle's rings."""
    part = part_name(dataset)
    shown = _some_of(peaks, dataset["particle"].to_numpy() == row["particle"])
    radius = np.hypot(*shown.q[shown.scattered].T)
    words = f"{len(radius):,} spots of {part} {row['particle']}"
    draw = partial(
        figure_of_cubic_rings, radius, float(row["a_pooled"]), str(row["a_pooled_centring"]), words
    )
    return _Picture("cubic-rings", f"Rings of a cubic {part}", _RINGS.format(part=part), draw, movable=True)


def _phase_rings(dataset: xr.Dataset, peaks: PeakTable, phase: dict[str, Any]) -> _Picture:
    """Return the picture of the rings of a cubic phase, that of most positions."""
    phases, changed = cubic_phases(dataset)
    number = phases.index(phase) + 1
    shown = _some_of(peaks, dataset["cubic_phase"].to_numpy() == number)
    radius = np.hypot(*shown.q[shown.scattered].T)
    words = f"{len(radius):,} spots of {len(shown):,} positions"
    draw = partial(figure_of_cubic_rings, radius, float(phase["a"]), str(phase["centring"]), words)
    told = " ".join(_told_phase(each) for each in phases)
    caption = _PHASE.format(phases=told, changed=changed)
    return _Picture("cubic-rings", "Rings of a cubic phase of the scan", caption, draw, movable=True)


def _some_of(peaks: PeakTable, where: NDArray[np.bool_]) -> PeakTable:
    """Return the peaks of positions (n_y, n_x), evenly chosen where there are very many."""
    rows = np.flatnonzero(where)
    return peaks.take(rows[np.linspace(0, len(rows) - 1, min(len(rows), _MOST_SHOWN)).round().astype(int)])


def _told_phase(phase: dict[str, Any]) -> str:
    how = f"found in {phase['patterns']} distinct patterns" if phase["patterns"] else "told"
    shares = ""
    if phase["on_rings"] is not None:
        on_rings, by_chance = 100.0 * phase["on_rings"], 100.0 * phase["by_chance"]
        shares = f", {on_rings:.0f} % of all spots within 1 % of a ring, {by_chance:.0f} % by chance"
    where = f"{phase['positions']:,} positions"
    return f"{phase['centring']}, a = {phase['a']:.3f} Å ({how}): the spots of {where}{shares}."


def _axes_to_draw(dataset: xr.Dataset) -> list[str]:
    a = dataset["a"].to_numpy()
    differ = {axis: np.abs(dataset[axis].to_numpy() - a) > _SAME_LENGTH * a for axis in "bc"}
    return ["a", *(axis for axis in "bc" if np.any(differ[axis]))]


def _introduce(page: Page, dataset: xr.Dataset) -> None:
    summary = summarise(dataset)
    step = dataset["scan_x"].attrs["units"] == "angstrom" and dataset.sizes["scan_x"] > 1
    size = f"{dataset.sizes['scan_y']} × {dataset.sizes['scan_x']} positions"
    if step:
        size += f", {float(dataset['scan_x'][1] - dataset['scan_x'][0]) / 10.0:g} nm apart"
    outside = summary["outside_training"]
    page.text(
        f"{size}. {summary['labelled']:,} of {summary['positions']:,} positions have a label; "
        f"{summary['unlabelled']['few_spots']:,} have too few spots and "
        f"{summary['unlabelled']['low_difference']:,} are undecided. {_bad_frames(summary)}"
        f"{100 * outside['fraction']:.1f} % of {outside['asked']:,} lie outside the training domain."
    )
    if not step:
        page.text(
            "The scan step is not known: distances are in positions, and areas have no nm². "
            "Give it with --step (Å)."
        )
    rows = [
        [
            name,
            f"{numbers['count']:,}",
            f"{100 * numbers['fraction']:.1f} %",
            f"{100 * numbers['weighted_fraction']:.1f} %",
            *(_quartiles(numbers["lattice"][axis]) for axis in "abc"),
        ]
        for name, numbers in summary["systems"].items()
        if numbers["count"]
    ]
    header = ["", "positions", "share", "weighted by confidence", "a (Å)", "b (Å)", "c (Å)"]
    assumed = summary["assumed"]
    caption = "Crystal systems of the labelled positions; lattice: median [quartiles]"
    if assumed:
        caption += f", of all taken to be {assumed}"
    page.table(caption, header, rows)


def _bad_frames(summary: dict[str, Any]) -> str:
    bad = summary["unlabelled"]["bad_frame"]
    return f"{bad:,} have a frame that could not be used. " if bad else ""


def _list_particles(page: Page, table: pd.DataFrame) -> None:
    summary = summarise_particles(table)
    page.text(
        f"{summary['count']:,} in the table. The two rules differ in {summary['rules_disagree']:,}; "
        f"{summary['flagged']:,} are flagged; {summary['without_answer']:,} have no answer, because no "
        "position has spots enough. The paper's rule weights the answers of a few patterns (ten by default) "
        "by their difference confidence; evidence pools the calibrated probabilities of all of them, and is "
        "the answer where the model offers it. Positions of one grain repeat each other, so both know one "
        "orientation of one crystal, however many positions there are."
    )
    shown = table.nlargest(_ROWS, "n_positions", keep="first").sort_values("particle")
    caption = (
        "Lattice: median [quartiles] over the particle's patterns; pooled: what explains the lattices and "
        "the spots of all of them together, if cubic, with its centring, the share of spots within 1 % of a "
        "ring of that lattice, the share that would be by chance, and ln of the odds against the next best, "
        "below 5 undecided. "
        "All columns: particles.csv"
    )
    if len(shown) < len(table):
        caption += f". The {len(shown):,} largest of {len(table):,}"
    header = [
        "", "y, x", "positions", "nm²", "spots", "crystal system", "by difference", "by evidence",
        "lattice of", "space group", "cubic a, pooled (Å)", "a (Å)", "b (Å)", "c (Å)", "flags",
    ]  # fmt: skip
    page.table(caption, header, [_row(row) for row in shown.to_dict("records")])


def _row(row: dict[Any, Any]) -> list[str]:
    def answer(rule: str) -> str:
        name = row[f"system_by_{rule}"]
        return f"{name}, {100 * row[f'confidence_by_{rule}']:.0f} %" if isinstance(name, str) else "–"

    def length(axis: str) -> str:
        names = ("lower_quartile", "median", "upper_quartile")
        columns = (f"{axis}_lower_quartile", axis, f"{axis}_upper_quartile")
        return _quartiles({name: row[column] for name, column in zip(names, columns, strict=True)})

    return [
        str(row["particle"]),
        f"{row['centroid_y']:.1f}, {row['centroid_x']:.1f}",
        f"{row['n_positions']:,}",
        "–" if np.isnan(row["area_nm2"]) else f"{row['area_nm2']:.4g}",
        "–" if np.isnan(row["median_spots"]) else f"{row['median_spots']:.0f}",
        row["crystal_system"] if isinstance(row["crystal_system"], str) else "–",
        answer("difference"),
        answer("evidence"),
        row["lattice_system"] if isinstance(row["lattice_system"], str) else "–",
        str(row["space_group"] or "–"),
        _pooled(row),
        *(length(axis) for axis in "abc"),
        ", ".join(flag.replace("_", " ") for flag in row["flags"].split()),
    ]


def _quartiles(numbers: dict[str, float] | None) -> str:
    if numbers is None or np.isnan(numbers["median"]):
        return "–"
    return f"{numbers['median']:.3f} [{numbers['lower_quartile']:.3f}–{numbers['upper_quartile']:.3f}]"


def _pooled(row: dict[Any, Any]) -> str:
    if np.isnan(row["a_pooled"]):
        return "–"
    if not is_decided(row["a_pooled_margin"]):
        return "undecided"
    return (
        f"{row['a_pooled']:.3f} {row['a_pooled_centring']} ({100 * row['a_pooled_on_rings']:.0f} % on rings, "
        f"{100 * row['a_pooled_by_chance']:.0f} % by chance; {row['a_pooled_margin']:.0f})"
    )


def _provenance(page: Page, dataset: xr.Dataset) -> None:
    page.text("Parameters, model with the plan it was trained on, hash of the scan's file, and versions:")
    found: dict[str, Any] = {}
    for name, value in dataset.attrs.items():
        found[str(name)] = json.loads(value) if isinstance(value, str) and value[:1] == "{" else value
    page.pre(json.dumps(found, indent=1, default=str, ensure_ascii=False))
