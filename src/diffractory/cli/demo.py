"""`diffractory demo`: the whole road on embedded crystals, from structures to a labelled map."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from diffractory.cli.console import JsonFlag, note, out, print_json
from diffractory.cli.evaluate import evaluate_on_run
from diffractory.cli.features import compute_features
from diffractory.cli.map_scan import map_with_model
from diffractory.cli.options import WorkersOption
from diffractory.cli.plan import plan_run
from diffractory.cli.progress import counting_bar, engine_here, run_all
from diffractory.cli.simulate import simulate_missing
from diffractory.cli.train import train_model
from diffractory.crystals.build import CatalogueFilter, build_catalogue
from diffractory.crystals.catalogue import Catalogue
from diffractory.crystals.sources.aflow import aflow_candidates, read_prototypes
from diffractory.crystals.systems import system_code
from diffractory.dataset.partition import read_partition
from diffractory.dataset.reader import read_pattern
from diffractory.dataset.run import Run
from diffractory.dataset.verify import verify_partition
from diffractory.learning.saved_model import SavedModel
from diffractory.patterns.peak_table import PeakTable
from diffractory.report.catalogue_figures import figure_of_counts
from diffractory.report.map_figures import figure_of_truth
from diffractory.report.pattern_figures import figure_of_patterns
from diffractory.report.style import save_figure
from diffractory.scan.emd_reader import read_bragg_scan
from diffractory.scan.synthetic import GrainLabels, score_map, synthetic_scan
from diffractory.settings import Resources, human_seconds
from diffractory.specs import ForestSpec, LabProtocolSpec, MapSpec, OrientationSpec, SimulationSpec
from diffractory.storage import write_atomic

app = typer.Typer()

#: Embedded prototypes with a conventional cell up to this volume: the demo is about minutes.
_MAX_VOLUME = 260.0
_ORIENTATIONS = 20
_THICKNESSES = (100.0, 200.0, 300.0, 400.0, 500.0)
_SCAN_SHAPE = (64, 64)
_GRAINS = 24


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
    simulation = SimulationSpec(thicknesses=_THICKNESSES)
    with engine_here("local", workers, folder) as engine:
        note(f"running on {engine.description}")
        run = plan_run(
            folder / "run",
            catalogue,
            simulation,
            OrientationSpec(count=_ORIENTATIONS),
            Resources.of_this_machine(folder, workers),
            partition_seconds=2.0,
        )
        simulate_missing(run, engine)
        findings = run_all(engine, _Verify(run.path), list(range(len(run.plan.partitions))), "verifying")
        _patterns_figure(run, folder / "patterns.png")
        compute_features(run, engine, (200.0,))
        trained = train_model(run, folder / "model", ForestSpec(), engine)
        results = evaluate_on_run(folder / "model", run, engine, folder / "evaluation")
        scan, truth = _synthetic_scan(run, folder / "model")
        scan.to_emd(folder / "scan.h5")
        labelled = map_with_model(
            read_bragg_scan(folder / "scan.h5"),
            SavedModel((folder / "model").absolute()),
            MapSpec(),
            engine,
            folder / "map",
        )
    score = score_map(labelled, truth)
    save_figure(figure_of_truth(labelled, truth), folder / "map" / "truth.png")
    write_atomic(folder / "map" / "score.json", json.dumps(score, indent=1))
    broken = [finding.partition for finding in findings if finding.problems]
    summary = {
        "catalogue": str(folder / "catalogue.parquet"),
        "dataset": str(run.path),
        "damaged_partitions": broken,
        "model": str(folder / "model"),
        "evaluation": str(folder / "evaluation" / "evaluation.json"),
        "map": str(folder / "map" / "map.zarr"),
        "pictures": [str(path) for path in sorted(folder.glob("**/*.png"))],
        "patterns": run.plan.n_items * len(_THICKNESSES),
        "forests": trained["forests"],
        "system_accuracy": {
            name: {
                "1 pattern": results[name]["single"]["system"]["accuracy"],
                "10 patterns": results[name]["aggregated"]["system"]["accuracy"],
            }
            for name in ("paper", "lab")
        },
        "map_score": score,
        "seconds": round(time.perf_counter() - started, 1),
    }
    if as_json:
        print_json(summary)
        return
    _print(summary)


class _Verify:
    """Verifies one partition of a run with a small sample; can be sent to workers."""

    def __init__(self, run_path: Path) -> None:
        self.run_path = run_path

    def __call__(self, partition: int) -> Any:
        return verify_partition(self.run_path, partition, sample=0.002)


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
    column = run.plan.simulation.thicknesses.index(200.0)
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


def _synthetic_scan(run: Run, model: Path) -> tuple[Any, Any]:
    """Make a polycrystal of materials the model has not seen, as a microscope would record it."""
    provenance = SavedModel(model.absolute()).provenance
    trained_on = set(provenance["training_materials"])
    learned = {system_code(name) for name in set(run.catalogue.table["crystal_system"])} - {0}
    tables, crystals = [], []
    count = run.plan.orientations.count
    column = run.plan.simulation.thicknesses.index(200.0)
    systems = np.array([system_code(name) for name in run.catalogue.table["crystal_system"]])
    for index, partition in enumerate(run.plan.partitions):
        owners = np.arange(partition.first, partition.stop) // count
        wanted = np.array(
            [run.catalogue.ids[c] not in trained_on and int(systems[c]) in learned for c in owners],
            dtype=bool,
        )
        if wanted.any():
            tables.append(read_partition(run, index).table(column).take(np.flatnonzero(wanted)))
            crystals.append(owners[wanted])
    owners = np.concatenate(crystals)
    grains = _concatenated(tables)
    table = run.catalogue.table
    labels = GrainLabels(
        systems[owners].astype(np.int8),
        table["space_group"].to_numpy()[owners].astype(np.int16),
        table[["a", "b", "c"]].to_numpy(dtype=np.float64)[owners],
        np.array(run.catalogue.ids)[owners],
    )
    return synthetic_scan(
        grains, labels, _SCAN_SHAPE, _GRAINS, seed=0, noise=LabProtocolSpec(), energy_ev=300e3
    )


def _concatenated(tables: list[PeakTable]) -> PeakTable:
    starts = np.cumsum([0, *(len(table.q) for table in tables)])

    def shifted(values: NDArray[np.int64], start: int) -> NDArray[np.int64]:
        return np.where(values >= 0, values + start, -1)

    return PeakTable(
        np.concatenate([table.q for table in tables]),
        np.concatenate([table.intensity for table in tables]),
        np.concatenate([[0], *(t.offsets[1:] + s for t, s in zip(tables, starts, strict=False))]),
        np.concatenate([shifted(t.direct, int(s)) for t, s in zip(tables, starts, strict=False)]),
    )


def _print(summary: dict[str, Any]) -> None:
    out.print(
        f"\n[bold]Done in {human_seconds(summary['seconds'])}.[/bold] {summary['patterns']:,} patterns",
        highlight=False,
    )
    for name in ("dataset", "model", "evaluation", "map"):
        out.print(f"  {name:<11} {summary[name]}", highlight=False)
    for index, path in enumerate(summary["pictures"]):
        out.print(f"  {'pictures' if index == 0 else '':<11} {path}", highlight=False)
    for protocol, numbers in summary["system_accuracy"].items():
        values = ", ".join(
            f"{label} {100 * value:.0f} %" for label, value in numbers.items() if value is not None
        )
        out.print(
            f"  crystal system right on unseen materials, {protocol} protocol: {values}", highlight=False
        )
