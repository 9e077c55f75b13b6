"""Bloch-wave solves by other packages, for comparison: abTEM and quantem.

They need numpy 2 and this package's environment has numpy 1 (py4DSTEM), so they get an environment
of their own, made once in a cache directory. Work goes there as JSON, results come back as npz.

What differs even on the same beams:

- abTEM is elastic, with Lobato's form factors and no thermal displacement, so its eigenproblem is
  Hermitian. It keeps the obliquity 1 − λ g_z that divides each row of couplings; our structure matrix,
  py4DSTEM's and quantem's have it in the excitation error only. With all beams in the zero-order Laue
  zone the two are the same.
- quantem has absorption as we have, but evaluates Weickenmeier and Kohl's elastic fit with the
  original's limits of the small-argument expansion, B s² < 0.1. py4DSTEM expands up to 1, and so does
  our default; compare with ``wk-cp-exact``.

Example::

    reports = run_peers([PeerJob("copper", crystal, orientation, pattern.hkl, spec)], Path("cache"))
    reports["abtem"].results["copper"].seconds_series
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffractory import Crystal, SimulationSpec

PEERS = ("abtem", "quantem")
REQUIREMENTS = Path(__file__).with_name("peers-requirements.txt")
WORKER = Path(__file__).with_name("peer_worker.py")

#: One thread each, as for our own solves.
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
#: Seconds a download and installation may take.
_INSTALL_LIMIT = 3600.0


class PeerUnavailableError(Exception):
    """The peers' environment cannot be made or does not work."""


@dataclass(frozen=True, eq=False)
class PeerJob:
    """One crystal in one orientation.

    Parameters
    ----------
    name : str
        Unique among the jobs of a run.
    crystal : Crystal
        Jobs of the same crystal share its set-up if they follow each other.
    orientation : ndarray of shape (3, 3)
        Columns are the lab axes x, y, z in the crystal's frame; z is zone axis and foil normal.
    hkl : ndarray of shape (n, 3)
        Beams our engine used; the peer is made to use the same.
    spec : SimulationSpec
        Its thicknesses are the series.
    thickness : float
        The one thickness that is timed apart, in Å.
    """

    name: str
    crystal: Crystal
    orientation: np.ndarray
    hkl: np.ndarray
    spec: SimulationSpec
    thickness: float = 200.0


@dataclass(frozen=True, eq=False)
class PeerResult:
    """What a peer made of one job.

    Parameters
    ----------
    seconds_one, seconds_series : float
        Process time of a solve at one thickness and at all, with beam choice and structure matrix;
        of the second solve, where the first took less than 10 s.
    set_up_seconds : float
        Process time of the crystal's structure factors.
    beams : int
        Number of beams the peer solved.
    hkl : ndarray of shape (m, 3)
        Those of the job's beams that the peer solved, in the job's order.
    intensity_one : ndarray of shape (m,)
        Shares of the incident beam.
    intensity_series : ndarray of shape (n_thicknesses, m)
    """

    seconds_one: float
    seconds_series: float
    set_up_seconds: float
    beams: int
    hkl: np.ndarray
    intensity_one: np.ndarray
    intensity_series: np.ndarray


@dataclass(frozen=True, eq=False)
class PeerReport:
    """All that one peer did.

    Parameters
    ----------
    versions : dict of str to str
        Of the packages that do its work.
    results : dict of str to PeerResult
        By job name.
    failures : dict of str to str
        Why a job has no result, by job name.
    unavailable : str
        Why the peer did nothing at all; empty if it worked.
    """

    versions: dict[str, str] = field(default_factory=dict)
    results: dict[str, PeerResult] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    unavailable: str = ""


def run_peers(
    jobs: Sequence[PeerJob], cache: Path, peers: Sequence[str] = PEERS, time_limit_s: float = 300.0
) -> dict[str, PeerReport]:
    """Run all jobs with all peers, one after another, each on one thread.

    Parameters
    ----------
    jobs : sequence of PeerJob
    cache : Path
        Directory for the peers' environment, which needs 2 to 8 GB; kept for the next run.
    peers : sequence of {"abtem", "quantem"}
    time_limit_s : float
        Wall-clock seconds for one job: two set-ups if they are due, and four solves.

    Returns
    -------
    dict of str to PeerReport
        One for each peer, also for those that could not be installed.
    """
    try:
        python = peer_python(cache)
    except PeerUnavailableError as problem:
        return {peer: PeerReport(unavailable=str(problem)) for peer in peers}
    reports = {}
    for peer in peers:
        with tempfile.TemporaryDirectory() as folder:
            try:
                reports[peer] = _run_peer(peer, jobs, python, Path(folder), time_limit_s)
            except PeerUnavailableError as problem:
                reports[peer] = PeerReport(unavailable=str(problem))
    return reports


def peer_python(cache: Path) -> Path:
    """Return the interpreter of the peers' environment, which is made if it is not there.

    Raises
    ------
    PeerUnavailableError
        If it cannot be made, for want of a network for instance.
    """
    stamp = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    home = cache.resolve() / f"peers-{stamp}"
    python = home / "bin" / "python"
    complete = home / "complete"
    if complete.exists():
        return python
    shutil.rmtree(home, ignore_errors=True)
    home.parent.mkdir(parents=True, exist_ok=True)
    print(f"installing the peers in {home}", file=sys.stderr)
    for command in (
        [sys.executable, "-m", "venv", str(home)],
        [str(python), "-m", "pip", "install", "--quiet", "--requirement", str(REQUIREMENTS)],
    ):
        _run(command, _INSTALL_LIMIT, "the peers cannot be installed")
    complete.touch()
    return python


def _run(command: list[str], limit: float, what: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerUnavailableError(f"{what}: {error}") from None
    if done.returncode != 0:
        raise PeerUnavailableError(f"{what}: {_last_words(done.stderr)}")


def _last_words(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return " | ".join((errors or lines or ["no message"])[-2:])


def _run_peer(
    peer: str, jobs: Sequence[PeerJob], python: Path, folder: Path, time_limit_s: float
) -> PeerReport:
    report = PeerReport()
    remaining = list(range(len(jobs)))
    while remaining:
        work = {
            "time_limit_s": time_limit_s,
            "jobs": [_as_json(index, jobs[index]) for index in remaining],
        }
        (folder / "jobs.json").write_text(json.dumps(work))
        done = subprocess.run(
            [str(python), str(WORKER), peer, str(folder)],
            env={**os.environ, **_ONE_THREAD, "PYTHONPATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        versions = folder / "versions.json"
        if not versions.exists():
            raise PeerUnavailableError(f"{peer} cannot be imported: {_last_words(done.stderr)}")
        report.versions.update(json.loads(versions.read_text()))
        unfinished = [index for index in remaining if not (folder / f"{index}.npz").exists()]
        for index in set(remaining) - set(unfinished):
            _collect(report, jobs[index].name, folder / f"{index}.npz")
        if unfinished:
            # The process ended in the first of them; the rest get another process.
            report.failures[jobs[unfinished[0]].name] = _why_ended(done, time_limit_s)
        remaining = unfinished[1:]
    return report


def _as_json(index: int, job: PeerJob) -> dict[str, Any]:
    crystal = job.crystal
    return {
        "index": index,
        "crystal": {
            "cell": crystal.lattice.tolist(),
            "numbers": crystal.numbers.tolist(),
            "scaled_positions": crystal.frac_coords.tolist(),
        },
        "orientation": job.orientation.tolist(),
        "hkl": job.hkl.tolist(),
        "one": [job.thickness],
        "series": list(job.spec.thicknesses),
        "energy_ev": job.spec.energy_ev,
        "q_max": job.spec.q_max,
        "s_max": job.spec.s_max,
        "thermal_sigma": job.spec.thermal_sigma,
    }


def _collect(report: PeerReport, name: str, path: Path) -> None:
    with np.load(path) as stored:
        values = dict(stored)
    if "error" in values:
        report.failures[name] = str(values["error"])
        return
    report.results[name] = PeerResult(
        float(values["seconds_one"]),
        float(values["seconds_series"]),
        float(values["set_up_seconds"]),
        int(values["beams"]),
        values["hkl"],
        values["intensity_one"][0],
        values["intensity_series"],
    )


def _why_ended(done: subprocess.CompletedProcess[str], time_limit_s: float) -> str:
    if done.returncode == -signal.SIGALRM:
        return f"not done in {time_limit_s:g} s"
    if done.returncode < 0:
        return f"ended by signal {-done.returncode}"
    return f"ended with status {done.returncode}: {_last_words(done.stderr)}"
