"""Workers in SLURM jobs: dask-jobqueue submits them, and what it lacks is added here and in the watchdog."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import shlex
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import dask
from dask_jobqueue.slurm import SLURMCluster, SLURMJob
from distributed import Client
from distributed.core import Status
from distributed.security import Security
from joblib import parallel_config

from diffractory.errors import ExecutionError
from diffractory.execution.engine import WORKER_SETTINGS, DaskEngine, Engine, Outcome, terminable
from diffractory.execution.joblib_backend import WatchedBackend
from diffractory.execution.site import SlurmRequest, slurm_megabytes
from diffractory.execution.slurm_commands import CommandError, command
from diffractory.execution.slurm_watchdog import Watchdog

T = TypeVar("T")
R = TypeVar("R")

_SETTINGS = {
    # A task that was sent to jobs which were cancelled or preempted has done nothing wrong.
    "distributed.scheduler.allowed-failures": 20,
    # Kernels hold the interpreter lock for seconds: a silent worker is not a dead one.
    "distributed.scheduler.worker-ttl": "15 minutes",
    "distributed.comm.timeouts.connect": "60s",
    "distributed.comm.timeouts.tcp": "120s",
    # A worker that its nanny starts again needs a while to import; its job is not to be cancelled.
    "distributed.deploy.lost-worker-timeout": "60s",
}
_WORKER_SETTINGS = "export " + " ".join(
    f"DASK_{name.upper().replace('.', '__').replace('-', '_')}={shlex.quote(str(value))}"
    for name, value in {
        "distributed.comm.timeouts.connect": "60s",
        "distributed.comm.timeouts.tcp": "120s",
        **WORKER_SETTINGS,
    }.items()
)


class _Job(SLURMJob):
    """A job that says when it is closed, which dask-jobqueue forgets."""

    async def close(self) -> None:
        await super().close()
        self.status = Status.closed


class _Cluster(SLURMCluster):
    """A scheduler in this process, with workers in jobs."""

    job_cls = _Job

    def _get_worker_security(self, security: Security) -> Security:
        return _quoted(security)


def job_script(request: SlurmRequest) -> str:
    """Return the job script as it would be submitted, but for addresses and names made at the start."""
    keys = _security(request.log_folder / "KEYS")
    settings = _job_settings(request, "diffractory")
    job = _Job("tls://DRIVER:PORT", "worker-0", security=_quoted(keys), protocol="tls://", **settings)
    return str(job.job_script())


@contextmanager
def open_slurm(request: SlurmRequest) -> Iterator[Engine]:
    """Start a scheduler here and workers in SLURM jobs; cancel the jobs at the end, however it comes.

    Jobs are submitted when there is work. SIGTERM ends the work as Ctrl-C does.

    Raises
    ------
    ExecutionError
        If there is no SLURM here, it refuses the jobs, or the network interface does not exist.
    """
    preflight(job_script(request))
    request.log_folder.mkdir(parents=True, exist_ok=True)
    name = f"diffractory-{uuid.uuid4().hex[:8]}"
    with contextlib.ExitStack() as stack:
        stack.enter_context(terminable())
        stack.enter_context(dask.config.set(_SETTINGS))
        keys = stack.enter_context(_temporary_keys(request.log_folder))
        cluster = _start_cluster(request, name, keys)
        watchdog = Watchdog(cluster, request, name)
        stack.callback(_close, cluster, watchdog, name, request.report)
        client = stack.enter_context(Client(cluster))
        yield SlurmEngine(client, watchdog, request)


def preflight(script: str) -> None:
    """Ask SLURM whether it would accept a job script.

    Raises
    ------
    ExecutionError
        If there is no SLURM here, or it would not; with its own words.
    """
    missing = [command for command in ("sbatch", "squeue", "scancel") if shutil.which(command) is None]
    if missing:
        raise ExecutionError(
            f"{', '.join(missing)} not found: this is no machine that submits SLURM jobs",
            fix="Run on a login node or inside a job of a SLURM cluster, or use --cluster local",
        )
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(script)
        file.flush()
        try:
            command("sbatch", "--test-only", file.name)
        except CommandError as error:
            raise ExecutionError(
                "SLURM refuses the worker jobs",
                f'sbatch --test-only says: "{error}"',
                "Correct the site file; --dry-run shows the job script",
            ) from None


class SlurmEngine(DaskEngine):
    """Runs work on workers in SLURM jobs, with a watchdog that keeps them alive."""

    def __init__(self, client: Client, watchdog: Watchdog, request: SlurmRequest) -> None:
        super().__init__(client)
        self._watchdog = watchdog
        self._request = request

    @property
    def description(self) -> str:
        """Number of jobs and workers, where their logs are, and the dashboard's address."""
        return (
            f"{self._request.jobs} SLURM job(s) of {self._request.site.workers} worker(s), "
            f"logs in {self._request.log_folder}, dashboard {self._client.dashboard_link}"
        )

    @property
    def workers(self) -> int:
        """Workers of all jobs that were asked for; how many are up changes all the time."""
        return self._request.workers

    def run(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[Outcome[T, R]]:
        """Yield outcomes as tasks finish; keep no more jobs than there is work left for."""
        self._watchdog.want_workers(len(items))
        for finished, outcome in enumerate(super().run(function, items), start=1):
            self._watchdog.want_workers(len(items) - finished)
            yield outcome

    @contextmanager
    def joblib(self) -> Iterator[None]:
        """Let joblib send its tasks to the workers; they are looked after meanwhile.

        Raises
        ------
        ExecutionError
            If more jobs were lost than are replaced.
        """
        self._watchdog.want_workers(self.workers)
        backend = WatchedBackend(self._client, self.workers, self._check)
        with parallel_config(backend=backend):
            yield

    def _check(self) -> None:
        self._watchdog.check()


def _start_cluster(request: SlurmRequest, name: str, keys: Security) -> _Cluster:
    try:
        return _Cluster(
            security=keys,
            # Anybody on the node could read the dashboard's host name; only this node gets an answer.
            scheduler_options={"dashboard_address": "127.0.0.1:0"},
            silence_logs=logging.ERROR,
            **_job_settings(request, name),
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise ExecutionError(
            f"the Dask scheduler cannot be started ({error})",
            f"interface = {request.site.interface!r} in the site file" if request.site.interface else "",
            "Correct the interface; `ip -brief address` lists those of this machine",
        ) from None


def _job_settings(request: SlurmRequest, name: str) -> dict[str, Any]:
    """Return the arguments of dask-jobqueue that describe one job."""
    site = request.site
    folder = site.local_directory
    return {
        "job_name": name,
        "queue": site.partition,
        "account": site.account,
        "walltime": site.walltime,
        # One thread each, and memory for what watches over the workers: so two sizes, theirs and the job's.
        "cores": site.workers,
        "processes": site.workers,
        "job_cpu": site.cores,
        "memory": site.worker_memory * site.workers,
        "job_mem": slurm_megabytes(site.memory_bytes),
        "interface": site.interface,
        # Double quotes: the shell of the job fills in variables such as $TMPDIR.
        "local_directory": None if folder is None else f'"{folder}"',
        "python": shlex.quote(site.python or sys.executable),
        "death_timeout": site.death_timeout,
        "job_extra_directives": [
            f'--output="{request.log_folder}/job-%j.log"',
            # A lost job is replaced from here; requeued by SLURM it would come twice.
            "--no-requeue",
            *site.directives,
        ],
        "job_script_prologue": [*site.prologue, _WORKER_SETTINGS],
        "worker_extra_args": [
            "--no-dashboard",
            "--dashboard-address",
            "127.0.0.1:0",
            "--lifetime",
            f"{site.lifetime:.0f}s",
            "--lifetime-stagger",
            f"{site.stagger:.0f}s",
        ],
    }


def _security(folder: Path) -> Security:
    """Return what encrypts and authenticates all connections, by files in a folder."""
    certificate, key = str(folder / "certificate.pem"), str(folder / "key.pem")
    roles = ("client", "scheduler", "worker")
    return Security(
        require_encryption=True,
        tls_ca_file=certificate,
        **{f"tls_{role}_cert": certificate for role in roles},
        **{f"tls_{role}_key": key for role in roles},
    )


@contextmanager
def _temporary_keys(folder: Path) -> Iterator[Security]:
    """Make a certificate for this driver alone, in a folder that only its owner may enter."""
    with tempfile.TemporaryDirectory(prefix=".keys-", dir=folder, ignore_cleanup_errors=True) as own:
        fresh, security = Security.temporary(), _security(Path(own))
        Path(security.tls_ca_file).write_text(fresh.tls_ca_file)
        key = Path(security.tls_worker_key)
        key.touch(mode=0o600)
        key.write_text(fresh.tls_worker_key)
        yield security


def _quoted(security: Security) -> Security:
    """Return a copy for a job script, in which the paths are quoted for the shell."""
    quoted = copy.copy(security)
    for field in ("tls_ca_file", "tls_worker_cert", "tls_worker_key"):
        setattr(quoted, field, shlex.quote(getattr(security, field)))
    return quoted


def _close(cluster: _Cluster, watchdog: Watchdog, job_name: str, report: Callable[[str], None]) -> None:
    """Cancel all jobs with one command, those that Dask lost sight of as well, and close the scheduler."""
    watchdog.close()
    try:
        command("scancel", f"--name={job_name}")
    except CommandError as error:
        report(f"the jobs could not be cancelled ({error}). Cancel them: scancel --name={job_name}")
    cluster.sync(_forget_all, cluster)
    cluster.close(timeout=30)


async def _forget_all(cluster: _Cluster) -> None:
    async with cluster._lock:
        for job in cluster.workers.values():
            job.status = Status.closed
        cluster.workers.clear()
        cluster.worker_spec.clear()
    # Dask closes jobs of lost workers by itself in tasks of its own: not once the loop has ended.
    await asyncio.gather(*cluster._futures, return_exceptions=True)
