"""`diffractory inspect`: what a 4D-STEM file holds, before anything is computed from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from diffractory.cli.console import JsonFlag, note, out, print_json
from diffractory.cli.engines import engine_here
from diffractory.cli.options import (
    ClusterOption,
    WorkersOption,
    check_output_folder,
)
from diffractory.cli.progress import counting_bar
from diffractory.cli.scan_options import (
    DatasetOption,
    EnergyOption,
    PeakCenterOption,
    PixelSizeOption,
    ScanShapeOption,
    SemiangleOption,
    StepOption,
    frame_source,
    in_ev,
    parse_scan_shape,
)
from diffractory.errors import DiffractoryError, ScanError
from diffractory.execution.engine import Engine
from diffractory.report.scan_figures import figure_of_frames, figure_of_peaks
from diffractory.report.style import save_figure
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.detection.direct_beam import beam_problem
from diffractory.scan.frame_scan import FrameScan
from diffractory.scan.inspection.virtual_images import DirectBeam, ImageBlocks, ScanImages, locate_direct_beam
from diffractory.scan.reading.emd_reader import read_bragg_scan
from diffractory.scan.reading.file_kinds import BRAGG, FileState, kind_of
from diffractory.scan.reading.frame_blocks import FrameSource, frame_blocks, sample_frames
from diffractory.scan.reading.frame_calibration import QUANTITIES

app = typer.Typer()

#: Frames that are looked at to find the direct beam before the pass over all of them.
_SAMPLED = 25
#: Shares of positions whose number of peaks is shown, in percent.
_QUANTILES = (0, 5, 25, 50, 75, 95, 100)


@app.command(epilog="Example: diffractory inspect scan.blo --pixel-size 0.012")
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="4D-STEM scan: raw frames or Bragg peaks.")],
    folder: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the picture goes.")] = Path(),
    pixel_size: PixelSizeOption = None,
    step: StepOption = None,
    energy: EnergyOption = None,
    semiangle: SemiangleOption = None,
    scan_shape: ScanShapeOption = None,
    center: PeakCenterOption = None,
    dataset: DatasetOption = None,
    cluster: ClusterOption = "inline",
    workers: WorkersOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what a 4D-STEM file holds: shape, calibration and where it comes from, and a picture.

    Raw frames are read once, block by block, and never held in memory together; --cluster local reads
    large files with all cores.
    """
    check_output_folder(folder)
    shape = parse_scan_shape(scan_shape)
    picture = folder / f"{file.name}-inspect.png"
    if kind_of(file) == BRAGG:
        _refuse_unused(file, "Bragg peaks", {"--semiangle": semiangle, "--scan-shape": scan_shape})
        state = FileState.of(file)
        peaks = read_bragg_scan(
            file,
            pixel_size=pixel_size,
            center=center,
            dataset=dataset,
            step=step,
            energy_ev=in_ev(energy),
        )
        state.check()
        report = _inspect_peaks(peaks, picture)
    else:
        _refuse_unused(file, "frames", {"--center": center})
        source = frame_source(
            file,
            pixel_size=pixel_size,
            step=step,
            energy=energy,
            semiangle=semiangle,
            scan_shape=shape,
            dataset=dataset,
        )
        scan = source.open()
        if not as_json:
            _print_frames(scan, source)
        with engine_here(cluster, workers, folder, parts=len(frame_blocks(scan))) as engine:
            report = _inspect_frames(source, scan, engine, picture)
    if as_json:
        print_json(report)
        return
    if report["kind"] == "Bragg peaks":
        _print_peaks(report)
    for line in report["notes"]:
        note(line)
    out.print(f"  {picture}")


def _refuse_unused(file: Path, kind: str, given: Mapping[str, object]) -> None:
    """Refuse options that would change nothing of what is shown of this kind of file."""
    unused = [flag for flag, value in given.items() if value is not None]
    if unused:
        raise ScanError(
            f"{file} holds {kind}, of which {' and '.join(unused)} say{'s' * (len(unused) == 1)} nothing",
            fix="Leave it out" if len(unused) == 1 else "Leave them out",
        )


def _inspect_frames(source: FrameSource, scan: FrameScan, engine: Engine, picture: Path) -> dict[str, Any]:
    beam = locate_direct_beam(sample_frames(source, _SAMPLED), scan.disk_radius)
    problem = beam_problem(scan)
    images = virtual_images(source, scan, beam, engine)
    source.state.check()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure = figure_of_frames(images, beam, scan.pixel_size, scan.step, beam_is_seen=problem is None)
    save_figure(figure, picture)
    counts = images.counts()
    return {
        "kind": "frames",
        "file": str(source.state.path),
        "format": scan.attrs["format"],
        "dataset": scan.attrs["dataset"],
        "shape": list(scan.shape),
        "frame_shape": list(scan.frame_shape),
        "dtype": str(scan.frames.dtype),
        "bytes": int(scan.frames.nbytes),
        "file_bytes": source.state.size,
        "axis_order": scan.attrs["axis_order"],
        "calibration": {
            name: {
                "value": getattr(scan, name),
                "from": scan.attrs["calibration"][name],
                "option": QUANTITIES[name][1],
            }
            for name in QUANTITIES
        },
        "direct_beam": {"center": beam.center, "radius": beam.radius, "at_edge": beam.at_edge}
        if problem is None
        else None,
        "frames": counts,
        "brightest": float(images.max_pattern.max()),
        "notes": _notes(counts, beam, scan, problem),
        "picture": str(picture),
    }


def virtual_images(source: FrameSource, scan: FrameScan, beam: DirectBeam, engine: Engine) -> ScanImages:
    """Compute mean pattern and virtual images on an engine, with a progress bar.

    Parameters
    ----------
    source : FrameSource
    scan : FrameScan
        What the source opens.
    beam : DirectBeam
    engine : Engine

    Raises
    ------
    ScanError
        If the file is damaged, or changed while it was read.
    """
    images = ScanImages(scan.shape, scan.frame_shape)
    blocks = frame_blocks(scan)
    with counting_bar("blocks") as bar:
        task = bar.add_task("", total=len(blocks))
        # Not run_all: sums are added up as they come, for large frames they would not all fit.
        for outcome in engine.run(ImageBlocks(source, beam), blocks):
            if outcome.error is not None:
                raise outcome.error
            if outcome.result is not None:
                images.add(outcome.result)
            bar.advance(task)
    return images


def _notes(
    counts: dict[str, int], beam: DirectBeam, scan: FrameScan, problem: DiffractoryError | None
) -> list[str]:
    bad = {name: n for name, n in counts.items() if n and name not in ("good", "with clipped pixels")}
    total = sum(counts.values()) - counts["with clipped pixels"]
    notes = scan.doubts()
    if bad:
        named = ", ".join(f"{n:,} {name}" for name, n in bad.items())
        notes.append(f"bad frames: {sum(bad.values()):,} of {total:,} ({named}); left out of the mean")
    if counts["with clipped pixels"]:
        highest = np.iinfo(scan.frames.dtype).max
        notes.append(
            f"clipped: {counts['with clipped pixels']:,} frames have pixels at the largest value, {highest:,}"
        )
    if problem is not None:
        why = ": ".join(part for part in (problem.what, problem.why) if part)
        return [*notes, f"'diffractory detect' would probably refuse this scan as it is: {why}"]
    y, x = beam.center
    where = f"direct beam: row {y:.1f}, column {x:.1f}, radius {beam.radius:.1f} pixels"
    notes.append(where + (", touches the edge of the frame" if beam.at_edge else ""))
    return notes


def _print_frames(scan: FrameScan, source: FrameSource) -> None:
    rows, columns = scan.shape
    out.print(f"{source.state.path}: {scan.attrs['format']}, data set '{scan.attrs['dataset']}'")
    size = f"{scan.frames.nbytes / 2**20:,.1f} MiB in memory, {source.state.size / 2**20:,.1f} MiB on disk"
    out.print(f"  {rows:,} × {columns:,} positions of {' × '.join(map(str, scan.frame_shape))} pixels, "
              f"{scan.frames.dtype}, {size}")  # fmt: skip
    if scan.attrs["axis_order"] != sorted(scan.attrs["axis_order"]):
        out.print(f"  stored as {' × '.join(map(str, scan.attrs['stored_shape']))}: axes were put in order")
    _print_calibration({name: getattr(scan, name) for name in QUANTITIES}, scan.attrs["calibration"])


def _print_calibration(values: dict[str, float | None], origins: dict[str, str]) -> None:
    table = Table("calibration", "value", "from")
    for name, value in values.items():
        table.add_row(QUANTITIES[name][0], *_value_and_origin(name, value, origins[name]))
    out.print(table)


def _value_and_origin(name: str, value: float | None, origin: str) -> tuple[str, str]:
    """Return a number with its unit and where it comes from, or which option gives it."""
    _, flag, unit, factor = QUANTITIES[name]
    if value is None:
        return "–", origin if flag in origin else f"{origin}; give it with {flag}"
    return f"{value / factor:.6g} {unit}", origin


def _inspect_peaks(scan: BraggScan, picture: Path) -> dict[str, Any]:
    picture.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure_of_peaks(scan), picture)
    counts = scan.peaks.counts
    without = int((scan.peaks.direct < 0).sum())
    return {
        "kind": "Bragg peaks",
        "file": scan.source,
        "dataset": scan.attrs["dataset"],
        "shape": list(scan.shape),
        "peaks": len(scan.peaks.intensity),
        "peaks_a_position": {f"{p} %": float(np.percentile(counts, p)) for p in _QUANTILES},
        "furthest_peak": float(np.hypot(*scan.peaks.q.T).max(initial=0.0)),
        "positions_without_direct_beam": without,
        "unusable_peaks_left_out": scan.attrs["dropped_peaks"],
        "calibration": _peak_calibration(scan),
        "notes": [
            *scan.attrs["notes"],
            *([f"no direct beam: {without:,} of {len(scan):,} positions"] if without else []),
        ],
        "picture": str(picture),
    }


def _peak_calibration(scan: BraggScan) -> dict[str, dict[str, Any]]:
    origins = {
        "pixel_size": f"{scan.attrs['units_from']}: positions are in Å⁻¹",
        **scan.attrs["calibration"],
    }
    # Once peaks are in Å⁻¹ the size of a pixel is of no use, only where it came from.
    values = {"pixel_size": None, "step": scan.step, "energy_ev": scan.energy_ev}
    return {name: {"value": values[name], "from": origin} for name, origin in origins.items()}


def _print_peaks(report: dict[str, Any]) -> None:
    rows, columns = report["shape"]
    out.print(f"{report['file']}: Bragg peaks, data set '{report['dataset']}'")
    out.print(
        f"  {rows:,} × {columns:,} positions, {report['peaks']:,} peaks, "
        f"the furthest {report['furthest_peak']:.4g} Å⁻¹ from the direct beam"
    )
    table = Table(*report["peaks_a_position"], title="peaks a position: share of positions with no more")
    table.add_row(*(f"{n:g}" for n in report["peaks_a_position"].values()))
    out.print(table)
    table = Table("calibration", "value", "from")
    for name, item in report["calibration"].items():
        if name == "pixel_size":
            table.add_row("positions of peaks", "–", item["from"])
        else:
            table.add_row(QUANTITIES[name][0], *_value_and_origin(name, item["value"], item["from"]))
    out.print(table)
