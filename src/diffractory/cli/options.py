"""Options that several commands share, and how their text is read."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from diffractory.cli.common import is_given
from diffractory.errors import AccessError, SpecError


def _known_cluster(ctx: typer.Context, value: str) -> str:
    if value == "slurm":
        raise SpecError(
            "--cluster slurm is not there for this command",
            "it does not hand out work in parts",
            "Run it inside one SLURM job with --cluster local"
            if is_given(ctx, "cluster")
            else f"Your settings ask for it: add --cluster local, or set cluster in [{ctx.info_name}]",
        )
    return known_or_slurm(value)


def known_or_slurm(name: str) -> str:
    """Return the name of a cluster that there is.

    Raises
    ------
    SpecError
        If it is unknown.
    """
    if name not in ("local", "threads", "inline", "slurm") and "://" not in name:
        raise SpecError(
            f"--cluster {name!r} is unknown",
            fix="Use local, threads, inline, slurm, or a scheduler's address tcp://host:port",
        )
    return name


def _only_with_slurm(ctx: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
    """Leave a site or a number of jobs of the user's settings aside where work runs elsewhere."""
    elsewhere = ctx.params.get("cluster", "slurm") != "slurm"
    return None if elsewhere and not is_given(ctx, param.name) else value


Preset = Literal["paper", "robust"]
PresetOption = Annotated[
    Preset,
    typer.Option(
        "--preset",
        help="The paper's forests, or boosted trees on features that do not depend on rotation.",
    ),
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]
RunsArgument = Annotated[
    list[Path],
    typer.Argument(metavar="RUN", help="Run folder; more of the same crystals, along other zone axes."),
]
ClusterOption = Annotated[
    str,
    typer.Option(
        metavar="WHERE",
        callback=_known_cluster,
        envvar="DIFFRACTORY_CLUSTER",
        show_envvar=True,
        help="Where work runs: local (Dask workers), threads, inline, or tcp://host:port of a scheduler.",
    ),
]
SlurmClusterOption = Annotated[
    str,
    typer.Option(
        metavar="WHERE",
        callback=known_or_slurm,
        envvar="DIFFRACTORY_CLUSTER",
        show_envvar=True,
        # Before --site and --jobs, which depend on it.
        is_eager=True,
        help="Where work runs: local (Dask workers), threads, inline, slurm (with --site), or tcp://host:port.",
    ),
]
SiteOption = Annotated[
    Path | None,
    typer.Option(
        "--site",
        metavar="FILE",
        callback=_only_with_slurm,
        envvar="DIFFRACTORY_SITE",
        show_envvar=True,
        help="Site file of a SLURM cluster: partition, size of a job, …",
    ),
]
JobsOption = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        min=1,
        callback=_only_with_slurm,
        envvar="DIFFRACTORY_JOBS",
        show_envvar=True,
        help="SLURM jobs to keep running; the site file's by default.",
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print the SLURM job script and submit nothing.")
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        envvar="DIFFRACTORY_WORKERS",
        show_envvar=True,
        help="Local worker processes, one core each; all cores by default.",
    ),
]

#: Beam energies that are taken, in keV, and the lowest that is meant where a number may be one in eV.
_KEV, _LOWEST_MEANT = (1.0, 1000.0), 30.0


def in_kev(value: float | None) -> float | None:
    """Return a beam energy that may be one in keV.

    Raises
    ------
    SpecError
        If it lies outside what is computed, as where it was given in eV.
    """
    if value is not None and not _KEV[0] <= value <= _KEV[1]:
        raise SpecError(
            f"--energy {value:g} is no beam energy in keV that is computed",
            f"that lies between {_KEV[0]:g} and {_KEV[1]:,g} keV",
            f"Give it in keV: --energy {value / 1e3:g}"
            if _LOWEST_MEANT <= value / 1e3 <= _KEV[1]
            else "Give it in keV, such as --energy 200",
        )
    return value


#: Files by which a folder is known as a Zarr store or a part of one.
_ZARR_NAMES = (".zgroup", ".zarray", ".zattrs", ".zmetadata", "zarr.json")
#: More thicknesses than this in one range is a slip of the pen.
_MAX_THICKNESSES = 100_000


def parse_thicknesses(text: str) -> tuple[float, ...]:
    """Read thicknesses in Å: ``200``, ``100,200,300`` or ``20:2000:20`` (both ends included).

    Raises
    ------
    SpecError
        If the text is none of these.
    """
    try:
        if ":" not in text:
            return tuple(float(part) for part in text.split(","))
        start, stop, step = (float(part) for part in text.split(":"))
        if not (step > 0 and math.isfinite(start) and 0 <= (stop - start) / step <= _MAX_THICKNESSES):
            raise ValueError
    except ValueError:
        raise SpecError(
            f"--thickness {text!r} cannot be read",
            fix="Write 200, or 100,200,300, or first:last:step such as 20:2000:20 (Å)",
        ) from None
    count = int((stop - start) / step + 1e-9) + 1
    return tuple(round(start + i * step, 6) for i in range(count))


def check_output_folder(path: Path) -> None:
    """Refuse, before the work, a folder to which the results could not be written after it.

    Raises
    ------
    AccessError
        If the path is not a folder, cannot become one, may not be written to, or is or lies in a Zarr store.
    """
    nearest = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    if not nearest.is_dir():
        raise AccessError(
            f"nothing can be written to {path}", f"{nearest} is a file, not a folder", "Name another folder"
        )
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise AccessError(
            f"nothing can be written to {path}",
            f"you may not write to {nearest}",
            "Name another folder, or ask for write permission",
        )
    _check_no_zarr_store(path)
    try:
        # Permission alone does not tell: /proc takes no files, and a quota may be used up.
        with tempfile.TemporaryDirectory(prefix=".diffractory-", dir=nearest):
            pass
    except OSError as error:
        raise AccessError(
            f"nothing can be written to {path}",
            f"no folder can be made in {nearest} ({error.strerror or error})",
            "Name another folder",
        ) from None


def _check_no_zarr_store(path: Path) -> None:
    """Refuse a folder that is data itself: results would be mixed with it."""
    whole = path.resolve()
    for folder in (whole, *whole.parents):
        if any((folder / name).is_file() for name in _ZARR_NAMES):
            raise AccessError(
                f"nothing is written to {path}",
                f"{folder} is a Zarr store, and results would be mixed with its data",
                "Name another folder",
            )


def check_output_file(path: Path) -> None:
    """Refuse, before the work, a file that could not be written after it.

    Raises
    ------
    AccessError
        If the path is a folder, or the file's folder cannot be written to.
    """
    if path.is_dir():
        raise AccessError(f"nothing can be written to {path}", "it is a folder", "Name a file in it")
    check_output_folder(path.parent)
