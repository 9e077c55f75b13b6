"""`diffractory evaluate`: a model on materials it has not seen, under both protocols."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from diffractory.cli.console import JsonFlag, note, out, print_json
from diffractory.cli.engines import engine_here
from diffractory.cli.options import ClusterOption, RunArgument, WorkersOption, check_output_folder
from diffractory.cli.progress import run_all
from diffractory.dataset.run import Run
from diffractory.execution.engine import Engine
from diffractory.learning.artefact import record_evaluation
from diffractory.learning.evaluation_record import EvaluationRecord
from diffractory.learning.model_evaluation import evaluate_saved_model
from diffractory.report.evaluation_figures import figure_of_evaluation
from diffractory.report.evaluation_page import ANSWERS, PROTOCOLS, write_evaluation_page
from diffractory.report.style import save_figure
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
    record: Annotated[
        bool, typer.Option("--record", help="Write how it fared into the model's card and provenance, too.")
    ] = False,
    cluster: ClusterOption = "local",
    workers: WorkersOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Evaluate a model on the materials of a run it was not trained on: paper and lab protocol."""
    target = folder or _beside(model)
    opened = Run.open(run)
    check_output_folder(target)
    if record:
        check_output_folder(model)
    with engine_here(cluster, workers, run) as engine:
        results = evaluate_on_run(model, opened, engine, target, seed)
    if record:
        record_evaluation(model, EvaluationRecord.from_results(results))
    if as_json:
        print_json(results)
        return
    _print(results)
    note(f"written: evaluation.html, evaluation.json and evaluation.png in {target}")
    if record:
        note(f"recorded in {model / 'card.md'}")


def _beside(model: Path) -> Path:
    """Return MODEL-evaluation, for a model named by "." as well."""
    named = model if model.name not in ("", "..") else model.resolve()
    return named.parent / f"{named.name}-evaluation"


def evaluate_on_run(
    model_path: Path, run: Run, engine: Engine, target: Path, seed: int = 0
) -> dict[str, Any]:
    """Evaluate under both protocols; write ``evaluation.json``, the figure and the page beside it."""
    costs = [float(partition.n_peaks) for partition in run.plan.partitions]

    def map_partitions(function: Callable[[int], Any], name: str) -> list[Any]:
        return run_all(engine, function, range(len(costs)), f"{name} protocol", costs)

    results = evaluate_saved_model(model_path, run, map_partitions, seed=seed)
    for line in results["notes"]:
        note(line)
    target.mkdir(parents=True, exist_ok=True)
    write_atomic(target / "evaluation.json", json.dumps(results, indent=1))
    shown = {name: results[name] for name in ("paper", "lab")}
    save_figure(figure_of_evaluation(shown), target / "evaluation.png")
    write_evaluation_page(results, target / "evaluation.html")
    return results


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
    cells = [_error(each["expected_calibration_error"], each["interval"]) for each in errors]
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


def _error(value: float | None, interval: list[float] | None) -> str:
    if value is None:
        return "no such patterns"
    return f"{value:.3f}" + (" [{:.3f}–{:.3f}]".format(*interval) if interval else "")


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
