"""Keeps SLURM jobs with workers alive: replaces those that are lost, within a budget, and says what happens.

dask-jobqueue 0.9 only logs that ``sbatch`` refused a job, never replaces a job that was lost, waits for
ever for one that died at its start, and resubmits without a limit workers that die again and again.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from dask_jobqueue.slurm import SLURMCluster
from distributed import Scheduler, SchedulerPlugin
from distributed.core import Status

from diffractory.errors import ExecutionError
from diffractory.execution import slurm_commands
from diffractory.execution.site import SlurmRequest
from diffractory.execution.slurm_commands import COMMAND_PATIENCE, CommandError, stderr_of, tail

#: Seconds between looks at the queue: sites ask not to be asked more often.
_LOOK_EVERY = 10.0
#: Seconds without a running job after which the reason is told; doubled each time.
_QUEUE_PATIENCE = 120.0
#: Seconds between attempts to submit where sbatch refuses, and how many there are without a living job.
_SUBMIT_AGAIN, _SUBMIT_ATTEMPTS = 30.0, 5
#: Jobs submitted between two looks: a scheduler is not flooded, and workers connect bit by bit.
_AT_ONCE = 20
#: Jobs that may die at their start before the first worker ever came up.
_LEAST_ATTEMPTS = 3
#: Jobs that died at their start of which the log is shown while the others are still waited for.
_SHOWN_LOGS = 2


class _Registrations(SchedulerPlugin):
    """Notes the jobs of which a worker ever came up: one may come and go between two looks at the queue."""

    def __init__(self, job_of: Callable[[object], str]) -> None:
        self.jobs: set[str] = set()
        self._job_of = job_of

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        self.jobs.add(self._job_of(scheduler.workers[worker].name))


class Watchdog(threading.Thread):
    """Keeps as many jobs as are wanted in the queue or running, within a budget of losses."""

    def __init__(self, cluster: SLURMCluster, request: SlurmRequest, job_name: str) -> None:
        super().__init__(daemon=True, name="slurm-watchdog")
        self._cluster, self._request, self._site = cluster, request, request.site
        self._job_name = job_name
        self._wanted = 0
        self._failure: ExecutionError | None = None
        self._closing, self._unanswered = threading.Event(), 0
        self._ids: dict[str, str] = {}
        self._running_since: dict[str, float] = {}
        registrations = _Registrations(self._job_of)
        cluster.scheduler.add_plugin(registrations)
        self._registered = registrations.jobs
        self._lost = self._stillborn = 0
        self._last_lost = ""
        self._refusals, self._submit_after = 0, 0.0
        self._idle_since, self._patience = time.monotonic(), _QUEUE_PATIENCE

    @property
    def budget(self) -> int:
        """Lost jobs that are replaced."""
        return self._site.replacements * self._request.jobs

    def want_workers(self, count: int) -> None:
        """Say for how many workers there is work; the first call submits jobs."""
        self._wanted = min(self._request.jobs, math.ceil(count / self._site.workers))
        if self._wanted and not self.is_alive() and not self._closing.is_set() and self._failure is None:
            self.start()

    def check(self) -> None:
        """Raise what made the watchdog give up, if anything did."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """End the thread; no job is submitted after this returns."""
        self._closing.set()
        if self.is_alive():
            self.join(2 * COMMAND_PATIENCE)

    def run(self) -> None:
        """Look at the queue again and again."""
        while not self._closing.is_set():
            try:
                self._look()
            except ExecutionError as error:
                self._failure = error
                return
            except Exception as error:
                if not self._closing.is_set():
                    self._failure = ExecutionError(f"the SLURM jobs are no longer watched: {error!r}")
                return
            self._closing.wait(_LOOK_EVERY)

    def _look(self) -> None:
        # Jobs submitted after this line are not in the answer, and not missed either.
        known = {name: job.job_id for name, job in list(self._cluster.workers.items())}
        try:
            queue = slurm_commands.queue(self._job_name)
        except CommandError as error:
            # That squeue does not answer says nothing about the jobs.
            self._unanswered += 1
            if self._unanswered % 30 == 1:
                self._request.report(f"squeue does not answer, going on: {error}")
            return
        self._unanswered = 0
        self._cluster.sync(self._mend, known, queue)
        self._tell_of_waiting(queue)

    async def _mend(self, known: dict[str, str | None], queue: dict[str, tuple[str, str]]) -> None:
        """Count the lost and submit what is missing; runs in the scheduler's event loop."""
        cluster = self._cluster
        if self._closing.is_set() or cluster.status != Status.running or cluster._lock.locked():
            return
        now = time.monotonic()
        for name, job_id in known.items():
            if queue.get(job_id or "", ("", ""))[0] == "RUNNING":
                self._running_since.setdefault(name, now)
        for name in list(cluster.worker_spec):
            job = cluster.workers.get(name)
            # Dask forgets a job itself some time after its only worker went silent, and cancels it.
            if job is None or (name in known and job.job_id not in queue):
                self._forget(name)
                self._count_loss(name, now)
        missing = min(self._wanted - len(cluster.worker_spec), _AT_ONCE)
        if missing > 0 and now >= self._submit_after:
            await self._submit(missing)

    def _job_of(self, worker: object) -> str:
        """Return the name of the job that a worker lives in; workers of one job are numbered."""
        return str(worker).rpartition("-")[0] if self._site.workers > 1 else str(worker)

    def _forget(self, name: str) -> None:
        job = self._cluster.workers.pop(name, None)
        if job is not None:
            job.status = Status.closed
        self._cluster.worker_spec.pop(name, None)

    def _count_loss(self, name: str, now: float) -> None:
        lived = now - self._running_since.pop(name, now)
        job_id = self._ids.pop(name)
        if lived >= self._site.lifetime - self._site.stagger - _LOOK_EVERY and name in self._registered:
            return
        self._lost += 1
        self._last_lost = job_id
        log = self._log(job_id)
        if name in self._registered:
            self._request.report(f"job {job_id} was lost; log: {log}")
        else:
            self._stillborn += 1
            if self._stillborn <= _SHOWN_LOGS:
                self._request.report(f"job {job_id} ended before a worker came up. {tail(log)}")
        if not self._registered and self._stillborn >= max(_LEAST_ATTEMPTS, self._request.jobs):
            self._give_up(f"all of the first {self._stillborn} SLURM jobs ended before a worker came up")
        if self._lost > self.budget:
            self._give_up(
                f"{self._lost} SLURM jobs were lost, {self._stillborn} of them before a worker came up; "
                f"{self.budget} are replaced"
            )

    def _log(self, job_id: str) -> Path:
        return self._request.log_folder / f"job-{job_id}.log"

    def _give_up(self, what: str) -> None:
        raise ExecutionError(
            what,
            tail(self._log(self._last_lost)),
            "Remove the cause and run the same command again: what was finished is kept",
        )

    async def _submit(self, count: int) -> None:
        cluster = self._cluster
        for _ in range(count):
            cluster.worker_spec.update(cluster.new_worker_spec())
        # Where sbatch refuses, the jobs are all tried, and the first error comes back.
        try:
            await cluster._correct_state()
        except (RuntimeError, ValueError, OSError) as error:
            self._refused(stderr_of(error))
        else:
            self._refusals = 0
        for name in list(cluster.worker_spec):
            job = cluster.workers.get(name)
            if job is None or job.job_id is None:
                self._forget(name)
            else:
                self._ids[name] = job.job_id

    def _refused(self, words: str) -> None:
        self._refusals += 1
        self._submit_after = time.monotonic() + _SUBMIT_AGAIN
        alive = [job for job in self._cluster.workers.values() if job.job_id is not None]
        if self._refusals >= _SUBMIT_ATTEMPTS and not alive:
            raise ExecutionError(
                f"SLURM refused to take jobs {self._refusals} times",
                words,
                "Run the same command again later",
            )
        if self._refusals == 1:
            self._request.report(f"SLURM does not take all jobs now, they are submitted again: {words}")

    def _tell_of_waiting(self, queue: dict[str, tuple[str, str]]) -> None:
        now = time.monotonic()
        if not queue or any(state == "RUNNING" for state, _ in queue.values()):
            self._idle_since, self._patience = now, _QUEUE_PATIENCE
        elif now - self._idle_since >= self._patience:
            self._patience *= 2
            reasons = Counter(reason for _, reason in queue.values())
            told = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
            self._request.report(f"{len(queue)} job(s) wait in the queue: {told}")
