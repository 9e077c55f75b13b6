"""What `diffractory doctor` looks at: this installation, this machine, this folder, each in a function.

Libraries are imported inside the checks: one that is broken is what they are there to find.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import locale
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from packaging.requirements import Requirement

from diffractory import __version__
from diffractory.cli.console import out
from diffractory.errors import DiffractoryError
from diffractory.execution.slurm_commands import CommandError, command
from diffractory.settings import machine_memory, speed_file, usable_cores
from diffractory.storage import write_atomic
from diffractory.units import human_bytes

#: Below this, work is possible but small: a worker's libraries alone take a quarter of a gigabyte.
_LITTLE_MEMORY, _LITTLE_DISK = 2e9, 5e9
#: File systems that forget, and those whose locks and renames depend on how they are mounted.
_FORGETFUL, _NETWORKED = {"tmpfs", "ramfs"}, {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs"}


class Level(StrEnum):
    """How a finding is."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """What was found.

    Parameters
    ----------
    name : str
        What was looked at.
    found : str
    level : Level
    advice : str
        What to do about it.
    """

    name: str
    found: str
    level: Level = Level.OK
    advice: str = ""


def versions() -> dict[str, str | None]:
    """Return the version of every package that this one needs or can use, None if it is missing."""
    return {name: _version(name) for name in sorted({each.name for each in _requirements()}, key=str.lower)}


def _requirements() -> list[Requirement]:
    return [Requirement(text) for text in importlib.metadata.requires("diffractory") or []]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_program() -> Iterator[Finding]:
    """Say which program this is, and on which Python."""
    yield Finding("diffractory", f"{__version__} in {Path(__file__).parents[1]}")
    yield Finding("Python", f"{platform.python_version()} at {sys.executable}, {platform.platform()}")


def check_packages() -> Iterator[Finding]:
    """Compare what is installed with what this package asks for."""
    wanted = [each for each in _requirements() if each.marker is None or each.marker.evaluate({"extra": ""})]
    fitting = 0
    for each in wanted:
        found = _version(each.name)
        if found is not None and each.specifier.contains(found, prereleases=True):
            fitting += 1
            continue
        yield Finding(
            each.name,
            f"{found or 'missing'}; {each.specifier or 'any version'} is needed",
            Level.PROBLEM,
            f"pip install '{each.name}{each.specifier}', or install diffractory anew",
        )
    shown = ", ".join(
        f"{name} {_version(name)}" for name in ("numpy", "scipy", "scikit-learn", "dask", "zarr")
    )
    yield Finding("packages", f"{fitting} of {len(wanted)} as needed, among them {shown}")


def check_linear_algebra() -> Iterator[Finding]:
    """Name the BLAS that matrix products run on, and its threads."""
    import scipy.linalg  # noqa: F401
    import threadpoolctl

    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    found = ", ".join(
        sorted({f"{p['internal_api']} {p['version']}, {p['num_threads']} threads here" for p in pools})
    )
    if found:
        yield Finding("BLAS", f"{found}; one in each worker")
    else:
        yield Finding(
            "BLAS", "none that is known", Level.NOTE, "Matrix products may be slow: use numpy's wheels"
        )


def check_processors() -> Iterator[Finding]:
    """Count the cores this process may use."""
    usable, all_of_them = usable_cores(), os.cpu_count() or 1
    less = (
        f" of {all_of_them}: bound to some, or limited by a container or a job"
        if usable < all_of_them
        else ""
    )
    yield Finding("cores", f"{usable} usable{less}")


def check_memory() -> Iterator[Finding]:
    """Measure the memory this process may use."""
    usable = machine_memory()
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = f"{human_bytes(usable)} usable" + (
        f" of {human_bytes(physical)}: limited by a container or a job" if usable < physical else ""
    )
    if usable < _LITTLE_MEMORY:
        yield Finding("memory", found, Level.NOTE, "Use few workers: --workers 1")
    else:
        yield Finding("memory", found)


def check_folder() -> Iterator[Finding]:
    """Write a file in the working folder as runs do, and see what kind of disk it is on."""
    here = Path.cwd()
    advice = "Work in a folder on a disk that is writable and not full"
    try:
        with tempfile.TemporaryDirectory(prefix=".diffractory-doctor-", dir=here) as folder:
            write_atomic(Path(folder) / "file", "written")
            with (Path(folder) / "lock").open("x"):
                pass
    except OSError as error:
        yield Finding("folder", f"{here}: {error.strerror or error}", Level.PROBLEM, advice)
        return
    free, kind = shutil.disk_usage(here).free, _file_system(here)
    found = f"{here}: writable, {human_bytes(free)} free, {kind or 'unknown file system'}"
    if free < _LITTLE_DISK:
        yield Finding("folder", found, Level.NOTE, "Ask `diffractory plan --estimate` what a run will take")
    elif kind in _FORGETFUL:
        yield Finding(
            "folder", found, Level.NOTE, "It is memory, and empty after a restart: keep runs elsewhere"
        )
    elif kind in _NETWORKED:
        yield Finding(
            "folder", found, Level.NOTE, "Fit for runs; where there is a parallel one, it is faster"
        )
    else:
        yield Finding("folder", found)


def _file_system(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """Return the type of file system that holds a folder; empty if it is not known."""
    lines = [line.split() for line in mounts.read_text().splitlines()] if mounts.is_file() else []
    # Blanks in a mount point are written as octal.
    places = [(Path(words[1].replace("\\040", " ")), words[2]) for words in lines if len(words) > 2]
    holding = [(len(place.parts), index, kind) for index, (place, kind) in enumerate(places)
               if folder.is_relative_to(place)]  # fmt: skip
    # The deepest one; of those at the same place, the last mounted.
    return max(holding)[2] if holding else ""


def check_slurm() -> Iterator[Finding]:
    """Ask SLURM for its version and partitions, if it is here."""
    if not (shutil.which("sbatch") and shutil.which("sinfo")):
        yield Finding(
            "SLURM", "not on this machine", Level.NOTE, "--cluster local uses all cores of this one"
        )
        return
    testbed = " (a testbed)" if "diffractory" in os.environ.get("SLURM_CONF", "") else ""
    try:
        version = command("sinfo", "--version", patience=3).strip()
        partitions = command("sinfo", "--noheader", "--format=%P %a", patience=3).splitlines()
    except CommandError as error:
        yield Finding(
            "SLURM",
            f"its commands are here, but it does not answer{testbed}: {str(error).split('; ')[-1]}",
            Level.NOTE,
            "Ask your site, or on a testbed run `. FOLDER/env.sh`; --cluster local works without it",
        )
        return
    found = ", ".join(sorted({line.strip() for line in partitions})) or "none"
    yield Finding("SLURM", f"{version}{testbed}; partitions: {found}")


def check_gpu() -> Iterator[Finding]:
    """See whether PyTorch and a device for it are here."""
    version = _version("torch")
    if version is None or importlib.util.find_spec("torch") is None:
        yield Finding(
            "GPU", "PyTorch is not installed", Level.NOTE, "For --device cuda: pip install 'diffractory[gpu]'"
        )
        return
    if not list(Path("/dev").glob("nvidia[0-9]*")):
        # PyTorch takes seconds to load, for an answer that is known.
        yield Finding(
            "GPU", f"PyTorch {version}, no NVIDIA device here", Level.NOTE, "Work runs on processors"
        )
        return
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        yield Finding("GPU", f"PyTorch {version} with {names}")
    else:
        yield Finding(
            "GPU",
            f"PyTorch {version} does not see the NVIDIA device of this machine",
            Level.NOTE,
            "Install PyTorch's build for its CUDA driver; without it, work runs on processors",
        )


def check_boosting() -> Iterator[Finding]:
    """Load LightGBM, which needs GNU's OpenMP."""
    try:
        importlib.import_module("lightgbm")
    except OSError as error:
        yield Finding(
            "LightGBM",
            f"cannot be loaded: {error}",
            Level.PROBLEM,
            "Install GNU's OpenMP, libgomp (Debian: apt install libgomp1)",
        )
    else:
        yield Finding("LightGBM", f"{_version('lightgbm')} loads")


def check_model() -> Iterator[Finding]:
    """Have the model that comes with the package answer."""
    import numpy as np

    from diffractory.learning.saved_model import SavedModel, packaged_model
    from diffractory.patterns.feature_sets import number_of_features
    from diffractory.specs import feature_spec

    advice = "Install diffractory anew"
    try:
        model = SavedModel(packaged_model())
        n_features = number_of_features(feature_spec(model.provenance["features"]))
        shares = model.vote_systems(np.zeros((1, n_features))).share
    except DiffractoryError as error:
        yield Finding("included model", error.what, Level.PROBLEM, advice)
        return
    if shares.shape == (1, len(model.systems_)) and abs(shares.sum() - 1) < 1e-6:
        yield Finding("included model", f"loads and answers, {shares.shape[1]} crystal systems")
    else:
        yield Finding("included model", f"answers {shares.tolist()}, no probabilities", Level.PROBLEM, advice)


def check_terminal() -> Iterator[Finding]:
    """See what this terminal can show."""
    encoding = sys.stdout.encoding or "ascii"
    kind = f"{out.width} columns" if out.is_terminal else "no terminal: plain text"
    found = f"{kind}, {encoding}, locale {locale.setlocale(locale.LC_CTYPE)}"
    try:
        "Å⁻¹ ×".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        yield Finding("terminal", found, Level.NOTE, "Å and × show as ?: set LANG=C.UTF-8")
    else:
        yield Finding("terminal", found)


def check_speed() -> Iterator[Finding]:
    """Say whether this machine was measured."""
    if speed_file().is_file():
        yield Finding("speed", f"measured, {speed_file()}")
    else:
        yield Finding(
            "speed",
            "not measured",
            Level.NOTE,
            "For plans that know this machine's seconds: diffractory calibrate",
        )


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    check_program,
    check_packages,
    check_linear_algebra,
    check_processors,
    check_memory,
    check_folder,
    check_slurm,
    check_gpu,
    check_boosting,
    check_model,
    check_terminal,
    check_speed,
)


def examine() -> Iterator[Finding]:
    """Yield what all checks find; a check that breaks is a finding, too."""
    for check in CHECKS:
        try:
            yield from check()
        except Exception as error:
            yield Finding(
                check.__name__.removeprefix("check_").replace("_", " "),
                f"{type(error).__name__}: {error}",
                Level.PROBLEM,
                "Install diffractory anew; if that does not help, report this",
            )
