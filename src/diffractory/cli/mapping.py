"""What `diffractory map` does, once its options are known: predict, write, draw, tell."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr
from rich.table import Table

from diffractory.cli.console import note, out
from diffractory.cli.progress import map_ordered
from diffractory.errors import DiffractoryError, SpecError
from diffractory.execution.engine import Engine
from diffractory.execution.helper import helper_process
from diffractory.learning.provenance import told_number
from diffractory.learning.saved_model import SavedModel
from diffractory.patterns.cubic_constant import is_decided
from diffractory.patterns.lattice_symmetry import fit_families
from diffractory.patterns.spot_lattice import search_is_compiled
from diffractory.report.map_report import REPORT_FILES, begin_pictures, write_map_report
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.frame_places import ExampleFrames
from diffractory.scan.mapping.beam_energy import features_at_energy
from diffractory.scan.mapping.examples import example_positions
from diffractory.scan.mapping.label_map import summarise, to_dataset
from diffractory.scan.mapping.map_files import PARTICLE_FILES, write_map, write_netcdf, write_particles
from diffractory.scan.mapping.particle_table import particle_table, summarise_particles
from diffractory.scan.mapping.prediction import predict_scan
from diffractory.scan.mapping.scan_phase import phase_doubts
from diffractory.settings import usable_cores
from diffractory.specs import InvariantSpec, MapSpec, ParticleSpec
from diffractory.storage import write_atomic

if TYPE_CHECKING:
    from diffractory.scan.frame_scan import FrameScan

#: Files of a map, and what writes each.
_MAP_FILES: Final = (("map.zarr", write_map), ("map.nc", write_netcdf))


@contextmanager
def compiling(
    model: SavedModel, cluster: str, flag_overlap: bool | None, helper: Executor | None
) -> Iterator[None]:
    """Tell whoever waits why the first map on a machine takes so long, and compile on two cores meanwhile.

    The search is compiled here, when it is first asked, and what follows it by the helper, or by a process
    started for that where there is a second core. Workers of a cluster compile for themselves.
    """
    searched = isinstance(model.features, InvariantSpec) or flag_overlap
    if not searched or cluster not in ("threads", "inline", "local") or search_is_compiled():
        yield
        return
    note("compiling the lattice search for this machine: half a minute or more, this once")
    with ExitStack() as stack:
        if cluster != "local" and usable_cores() > 1:
            helper = helper or stack.enter_context(helper_process())
            helper.submit(fit_families, np.zeros((0, 3, 3)))
        yield


def parse_regions(text: str) -> dict[str, Any]:
    """Read how a scan is divided: ``particles``, ``grains``, ``labels`` or ``grid:SIDE``.

    Raises
    ------
    SpecError
        If the text is none of these.
    """
    kind, colon, side = text.partition(":")
    if kind in ("particles", "grains", "labels") and not colon:
        return {"regions": kind}
    if kind == "grid" and side.isascii() and side.isdigit():
        return {"regions": kind, "grid": int(side)}
    raise SpecError(
        f"--regions {text!r} cannot be read",
        "",
        "Write particles, grains, labels, or grid:10 for blocks of 10",
    )


@dataclass(frozen=True)
class FinishedMap:
    """A map, what is said of it, and the files it was written to."""

    labelled: xr.Dataset
    summary: dict[str, Any]
    files: list[str]


def map_with_model(
    scan: BraggScan,
    model: SavedModel,
    spec: MapSpec,
    engine: Engine,
    folder: Path,
    *,
    particles: ParticleSpec | None = None,
    flag_overlap: bool | None = None,
    with_report: bool = True,
    frames: FrameScan | None = None,
    helper: Executor | None = None,
) -> FinishedMap:
    """Predict a scan and write map, particles, summary and report to a folder.

    A helper, another process, writes the map and draws some of the pictures. Example patterns are drawn on
    the frames that are given, or on those that the scan's file notes, if they are still there.
    """
    provenance = model.provenance
    features, energy_note = features_at_energy(
        model.features, scan, told_number(provenance, "simulation", "energy_ev")
    )
    prediction = predict_scan(
        model,
        scan,
        spec,
        features,
        particles=particles,
        # Other features hold no lattices: finding them would take most of the time.
        find_overlap=isinstance(features, InvariantSpec) if flag_overlap is None else flag_overlap,
        map_blocks=map_ordered(engine, "positions"),
    )
    # Thousands of training materials do not belong into every map; their plan says which they were.
    short = {key: value for key, value in provenance.items() if key != "training_materials"}
    labelled = to_dataset(scan, prediction, spec, {"model": str(model.path), **short})
    table = None if particles is None else particle_table(scan, prediction)
    doubts = [] if prediction.phases is None else phase_doubts(prediction.phases.phases)
    notes = [*scan.attrs.get("notes", []), *([energy_note] if energy_note else []), *doubts]
    summary = {**summarise(labelled), "notes": notes}
    folder.mkdir(parents=True, exist_ok=True)
    again = (folder / "map.zarr").exists()
    drawn = (folder, labelled, scan.peaks, model.domain_sample, table)
    # xarray imports much when it first writes: a helper has done that already.
    waits = [_write(helper, write, labelled, folder / name) for name, write in _MAP_FILES]
    begun = {} if helper is None or not with_report else begin_pictures(helper, *drawn)
    files = [name for name, _ in _MAP_FILES]
    if table is not None:
        summary["particles"] = summarise_particles(table)
        write_particles(table, folder)
        files += PARTICLE_FILES
    write_atomic(folder / "summary.json", json.dumps(summary, indent=1))
    files.append("summary.json")
    if with_report:
        examples = example_frames(scan, labelled, frames)
        files += write_map_report(*drawn, notes=notes, examples=examples, begun=begun)
    for wait in waits:
        wait()
    for name in {*PARTICLE_FILES, *REPORT_FILES} - set(files) if again else ():
        # Of the earlier map in this folder: beside this one it would be taken for its own.
        (folder / name).unlink(missing_ok=True)
    return FinishedMap(labelled, summary, files)


def example_frames(scan: BraggScan, labelled: xr.Dataset, frames: FrameScan | None) -> ExampleFrames:
    """Read the frames of a map's example patterns; where they cannot be had, tell why."""
    record = scan.attrs.get("provenance")
    if frames is None and not (isinstance(record, dict) and "frames_file" in record):
        # Most scans: what reads frames takes a second to import.
        earlier = isinstance(record, dict) and "frames" in record
        return ExampleFrames(
            missing="an earlier version of 'detect' did not note where they lie in the frames"
            if earlier
            else "the file of peaks does not say in which frames they were found"
        )
    from diffractory.scan.reading.example_frames import read_examples, recorded_frames

    try:
        found = recorded_frames(scan) if frames is None else frames
        read = read_examples(scan, found, example_positions(labelled).ravel())
    except Exception as error:
        # The map is made: no picture may cost it, whatever a reader makes of a file that somebody changed.
        why = error.what if isinstance(error, DiffractoryError) else str(error) or type(error).__name__
        return ExampleFrames(missing=f"their frames are not shown, as {why}")
    return ExampleFrames(read, Path(found.source).name)


def _write(
    helper: Executor | None, write: Callable[[xr.Dataset, Path], None], labelled: xr.Dataset, path: Path
) -> Callable[[], None]:
    """Write a file here and now, or have the helper do it; return what waits until it is written."""
    if helper is None:
        write(labelled, path)
        return lambda: None
    written = helper.submit(write, labelled, path)

    def wait() -> None:
        try:
            written.result()
        except BrokenExecutor:
            # The helper has died, of too little memory for instance.
            write(labelled, path)

    return wait


def print_map(report: dict[str, Any]) -> None:
    """Print the fractions of a map."""
    table = Table("crystal system", "positions", "share", "weighted by confidence")
    for name, numbers in report["systems"].items():
        if numbers["count"]:
            table.add_row(
                name,
                f"{numbers['count']:,}",
                f"{100 * numbers['fraction']:.1f} %",
                f"{100 * numbers['weighted_fraction']:.1f} %",
            )
    out.print(table)
    why = ", ".join(
        f"{count:,} {reason.replace('_', ' ')}" for reason, count in report["unlabelled"].items() if count
    )
    note(
        f"labelled: {report['labelled']:,} of {report['positions']:,} positions"
        + (f" ({why})" if why else "")
    )
    if frames := report.get("frames"):
        counts = ", ".join(f"{count:,} {name}" for name, count in frames.items())
        note(f"frames flagged when peaks were found: {counts}")
    outside = report["outside_training"]
    note(f"unlike the training patterns: {100 * outside['fraction']:.1f} % of {outside['asked']:,} positions")
    if report["lattice"]["a"]:
        assumed = f", {report['assumed']} assumed" if report["assumed"] else ""
        rings = report["lattice_sources"]["rings"]
        near = f"; {rings:,} of them from spots near the constant of their particle or phase" if rings else ""
        note(f"median a{assumed}, of single patterns: {report['lattice']['a']['median']:.2f} Å{near}")
    flags = {name.replace("_", " "): count for name, count in report["flags"].items() if name != "few_spots"}
    note("flagged: " + ", ".join(f"{count:,} {name}" for name, count in flags.items()))
    for phase in report["phases"]:
        note(f"cubic phase of the scan: {_phase(phase)}")
    if report["phases"]:
        note(
            f"called cubic for these rings: {report['changed_by_phases']:,} positions (--phase none: without)"
        )
    if "particles" in report:
        found = report["particles"]
        kinds = ", ".join(f"{count:,} {name}" for name, count in found["systems"].items() if count)
        note(f"particles: {found['count']:,}" + (f" ({kinds})" if kinds else ""))
        for cubic in found["cubic_constants"]:
            note(f"particle {cubic['particle']}, if cubic, all patterns together: {_constant_of(cubic)}")
    for line in report["notes"]:
        note(line)


def _phase(phase: dict[str, Any]) -> str:
    """Return what is known of a cubic phase of a scan."""
    found = (
        f"margin {phase['margin']:.0f} from {phase['patterns']} distinct patterns"
        if phase["patterns"]
        else "told"
    )
    on_rings, by_chance = _share(phase["on_rings"]), _share(phase["by_chance"])
    return (
        f"{phase['centring']}, a = {phase['a']:.3f} Å ({found}); {on_rings} of the spots lie on its rings "
        f"({by_chance} by chance), those of {phase['positions']:,} positions speak for it"
    )


def _share(share: float | None) -> str:
    return "none" if share is None else f"{100.0 * share:.0f} %"


def _constant_of(cubic: dict[str, Any]) -> str:
    """Return what the patterns of a particle say of its cubic constant."""
    if not is_decided(cubic["margin"]):
        return f"a undecided (distinct patterns: {cubic['patterns']})"
    return (
        f"{cubic['centring']}, a = {cubic['a']:.3f} Å, {100 * cubic['on_rings']:.0f} % of its spots on rings "
        f"of that lattice ({100 * cubic['by_chance']:.0f} % by chance), margin {cubic['margin']:.0f} "
        f"(distinct patterns: {cubic['patterns']})"
    )
