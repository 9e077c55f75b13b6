"""Where a command's work runs: from its options to an engine."""

from __future__ import annotations

import logging
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import typer

from diffractory.cli.console import note
from diffractory.errors import SpecError
from diffractory.execution.engine import Engine, open_engine
from diffractory.execution.site import SlurmRequest, read_site
from diffractory.settings import Resources, usable_cores

logger = logging.getLogger(__name__)


def engine_here(
    cluster: str,
    workers: int | None,
    folder: Path,
    slurm: SlurmRequest | None = None,
    parts: int | None = None,
) -> AbstractContextManager[Engine]:
    """Open an engine with this machine's resources, or with those asked of SLURM.

    Parameters
    ----------
    cluster : str
        As a user names it.
    workers : int, optional
        Of this machine; one a core by default.
    folder : Path
        Where results go.
    slurm : SlurmRequest, optional
        What is asked of SLURM, for ``slurm``.
    parts : int, optional
        How many parts the work has, if it is known: no worker is started that would have none.
    """
    if slurm is not None:
        # Takes a second to import, which other clusters do not need.
        from diffractory.execution.slurm import open_slurm

        return open_slurm(slurm)
    if parts is not None and cluster in ("threads", "local"):
        cluster, workers = (cluster if parts else "inline"), min(workers or usable_cores(), max(parts, 1))
    resources = Resources.of_this_machine(folder, workers)
    logger.info("work runs on %s: %s", cluster, resources)
    return open_engine(cluster, resources.workers, resources.worker_memory)


def resources_there(
    folder: Path, workers: int | None, slurm: SlurmRequest | None = None, cluster: str = "local"
) -> Resources:
    """Return what work in a folder has: of this machine, or of the jobs asked of SLURM."""
    here = Resources.of_this_machine(folder, 1 if cluster == "inline" else workers)
    if slurm is not None:
        return Resources(slurm.workers, slurm.site.worker_memory, here.disk_free)
    if "://" in cluster:
        # What the workers of somebody else's scheduler may use is not known here.
        return Resources(here.workers, sys.maxsize, here.disk_free)
    return here


def slurm_request(
    cluster: str, site: Path | None, jobs: int | None, dry_run: bool, folder: Path
) -> SlurmRequest | None:
    """Return what is asked of SLURM, None for another cluster; print the job script and end if told to.

    Raises
    ------
    SpecError
        If the options do not fit together, or the site file is refused.
    """
    if cluster != "slurm":
        for option, given in (("--site", site), ("--jobs", jobs), ("--dry-run", dry_run)):
            if given:
                raise SpecError(
                    f"{option} is for --cluster slurm", fix="Add --cluster slurm, or leave it out"
                )
        return None
    if site is None:
        raise SpecError(
            "--cluster slurm needs --site FILE",
            "partition, walltime and size of a job differ from site to site",
            "Start from a copy of cluster/sites/generic.toml",
        )
    request = _request(site, jobs, folder)
    if dry_run:
        from diffractory.execution.slurm import job_script

        typer.echo(job_script(request))
        raise typer.Exit
    return request


def slurm_request_for(site: Path | None, jobs: int | None, folder: Path) -> SlurmRequest | None:
    """Return what a command that only plans would ask of SLURM, None without a site file.

    Raises
    ------
    SpecError
        If jobs are named without a site, or the site file is refused.
    """
    if site is None and jobs is not None:
        raise SpecError(
            "--jobs needs --site FILE", "jobs differ from site to site", "Add --site, or --workers"
        )
    return None if site is None else _request(site, jobs, folder)


def _request(site: Path, jobs: int | None, folder: Path) -> SlurmRequest:
    described = read_site(site)
    return SlurmRequest(described, jobs or described.jobs, folder, note)
