"""`diffractory demo`: the whole road on embedded crystals, from structures to a labelled map."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from diffractory.cli.console import JsonFlag, note, out, print_json
from diffractory.cli.engines import engine_here
from diffractory.cli.evaluate import evaluate_on_run
from diffractory.cli.features import compute_missing_features, plans_of_preset
from diffractory.cli.mapping import map_with_model
from diffractory.cli.options import Preset, WorkersOption
from diffractory.cli.plan import plan_run
from diffractory.cli.progress import counting_bar
from diffractory.cli.simulate import simulate_missing
from diffractory.cli.train import train_model
from diffractory.cli.verify import check_partitions, refuse_damaged
from diffractory.crystals.build import CatalogueFilter, build_catalogue
from diffractory.crystals.catalogue import Catalogue
from diffractory.crystals.sources.aflow import aflow_candidates, read_prototypes
from diffractory.crystals.systems import system_code
from diffractory.dataset.partition import read_partition
from diffractory.dataset.reader import read_pattern
from diffractory.dataset.run import Run
from diffractory.execution.engine import Engine
from diffractory.learning.saved_model import SavedModel
from diffractory.patterns.lab_protocol import draw_thickness
from diffractory.patterns.peak_table import PeakTable
from diffractory.report.catalogue_figures import figure_of_counts
from diffractory.report.map_figures import figure_of_truth
from diffractory.report.pattern_figures import figure_of_patterns
from diffractory.report.style import save_figure
from diffractory.scan.reading.emd_reader import read_bragg_scan
from diffractory.scan.synthetic.scans import GrainLabels, score_map, synthetic_scan
from diffractory.settings import Resources
from diffractory.specs import (
    BoostingSpec,
    ForestSpec,
    LabProtocolSpec,
    MapSpec,
    OrientationSpec,
    SimulationSpec,
    TrainingSpec,
)
from diffractory.storage import write_atomic
from diffractory.units import human_seconds

app = typer.Typer()

#: Embedded prototypes with a conventional cell up to this volume: the demo is about minutes.
_MAX_VOLUME = 260.0
_ORIENTATIONS = 20
_THICKNESSES = (100.0, 200.0, 300.0, 400.0, 500.0)
_SCAN_SHAPE = (64, 64)
_GRAINS = 40
_PRESETS: tuple[Preset, ...] = ("paper", "robust")
_TRAINING_THICKNESS = 200.0
_PROTOCOLS = {"paper": None, "lab": LabProtocolSpec()}


@app.command(epilog="Example: diffractory demo --out demo")
def demo(
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where everything goes.")] = Path(
        "demo"
    ),
    crystals: Annotated[
        int | None,
        typer.Option(min=24, help="Use so many of the embedded crystals; all small ones by default."),
    ] = None,
    workers: WorkersOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Watch crystals become patterns, patterns become models, and a scan become a map.

    Everything runs on structures that come with pymatgen: no network, no files. Repeat it, and it
    goes on where it was.
    """
    started = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    catalogue = _catalogue(folder, crystals)
    with engine_here("local", workers, folder) as engine:
        note(f"running on {engine.description}")
        run = _dataset(folder, catalogue, Resources.of_this_machine(folder, workers), engine)
        learned = {preset: _learn(run, folder, preset, engine) for preset in _PRESETS}
        for preset, each in learned.items():
            each["map_accuracy"] = {
                protocol: _map_synthetic(run, folder, preset, protocol, engine)["accuracy"]
                for protocol in _PROTOCOLS
            }
    summary = {
        "catalogue": str(folder / "catalogue.parquet"),
        "dataset": str(folder / "run"),
        "presets": learned,
        "pictures": [str(path) for path in sorted(folder.glob("**/*.png"))],
        "patterns": run.plan.n_items * len(_THICKNESSES),
        "seconds": round(time.perf_counter() - started, 1),
    }
    if as_json:
        print_json(summary)
        return
    _print(summary)


def _dataset(folder: Path, catalogue: Catalogue, resources: Resources, engine: Engine) -> Run:
    """Plan, simulate and verify, draw some patterns, and compute features."""
    run = plan_run(
        folder / "run",
        catalogue,
        SimulationSpec(thicknesses=_THICKNESSES),
        OrientationSpec(count=_ORIENTATIONS),
        resources,
        partition_seconds=2.0,
    )
    simulate_missing(run, engine)
    refuse_damaged(run, check_partitions(run, engine, sample=0.002))
    _patterns_figure(run, folder / "patterns.png")
    return run


def _learn(run: Run, folder: Path, preset: Preset, engine: Engine) -> dict[str, Any]:
    """Compute the features of a preset, train it and evaluate it on materials it has not seen."""
    for planned in plans_of_preset(run, preset, (_TRAINING_THICKNESS,)):
        compute_missing_features(run, engine, planned)
    model, target = folder / "models" / preset, folder / "evaluations" / preset
    kind: type[TrainingSpec] = ForestSpec if preset == "paper" else BoostingSpec
    trained = train_model(run, model, kind(thickness=_TRAINING_THICKNESS), engine, engine.workers)
    results = evaluate_on_run(model, run, engine, target)
    return {
        "model": str(model),
        "models": trained["models"],
        "evaluation": str(target / "evaluation.html"),
        "maps": [str(folder / "maps" / f"{preset}-{protocol}" / "map.zarr") for protocol in _PROTOCOLS],
        "system_accuracy": {protocol: _accuracies(results[protocol]) for protocol in _PROTOCOLS},
    }


def _accuracies(results: dict[str, Any]) -> dict[str, float | None]:
    return {
        "1 pattern": results["single"]["system"]["accuracy"],
        "10 patterns": results["aggregated"]["system"]["accuracy"],
    }


def _catalogue(folder: Path, limit: int | None) -> Catalogue:
    target = folder / "catalogue.parquet"
    prototypes = read_prototypes()
    with counting_bar("embedded crystals") as bar:
        task = bar.add_task("", total=len(prototypes))
        result = build_catalogue(
            aflow_candidates(prototypes),
            CatalogueFilter(max_volume=_MAX_VOLUME, limit=limit),
            lambda _: bar.advance(task),
        )
    note(f"{len(result.catalogue)} crystals, {len(result.dropped)} left out (mostly larger cells)")
    result.catalogue.to_parquet(target)
    save_figure(figure_of_counts(result.catalogue.counts()), folder / "catalogue.png")
    return Catalogue.from_parquet(target)


def _patterns_figure(run: Run, target: Path) -> None:
    """Draw patterns of one crystal of each system at 200 Å."""
    systems = run.catalogue.table["crystal_system"].tolist()
    column = run.plan.simulation.thicknesses.index(_TRAINING_THICKNESS)
    chosen = [
        systems.index(name)
        for name in ("cubic", "hexagonal", "tetragonal", "orthorhombic")
        if name in systems
    ]
    shown = [(c, *read_pattern(run, c, 0)) for c in chosen]
    formulas = run.catalogue.table["formula"].tolist()
    figure = figure_of_patterns(
        [q for _, q, _ in shown],
        [intensity[:, column].astype(np.float64) for _, _, intensity in shown],
        [f"{formulas[c]}, {systems[c]}" for c, _, _ in shown],
    )
    save_figure(figure, target)


def _map_synthetic(run: Run, folder: Path, preset: Preset, protocol: str, engine: Engine) -> dict[str, Any]:
    """Map a polycrystal of unseen materials, as simulated or as a laboratory sees it, and score it."""
    model, noise = SavedModel(folder / "models" / preset), _PROTOCOLS[protocol]
    grains, labels = _unseen_patterns(run, set(model.provenance["training_materials"]), noise)
    # Simulated intensities are shares of the beam, as in training: keep their scale.
    total = float(np.median(np.add.reduceat(grains.intensity, grains.offsets[:-1])))
    scan, truth = synthetic_scan(
        grains, labels, _SCAN_SHAPE, _GRAINS, seed=0, noise=noise, energy_ev=run.plan.simulation.energy_ev
    )
    # Written and read back: the map is made from a file, as a microscope's would be.
    scan_file, target = folder / f"scan-{protocol}.h5", folder / "maps" / f"{preset}-{protocol}"
    scan.to_emd(scan_file)
    labelled = map_with_model(
        read_bragg_scan(scan_file), model, MapSpec(total_intensity=total), engine, target
    ).labelled
    score = score_map(labelled, truth)
    save_figure(figure_of_truth(labelled, truth, score["accuracy"]), target / "truth.png")
    write_atomic(target / "score.json", json.dumps(score, indent=1))
    return score


def _unseen_patterns(
    run: Run, trained_on: set[str], lab: LabProtocolSpec | None
) -> tuple[PeakTable, GrainLabels]:
    """Return one pattern of each orientation of materials not trained on, and their truth.

    All at the training thickness, or each at one drawn as the lab protocol says.
    """
    table, ids = run.catalogue.table, np.array(run.catalogue.ids)
    systems = np.array([system_code(name) for name in table["crystal_system"]])
    # Triclinic is not among the paper's six: a grain of it could not be right.
    usable = np.array([name not in trained_on for name in ids]) & (systems != system_code("triclinic"))
    thicknesses = run.plan.simulation.thicknesses
    column: int | NDArray[np.int64] = thicknesses.index(_TRAINING_THICKNESS)
    tables, crystals = [], []
    for index, partition in enumerate(run.plan.partitions):
        owners = np.arange(partition.first, partition.stop) // run.plan.orientations.count
        wanted = np.flatnonzero(usable[owners])
        if len(wanted):
            if lab is not None:
                seeds = np.arange(partition.first, partition.stop, dtype=np.uint64)
                column = draw_thickness(np.array(thicknesses), lab, seeds)
            tables.append(read_partition(run, index).table(column).take(wanted))
            crystals.append(owners[wanted])
    owners = np.concatenate(crystals)
    labels = GrainLabels(
        systems[owners].astype(np.int8),
        table["space_group"].to_numpy()[owners].astype(np.int16),
        table[["a", "b", "c"]].to_numpy(dtype=np.float64)[owners],
        ids[owners],
    )
    return PeakTable.concatenate(tables), labels


def _print(summary: dict[str, Any]) -> None:
    seconds = human_seconds(summary["seconds"])
    out.print(f"\nDone in {seconds}. {summary['patterns']:,} patterns", style="bold", highlight=False)
    out.print(f"  {'dataset':<11} {summary['dataset']}", highlight=False)
    for preset, learned in summary["presets"].items():
        out.print(f"  {preset:<11} {learned['model']}, {learned['evaluation']}", highlight=False)
    for index, path in enumerate(summary["pictures"]):
        out.print(f"  {'pictures' if index == 0 else '':<11} {path}", highlight=False)
    table = Table("crystal system right on unseen materials", *_PROTOCOLS, title_justify="left")
    for preset, learned in summary["presets"].items():
        for label in ("1 pattern", "10 patterns"):
            cells = [_share(learned["system_accuracy"][protocol][label]) for protocol in _PROTOCOLS]
            table.add_row(f"{preset} preset, {label}", *cells)
        cells = [_share(learned["map_accuracy"][protocol]) for protocol in _PROTOCOLS]
        table.add_row(f"{preset} preset, map", *cells)
    out.print(table)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"
