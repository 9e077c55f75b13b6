"""What SLURM's own commands say, and the logs of its jobs."""

from __future__ import annotations

import logging
import os
import re
import subprocess
from pathlib import Path

logger = logging.getLogger(__name__)

#: Seconds a SLURM command may take.
COMMAND_PATIENCE = 60
#: Lines and bytes of a job's log that are shown.
_TAIL_LINES, _TAIL_BYTES = 15, 4000
#: States of a job that is running or will be. What is completing is over: its processes were told to end.
_ALIVE = frozenset({"PENDING", "RUNNING", "CONFIGURING", "SUSPENDED", "REQUEUED", "RESIZING", "SIGNALING"})


class CommandError(Exception):
    """A SLURM command failed; the text is what it said."""


def command(*words: str, patience: float | None = None) -> str:
    """Run a SLURM command and return what it prints.

    Parameters
    ----------
    words : str
        The command and its options.
    patience : float, optional
        Seconds it may take; a minute by default.

    Raises
    ------
    CommandError
        If it is not there, takes too long, or fails; with its own words.
    """
    logger.debug("running %s", words)
    try:
        # Without the settings of a person who likes other columns or another date.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
        answer = subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=patience or COMMAND_PATIENCE,
            check=False,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandError(str(error)) from None
    if answer.returncode != 0:
        raise CommandError(_one_line(answer.stderr or answer.stdout) or f"exit code {answer.returncode}")
    return answer.stdout


def queue(job_name: str) -> dict[str, tuple[str, str]]:
    """Return state and reason of each job of this name that is running or will be, by its id.

    Raises
    ------
    CommandError
        If squeue does not answer.
    """
    answer = command("squeue", "--noheader", f"--name={job_name}", "--format=%i|%T|%r")
    jobs = (line.split("|", 2) for line in answer.splitlines() if line.count("|") >= 2)
    return {job_id.strip(): (state, reason) for job_id, state, reason in jobs if state in _ALIVE}


def _one_line(text: str) -> str:
    """Join the lines of a message without the name of the command in each."""
    lines = (re.sub(r"^\w+: (error: )?", "", line.strip()) for line in text.splitlines())
    return "; ".join(line for line in lines if line)


def stderr_of(error: Exception) -> str:
    """Return what sbatch said from dask-jobqueue's report of it."""
    return _one_line(str(error).partition("stderr:")[2] or str(error))


def tail(log: Path) -> str:
    """Return the end of a job's log, for a message."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return f"It left no log ({log})"
    if not lines:
        return f"Its log is empty ({log})"
    return f"Its log {log} ends:\n  " + "\n  ".join(lines[-_TAIL_LINES:]) + "\n"
