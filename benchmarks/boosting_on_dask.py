"""LightGBM's data-parallel training on two Dask workers beside its threads, on the same rows and settings.

The crystal-system model of the robust preset, or, on a run of one crystal system, its space-group model;
tried on the materials that are set aside for calibration. Results in results/boosting-on-dask.json::

    diffractory features RUN --preset robust
    python benchmarks/boosting_on_dask.py RUN
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import dask.array
import lightgbm
import numpy as np
from distributed import Client, LocalCluster, wait
from lightgbm.dask import DaskLGBMClassifier
from machine import command, describe, write_json

from diffractory.dataset.run import Run
from diffractory.learning.boosting import BoostedClassifier
from diffractory.learning.training import Subset, feature_sets_of, training_set
from diffractory.specs import BoostingSpec

RESULT = Path(__file__).parent / "results" / "boosting-on-dask.json"
WORKERS, REPEATS = 2, 2


def settings(rounds: int, leaves: int) -> dict[str, Any]:
    """Return the settings of the preset's classifier in LightGBM's scikit-learn words."""
    ours = BoostedClassifier(rounds, n_leaves=leaves)
    return {
        "n_estimators": rounds, "learning_rate": ours.learning_rate, "num_leaves": leaves,
        "min_child_samples": ours.min_leaf, "colsample_bytree": ours.feature_fraction,
        "subsample": ours.row_fraction, "subsample_freq": 1, "reg_lambda": ours.l2,
        "random_state": ours.random_state, "deterministic": True, "force_col_wise": True, "max_bin": 127,
        "feature_pre_filter": False, "verbose": -1,
    }  # fmt: skip


def spent() -> tuple[float, int]:
    """Return the processor seconds and the peak memory in bytes of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, 1024 * used.ru_maxrss


def with_threads(folder: str, chosen: dict[str, Any]) -> str:
    """Train in this process, on as many threads as there are workers otherwise; return the model's text."""
    X, y = np.load(f"{folder}/X.npy", mmap_mode="r"), np.load(f"{folder}/y.npy")
    model = lightgbm.LGBMClassifier(**chosen, n_jobs=WORKERS).fit(X, y)
    return str(model.booster_.model_to_string())


def measured(folder: str, chosen: dict[str, Any], data_parallel: bool) -> tuple[dict[str, Any], str]:
    """Train once in fresh processes; return what it took, and the model's text."""
    workers, threads = (WORKERS, 1) if data_parallel else (1, WORKERS)
    with (
        LocalCluster(n_workers=workers, threads_per_worker=threads, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        client.run(_ready)
        before, started = client.run(spent), time.perf_counter()
        if data_parallel:
            rows = np.load(f"{folder}/X.npy", mmap_mode="r"), np.load(f"{folder}/y.npy")
            size = -(-len(rows[1]) // workers)
            X = dask.array.from_array(rows[0], chunks=(size, -1)).persist()
            y = dask.array.from_array(rows[1], chunks=size).persist()
            wait([X, y])
            loaded = time.perf_counter() - started
            model = DaskLGBMClassifier(client=client, tree_learner="data", **chosen).fit(X, y)
            text = str(model.booster_.model_to_string())
        else:
            loaded, text = 0.0, client.submit(with_threads, folder, chosen, pure=False).result()
        seconds, after = time.perf_counter() - started, client.run(spent)
    return {
        "seconds": round(seconds, 1),
        "of_them_sending_rows": round(loaded, 1),
        "processor_seconds": round(sum(after[k][0] - before[k][0] for k in after), 1),
        "peak_bytes_of_all_workers": sum(peak for _, peak in after.values()),
    }, text


def _ready() -> None:
    """Import before the clock starts."""
    import lightgbm.dask  # noqa: F401


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--orientations", type=int, default=None, help="of each material; all by default")
    parser.add_argument("--rounds", type=int, default=60)
    arguments = parser.parse_args()
    run, spec = Run.open(arguments.run), BoostingSpec()
    subset = Subset(1.0, arguments.orientations)
    with (
        tempfile.TemporaryDirectory() as folder,
        training_set(run, spec, feature_sets_of(run, spec), subset) as training,
    ):
        several = len(np.unique(training.targets.system)) > 1
        labels = training.targets.system if several else training.targets.space_group
        held, known = training.calibration, np.isin(labels, labels[~training.calibration])
        X, y = np.asarray(training.features[held & known]), labels[held & known]
        # In random order: each worker is to hold a share of every class.
        rows = np.random.default_rng(0).permutation(np.flatnonzero(~held))
        np.save(f"{folder}/X.npy", training.features[rows])
        np.save(f"{folder}/y.npy", labels[rows])
        chosen = settings(arguments.rounds, spec.system_leaves if several else spec.group_leaves)
        lines: dict[str, list[dict[str, Any]]] = {"threads": [], "data_parallel": []}
        shares: dict[str, np.ndarray] = {}
        for _ in range(REPEATS):
            for name, line in lines.items():
                took, text = measured(folder, chosen, name == "data_parallel")
                share = np.asarray(lightgbm.Booster(model_str=text).predict(X))
                again = float(np.abs(share - shares[name]).max()) if name in shares else None
                shares[name], classes = share, np.unique(labels[rows])
                took["accuracy"] = float((classes[share.argmax(axis=1)] == y).mean())
                line.append(took | {"largest_difference_from_the_run_before": again})
                print(name, line[-1], flush=True)
    content = {
        "target": "crystal system" if several else "space group", "classes": len(classes),
        "training_rows": len(rows), "validation_rows": len(y), "features": X.shape[1],
        "validation_materials": len(np.unique(training.crystals[held & known])),
        "settings": chosen, **lines,
        "largest_difference_of_probabilities": float(
            np.abs(shares["threads"] - shares["data_parallel"]).max()
        ),
        "same_answers": float(
            (shares["threads"].argmax(axis=1) == shares["data_parallel"].argmax(axis=1)).mean()
        ),
        "command": command(), **describe(),
    }  # fmt: skip
    write_json(RESULT, content)


if __name__ == "__main__":
    main()
