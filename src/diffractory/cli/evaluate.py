"""`diffractory evaluate`: a model on materials it has not seen, under both protocols."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from diffractory.cli.console import JsonFlag, note, out, print_json
from diffractory.cli.engines import engine_here
from diffractory.cli.options import ClusterOption, RunArgument, WorkersOption, check_output_folder
from diffractory.cli.progress import run_all
from diffractory.crystals.prototypes import structure_families
from diffractory.dataset.reader import complete_records
from diffractory.dataset.run import Run
from diffractory.errors import ModelError, RunError
from diffractory.execution.engine import Engine
from diffractory.learning.artefact import check_features, load_model
from diffractory.learning.evaluation import evaluate as evaluate_model
from diffractory.learning.protocol_features import Protocol, ProtocolFeatures, protocol_features, targets_of
from diffractory.report.evaluation_figures import figure_of_evaluation
from diffractory.report.evaluation_page import ANSWERS, PROTOCOLS, write_evaluation_page
from diffractory.report.style import save_figure
from diffractory.specs import LabProtocolSpec, feature_spec
from diffractory.storage import write_atomic

app = typer.Typer()


@app.command(epilog="Example: diffractory evaluate models/first runs/first --out models/first-evaluation")
def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a trained model.")],
    run: RunArgument,
    folder: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where results go; MODEL-evaluation by default."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of noise, groups and bootstrap.")] = 0,
    cluster: ClusterOption = "local",
    workers: WorkersOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Evaluate a model on the materials of a run it was not trained on: paper and lab protocol."""
    target = folder or _beside(model)
    opened = Run.open(run)
    check_output_folder(target)
    with engine_here(cluster, workers, run) as engine:
        results = evaluate_on_run(model, opened, engine, target, seed)
    if as_json:
        print_json(results)
        return
    _print(results)
    note(f"written: evaluation.html, evaluation.json and evaluation.png in {target}")


def _beside(model: Path) -> Path:
    """Return MODEL-evaluation, for a model named by "." as well."""
    named = model if model.name not in ("", "..") else model.resolve()
    return named.parent / f"{named.name}-evaluation"


def evaluate_on_run(
    model_path: Path, run: Run, engine: Engine, target: Path, seed: int = 0
) -> dict[str, Any]:
    """Evaluate under both protocols; write ``evaluation.json``, ``evaluation.png`` and ``evaluation.html``.

    A control stands beside them: the patterns of the paper protocol, each turned by a random angle.
    What is lost between the two is what the model read from the in-plane frame.
    """
    hierarchy, provenance = load_model(model_path)
    basis = feature_spec(provenance["features"])
    check_features(provenance, basis, run.plan.simulation)
    complete_records(run)
    trained_on = set(provenance["training_materials"])
    unseen = np.array(
        [i for i, name in enumerate(run.catalogue.ids) if name not in trained_on], dtype=np.int64
    )
    if len(unseen) == 0:
        raise ModelError(
            f"all {run.plan.n_crystals} materials of {run.path} were used to train {model_path}",
            "an accuracy on training materials says nothing",
            "Evaluate on another run, or train with a larger --test-fraction",
        )
    thickness, lab = float(provenance["training"]["thickness"]), LabProtocolSpec()
    drawn_from = _check_thicknesses(run, thickness, lab)
    protocols = {
        "paper": Protocol(basis, thickness, None, seed),
        "turned": Protocol(basis, thickness, LabProtocolSpec.turned(thickness), seed),
        "lab": Protocol(basis, thickness, lab, seed),
    }
    if run.plan.orientations.in_plane != "paper":
        note("this run has random in-plane frames: its paper column lacks the paper's frames")
    results: dict[str, Any] = {}
    families = np.array(structure_families(run.catalogue.table))
    known = [name in trained_on for name in run.catalogue.ids]
    novel = ~np.isin(families, np.unique(families[known]))
    for name, protocol in protocols.items():
        part = _collect(run, engine, unseen, protocol, f"{name} protocol")
        crystals = part.items // run.plan.orientations.count
        results[name] = evaluate_model(
            hierarchy,
            part.features,
            targets_of(run.catalogue, crystals),
            crystals,
            seed=seed,
            conditions={"thickness": part.thickness, "spots": part.spots, "tilt": part.tilt},
            subsets={"unseen_families": novel[crystals]},
            lattices=part.lattices,
            spots=part.spots,
        )
    results["lab"]["thicknesses_drawn_from"] = drawn_from
    results["lab"]["protocol"] = lab.model_dump(mode="json")
    results["paper"]["thickness"] = results["turned"]["thickness"] = thickness
    results["training_materials"] = {"number": len(trained_on), "in_this_run": sum(known)}
    if sum(known) < len(trained_on):
        note(
            f"only {sum(known):,} of {len(trained_on):,} training materials are in this run: the test "
            "without isostructural ones cannot tell of the others"
        )
    results["orientations"] = run.plan.orientations.model_dump(mode="json")
    results["same_catalogue_as_training"] = provenance.get("catalogue_hash") == run.plan.catalogue_hash
    if not results["same_catalogue_as_training"]:
        note("the run has another catalogue than the training: materials are told apart by their ids alone")
    results["model"], results["run"], results["plan_id"] = str(model_path), str(run.path), run.plan.plan_id
    target.mkdir(parents=True, exist_ok=True)
    write_atomic(target / "evaluation.json", json.dumps(results, indent=1))
    shown = {name: results[name] for name in ("paper", "lab")}
    save_figure(figure_of_evaluation(shown), target / "evaluation.png")
    write_evaluation_page(results, target / "evaluation.html")
    return results


def _check_thicknesses(run: Run, thickness: float, lab: LabProtocolSpec) -> list[float]:
    """Return the thicknesses the lab protocol draws from; refuse a run that lacks what is needed."""
    available, (low, high) = run.plan.simulation.thicknesses, lab.thickness_range
    drawn_from = [t for t in available if low <= t <= high]
    if thickness not in available or not drawn_from:
        raise RunError(
            f"{run.path} holds patterns at {list(available)} Å only",
            f"the model was trained at {thickness} Å, and the lab protocol draws from {low} … {high} Å",
            "Evaluate on a run with both, such as `diffractory plan RUN --thickness 100:500:100`",
        )
    return drawn_from


def _collect(
    run: Run, engine: Engine, crystals: np.ndarray[Any, Any], protocol: Protocol, label: str
) -> ProtocolFeatures:
    parts = run_all(
        engine,
        partial(protocol_features, run.path, crystals, protocol),
        list(range(len(run.plan.partitions))),
        label,
        [float(p.n_peaks) for p in run.plan.partitions],
    )
    return ProtocolFeatures.concatenate(parts)


def _print(results: dict[str, Any]) -> None:
    table = Table("accuracy on unseen materials", *PROTOCOLS.values(), "always the majority")
    share = results["paper"]["single"]["system"]["baseline"]
    majority = "–" if share is None else f"{100 * share:.0f} %"
    for number in results["paper"]["system_by_number"]:
        cells = [_cell(results[name]["system_by_number"][number]) for name in PROTOCOLS]
        table.add_row(f"crystal system, {_patterns(number)}", *cells, majority)
    for number in ("1", "10"):
        strict = [
            results[name]["subsets"]["unseen_families"]["system_by_number"][number] for name in PROTOCOLS
        ]
        label = f"the same, {strict[0]['n_materials']:,} materials like none in training, {number}"
        table.add_row(label, *map(_cell, strict), "–")
    for number, part in (("1", "single"), ("10", "aggregated")):
        cells = [_cell(results[name][part]["space_group"]) for name in PROTOCOLS]
        baseline = results["paper"][part]["space_group"]["baseline"]
        known = "–" if baseline is None else f"{100 * baseline:.0f} %"
        table.add_row(f"space group, {_patterns(number)}", *cells, known)
    errors = [results[name]["aggregated"]["system"]["reliability"] for name in PROTOCOLS]
    cells = [_error(each["expected_calibration_error"]) for each in errors]
    table.add_row("calibration error, 10 patterns", *cells, "–")
    out.print(table)
    if results["paper"]["cubic_constant"]:
        _print_cubic(results)
    counts = results["paper"]["counts"]
    out.print(
        f"{counts['patterns']:,} patterns of {counts['materials']:,} materials; "
        "intervals are 95 %, over materials",
    )


def _print_cubic(results: dict[str, Any]) -> None:
    table = Table("cubic a where the system is right, median error", *PROTOCOLS.values())
    for number in results["paper"]["cubic_constant"]:
        for answer, told in ANSWERS.items():
            cells = [_length(results[name]["cubic_constant"][number][answer]) for name in PROTOCOLS]
            table.add_row(f"{_patterns(number)}, {told}", *cells)
    out.print(table)


def _patterns(number: str) -> str:
    return f"{number} pattern{'s' * (number != '1')}"


def _error(value: float | None) -> str:
    return "no such patterns" if value is None else f"{value:.2f}"


def _length(found: dict[str, Any]) -> str:
    if found["error"] is None:
        return "no such patterns"
    spread = " [{:.3f}–{:.3f}]".format(*found["interval"]) if found["interval"] else ""
    return f"{found['error']:.3f} Å{spread}"


def _cell(numbers: dict[str, Any]) -> str:
    if numbers["accuracy"] is None:
        return "no such patterns"
    interval = numbers["interval"]
    spread = f" [{100 * interval[0]:.0f}–{100 * interval[1]:.0f}]" if interval else ""
    return f"{100 * numbers['accuracy']:.1f} %{spread}"
