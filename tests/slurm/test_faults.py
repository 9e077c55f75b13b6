"""Work in jobs of a real SLURM, while jobs, nodes and drivers are lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

import worker_tasks
from diffractory.errors import ExecutionError
from diffractory.execution import slurm_commands, slurm_watchdog
from diffractory.execution.site import SlurmRequest
from diffractory.execution.slurm import open_slurm
from diffractory.execution.slurm_commands import CommandError
from slurm_testbed import Asked, Testbed, command, wait_until


def _work_through(
    request: SlurmRequest, asked: Asked, count: int, after: int, fault, nap=worker_tasks.note_and_nap
) -> list[str]:
    """Run naps, let a fault happen after some of them, and return the jobs that finished each nap."""
    with open_slurm(request) as engine:
        outcomes = []
        for outcome in engine.run(nap, asked.tasks(count)):
            assert outcome.error is None
            outcomes.append(outcome)
            if len(outcomes) == after:
                fault()
    assert sorted(o.item for o in outcomes) == asked.tasks(count)
    return [o.result for o in outcomes]


def _repeated(asked: Asked) -> int:
    numbers = [number for number, _ in asked.began()]
    return len(numbers) - len(set(numbers))


def test_a_cancelled_job_costs_what_was_in_flight(
    testbed: Testbed, asked: Asked, monkeypatch: pytest.MonkeyPatch
):
    # Its worker comes and goes between the first and the second look at the queue.
    monkeypatch.setattr(slurm_watchdog, "_LOOK_EVERY", 10.0)
    victims: list[str] = []

    def cancel_one() -> None:
        wait_until(lambda: len({job for _, job in asked.began()}) == 2)
        victims.extend(testbed.jobs("RUNNING")[:1])
        command("scancel", *victims)
        wait_until(lambda: asked.told)

    jobs = _work_through(asked.jobs(2), asked, 40, 4, cancel_one)
    assert len(set(jobs)) >= 2
    assert _repeated(asked) <= 2
    assert [told for told in asked.told if told.startswith(f"job {victims[0]} was lost; log: ")] == asked.told


def test_when_all_jobs_are_cancelled_others_take_over(testbed: Testbed, asked: Asked):
    before: set[str] = set()

    def cancel_all() -> None:
        before.update(testbed.jobs())
        command("scancel", *before)

    # Two workers in each: dask-jobqueue itself would never replace such a job.
    jobs = _work_through(asked.jobs(2, cores=2, memory="2400 MiB"), asked, 30, 8, cancel_all)
    assert len(before) == 2
    assert set(jobs) - before
    assert _repeated(asked) <= 2 * 4


def test_a_node_that_dies_is_replaced(testbed: Testbed, asked: Asked):
    def cut_the_power() -> None:
        testbed.crash(testbed.node_of(testbed.jobs("RUNNING")[0]))

    try:
        jobs = _work_through(asked.jobs(1), asked, 10, 3, cut_the_power)
    finally:
        testbed.up()
    assert len(set(jobs)) == 2
    assert _repeated(asked) <= 2


def test_jobs_end_before_their_walltime_and_are_followed_by_others_at_no_cost(testbed: Testbed, asked: Asked):
    short = asked.jobs(1, walltime="00:01:00", lifetime_margin=52.0, replacements=0)
    assert short.site.lifetime == 8
    # More than a worker can do in its longest life; nothing is left to wait for once another has come.
    _work_through(short, asked, 60, 1, lambda: None, worker_tasks.nap_until_another_job)
    # A slow machine may give the first worker no time to finish anything.
    assert len({job for _, job in asked.began()}) >= 2
    assert asked.told == []


def test_a_job_that_dies_at_its_start_is_shown_and_not_tried_for_ever(asked: Asked):
    broken = asked.jobs(1, prologue=["echo the disk is on fire >&2", "exit 7"])
    with open_slurm(broken) as engine, pytest.raises(ExecutionError) as caught:
        list(engine.run(worker_tasks.note_and_nap, asked.tasks(4)))
    assert "all of the first 3 SLURM jobs ended before a worker came up" in str(caught.value)
    assert "the disk is on fire" in caught.value.why
    assert "run the same command again" in caught.value.fix
    assert "the disk is on fire" in asked.told[0]
    assert len(list(broken.log_folder.glob("job-*.log"))) == 3


def test_losses_have_a_limit(testbed: Testbed, asked: Asked):
    with open_slurm(asked.jobs(1, replacements=1)) as engine:
        outcomes = engine.run(worker_tasks.note_and_nap, asked.tasks(200))
        for _ in range(2):
            next(outcomes)
            seen = len({job for _, job in asked.began()})
            command("scancel", *testbed.jobs("RUNNING"))
            if seen == 1:
                for _ in outcomes:
                    if len({job for _, job in asked.began()}) == 2:
                        break
        with pytest.raises(ExecutionError, match=r"2 SLURM jobs were lost, 0 of them before .* 1 are repl"):
            list(outcomes)


def test_a_driver_that_is_killed_leaves_no_jobs(testbed: Testbed, asked: Asked):
    driver = (
        "import sys; from pathlib import Path; from slurm_testbed import Asked; import worker_tasks\n"
        "from diffractory.execution.slurm import open_slurm\n"
        "asked = Asked(Path(sys.argv[1]))\n"
        "with open_slurm(asked.jobs(1)) as engine:\n"
        "    list(engine.run(worker_tasks.note_and_nap, asked.tasks(1000)))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", driver, str(asked.folder)])
    try:
        wait_until(asked.began)
        assert testbed.jobs("RUNNING")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_until(lambda: not testbed.jobs(), 90)


def test_jobs_that_wait_say_why(testbed: Testbed, asked: Asked, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(slurm_watchdog, "_QUEUE_PATIENCE", 1.0)
    with open_slurm(asked.jobs(2, directives=["--begin=now+1hour"])) as engine:
        engine._watchdog.want_workers(9)
        wait_until(lambda: asked.told)
        assert len(testbed.jobs("PENDING")) == 2
        engine._watchdog.check()
    assert asked.told[0] == "2 job(s) wait in the queue: BeginTime (2)"
    wait_until(lambda: not testbed.jobs())


def test_no_more_jobs_than_there_is_work(testbed: Testbed, asked: Asked):
    with open_slurm(asked.jobs(3, directives=["--begin=now+1hour"])) as engine:
        engine._watchdog.want_workers(2)
        wait_until(lambda: len(testbed.jobs()) == 2)
        time.sleep(2)
        assert len(testbed.jobs()) == 2


def test_submitting_is_tried_again_and_then_given_up(
    testbed: Testbed, asked: Asked, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(slurm_watchdog, "_SUBMIT_AGAIN", 0.5)
    with open_slurm(asked.jobs(1)) as engine:
        command("scontrol", "update", "partitionname=main", "state=inactive")
        try:
            with pytest.raises(ExecutionError, match=r"SLURM refused to take jobs 5 times\. .*[Pp]artition"):
                list(engine.run(worker_tasks.note_and_nap, asked.tasks(1)))
        finally:
            command("scontrol", "update", "partitionname=main", "state=up")
    assert len(asked.told) == 1


def test_a_queue_that_does_not_answer_loses_nothing(
    testbed: Testbed, asked: Asked, monkeypatch: pytest.MonkeyPatch
):
    ask, calls = slurm_commands.queue, []

    def sometimes(name: str) -> dict[str, tuple[str, str]]:
        calls.append(name)
        if len(calls) % 2:
            raise CommandError("slurmctld is busy")
        return ask(name)

    monkeypatch.setattr(slurm_commands, "queue", sometimes)
    jobs = _work_through(asked.jobs(1), asked, 12, 1, lambda: None)
    assert len(set(jobs)) == 1
    assert len(calls) > 2
    assert set(asked.told) == {"squeue does not answer, going on: slurmctld is busy"}


def test_a_job_that_reaches_its_walltime_is_followed_by_another(testbed: Testbed, asked: Asked):
    victims: list[str] = []

    def let_time_run_out() -> None:
        victims.extend(testbed.jobs("RUNNING")[:1])
        # What the walltime does, without waiting a minute for it: SLURM ends the job as TIMEOUT.
        command("scontrol", "update", f"jobid={victims[0]}", "endtime=now")
        wait_until(lambda: victims[0] in testbed.jobs("TIMEOUT"), 90)

    jobs = _work_through(asked.jobs(1), asked, 30, 3, let_time_run_out)
    assert len(set(jobs)) == 2
    assert _repeated(asked) <= 2
