"""`diffractory detect`: raw frames of a 4D-STEM scan as calibrated Bragg peaks, each step with a picture."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from glob import escape
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from diffractory.cli.console import JsonFlag, note, out, print_json
from diffractory.cli.engines import engine_here, slurm_request
from diffractory.cli.options import (
    DryRunOption,
    JobsOption,
    SiteOption,
    SlurmClusterOption,
    WorkersOption,
    check_output_file,
)
from diffractory.cli.progress import RESUMES, run_all
from diffractory.cli.scan_options import (
    DatasetOption,
    EnergyOption,
    PixelSizeOption,
    ScanShapeOption,
    SemiangleOption,
    StepOption,
    frame_source,
    parse_scan_shape,
)
from diffractory.crystals.crystal import Crystal
from diffractory.crystals.sources.cif import cif_candidates
from diffractory.errors import AccessError, ScanError, SpecError
from diffractory.execution.engine import Engine
from diffractory.report.detection_figures import (
    figure_of_bragg_map,
    figure_of_disks,
    figure_of_ellipse,
    figure_of_frame_status,
    figure_of_origin,
    figure_of_rings,
    figure_of_template,
    figure_of_threshold,
)
from diffractory.report.style import save_figure
from diffractory.scan.detection.detect import (
    BlockPeaks,
    DetectBlocks,
    Detector,
    DetectToFile,
    assemble,
    describe_status,
    part_path,
    read_part,
)
from diffractory.scan.detection.parameters import FALSE_PEAKS, significance_of_maxima
from diffractory.scan.detection.peak_calibration import OriginModel
from diffractory.scan.detection.ring_radii import cubic_crystal, ring_radii
from diffractory.scan.detection.scan_calibration import (
    CalibratedScan,
    CalibrationRequest,
    calibrate_scan,
    check_request,
)
from diffractory.scan.detection.setup import DetectionSetup, SetupRequest, prepare_detection
from diffractory.scan.frame_scan import FrameScan
from diffractory.scan.reading.emd_reader import read_settings
from diffractory.scan.reading.file_kinds import FileState
from diffractory.scan.reading.frame_blocks import FrameBlock, FrameSource, frame_blocks
from diffractory.specs import sha256_of
from diffractory.storage import write_atomic

app = typer.Typer()

_PROBE = "Probe"
_DETECTION = "Detection (chosen on a sample of frames where not given)"
_CALIBRATION = "Calibration"
#: Rings of a known material are looked for up to here, in Å⁻¹.
_RING_REACH = 2.5
#: So many differences from an earlier result are named.
_NAMED = 6


@app.command(epilog="Example: diffractory detect scan.blo --out scan.h5 --pixel-size 0.013 --energy 200")
def detect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Raw frames of a 4D-STEM scan.")],
    out_file: Annotated[
        Path,
        typer.Option("--out", metavar="SCAN.h5", help="Bragg peaks, a py4DSTEM file; pictures beside it."),
    ],
    pixel_size: PixelSizeOption = None,
    step: StepOption = None,
    energy: EnergyOption = None,
    semiangle: SemiangleOption = None,
    scan_shape: ScanShapeOption = None,
    dataset: DatasetOption = None,
    probe: Annotated[
        Path | None, typer.Option(metavar="FILE.npy", help="Image of the probe.", rich_help_panel=_PROBE)
    ] = None,
    vacuum: Annotated[
        tuple[int, int, int, int] | None,
        typer.Option(
            metavar="Y0 Y1 X0 X1",
            help="Vacuum, whose mean is the probe: first row, row after the last, columns likewise.",
            rich_help_panel=_PROBE,
        ),
    ] = None,
    disk_radius: Annotated[
        float | None, typer.Option(help="Radius of a disk in pixels.", rich_help_panel=_PROBE)
    ] = None,
    trench: Annotated[
        float | None,
        typer.Option(
            help="Outer radius of the kernel in disk radii, by default 2 + 2 px / radius; 0 = a plain disk.",
            rich_help_panel=_PROBE,
        ),
    ] = None,
    false_peaks: Annotated[
        float,
        typer.Option(min=1e-6, max=100.0, help="Accepted false peaks a frame.", rich_help_panel=_DETECTION),
    ] = FALSE_PEAKS,
    significance: Annotated[
        float | None,
        typer.Option(
            help="Weakest peak in standard deviations of noise; 0 = not asked.", rich_help_panel=_DETECTION
        ),
    ] = None,
    min_absolute: Annotated[
        float | None, typer.Option(help="Weakest correlation intensity.", rich_help_panel=_DETECTION)
    ] = None,
    min_relative: Annotated[
        float | None, typer.Option(help="… as share of the strongest.", rich_help_panel=_DETECTION)
    ] = None,
    min_spacing: Annotated[
        float | None, typer.Option(help="Smallest distance of peaks in pixels.", rich_help_panel=_DETECTION)
    ] = None,
    edge: Annotated[
        int | None, typer.Option(help="Pixels along the edge without peaks.", rich_help_panel=_DETECTION)
    ] = None,
    max_peaks: Annotated[
        int | None, typer.Option(help="Most peaks a frame.", rich_help_panel=_DETECTION)
    ] = None,
    corr_power: Annotated[
        float | None, typer.Option(help="1 = cross, 0 = phase correlation.", rich_help_panel=_DETECTION)
    ] = None,
    sigma: Annotated[
        float | None, typer.Option(help="Smoothing of the correlation in pixels.", rich_help_panel=_DETECTION)
    ] = None,
    subpixel: Annotated[
        Literal["pixel", "poly", "multicorr"] | None,
        typer.Option(help="How peaks are refined.", rich_help_panel=_DETECTION),
    ] = None,
    saturation: Annotated[
        float | None, typer.Option(help="Value at which pixels end.", rich_help_panel=_DETECTION)
    ] = None,
    center: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="ROW COLUMN", help="Direct beam in pixels; measured.", rich_help_panel=_CALIBRATION
        ),
    ] = None,
    origin: Annotated[
        OriginModel,
        typer.Option(help="How the direct beam moves over the scan.", rich_help_panel=_CALIBRATION),
    ] = "plane",
    ellipse: Annotated[
        str | None,
        typer.Option(
            metavar="RATIO,ANGLE",
            help="Axes' ratio and long axis' angle in degrees, or fit, or none.",
            rich_help_panel=_CALIBRATION,
        ),
    ] = None,
    ring: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="INNER OUTER", help="Ring in pixels for --ellipse fit.", rich_help_panel=_CALIBRATION
        ),
    ] = None,
    material: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.cif", help="Known material that tells the pixel size.", rich_help_panel=_CALIBRATION
        ),
    ] = None,
    lattice: Annotated[
        str | None,
        typer.Option(
            metavar="A:F", help="… or its cubic lattice, such as 4.078:F.", rich_help_panel=_CALIBRATION
        ),
    ] = None,
    cluster: SlurmClusterOption = "local",
    workers: WorkersOption = None,
    site: SiteOption = None,
    jobs: JobsOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonFlag = False,
) -> None:
    """Find disks in raw frames, calibrate them, and write Bragg peaks that `diffractory map` reads."""
    check_output(out_file, file)
    slurm = slurm_request(cluster, site, jobs, dry_run, out_file.parent)
    chosen = {
        "trench": trench, "min_significance": significance, "min_absolute_intensity": min_absolute,
        "min_relative_intensity": min_relative, "min_spacing": min_spacing, "edge_boundary": edge,
        "max_peaks": max_peaks, "corr_power": corr_power, "sigma": sigma, "subpixel": subpixel,
    }  # fmt: skip
    request = SetupRequest(
        probe,
        vacuum,
        disk_radius,
        {k: v for k, v in chosen.items() if v is not None},
        false_peaks,
        saturation,
    )
    rings = None if (known := known_material(material, lattice)) is None else ring_radii(known, _RING_REACH)
    name = f"lattice {lattice}" if material is None else f"material {material.name}"
    calibration = CalibrationRequest(center, origin, parse_ellipse(ellipse), ring, rings, name)
    source = frame_source(
        file,
        pixel_size=pixel_size,
        step=step,
        energy=energy,
        semiangle=semiangle,
        scan_shape=parse_scan_shape(scan_shape),
        dataset=dataset,
    )
    scan = source.open()
    check_request(scan, calibration)
    setup = prepare_detection(scan, request)
    if not as_json:
        print_setup(scan, setup)
    parts = out_file.with_name(f".{out_file.name}.parts-{work_id(source.state, scan, setup)[:12]}")
    with engine_here(cluster, workers, out_file.parent, slurm, len(frame_blocks(scan))) as engine:
        found = detect_frames(source, setup.detector, engine, parts)
    try:
        source.state.check()
    except ScanError:
        # What was found is of two files.
        shutil.rmtree(parts, ignore_errors=True)
        raise
    attrs = {
        "detection": setup.spec.model_dump(mode="json"),
        "template": setup.template.origin,
        "frames": str(file),
    }
    result = calibrate_scan(found, scan, setup.template.radius, calibration, attrs, setup.brightest)
    earlier = read_settings(out_file) if out_file.exists() else None
    result.scan.to_emd(out_file)
    replaced = {} if earlier is None else differing(earlier, read_settings(out_file) or {})
    pictures = write_pictures(setup, result, out_file.with_name(f"{out_file.stem}-detection"))
    for leftover in out_file.parent.glob(f".{escape(out_file.name)}.parts-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    report(out_file, setup, result, pictures, replaced, as_json)


def differing(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return what two results were made with, or came to, where that differs: by name, then and now."""
    then_flat, now_flat = _flat(earlier), _flat(now)
    names = [name for name in {**now_flat, **then_flat} if then_flat.get(name) != now_flat.get(name)]
    return {name: (then_flat.get(name), now_flat.get(name)) for name in names}


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def check_output(path: Path, source: Path) -> None:
    """Refuse, before the work, an output that cannot be written or would overwrite other data.

    Raises
    ------
    AccessError
        If the path is a folder, is the input or another file that was not made here, or its folder cannot be
        written to.
    """
    check_output_file(path)
    if path.exists() and source.exists() and path.samefile(source):
        raise AccessError(f"{path} is the input", "raw frames are never written over", "Name another --out")
    if path.exists() and read_settings(path) is None:
        raise AccessError(
            f"{path} is there, and was not made by 'diffractory detect'",
            "it would be lost",
            "Name another --out, or remove it first",
        )


def parse_ellipse(text: str | None) -> tuple[float, float] | str | None:
    """Read ``--ellipse``: ``1.02,35``, ``fit`` or ``none``.

    Raises
    ------
    SpecError
        If the text is none of these.
    """
    if text is None or text == "none":
        return None
    if text == "fit":
        return text
    try:
        ratio, angle = (float(part) for part in text.split(","))
    except ValueError:
        raise SpecError(
            f"--ellipse {text!r} cannot be read", fix="Write RATIO,ANGLE such as 1.02,35, or fit, or none"
        ) from None
    return ratio, angle


def known_material(material: Path | None, lattice: str | None) -> Crystal | None:
    """Return the known material, None if none is named.

    Raises
    ------
    ScanError
        If both are given, or the file holds no usable structure.
    """
    if lattice is not None:
        if material is not None:
            raise ScanError("--material and --lattice name two materials", fix="Give one of them")
        return cubic_crystal(lattice)
    if material is None:
        return None
    if not material.is_file():
        raise ScanError(f"{material} does not exist", fix="Give a CIF file with --material")
    candidate = next(cif_candidates(material), None)
    if candidate is None or candidate.structure is None:
        why = "" if candidate is None else str(candidate.problem)
        raise ScanError(f"{material} holds no usable structure", why, "Give another CIF file, or --lattice")
    return Crystal.from_structure(candidate.structure)


def work_id(file: FileState, scan: FrameScan, setup: DetectionSetup) -> str:
    """Return what names this work: the same file and settings go on where they were broken off."""
    arrays: tuple[NDArray[Any], ...] = (setup.detector.kernel.values, setup.detector.bad_pixels)
    hashes = [hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() for array in arrays]
    return sha256_of(
        [
            scan.source,
            [file.files, file.size, file.changed_ns],
            list(scan.frames.shape),
            setup.spec.spec_id,
            hashes,
            setup.detector.saturation,
        ]
    )


def detect_frames(source: FrameSource, detector: Detector, engine: Engine, parts: Path) -> BlockPeaks:
    """Find the peaks of a whole scan on an engine; what an earlier attempt finished is kept.

    Parameters
    ----------
    source : FrameSource
        Workers open it themselves: no frame comes through here.
    detector : Detector
    engine : Engine
    parts : Path
        Folder for the peaks of each block, which workers write.
    """
    scan = source.open()
    blocks = frame_blocks(scan)
    parts.mkdir(parents=True, exist_ok=True)
    work = DetectToFile(DetectBlocks(detector, source), parts)
    costs = [float(block.positions) for block in blocks]
    run_all(engine, work, blocks, "Finding disks", costs, again=RESUMES)
    return assemble(((block, _part(parts, block)) for block in blocks), scan.shape)


def _part(folder: Path, block: FrameBlock) -> BlockPeaks:
    found = read_part(part_path(folder, block))
    if found is None:
        raise ScanError(
            f"the peaks of block {block.name} are missing in {folder}",
            "workers write them there, and this machine does not see them",
            "Use a folder that all machines share",
        )
    return found


def write_pictures(setup: DetectionSetup, result: CalibratedScan, folder: Path) -> list[Path]:
    """Write the diagnostic pictures and ``detection.json`` into a folder; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    detector = setup.detector
    shown = significance_of_maxima(setup.sample, detector.kernel, detector.spec)
    figures = {
        "template.png": figure_of_template(setup),
        "examples.png": figure_of_disks(setup, detector.find(setup.sample).peaks),
        "threshold.png": figure_of_threshold(setup, shown),
        "origin.png": figure_of_origin(result),
        "ellipse.png": figure_of_ellipse(result),
        "rings.png": figure_of_rings(result),
        "bragg-map.png": figure_of_bragg_map(result),
        "frames.png": figure_of_frame_status(result),
    }
    for name, figure in figures.items():
        save_figure(figure, folder / name)
    write_atomic(folder / "detection.json", json.dumps(dict(result.scan.attrs), indent=1))
    return [folder / name for name in (*figures, "detection.json")]


def print_setup(scan: FrameScan, setup: DetectionSetup) -> None:
    """Print what was chosen, before the long work begins."""
    spec, shape = setup.spec, scan.frames.shape
    note(f"{scan.source}: {shape[0]} × {shape[1]} positions, frames of {shape[2]} × {shape[3]} pixels")
    for line in scan.doubts():
        note(line)
    table = Table("parameter", "value", "from")
    radius, measured = setup.template.radius, setup.measured_radius
    table.add_row("disk radius", f"{radius:.2f} px", setup.template.origin)
    table.add_row("smallest spacing", f"{spec.min_spacing:g} px", "--min-spacing; 1.5 disk radii")
    table.add_row("edge", f"{spec.edge_boundary} px", "--edge; disk radius")
    pedestal = spec.noise_pedestal
    counted = f"(intensity − {pedestal:.3g})" if pedestal else "intensity"
    table.add_row(
        "noise", f"{spec.noise_variance:.3g} + {spec.noise_gain:.3g} × {counted}", "neighbouring frames"
    )
    table.add_row("weakest peak", f"{spec.min_significance:g} × noise", "--significance; --false-peaks")
    table.add_row("weakest peak", f"{spec.min_relative_intensity:g} of the strongest", "--min-relative")
    table.add_row("bad pixels", str(int(setup.detector.bad_pixels.sum())), "filled in from their neighbours")
    out.print(table)
    if measured is not None and not 0.7 < radius / measured.radius < 1.4:
        note(
            f"the template's disk has a radius of {radius:.2f} px, those of the frames {measured.radius:.2f} "
            f"({measured.origin}): check the semi-convergence angle, or give --disk-radius"
        )


def report(
    out_file: Path,
    setup: DetectionSetup,
    result: CalibratedScan,
    pictures: list[Path],
    replaced: Mapping[str, tuple[Any, Any]],
    as_json: bool,
) -> None:
    """Print what came out, and where to go on."""
    scan, summary = result.scan, result.summary()
    numbers = {
        "positions": len(scan), "peaks": len(scan.peaks.intensity),
        "frames": describe_status(result.status), "disk_radius": setup.template.radius,
        "bad_pixels": int(setup.detector.bad_pixels.sum()), "detection": setup.spec.model_dump(mode="json"),
        "calibration": summary, "scan": str(out_file), "pictures": [str(path) for path in pictures],
        "replaced": {name: list(values) for name, values in replaced.items()}, "doubts": result.doubts(),
    }  # fmt: skip
    if as_json:
        print_json(numbers)
        return
    note(f"{numbers['peaks']:,} peaks in {numbers['positions']:,} positions; frames: {numbers['frames']}")
    row, column = summary["origin"]["center"]
    residual = summary["origin"]["residual_pixels"]
    note(f"direct beam: row {row:.2f}, column {column:.2f} ({summary['origin']['model']})"
         + ("" if residual is None else f", residual {residual} px"))  # fmt: skip
    note(f"ellipse: {summary['ellipse']['ratio']:.4f} at {summary['ellipse']['angle_degrees']:.1f}° "
         f"({summary['ellipse']['from']})")  # fmt: skip
    off = ""
    if result.pixel is not None and result.stated is not None:
        off = f"; stated: {result.stated:.6g}, {100 * (result.pixel_size / result.stated - 1):+.1f} %"
    note(f"pixel size: {result.pixel_size:.6g} Å⁻¹ ({summary['pixel_size_from']}{off})")
    if replaced:
        first = list(replaced.items())[:_NAMED]
        named = ", ".join(f"{name} {_short(then)} → {_short(now)}" for name, (then, now) in first)
        more = f", … ({len(replaced)} in all)" if len(replaced) > _NAMED else ""
        note(f"{out_file} held an earlier result, which was replaced; what differs: {named}{more}")
    for line in result.doubts():
        note(line)
    for path in (out_file, *pictures):
        out.print(f"  {path}")
    note(f"next: diffractory map {out_file} --out maps/{out_file.stem}")
