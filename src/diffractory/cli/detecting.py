"""What `diffractory detect` says and draws: what it chose, each step of its work, what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from diffractory.cli.console import note, out, print_json
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
from diffractory.scan.detection.detect import describe_status
from diffractory.scan.detection.parameters import significance_of_maxima
from diffractory.scan.detection.scan_calibration import CalibratedScan
from diffractory.scan.detection.setup import DetectionSetup
from diffractory.scan.frame_scan import FrameScan
from diffractory.storage import write_atomic

#: So many differences from an earlier result are named.
_NAMED = 6


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


def differing(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return what two results were made with, or came to, where that differs: by name, then and now."""
    then_flat, now_flat = _flat(earlier), _flat(now)
    # Which frames is told by their path: sizes and whole paths of the same file are no difference to name.
    names = [
        name
        for name in {**now_flat, **then_flat}
        if then_flat.get(name) != now_flat.get(name) and not name.startswith("frames_file.")
    ]
    return {name: (then_flat.get(name), now_flat.get(name)) for name in names}


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
