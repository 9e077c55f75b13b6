"""`diffractory train`: a preset on the features of one run or several."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.status import Status

from diffractory.cli.console import JsonFlag, err, note, out, print_json
from diffractory.cli.engines import engine_here, slurm_request
from diffractory.cli.options import (
    DryRunOption,
    JobsOption,
    PresetOption,
    RunsArgument,
    SiteOption,
    SlurmClusterOption,
    WorkersOption,
    check_output_folder,
)
from diffractory.dataset.run import Run
from diffractory.errors import SpecError
from diffractory.execution.engine import Engine
from diffractory.learning.artefact import check_model_folder, save_model
from diffractory.learning.training import train_on_run
from diffractory.settings import usable_cores
from diffractory.specs import BoostingSpec, ForestSpec, TrainingSpec
from diffractory.units import human_seconds

app = typer.Typer()

logger = logging.getLogger(__name__)


@app.command(epilog="Example: diffractory train runs/first --preset robust --out models/first")
def train(
    runs: RunsArgument,
    model: Annotated[Path, typer.Option("--out", metavar="MODEL", help="Folder of the trained model.")],
    preset: PresetOption = "paper",
    thickness: Annotated[float, typer.Option(help="Training thickness in Å.")] = 200.0,
    test_fraction: Annotated[float, typer.Option(help="Share of materials held out.")] = 0.25,
    with_triclinic: Annotated[
        bool | None,
        typer.Option(
            "--with-triclinic/--no-triclinic",
            help="Learn triclinic too; left out by default in the paper's preset only.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split and of the trees.")] = 0,
    cluster: SlurmClusterOption = "local",
    workers: WorkersOption = None,
    site: SiteOption = None,
    jobs: JobsOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonFlag = False,
) -> None:
    """Train a preset on the features of a run or of several; a quarter of the materials is held out."""
    kind: type[TrainingSpec] = ForestSpec if preset == "paper" else BoostingSpec
    triclinic = preset == "robust" if with_triclinic is None else with_triclinic
    spec = kind(thickness=thickness, test_fraction=test_fraction, with_triclinic=triclinic, seed=seed)
    opened, *more = [Run.open(run) for run in runs]
    check_output_folder(model)
    check_model_folder(model)
    if preset == "robust" and cluster == "slurm":
        raise SpecError(
            "the robust preset is not trained on SLURM workers",
            "its boosted trees grow with the threads of one machine",
            "Run the command inside one job with --cluster local",
        )
    slurm = slurm_request(cluster, site, jobs, dry_run, runs[0])
    threads = workers or usable_cores()
    # Boosted trees grow in this process: workers would be started for nothing.
    with engine_here("inline" if preset == "robust" else cluster, workers, runs[0], slurm) as engine:
        note(f"running on {threads} thread(s)" if preset == "robust" else f"running on {engine.description}")
        result = train_model(opened, model, spec, engine, threads, more)
    if as_json:
        print_json(result)
        return
    out.print(
        f"{model}: {result['models']} models from {result['training_patterns']:,} patterns of "
        f"{result['training_materials']:,} materials in {human_seconds(result['seconds'])}",
    )
    for name, reason in result["skipped"].items():
        note(f"  left out, {name}: {reason}")
    note(f"next: diffractory evaluate {model} {runs[0]}")


def train_model(
    run: Run,
    target: Path,
    spec: TrainingSpec,
    engine: Engine,
    threads: int,
    more_runs: Sequence[Run] = (),
) -> dict[str, Any]:
    """Train on the training materials of the runs and save the model with its provenance."""
    started = time.perf_counter()
    # Trees of a forest grow on the engine, as many at a time as it offers; LightGBM has threads of its own.
    n_jobs = None if isinstance(spec, ForestSpec) else threads
    with err.status("training") as status, engine.joblib():
        progress = _telling(status)
        model, provenance = train_on_run(run, spec, more_runs=more_runs, n_jobs=n_jobs, progress=progress)
    save_model(model, target, provenance)
    return {
        "model": str(target),
        "models": model.n_models_,
        "training_materials": len(provenance["training_materials"]),
        "held_out_materials": provenance["held_out_materials"],
        "training_patterns": provenance["training_patterns"],
        "skipped": {str(name): str(reason) for name, reason in model.skipped_.items()},
        "bytes": sum(path.stat().st_size for path in target.iterdir()),
        "seconds": round(time.perf_counter() - started, 2),
    }


def _telling(status: Status) -> Callable[[str], None]:
    """Return what tells a person what is trained; in a log file, a line for each model and not each round."""
    told: set[str] = set()

    def tell(what: str) -> None:
        logger.debug("training: %s", what)
        status.update(f"training: {what}")
        stage = what.partition(",")[0]
        if not err.is_terminal and stage not in told:
            told.add(stage)
            note(f"training: {stage}")

    return tell
