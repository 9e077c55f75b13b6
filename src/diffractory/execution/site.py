"""What a SLURM site is like, read from a TOML file: partition, account, walltime, size of a job."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from diffractory.errors import AccessError, SpecError
from diffractory.specs import Checked

#: Share of a job's memory that its workers may use; the rest is for the processes that watch over them.
_WORKERS_SHARE = 0.9
#: A worker below this cannot hold the libraries it imports.
_LEAST_MEMORY = 2**28
#: Margin below the walltime where the file names none: a tenth of it, within these bounds in seconds.
_SHORTEST_MARGIN, _LONGEST_MARGIN = 30, 900

_WALLTIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<hours>\d{1,3}):(?P<minutes>[0-5]\d):(?P<seconds>[0-5]\d)")

#: One line of a job script; what would end the line, or the quotes a path stands in, is refused.
Line = Annotated[str, Field(min_length=1, pattern=r"^[^\n\r\x00]+$")]
Word = Annotated[str, Field(min_length=1, pattern=r"^[^\s\x00-\x1f]+$")]
Folder = Annotated[str, Field(min_length=1, pattern=r"^[^\n\r\x00\"]+$")]
Lines = Annotated[
    tuple[Line, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
]


def _bytes_of(text: str) -> int:
    # Imported where it is used: most commands never ask for jobs, and Dask takes long.
    from dask.utils import parse_bytes

    return int(parse_bytes(text))


class Site(Checked):
    """Jobs of a SLURM site. Changes no result: it only says where and how workers are started.

    Parameters
    ----------
    partition, account : str, optional
        As for ``sbatch``; the site's defaults if left out.
    walltime : str
        Time limit of one job, ``HH:MM:SS`` or ``D-HH:MM:SS``. Runs may last longer: jobs that end are
        followed by new ones.
    cores : int
        Processors booked for a job.
    processes : int, optional
        Workers in a job, of one thread each; as many as cores by default.
    memory : str
        Memory of a job, such as ``"8 GiB"``; workers share 90 % of it.
    jobs : int
        Jobs to keep running; the command line's ``--jobs`` wins.
    interface : str, optional
        Network interface of scheduler and workers, such as ``ib0`` or ``hsn0``.
    local_directory : str, optional
        Node-local folder of the workers; may hold shell variables.
    prologue : tuple of str
        Lines of shell to run in a job before its workers: ``module load …``, ``source …``.
    directives : tuple of str
        Further options of ``sbatch``, such as ``--constraint=cpu``.
    python : str, optional
        Interpreter with this package on the compute nodes; the driver's own by default.
    lifetime_margin : float, optional
        Seconds before the walltime at which workers, on average, hand back their work and end; spread
        by half of it to both sides. By default a tenth of the walltime, but at least half a minute and at
        most fifteen.
    death_timeout : int
        Seconds after which a worker that does not find its scheduler gives up.
    replacements : int
        Lost jobs that are replaced, for each of ``jobs``. Jobs that end as planned do not count.

    Raises
    ------
    SpecError
        If a value is missing, unknown, of another type or out of range.
    """

    # Text for a number is a slip in a file that people write.
    model_config = ConfigDict(strict=True)

    partition: Word | None = None
    account: Word | None = None
    walltime: str
    cores: int = Field(ge=1, le=10_000)
    processes: int | None = Field(None, ge=1, le=10_000)
    memory: str
    jobs: int = Field(1, ge=1, le=100_000)
    interface: Word | None = None
    local_directory: Folder | None = None
    prologue: Lines = ()
    directives: Lines = ()
    python: Folder | None = None
    lifetime_margin: float | None = Field(None, gt=0)
    death_timeout: int = Field(120, ge=1)
    replacements: int = Field(3, ge=0, le=1000)

    @field_validator("walltime")
    @classmethod
    def _check_walltime(cls, text: str) -> str:
        if _seconds(text) < 60:
            raise ValueError("write HH:MM:SS or D-HH:MM:SS, one minute or more")
        return text

    @field_validator("memory")
    @classmethod
    def _check_memory(cls, text: str) -> str:
        try:
            size = _bytes_of(text)
        except (ValueError, OverflowError):
            size = 0
        if not (any(unit in text.upper() for unit in "KMGT") and size >= _LEAST_MEMORY):
            raise ValueError('write a size with its unit, such as "8 GiB", of 256 MiB or more')
        return text

    @model_validator(mode="after")
    def _check_whole(self) -> Site:
        if self.processes is not None and self.processes > self.cores:
            raise ValueError(
                f"{self.processes} processes of one thread each do not fit on {self.cores} cores"
            )
        if self.worker_memory < _LEAST_MEMORY:
            raise ValueError(f"memory = {self.memory!r} leaves less than 256 MiB for each process")
        if self.margin >= self.seconds:
            raise ValueError("lifetime_margin is not below the walltime")
        return self

    @property
    def workers(self) -> int:
        """Worker processes in a job."""
        return self.processes or self.cores

    @property
    def memory_bytes(self) -> int:
        """Memory of a job, in bytes."""
        return _bytes_of(self.memory)

    @property
    def worker_memory(self) -> int:
        """Memory each worker may use, in bytes."""
        return int(_WORKERS_SHARE * self.memory_bytes / self.workers)

    @property
    def seconds(self) -> int:
        """The walltime, in seconds."""
        return _seconds(self.walltime)

    @property
    def margin(self) -> float:
        """Seconds between the mean end of workers and the walltime."""
        if self.lifetime_margin is not None:
            return self.lifetime_margin
        return min(max(self.seconds / 10, _SHORTEST_MARGIN), _LONGEST_MARGIN)

    @property
    def lifetime(self) -> float:
        """Seconds after which workers end by themselves, on average."""
        return self.seconds - self.margin

    @property
    def stagger(self) -> float:
        """Largest deviation from the lifetime, in seconds, so that not all workers end at once."""
        return min(self.margin, self.lifetime) / 2


@dataclass(frozen=True)
class SlurmRequest:
    """What is asked of SLURM.

    Parameters
    ----------
    site : Site
    jobs : int
        Jobs to keep running while there is work for them.
    folder : Path
        Folder that all nodes see; logs and keys of the jobs go to ``slurm`` below it.
    report : callable
        Told in one sentence each what people should know while work runs.
    """

    site: Site
    jobs: int
    folder: Path
    report: Callable[[str], None]

    @property
    def workers(self) -> int:
        """Workers of all jobs together."""
        return self.jobs * self.site.workers

    @property
    def log_folder(self) -> Path:
        """Folder of the logs of all jobs."""
        return self.folder.absolute() / "slurm"


def _seconds(walltime: str) -> int:
    match = _WALLTIME.fullmatch(walltime.strip())
    if match is None:
        return 0
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def read_site(path: Path) -> Site:
    """Read a site file.

    Raises
    ------
    AccessError
        If the file cannot be read.
    SpecError
        If it is not TOML, or a value is missing, unknown or out of range.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SpecError(
            f"{path} is not a site file: {error}",
            "a site file is TOML",
            "Start from a copy of cluster/sites/generic.toml",
        ) from None
    except OSError as error:
        raise AccessError(
            f"the site file {path} cannot be read ({error.strerror or error})",
            fix="Name a site file; cluster/sites/generic.toml is one to start from",
        ) from None
    try:
        return Site(**values)
    except SpecError as error:
        raise SpecError(f"{path}: {error.what}", error.why, error.fix) from None


def slurm_megabytes(count: float) -> str:
    """Return a memory size as ``sbatch --mem`` reads it, rounded up: SLURM's M are MiB."""
    return f"{math.ceil(count / 2**20)}M"
