"""`diffractory train`: the paper's hierarchy of forests on the features of a run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from diffractory import __version__
from diffractory.cli.console import JsonFlag, err, note, out, print_json
from diffractory.cli.engines import engine_here
from diffractory.cli.options import ClusterOption, RunArgument, WorkersOption, check_output_folder
from diffractory.dataset.features import find_features, read_features
from diffractory.dataset.run import Run
from diffractory.execution.engine import Engine
from diffractory.learning.artefact import check_model_folder, save_model
from diffractory.learning.hierarchy import SymmetryHierarchy
from diffractory.learning.protocols import targets_of
from diffractory.learning.split import split_materials
from diffractory.settings import human_seconds
from diffractory.specs import ForestSpec, RadialBasisSpec

app = typer.Typer()


@app.command(epilog="Example: diffractory train runs/first --out models/first")
def train(
    run: RunArgument,
    model: Annotated[Path, typer.Option("--out", metavar="MODEL", help="Folder of the trained model.")],
    thickness: Annotated[float, typer.Option(help="Training thickness in Å.")] = 200.0,
    test_fraction: Annotated[float, typer.Option(help="Share of materials held out.")] = 0.25,
    with_triclinic: Annotated[
        bool, typer.Option("--with-triclinic", help="Learn triclinic too; the paper leaves it out.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the split and of the trees.")] = 0,
    cluster: ClusterOption = "local",
    workers: WorkersOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Train the 13 forests of the paper; a quarter of the materials is held out from all of them."""
    spec = ForestSpec(
        thickness=thickness, test_fraction=test_fraction, with_triclinic=with_triclinic, seed=seed
    )
    opened = Run.open(run)
    check_output_folder(model)
    check_model_folder(model)
    with engine_here(cluster, workers, run) as engine:
        note(f"running on {engine.description}")
        result = train_model(opened, model, spec, engine)
    if as_json:
        print_json(result)
        return
    out.print(
        f"{model}: {result['forests']} forests from {result['training_patterns']:,} patterns of "
        f"{result['training_materials']:,} materials in {human_seconds(result['seconds'])}",
    )
    for name, reason in result["skipped"].items():
        note(f"  left out, {name}: {reason}")
    note(f"next: diffractory evaluate {model} {run}")


def train_model(run: Run, target: Path, spec: ForestSpec, engine: Engine) -> dict[str, Any]:
    """Fit the hierarchy on the training materials of a run and save it with its provenance."""
    started = time.perf_counter()
    catalogue = run.catalogue
    basis = RadialBasisSpec()
    features = read_features(run, find_features(run, basis, spec.thickness), spec.thickness)
    crystals = np.arange(run.plan.n_items) // run.plan.orientations.count
    held_out = split_materials(
        catalogue.ids, catalogue.table["crystal_system"].tolist(), spec.test_fraction, spec.seed
    )
    rows = np.flatnonzero(~held_out[crystals])
    hierarchy = SymmetryHierarchy(spec, n_jobs=-1)
    with err.status("training forests"), engine.joblib():
        hierarchy.fit(features[rows], targets_of(catalogue, crystals[rows]), crystals[rows])
    trained_on = [
        name for name, out_of_training in zip(catalogue.ids, held_out, strict=True) if not out_of_training
    ]
    provenance = {
        "diffractory": __version__,
        "plan_id": run.plan.plan_id,
        "catalogue_hash": run.plan.catalogue_hash,
        "features": basis.model_dump(mode="json"),
        "simulation": run.plan.simulation.model_dump(mode="json"),
        "orientations": run.plan.orientations.model_dump(mode="json"),
        "forests": spec.model_dump(mode="json"),
        "training_materials": trained_on,
    }
    save_model(hierarchy, target, provenance)
    return {
        "model": str(target),
        "forests": hierarchy.n_forests_,
        "training_materials": len(trained_on),
        "held_out_materials": int(held_out.sum()),
        "training_patterns": len(rows),
        "skipped": {str(name): str(reason) for name, reason in hierarchy.skipped_.items()},
        "seconds": round(time.perf_counter() - started, 2),
    }
