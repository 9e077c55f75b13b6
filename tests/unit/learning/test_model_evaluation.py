"""A saved model on a run: what each protocol asks, which materials count as new, and the page of it all."""

from __future__ import annotations

import html
import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffractory.crystals.build import CatalogueFilter, build_catalogue
from diffractory.crystals.prototypes import structure_families
from diffractory.crystals.sources import Candidate
from diffractory.dataset.features import features_partition, plan_features, read_features
from diffractory.dataset.run import Run
from diffractory.errors import ModelError
from diffractory.learning.artefact import load_model, save_model
from diffractory.learning.evaluation_record import EvaluationRecord
from diffractory.learning.hierarchy import SymmetryHierarchy
from diffractory.learning.model_evaluation import evaluate_saved_model
from diffractory.learning.protocol_features import ProtocolFeatures, targets_of
from diffractory.report.evaluation_page import PROTOCOLS, write_evaluation_page
from diffractory.specs import ForestSpec, OrientationSpec, RadialBasisSpec, SimulationSpec
from small_runs import edit_json, finish, small_plan
from zoo import ZOO, face_centred

TRAINED = ("cubic-F-c-copper", "hexagonal-P-c-magnesium", "triclinic-P-c-invented", "cubic-F-a-GaAs")
#: Built like copper and like gallium arsenide.
ALIKE = {
    "silver": face_centred(4.086, ["Ag"], [[0, 0, 0]]),
    "zinc-blende": face_centred(5.409, ["Zn", "S"], [[0, 0, 0], [0.25] * 3]),
}
#: Built like nothing that was trained on.
UNLIKE = ("cubic-P-c-CsCl", "hexagonal-P-a-ZnO", "triclinic-P-a-invented")
CRYSTALS = {name: ZOO[name] for name in (*TRAINED, *UNLIKE)} | ALIKE
COUNT = 4


@dataclass(frozen=True)
class Evaluated:
    """A model, the run, what was found, and the patterns that were asked, by protocol."""

    model: Path
    run: Run
    results: dict[str, Any]
    patterns: dict[str, ProtocolFeatures]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    folder = tmp_path_factory.mktemp("evaluated")
    candidates = [Candidate(name, crystal, None, "test", "CC0") for name, crystal in CRYSTALS.items()]
    catalogue = build_catalogue(candidates, CatalogueFilter(keep_setting=True)).catalogue
    simulation = SimulationSpec(q_max=0.9, thicknesses=(100.0, 200.0))
    plan = small_plan(catalogue, 3, OrientationSpec(count=COUNT, axes="random"), simulation)
    run = finish(Run.create(folder / "run", plan, catalogue))
    basis, spec = RadialBasisSpec(), ForestSpec(system_trees=8, group_trees=3, lattice_trees=3)
    spec = spec.model_copy(update={"with_triclinic": True})
    features = plan_features(run, basis, (200.0,))
    for partition in range(len(run.plan.partitions)):
        features_partition(run.path, features, partition)
    owners = np.arange(run.plan.n_items) // COUNT
    learned = np.isin(np.array(run.catalogue.ids)[owners], TRAINED)
    model = SymmetryHierarchy(spec, 1).fit(
        read_features(run, features)[learned], targets_of(run.catalogue, owners[learned]), owners[learned]
    )
    provenance = {
        "plan_id": "another",
        "catalogue_hash": run.plan.catalogue_hash,
        "features": basis.model_dump(mode="json"),
        "simulation": simulation.model_dump(mode="json"),
        "training": spec.model_dump(mode="json"),
        "training_materials": list(TRAINED),
    }
    save_model(model, folder / "model", provenance)
    patterns: dict[str, ProtocolFeatures] = {}

    def watch(look: Callable[[int], ProtocolFeatures], name: str) -> list[ProtocolFeatures]:
        parts = [look(partition) for partition in range(len(run.plan.partitions))]
        patterns[name] = ProtocolFeatures.concatenate(parts)
        return parts

    results = evaluate_saved_model(folder / "model", run, watch)
    return Evaluated(folder / "model", run, results, patterns)


def test_the_materials_asked_are_those_that_training_lacked(evaluated: Evaluated):
    for name, patterns in evaluated.patterns.items():
        asked = np.array(evaluated.run.catalogue.ids)[np.unique(patterns.items // COUNT)]
        assert sorted(asked) == sorted((*ALIKE, *UNLIKE))
        assert evaluated.results[name]["counts"]["patterns"] == COUNT * len(asked)


def test_a_material_built_like_one_of_training_is_not_in_the_stricter_test(evaluated: Evaluated):
    families = dict(
        zip(evaluated.run.catalogue.ids, structure_families(evaluated.run.catalogue.table), strict=True)
    )
    trained = {families[name] for name in TRAINED}
    assert {name for name in (*ALIKE, *UNLIKE) if families[name] not in trained} == set(UNLIKE)
    for protocol in ("paper", "turned", "lab"):
        strict = evaluated.results[protocol]["subsets"]["unseen_families"]
        assert strict["counts"]["by_system"] == {
            system: {"patterns": COUNT, "materials": 1} for system in ("triclinic", "hexagonal", "cubic")
        }
        assert strict["system_by_number"]["1"]["n"] == COUNT * len(UNLIKE)
        assert strict["without_triclinic"]["system_by_number"]["1"]["n_materials"] == len(UNLIKE) - 1


def test_the_control_turns_the_patterns_and_changes_nothing_else(evaluated: Evaluated):
    paper, turned = (evaluated.patterns[name].peaks for name in ("paper", "turned"))
    elsewhere = []
    for (first, stop), (start, end) in zip(
        itertools.pairwise(paper.offsets), itertools.pairwise(turned.offsets), strict=True
    ):
        before, after = paper.q[first:stop], turned.q[start:end]
        # The weakest spots are lost; the others are as far from the beam as before, in other directions.
        radii = (np.linalg.norm(q, axis=1) for q in (after, before))
        assert np.abs(np.subtract.outer(*radii)).min(axis=1).max() < 1e-5
        nearest = np.linalg.norm(after[:, None] - before, axis=2).min(axis=1)
        elsewhere.append(np.median(nearest[np.linalg.norm(after, axis=1) > 0.1]))
    assert np.median(elsewhere) > 0.01
    assert set(evaluated.patterns["turned"].thickness) == {200.0}
    assert set(evaluated.patterns["lab"].thickness) == {100.0, 200.0}


@pytest.mark.parametrize("protocol", ["paper", "turned", "lab"])
def test_conditions_are_those_of_the_patterns(evaluated: Evaluated, protocol: str):
    asked = evaluated.patterns[protocol]
    values = {"thickness": asked.thickness, "spots": asked.peaks.counts, "tilt": asked.tilt}
    for name, bins in evaluated.results[protocol]["conditions"].items():
        assert bins[0]["low"] == values[name].min(), name
        assert bins[-1]["high"] == values[name].max(), name


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"training_materials": None}, "training_materials 'None'. that is no list of names"),
        ({"training_materials": "copper"}, "training_materials 'copper'. that is no list of names"),
        ({"training_materials": [["copper"]]}, "that is no list of names"),
        ({"training": {"thickness": "abc"}}, "training thickness 'abc'. that is no number above 0"),
        ({"training": {"thickness": None}}, "training thickness 'None'. that is no number above 0"),
        ({"training": {"thickness": True}}, "that is no number above 0"),
        ({"training": {"thickness": -200.0}}, "that is no number above 0"),
        ({"training": {}}, "does not say with which training thickness"),
    ],
)
def test_what_a_model_says_wrongly_of_its_training_is_refused(
    evaluated: Evaluated, tmp_path: Path, change: dict[str, Any], says: str
):
    model, provenance = load_model(evaluated.model)
    save_model(model, tmp_path / "model", provenance)
    edit_json(tmp_path / "model" / "model.json", provenance=provenance | change)
    with pytest.raises(ModelError) as caught:
        evaluate_saved_model(tmp_path / "model", evaluated.run)
    assert says in str(caught.value)
    assert "rain it again" in caught.value.fix


def tables_of(page: str) -> dict[str, list[list[str]]]:
    """Return the rows of each table of a page by its caption; of equal captions, the last."""
    found = {}
    for caption, body in re.findall(r"<table><caption>(.*?)</caption>.*?<tbody>(.*?)</tbody>", page):
        rows = re.findall(r"<tr>(.*?)</tr>", body)
        found[html.unescape(caption)] = [
            [html.unescape(cell) for cell in re.findall(r"<td>(.*?)</td>", row)] for row in rows
        ]
    return found


@pytest.fixture(scope="module")
def tables(evaluated: Evaluated, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[list[str]]]:
    path = tmp_path_factory.mktemp("page") / "evaluation.html"
    # As it is read back from evaluation.json.
    write_evaluation_page(json.loads(json.dumps(evaluated.results, allow_nan=False)), path)
    return tables_of(path.read_text(encoding="utf-8"))


def test_the_page_holds_the_numbers_of_the_paper(tables: dict[str, list[list[str]]]):
    (beside,) = (rows for caption, rows in tables.items() if "Gleason" in caption)
    paper = {row[0]: (row[1], row[2]) for row in beside}
    assert paper == {
        "crystal system, six": ("67 %", "79 %"),
        "crystal system, seven": ("63 %", "–"),
        "triclinic called so": ("14 %", "–"),
        "mean confidence where right": ("55 %", "88 %"),
        "mean confidence where wrong": ("38 %", "66 %"),
        "space group, cubic": ("about 90 %", "a few points more"),
        "space group, hexagonal": ("50–70 %", "70–90 %"),
        "space group, trigonal": ("50–70 %", "70–90 %"),
        "space group, tetragonal": ("50–70 %", "70–90 %"),
        "space group, monoclinic": ("–", "45 %"),
        "space group, monoclinic, given the system": ("–", "63 %"),
        "space group, orthorhombic": ("–", "40 %"),
        "space group, orthorhombic, given the system": ("–", "56 %"),
        "cubic a": ("0.03 Å", "0.02 Å"),
        "tetragonal a": ("about 0.1 Å", "about 0.07 Å"),
        "hexagonal a": ("about 0.1 Å", "about 0.07 Å"),
        "trigonal a": ("about 0.1 Å", "about 0.07 Å"),
        "tetragonal c": ("0.5–0.6 Å", "0.26 Å"),
        "hexagonal c": ("0.26 Å", "0.14 Å"),
        "trigonal c": ("0.5–0.6 Å", "0.40 Å"),
    }


def test_the_page_holds_ours_beside_them(evaluated: Evaluated, tables: dict[str, list[list[str]]]):
    (beside,) = (rows for caption, rows in tables.items() if "Gleason" in caption)
    ours = {row[0]: row[3:] for row in beside}
    for column, protocol in ((0, "paper"), (2, "lab")):
        found = evaluated.results[protocol]
        six = found["without_triclinic"]["system_by_number"]["1"]["accuracy"]
        assert ours["crystal system, six"][column] == f"{100 * six:.0f} %"
        seven = found["system_by_number"]["1"]["accuracy"]
        assert ours["crystal system, seven"][column] == f"{100 * seven:.0f} %"
        recall = found["single"]["system"]["by_system"]["triclinic"]
        assert ours["triclinic called so"][column] == f"{100 * recall:.0f} %"
        sure = found["single"]["system"]["confidence_right"]
        assert ours["mean confidence where right"][column] == f"{100 * sure:.0f} %"
        cubic = found["single"]["space_group"]["by_system"]["cubic"]["accuracy"]
        assert ours["space group, cubic"][column] == f"{100 * cubic:.0f} %"
    # No crystal of these systems was learned, and no material has ten patterns.
    assert ours["space group, monoclinic, given the system"] == ["–"] * 4
    assert ours["tetragonal c"] == ["–"] * 4
    assert ours["crystal system, six"][1] == "–"


def test_the_page_tells_of_space_groups_lattices_and_confidence(
    evaluated: Evaluated, tables: dict[str, list[list[str]]]
):
    lab = evaluated.results["lab"]["single"]
    groups = tables["Space groups right, lab protocol"]
    assert [row[0] for row in groups] == ["triclinic", "hexagonal", "cubic", "all"]
    low, high = (100 * end for end in lab["space_group"]["interval"])
    assert groups[-1][1] == f"{100 * lab['space_group']['accuracy']:.0f} % [{low:.0f}–{high:.0f}]"
    low, high = (100 * end for end in lab["space_group"]["given_right_system_interval"])
    given = f"{100 * lab['space_group']['given_right_system']:.0f} % [{low:.0f}–{high:.0f}]"
    assert groups[-1][2] == given
    cubic = tables["Median error of lattice constants where the system is right, Å, lab protocol, 1 pattern"][
        2
    ]
    error, interval = (lab["lattice"]["cubic"][name]["a"] for name in ("median_error", "interval"))
    spread = " [{:.3f}–{:.3f}]".format(*interval) if interval else ""
    assert cubic[:3] == ["cubic", str(lab["lattice"]["cubic"]["n"]), f"{error:.3f}{spread}"]
    wrong = lab["system"]["confidence_wrong"]
    sure = {row[0]: row[3] for row in tables["Mean confidence of answers"]}
    assert sure["wrong, 1 pattern"] == f"{100 * wrong:.0f} %"


def test_the_page_tells_of_the_stricter_test_by_system_and_without_triclinic(
    evaluated: Evaluated, tables: dict[str, list[list[str]]]
):
    counts = tables["Materials with no isostructural one in training"]
    assert counts == [["materials", "1", "1", "1"], ["patterns", "4", "4", "4"]]
    (caption,) = (name for name in tables if "no isostructural one" in name and "six" in name)
    strict = evaluated.results["turned"]["subsets"]["unseen_families"]["without_triclinic"]
    single = strict["system_by_number"]["1"]
    rows = {row[0]: row[1:] for row in tables[caption]}
    assert rows["1"][1].startswith(f"{100 * single['accuracy']:.1f} %")
    low, high = single["calibration_interval"]
    assert rows["calibration error, 1"][1] == f"{single['calibration_error']:.3f} [{low:.3f}–{high:.3f}]"
    assert rows["calibration error, 10"] == ["–"] * 3


@pytest.mark.parametrize("protocol", ["paper", "turned", "lab"])
def test_the_stricter_test_tells_of_space_groups_and_lattices(
    evaluated: Evaluated, tables: dict[str, list[list[str]]], protocol: str
):
    strict = evaluated.results[protocol]["subsets"]["unseen_families"]
    where = f"{PROTOCOLS[protocol]}, nothing isostructural in training"
    groups = {row[0]: row[1] for row in tables[f"Space groups right, {where}"]}
    assert groups["all"].startswith(f"{100 * strict['single']['space_group']['accuracy']:.0f} %")
    (lattices,) = (rows for caption, rows in tables.items() if caption.endswith(f"Å, {where}, 1 pattern"))
    error = strict["single"]["lattice"]["hexagonal"]["median_error"]["a"]
    assert lattices[1][2] == ("–" if error is None else f"{error:.3f}")


def test_a_page_is_made_of_an_evaluation_of_an_earlier_version(evaluated: Evaluated, tmp_path: Path):
    results = json.loads(json.dumps(evaluated.results))
    for name in ("paper", "turned", "lab"):
        found = results[name]
        strict = found["subsets"]["unseen_families"]
        del strict["counts"], strict["without_triclinic"], found["cubic_constant"]
        for part in (found, found["without_triclinic"], strict):
            for number in part["system_by_number"].values():
                del number["calibration_error"], number["calibration_interval"]
        for part in ("single", "aggregated", "aggregated_small_groups", "system_by_difference"):
            del strict[part]
        for part in (found["single"], found["aggregated"]):
            for each in (*part["lattice"].values(), *part["space_group"]["by_system"].values()):
                del each["interval"]
            for each in (part["space_group"], *part["space_group"]["by_system"].values()):
                del each["given_right_system_interval"]
    write_evaluation_page(results, tmp_path / "old.html")
    tables = tables_of((tmp_path / "old.html").read_text(encoding="utf-8"))
    assert "Crystal system" in tables
    assert not any("no isostructural one" in caption and "six" in caption for caption in tables)


def test_a_record_sums_up_what_was_found(evaluated: Evaluated):
    record = EvaluationRecord.from_results(evaluated.results)
    assert (record.plan_id, record.materials, record.patterns) == (evaluated.run.plan.plan_id, 5, 5 * COUNT)
    assert (record.axes, record.orientations, record.same_zone_axes_as_training) == ("random", COUNT, False)
    assert list(record.protocols) == ["paper", "turned", "lab"]
    for name, numbers in record.protocols.items():
        found = evaluated.results[name]["system_by_number"]["1"]
        assert numbers["1"].accuracy == found["accuracy"]
        assert numbers["1"].interval == tuple(found["interval"])
        assert numbers["1"].calibration_error == found["calibration_error"]
        assert numbers["10"].accuracy is None
