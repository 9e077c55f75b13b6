"""Options of the commands that read a file from a microscope, and how their text is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffractory.cli.options import in_kev
from diffractory.errors import ScanError

if TYPE_CHECKING:
    from diffractory.scan.reading.frame_blocks import FrameSource

#: Panel of the help that options stand in by which a file is read.
READING = "Reading the scan (goes before what the file states)"
PixelSizeOption = Annotated[
    float | None, typer.Option(help="Å⁻¹ per detector pixel.", rich_help_panel=READING)
]
StepOption = Annotated[
    float | None, typer.Option(help="Å between neighbouring positions.", rich_help_panel=READING)
]
EnergyOption = Annotated[
    float | None, typer.Option(callback=in_kev, help="Beam energy in keV.", rich_help_panel=READING)
]
SemiangleOption = Annotated[
    float | None, typer.Option(help="Semi-convergence angle in mrad.", rich_help_panel=READING)
]
ScanShapeOption = Annotated[
    str | None,
    typer.Option(metavar="ROWSxCOLUMNS", help="Shape of the scan, 80x58.", rich_help_panel=READING),
]
PeakCenterOption = Annotated[
    tuple[float, float] | None,
    typer.Option(
        metavar="QX QY", help="Direct beam of Bragg peaks, in the file's units.", rich_help_panel=READING
    ),
]
DatasetOption = Annotated[
    str | None, typer.Option(help="Which data set, if the file holds several.", rich_help_panel=READING)
]


def in_ev(energy: float | None) -> float | None:
    """Return a beam energy in eV from the keV of an option."""
    return None if energy is None else energy * 1e3


def frame_source(
    file: Path,
    *,
    pixel_size: float | None,
    step: float | None,
    energy: float | None,
    semiangle: float | None,
    scan_shape: tuple[int, int] | None,
    dataset: str | None,
) -> FrameSource:
    """Return a file of raw frames with what the options say of it; energy in keV.

    Raises
    ------
    ScanError
        If it is not there.
    """
    # Here: with it comes Dask, a second that a map of peaks need not wait for.
    from diffractory.scan.reading.frame_blocks import FrameSource

    return FrameSource.of(
        file,
        pixel_size=pixel_size,
        step=step,
        energy_ev=in_ev(energy),
        semiangle_mrad=semiangle,
        scan_shape=scan_shape,
        dataset=dataset,
    )


def parse_scan_shape(text: str | None) -> tuple[int, int] | None:
    """Read the shape of a scan: ``80x58`` is 80 rows (scan_y) of 58 positions (scan_x).

    Raises
    ------
    ScanError
        If the text is not of this form.
    """
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+)\s*[x×,]\s*(\d+)\s*", text)
    if found is None or "0" in (found[1].lstrip("0") or "0", found[2].lstrip("0") or "0"):
        raise ScanError(f"--scan-shape {text!r} cannot be read", fix="Write rows x columns, such as 80x58")
    return int(found[1]), int(found[2])
