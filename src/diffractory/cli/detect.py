"""`diffractory detect`: raw frames of a 4D-STEM scan as calibrated Bragg peaks, each step with a picture."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from glob import escape
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from numpy.typing import NDArray

from diffractory.cli.console import JsonFlag
from diffractory.cli.detecting import differing, print_setup, report, write_pictures
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
    READING,
    DatasetOption,
    EnergyOption,
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
from diffractory.scan.detection.detect import (
    BlockPeaks,
    DetectBlocks,
    Detector,
    DetectToFile,
    assemble,
    part_path,
    read_part,
)
from diffractory.scan.detection.parameters import FALSE_PEAKS
from diffractory.scan.detection.peak_calibration import OriginModel
from diffractory.scan.detection.ring_radii import cubic_crystal, ring_radii
from diffractory.scan.detection.scan_calibration import (
    CalibrationRequest,
    calibrate_scan,
    check_request,
)
from diffractory.scan.detection.setup import DetectionSetup, SetupRequest, prepare_detection
from diffractory.scan.frame_scan import FrameScan
from diffractory.scan.reading.emd_reader import read_settings
from diffractory.scan.reading.example_frames import record_of
from diffractory.scan.reading.file_kinds import FileState
from diffractory.scan.reading.frame_blocks import FrameBlock, FrameSource, frame_blocks
from diffractory.specs import sha256_of

app = typer.Typer()

_PROBE = "Probe"
_DETECTION = "Detection (chosen on a sample of frames where not given)"
_CALIBRATION = "Calibration"
#: Rings of a known material are looked for up to here, in Å⁻¹.
_RING_REACH = 2.5


@app.command(epilog="Example: diffractory detect scan.blo --out scan.h5 --pixel-size 0.013 --energy 200")
def detect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Raw frames of a 4D-STEM scan.")],
    out_file: Annotated[
        Path,
        typer.Option("--out", metavar="SCAN.h5", help="Bragg peaks, a py4DSTEM file; pictures beside it."),
    ],
    pixel_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE|beam",
            help="Å⁻¹ per detector pixel, or beam: to a few per cent, from the direct beam's disk, "
            "--semiangle and --energy.",
            rich_help_panel=READING,
        ),
    ] = None,
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
    size = parse_pixel_size(pixel_size)
    by_beam = size == "beam"
    calibration = CalibrationRequest(center, origin, parse_ellipse(ellipse), ring, rings, name, by_beam)
    source = frame_source(
        file,
        pixel_size=None if isinstance(size, str) else size,
        step=step,
        energy=energy,
        semiangle=semiangle,
        scan_shape=parse_scan_shape(scan_shape),
        dataset=dataset,
    )
    scan = source.open()
    check_request(scan, calibration)
    # A stated size would give the disk its radius, and that the same size.
    setup = prepare_detection(replace(scan, pixel_size=None) if by_beam else scan, request)
    check_request(scan, calibration, setup.template.radius)
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
        "frames_file": record_of(source),
    }
    result = calibrate_scan(found, scan, setup.template.radius, calibration, attrs, setup.brightest)
    earlier = read_settings(out_file) if out_file.exists() else None
    result.scan.to_emd(out_file)
    replaced = {} if earlier is None else differing(earlier, read_settings(out_file) or {})
    pictures = write_pictures(setup, result, out_file.with_name(f"{out_file.stem}-detection"))
    for leftover in out_file.parent.glob(f".{escape(out_file.name)}.parts-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    report(out_file, setup, result, pictures, replaced, as_json)


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


def parse_pixel_size(text: str | None) -> float | Literal["beam"] | None:
    """Read ``--pixel-size``: ``0.013`` or ``beam``.

    Raises
    ------
    SpecError
        If the text is neither.
    """
    if text is None:
        return None
    if text == "beam":
        return "beam"
    try:
        return float(text)
    except ValueError:
        raise SpecError(
            f"--pixel-size {text!r} cannot be read",
            fix="Write a number in Å⁻¹ such as 0.013, or beam, with --semiangle and --energy",
        ) from None


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
