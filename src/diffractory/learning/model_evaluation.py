"""A saved model on the materials of a run that it has not seen, under every protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from diffractory.crystals.prototypes import structure_families
from diffractory.dataset.reader import complete_records
from diffractory.dataset.run import Run
from diffractory.errors import ModelError, RunError
from diffractory.learning.artefact import load_model
from diffractory.learning.evaluation import evaluate
from diffractory.learning.protocol_features import (
    Protocol,
    ProtocolFeatures,
    protocol_features,
    targets_of,
)
from diffractory.learning.provenance import (
    check_features,
    features_of,
    told_number,
    training_materials,
    training_runs,
)
from diffractory.specs import LabProtocolSpec, OrientationSpec

#: Applies a function to the number of every partition of the run, for the protocol of this name.
PartitionMapper = Callable[[Callable[[int], ProtocolFeatures], str], list[ProtocolFeatures]]


def evaluate_saved_model(
    model_path: Path, run: Run, map_partitions: PartitionMapper | None = None, *, seed: int = 0
) -> dict[str, Any]:
    """Evaluate a saved model on the materials of a run that it was not trained on.

    A control stands beside the two protocols: the patterns of the paper protocol, each turned by a random
    angle. What is lost between the two is what the model read from the in-plane frame.

    Parameters
    ----------
    model_path : Path
        Folder of the model.
    run : Run
        Finished, with the model's training thickness and some of the lab protocol's.
    map_partitions : callable, optional
        Applies a function to each partition's number, for the protocol of a name; here, one after the
        other, by default.
    seed : int
        Of noise, groups and bootstrap.

    Returns
    -------
    dict
        ``paper``, ``turned`` and ``lab``, each as :func:`~diffractory.learning.evaluation.evaluate` gives
        it, where the patterns come from, and ``notes``: what a reader should know of the comparison.

    Raises
    ------
    ModelError
        If every material of the run was used for training, or the model does not fit its patterns.
    RunError
        If the run is not complete, or lacks the thicknesses.
    """
    hierarchy, provenance = load_model(model_path)
    features = features_of(provenance)
    check_features(provenance, features, run.plan.simulation)
    complete_records(run)
    trained_on = training_materials(provenance)
    known = np.array([name in trained_on for name in run.catalogue.ids])
    if known.all():
        raise ModelError(
            f"all {run.plan.n_crystals} materials of {run.path} were used to train {model_path}",
            "an accuracy on training materials says nothing",
            "Evaluate on another run, or train with a larger --test-fraction",
        )
    thickness, lab = told_number(provenance, "training", "thickness"), LabProtocolSpec()
    drawn_from = _check_thicknesses(run, thickness, lab)
    protocols = {
        "paper": Protocol(features, thickness, None, seed),
        "turned": Protocol(features, thickness, LabProtocolSpec.turned(thickness), seed),
        "lab": Protocol(features, thickness, lab, seed),
    }
    families = np.array(structure_families(run.catalogue.table))
    novel = ~np.isin(families, np.unique(families[known]))
    partitions = range(len(run.plan.partitions))
    results: dict[str, Any] = {}
    for name, protocol in protocols.items():
        look = partial(protocol_features, run.path, np.flatnonzero(~known), protocol)
        parts = list(map(look, partitions)) if map_partitions is None else map_partitions(look, name)
        part = ProtocolFeatures.concatenate(parts)
        crystals = part.items // run.plan.orientations.count
        results[name] = evaluate(
            hierarchy,
            part.features,
            targets_of(run.catalogue, crystals),
            crystals,
            seed=seed,
            conditions={"thickness": part.thickness, "spots": part.peaks.counts, "tilt": part.tilt},
            subsets={"unseen_families": novel[crystals]},
            lattices=part.lattices,
            peaks=part.peaks,
        )
    results["lab"]["thicknesses_drawn_from"] = drawn_from
    results["lab"]["protocol"] = lab.model_dump(mode="json")
    results["paper"]["thickness"] = results["turned"]["thickness"] = thickness
    results["training_materials"] = {"number": len(trained_on), "in_this_run": int(known.sum())}
    results["orientations"] = run.plan.orientations.model_dump(mode="json")
    results["same_catalogue_as_training"] = provenance.get("catalogue_hash") == run.plan.catalogue_hash
    results["same_zone_axes_as_training"] = any(
        _same_axes(run.plan.orientations, each.get("orientations")) for each in training_runs(provenance)
    )
    results["model"], results["run"], results["plan_id"] = str(model_path), str(run.path), run.plan.plan_id
    results["notes"] = _notes(run, results)
    return results


def _same_axes(tested: OrientationSpec, trained: Any) -> bool:
    """Tell whether patterns lie along the very zone axes that a model was trained on."""
    if not isinstance(trained, Mapping) or tested.axes != "even":
        return False
    return trained.get("axes", "even") == "even" and trained.get("count") == tested.count


def _notes(run: Run, results: dict[str, Any]) -> list[str]:
    notes, trained = [], results["training_materials"]
    if run.plan.orientations.in_plane != "paper":
        notes.append("this run has random in-plane frames: its paper column lacks the paper's frames")
    if results["same_zone_axes_as_training"]:
        notes.append(
            "the patterns lie along the zone axes of the training, and the model may know them again: a run "
            "with another number of --orientations, or with --axes random, tells"
        )
    if trained["in_this_run"] < trained["number"]:
        notes.append(
            f"only {trained['in_this_run']:,} of {trained['number']:,} training materials are in this run: "
            "the test without isostructural ones cannot tell of the others"
        )
    if not results["same_catalogue_as_training"]:
        notes.append(
            "the run has another catalogue than the training: materials are told apart by their ids alone"
        )
    return notes


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
