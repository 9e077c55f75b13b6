"""Solve Bloch-wave jobs with one peer; runs in the peers' own environment, started by ``peers.py``.

One process serves many jobs, each under a time limit that ends the whole process: a LAPACK call
cannot be interrupted otherwise. What is done lies in one file a job, so whoever started this
process sees which job was too long and starts another process for the rest.

Usage: ``python peer_worker.py PEER FOLDER``, with ``jobs.json`` in the folder.
"""

from __future__ import annotations

import json
import signal
import sys
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

#: Thicknesses in Å, shape (t,), to Miller indices (n, 3) and intensities (t, n) of the peer's beams.
Solve = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
Job = dict[str, Any]

#: A first call longer than this (process seconds) counts as it is; shorter ones warm up and are repeated.
LONG_CALL = 10.0
#: Room for rounding at the edges of the beam set, relative.
EDGE = 2e-6


def main() -> None:
    peer, folder = sys.argv[1], Path(sys.argv[2])
    warnings.simplefilter("ignore")
    set_up, aim, packages = PEERS[peer]()
    versions = {name: metadata.version(name) for name in packages}
    (folder / "versions.json").write_text(json.dumps(versions))
    work = json.loads((folder / "jobs.json").read_text())
    crystal: list[Any] = []
    for job in work["jobs"]:
        signal.setitimer(signal.ITIMER_REAL, work["time_limit_s"])
        try:
            # Orientations of one crystal follow each other and share its set-up.
            if crystal != job["crystal"]:
                crystal = []
                seconds, state = repeated(lambda job=job: set_up(job))
                crystal = job["crystal"]
            result = {"set_up_seconds": seconds, **measure(aim(state, job), job)}
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {error}"}
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        unfinished = folder / "unfinished.npz"
        np.savez(unfinished, **result)
        unfinished.rename(folder / f"{job['index']}.npz")


def repeated(function: Callable[[], Any]) -> tuple[float, Any]:
    """Return the process time of a second call, of the first one if that was long, and the result."""
    for _ in range(2):
        started = time.process_time()
        result = function()
        seconds = time.process_time() - started
        if seconds > LONG_CALL:
            break
    return seconds, result


def measure(solve: Solve, job: Job) -> dict[str, Any]:
    """Time one thickness and the series, and keep the intensities of the beams asked for."""
    result: dict[str, Any] = {}
    for name in ("one", "series"):
        thicknesses = np.array(job[name])
        seconds, (hkl, intensity) = repeated(lambda t=thicknesses: solve(t))
        wanted, column = shared_beams(np.array(job["hkl"]), hkl)
        result[f"seconds_{name}"] = seconds
        result[f"intensity_{name}"] = intensity[:, column]
        result["beams"], result["hkl"] = len(hkl), np.array(job["hkl"])[wanted]
    return result


def shared_beams(wanted: np.ndarray, solved: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the wanted beams that were solved, and their rows among the solved."""
    place = {tuple(beam): row for row, beam in enumerate(solved.tolist())}
    pairs = [(row, place[tuple(beam)]) for row, beam in enumerate(wanted.tolist()) if tuple(beam) in place]
    return np.array([a for a, _ in pairs], dtype=int), np.array([b for _, b in pairs], dtype=int)


def abtem_peer() -> tuple[Callable[[Job], Any], Callable[[Any, Job], Solve], tuple[str, ...]]:
    """Return set-up, solver and packages of abTEM: elastic, Lobato's form factors without vibration.

    abTEM's beam travels along +z and ours along −z, hence the half-turn. It takes no list of beams:
    the mask it made from its own criterion, which differs from ours at the edge and keeps beams that
    the centring of a skew cell extinguishes, is replaced by ours. Its cut-off of U tapers off by
    default; "hard" is ours.
    """
    import abtem
    from abtem.bloch import BlochWaves, StructureFactor
    from ase import Atoms

    # The default, single, is not faster: structure matrix and eigenvectors are double all the same.
    abtem.config.set({"precision": "float64"})

    def set_up(job: Job) -> Any:
        atoms = Atoms(**job["crystal"], pbc=True)
        factors = StructureFactor(atoms, g_max=2.0 * job["q_max"] * (1.0 + EDGE), cutoff="hard")
        return factors.build(lazy=False)

    def aim(factors: Any, job: Job) -> Solve:
        turn = np.diag([1.0, -1.0, -1.0]) @ np.array(job["orientation"]).T
        wanted = {tuple(beam) for beam in job["hkl"]}
        mask = np.array([tuple(beam) in wanted for beam in factors.hkl.tolist()])
        if mask.sum() != len(wanted):
            raise ValueError(f"{len(wanted) - mask.sum()} beams are unknown to abTEM")

        def solve(thicknesses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            waves = BlochWaves(
                factors, job["energy_ev"], job["s_max"], g_max=job["q_max"], orientation_matrix=turn
            )
            waves._hkl_mask = mask
            patterns = waves.calculate_diffraction_patterns(thicknesses, lazy=False)
            return patterns.miller_indices, patterns.array

        return solve

    return set_up, aim, ("abtem", "ase", "numpy", "scipy", "pandas")


def quantem_peer() -> tuple[Callable[[Job], Any], Callable[[Any, Job], Solve], tuple[str, ...]]:
    """Return set-up, solver and packages of quantem: Weickenmeier-Kohl with absorption.

    Beams come from a largest |g| and a largest excitation error; the smallest values that let in all
    beams asked for give the same set, whatever their rounding.
    """
    import torch
    from ase import Atoms
    from quantem.core.utils.utils import electron_wavelength_angstrom
    from quantem.diffraction import Crystal
    from quantem.diffraction.bloch import dynamical_pattern
    from quantem.diffraction.rotations import quat_from_matrix

    torch.set_num_threads(1)

    def set_up(job: Job) -> Any:
        atoms = Atoms(**job["crystal"], pbc=True)
        crystal = Crystal.from_ase(atoms, pseudo_symmetry_tol=None, verbose=False)
        crystal.calculate_structure_factors(k_max=job["q_max"])
        return crystal.calculate_dynamical_structure_factors(
            job["energy_ev"], thermal_sigma=job["thermal_sigma"], k_max=2.0 * job["q_max"] * (1.0 + EDGE)
        )

    def aim(crystal: Any, job: Job) -> Solve:
        to_lab = np.array(job["orientation"]).T
        g = np.array(job["hkl"]) @ crystal.lat_recip.numpy() @ to_lab.T
        wavelength = electron_wavelength_angstrom(job["energy_ev"])
        length = np.linalg.norm(g, axis=1)
        errors = (2.0 * g[:, 2] - wavelength * length**2) / (2.0 - 2.0 * wavelength * g[:, 2])
        limits = {
            "k_max": length.max() * (1.0 + EDGE),
            "sg_max": float(np.abs(errors).max()) * (1.0 + EDGE),
        }
        quaternion = quat_from_matrix(torch.as_tensor(to_lab))

        def solve(thicknesses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            pattern = dynamical_pattern(crystal, quaternion, thicknesses, job["energy_ev"], **limits)
            hkl = np.concatenate([np.zeros((1, 3), dtype=int), pattern["hkl"].numpy()])
            direct = pattern["intensity_000"][:, None]
            return hkl, torch.cat([direct, pattern["intensity"]], dim=1).numpy()

        return solve

    return set_up, aim, ("quantem", "torch", "ase", "numpy", "scipy", "spglib")


PEERS = {"abtem": abtem_peer, "quantem": quantem_peer}

if __name__ == "__main__":
    main()
